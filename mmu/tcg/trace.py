"""What the model records, in order. Events are tuples: they compare with plain tuples, and JSON takes them.

The first member is the kind. Numbers are plain; results are names of `mmu.types.MemTxResult` ("OK").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

Tag = Literal["ptw", "data", "fetch"]
HEXADECIMAL = ("offset", "value", "pc", "page0", "page1", "syndrome", "address", "code")


class Bus(NamedTuple):
    """One dispatch to a region that has no host memory of its own: `size` bytes at `offset` in it."""

    kind: Literal["bus"]
    rw: Literal["r", "w"]
    region: str
    offset: int
    size: int
    value: int
    result: str
    tag: Tag


class Lock(NamedTuple):
    """The big lock was taken ("+") or released ("-"). An access under a lock already held gives no event."""

    kind: Literal["lock"]
    change: Literal["+", "-"]


class Recompile(NamedTuple):
    """I/O in mid-block: the instruction at `pc` runs again in a block of `n` instructions."""

    kind: Literal["recompile"]
    pc: int
    n: int


class Block(NamedTuple):
    """A block was translated. `page0`, `page1`: physical pages of its code, -1: device memory, or no second page.

    `cached`: it can be found by physical address from now on.
    """

    kind: Literal["tb"]
    pc: int
    n_insns: int
    page0: int
    page1: int
    cached: bool


class AtomicExit(NamedTuple):
    """An atomic that needs the other CPUs to stand still."""

    kind: Literal["atomic_exit"]
    pc: int


class Exclusive(NamedTuple):
    kind: Literal["excl"]
    change: Literal["begin", "end"]


class GuestFault(NamedTuple):
    """What the guest is told. `syndrome` is the vector of x86 or ESR of arm64, `address` CR2 or FAR, `code` the error
    code (x86), 0 where there is none."""

    kind: Literal["fault"]
    syndrome: int
    address: int
    code: int


class Interrupt(NamedTuple):
    """An external interrupt was accepted."""

    kind: Literal["interrupt"]
    vector: int
    pc: int


class Abort(NamedTuple):
    """The end of the emulator: `reason` is the kind of the exception that is raised."""

    kind: Literal["abort"]
    reason: str
    detail: str


Event = Bus | Lock | Recompile | Block | AtomicExit | Exclusive | GuestFault | Interrupt | Abort


CAPACITY = 1 << 20


class Recorder:
    """Keeps the first CAPACITY events, and counts all, once asked: by kind, and dispatches by ("r" or "w", tag)."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.events: list[Event] = []
        self._rest: list[Event] = []  # which are counted, but not kept
        self._capacity, self._counted = capacity, 0
        self._counts: Counter[str] = Counter()
        self._bus: Counter[tuple[str, str]] = Counter()
        self._bus_errors = 0

    def append(self, event: Event) -> None:
        if len(self.events) < self._capacity:
            self.events.append(event)
        else:
            self._rest.append(event)
            if len(self._rest) == self._capacity:
                self._count()

    def _count(self) -> None:
        new = [*self.events[self._counted :], *self._rest]
        self._counted = len(self.events)
        self._rest.clear()
        for event in new:
            self._counts[event.kind] += 1
            if isinstance(event, Bus):
                self._bus[event.rw, event.tag] += 1
                self._bus_errors += event.result != "OK"

    def totals(self) -> tuple[Counter[str], Counter[tuple[str, str]], int]:
        """(events by kind, dispatches by direction and tag, dispatches that were refused)."""
        self._count()
        return self._counts, self._bus, self._bus_errors


def as_json(events: Iterable[Event]) -> list[dict[str, Any]]:
    """The events as objects with named members."""
    return [event._asdict() for event in events]


def text(event: Event) -> str:
    """One line: "bus r window+0x8 8 -> 0x1007 OK ptw"."""
    if isinstance(event, Bus):
        arrow = "->" if event.rw == "r" else "<-"
        place = f"{event.region}+{event.offset:#x}"
        return f"bus {event.rw} {place} {event.size} {arrow} {event.value:#x} {event.result} {event.tag}"
    words: list[str] = [event.kind]
    for name, value in list(event._asdict().items())[1:]:
        if name in HEXADECIMAL and isinstance(value, int) and value >= 0:
            value = f"{value:#x}"
        words.append(str(value) if name in ("change", "reason", "detail") else f"{name}={value}")
    return " ".join(words)
