"""What an entry of the atlas is made of. Frozen values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from sys import modules
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmu.tcg import Switches

ARCHES = ("x86_64", "aarch64")
BUS = "bus"  # instead of an architecture: the accesses are made without a guest


class Outcome(StrEnum):
    """What became of the scenario, as somebody in front of the emulator sees it."""

    OK = "ok"
    ABORT = "abort"  # the emulator ended itself
    HANG = "hang"  # it waits for what cannot come
    CRASH = "crash"  # a host fault
    GUEST_FAULT = "guest-fault"  # the guest got an exception
    WRONG_DATA = "wrong-data"  # it went on, with something that is not so
    ERROR = "error"  # an access was refused
    NOT_APPLICABLE = "not-applicable"


class Mode(StrEnum):
    FAULTY = "faulty"
    FIXED = "fixed"


@dataclass(frozen=True, slots=True)
class Observation:
    """What a run showed. `pc`: where the guest stood, None without a guest. `trace`: events, as `mmu.tcg` has them."""

    outcome: Outcome
    message: str = ""
    pc: int | None = None
    counts: Mapping[str, Any] = field(default_factory=dict)
    registers: Mapping[str, int] = field(default_factory=dict)
    trace: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Expected:
    """What a run must show: `message` is a part of its message, `counts` are some of its counts."""

    outcome: Outcome
    message: str = ""
    counts: Mapping[str, Any] = field(default_factory=dict)

    def complaints(self, seen: Observation) -> list[str]:
        """How *seen* differs, in words; empty when it does not."""
        out = []
        if seen.outcome != self.outcome:
            out.append(f"the outcome must be {self.outcome}, not {seen.outcome}")
        elif self.message not in seen.message:
            out.append(f"the message must hold {self.message!r}, not {seen.message!r}")
        for name, value in self.counts.items():
            if seen.counts.get(name) != value:
                out.append(f"{name} must be {value}, not {seen.counts.get(name)}")
        return out


@dataclass(frozen=True, slots=True)
class Fix:
    """*status*: "fixed", "latent" (found by reading, nobody met it), "by design", "never released".

    `commit` and `release` are empty where there is none.
    """

    status: str
    commit: str = ""
    release: str = ""

    def __str__(self) -> str:
        said = [self.status, f"in {self.release}" if self.release else "", f"({self.commit})" if self.commit else ""]
        return " ".join(word for word in said if word)


@dataclass(frozen=True)
class Bug:
    """One entry.

    Args:
        trigger: one paragraph: all the conditions, and what the emulator does then.
        switches: the fields of `mmu.tcg.Switches` that make it; none where the behaviour is by design.
        policy: how the emulator is built in both modes, so that nothing else hides the bug; releases have their own.
        needs: how it must be run for the trigger, under releases too.
        scenarios: by architecture (`BUS`: none): sets up the machine under these switches, runs it and looks.
        faulty, fixed: what is seen in each mode; `special` says where an architecture differs.
        elsewhere: releases under which something else decides the first scenario: what is seen there, and what it is
            (the name of a bug, or a sentence).
    """

    name: str
    title: str
    trigger: str
    fix: Fix
    references: tuple[str, ...]
    switches: tuple[str, ...]
    scenarios: Mapping[str, Callable[[Switches], Observation]]
    faulty: Expected
    fixed: Expected
    special: Mapping[tuple[Mode, str], Expected] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, Any] = field(default_factory=dict)
    elsewhere: Mapping[str, tuple[Expected, str]] = field(default_factory=dict)

    @property
    def arches(self) -> tuple[str, ...]:
        return tuple(self.scenarios)

    @property
    def scene(self) -> str:
        """What its scenario sets up, in a sentence: as the functions that do it say."""
        home = modules[next(iter(self.scenarios.values())).__module__]
        found = (getattr(home, name, None) for name in ("scenario", "x86", "arm64"))
        said = next((function.__doc__ for function in found if function is not None and function.__doc__), "")
        return " ".join(said.split())

    def emulator(self, mode: Mode, base: Switches | None = None) -> Switches:
        """*base* (default: everything fixed, under `policy`) with this bug, or without it."""
        from mmu.tcg import Switches

        chosen = Switches(**self.policy) if base is None else base
        return chosen.replace(**self.needs).replace(**dict.fromkeys(self.switches, mode is Mode.FAULTY))

    def under(self, release: str) -> Switches:
        """The emulator of *release*, run as the trigger needs it."""
        from mmu.tcg import release as switches_of

        return switches_of(release).replace(**self.needs)

    def is_in(self, release: str) -> bool:
        """Whether *release* has it, all that makes it."""
        found = self.under(release)
        return bool(self.switches) and all(getattr(found, name) for name in self.switches)

    def chosen(self, arch: str | None) -> str:
        """The scenario for *arch* (None: the first); accesses without a guest are the same for all."""
        return self.arches[0] if arch is None or BUS in self.scenarios else arch

    def expected(self, mode: Mode, arch: str, release: str | None = None) -> Expected:
        """What *mode* must show. *release*: under what else that has, which may come first."""
        if release is not None and release in self.elsewhere and arch == self.arches[0]:
            return self.elsewhere[release][0]
        if arch not in self.scenarios:
            return Expected(Outcome.NOT_APPLICABLE)
        return self.special.get((mode, arch), self.faulty if mode is Mode.FAULTY else self.fixed)

    def expected_under(self, release: str, arch: str) -> Expected:
        """What *release*, such as "8.2", must show: that of the mode it is in, unless another bug comes first."""
        return self.expected(Mode.FAULTY if self.is_in(release) else Mode.FIXED, arch, release)

    def run(self, arch: str, emulator: Switches) -> Observation:
        if arch not in self.scenarios:
            return Observation(Outcome.NOT_APPLICABLE, f"{self.name} has no scenario for {arch}")
        return self.scenarios[arch](emulator)
