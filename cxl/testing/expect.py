"""What a run is expected to come to. `ran == halted(rax=42)`; the plugin says what differs when it does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from typing import Any

from cxl.testing.ran import Ran
from mmu.guest.stop import REASONS

DECIMAL = ("vector", "level", "stage")


def number(name: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and name not in DECIMAL:
        return f"{value:#x}"
    return repr(value)


class Expected:
    """Equals a run of this outcome, with these registers and these other facts.

    *facts* are members of `Ran`; `message` must be contained, `device` is that of `place`. *exception*: the members of
    the exception that ended the run.
    """

    def __init__(
        self, outcomes: tuple[str, ...], registers: dict[str, int], facts: dict[str, Any],
        exception: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.outcomes, self.registers, self.exception = outcomes, registers, exception or {}
        self.facts = {name: value for name, value in facts.items() if value is not None}

    def complaints(self, ran: Ran) -> list[str]:
        """Every way in which *ran* differs, in words."""
        return list(self._complaints(ran))

    def _complaints(self, ran: Ran) -> Iterator[str]:
        if self.outcomes and ran.outcome not in self.outcomes:
            more = f": {ran.message}" if ran.message else ""
            yield f"it ended by {ran.outcome} at {ran.pc:#x}, not by {' or '.join(self.outcomes)}{more}"
            for fault in ran.faults[-1:]:
                yield f"the last exception was {fault}"
            return
        for name, wanted in self.facts.items():
            seen = _fact(ran, name)
            if not (wanted in seen if name == "message" else seen == wanted):
                yield f"{name} is {number(name, seen)}, not {number(name, wanted)}"
        if self.exception:
            yield from Fault(self.exception).complaints(ran.faults[-1] if ran.faults else None)
        for name, wanted in self.registers.items():
            if name not in ran.registers:
                yield f"there is no register {name!r}; there are {', '.join(ran.registers)}"
            elif ran.registers[name] != wanted:
                yield f"{name} is {ran.registers[name]:#x}, not {wanted:#x}"

    def __eq__(self, other: object) -> bool:
        return not self.complaints(other) if isinstance(other, Ran) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        members = {**self.facts, **self.exception, **self.registers}
        return f"ended by {' or '.join(self.outcomes)}" + "".join(f", {n}={number(n, v)}" for n, v in members.items())


def _fact(ran: Ran, name: str) -> Any:
    if name == "device":
        return None if ran.place is None else ran.place.device
    return getattr(ran, name)


class Fault:
    """Equals an exception value (mmu.x86.PageFault, mmu.arm64.Abort, ...) whose members are these."""

    def __init__(self, members: dict[str, Any]) -> None:
        self.members = members

    def complaints(self, exception: Any) -> list[str]:
        known = asdict(exception) if is_dataclass(exception) and not isinstance(exception, type) else {}
        name = type(exception).__name__
        return [
            f"{name} has no {n!r}; it has {', '.join(known)}" if n not in known
            else f"{name}: {n} is {number(n, known[n])}, not {number(n, v)}"
            for n, v in self.members.items() if n not in known or known[n] != v
        ]  # fmt: skip

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Fault):
            return self.members == other.members
        return not self.complaints(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"delivered({', '.join(f'{n}={number(n, v)}' for n, v in self.members.items())})"


def halted(pc: int | None = None, **registers: int) -> Expected:
    """Ended by HLT or WFI; *pc* is behind it."""
    return Expected(("halt",), registers, {"pc": pc})


def stopped(reason: str, pc: int | None = None, message: str | None = None, **registers: int) -> Expected:
    """Ended for a reason of `mmu.guest.stop`. Raises ValueError for one that is none."""
    if reason not in REASONS:
        raise ValueError(f"the reason must be one of {', '.join(REASONS)}, not {reason!r}")
    return Expected((reason,), registers, {"pc": pc, "message": message})


def faulted(pc: int | None = None, **members: Any) -> Expected:
    """Ended by an exception without a handler, whose value has these members: vector, error_code, cr2; esr, far, ..."""
    return Expected(("fault", "triple-fault"), {}, {"pc": pc}, members)


def delivered(**members: Any) -> Fault:
    """An exception in `Ran.faults`."""
    return Fault(members)


def _emulator(outcome: str, kind: str | None, facts: dict[str, Any], registers: dict[str, int]) -> Expected:
    from mmu.tcg.stops import ABORTS, HANGS

    known = {"abort": ABORTS, "hang": HANGS}.get(outcome, {})
    if kind is not None and kind not in known:
        raise ValueError(f"the kind of an {outcome} must be one of {', '.join(known)}, not {kind!r}")
    return Expected((outcome,), registers, {"kind": kind, **facts})


def aborted(
    kind: str | None = None, message: str | None = None, *, pc: int | None = None, level: str | None = None,
    device: str | None = None, **registers: int,
) -> Expected:  # fmt: skip
    """The emulator aborted: *kind* as in `mmu.tcg.stops`, a part of its *message*; in a walk, the *level* ("PT", "L3")
    and the *device* of that table."""
    return _emulator("abort", kind, {"message": message, "pc": pc, "level": level, "device": device}, registers)


def hung(
    kind: str | None = None, message: str | None = None, *, pc: int | None = None, level: str | None = None,
    device: str | None = None, **registers: int,
) -> Expected:  # fmt: skip
    """The emulator would never go on."""
    return _emulator("hang", kind, {"message": message, "pc": pc, "level": level, "device": device}, registers)


def crashed(message: str | None = None, *, pc: int | None = None, **registers: int) -> Expected:
    """The emulator touched host memory that is not there."""
    return _emulator("crash", None, {"message": message, "pc": pc}, registers)
