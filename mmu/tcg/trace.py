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
    """Keeps the first CAPACITY events, and counts all: by kind, dispatches by ("r" or "w", tag)."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.counts: Counter[str] = Counter()
        self.bus: Counter[tuple[str, str]] = Counter()
        self.bus_errors = 0

    def append(self, event: Event) -> None:
        self.counts[event.kind] += 1
        if isinstance(event, Bus):
            self.bus[event.rw, event.tag] += 1
            self.bus_errors += event.result != "OK"
        if len(self.events) < CAPACITY:
            self.events.append(event)


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
