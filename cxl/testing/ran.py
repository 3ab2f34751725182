"""What a run of a guest came to, the emulator's own end included: an abort is a result here, not an exception."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cxl.testing.events import Trace
from mmu.memory.region import Ram
from mmu.tcg.trace import CAPACITY, Bus, Tag
from mmu.types import Place

if TYPE_CHECKING:
    from mmu.guest.result import RunResult
    from mmu.machine import Machine
    from mmu.memory import TraceEntry

OUTCOMES = ("halt", "fault", "abort", "hang", "crash")  # the usual ones; others are reasons of `mmu.guest.stop`
TAGS: dict[str, Tag] = {"walk": "ptw", "data": "data"}


@dataclass(frozen=True, eq=False)
class Ran:
    """Compare it with `halted()`, `faulted()`, `aborted()` and their like.

    `outcome`: "halt", "fault" (an exception without a handler), another reason of `mmu.guest.stop.Stop`, or how the
    emulator ended: "abort", "hang", "crash". `kind`, `level` (of the walk) and `place` tell more of that.
    `faults`: exceptions that the guest's handlers got, then the one that ended the run.
    """

    outcome: str
    message: str
    pc: int
    registers: Mapping[str, int]
    events: Trace = field(default_factory=Trace)
    counters: Any = None
    faults: tuple[Any, ...] = ()
    kind: str = ""
    level: str | None = None
    place: Place | None = None
    complete: bool = True  # all events are there

    @property
    def trace(self) -> Trace:
        """The dispatches to regions that are MMIO to an emulator, and under a model its other events.

        ValueError when there were more than are kept: a pattern that does not come might have been among the others.
        """
        if not self.complete:
            raise ValueError(f"this run made too many accesses: `events` has only the first {len(self.events)} events")
        return self.events

    @property
    def lock_depth(self) -> int:
        """The deepest that the big lock was held. ValueError without an emulator, which has none."""
        depth = getattr(self.counters, "lock_depth", None)
        if depth is None:
            raise ValueError("there is no lock to hold without an emulator")
        return int(depth)

    def __repr__(self) -> str:
        more = f": {self.message}" if self.message else ""
        return f"<ended by {self.outcome} at {self.pc:#x}{more}>"


def ended(result: RunResult, trace: Trace, complete: bool) -> Ran:
    """A run that the guest ended."""
    stop = result.stop
    last = () if stop.exception is None else (stop.exception,)
    return Ran(
        stop.reason, stop.detail, stop.pc, result.registers, trace, result.counters,
        tuple(d.exception for d in result.delivered) + last, complete=complete)  # fmt: skip


def emulator_ended(stop: Any, names: Mapping[int, str], pc: int) -> Ran:
    """A run that the emulator ended: *stop* is a `mmu.tcg.EmulatorStop`, *names* are those of levels by number."""
    level = None if stop.level is None else names.get(stop.level, str(stop.level))
    return Ran(
        stop.outcome, stop.message, pc if stop.pc is None else stop.pc, stop.registers, Trace(stop.trace),
        stop.counters, (), stop.kind, level, stop.place, len(stop.trace) < CAPACITY)  # fmt: skip


def plain_trace(machine: Machine, entries: list[TraceEntry]) -> Trace:
    """Accesses of a plain machine as the events that an emulator would have: those that are not plain memory."""
    events: list[Bus] = []
    for e in entries:
        found = machine.space.view.find(e.address)
        if found is not None and isinstance(found.region, Ram) and found.region.kind == Ram.kind:
            continue
        place = machine.space.place(e.address) or Place("nothing", e.address)
        tag, result = TAGS[e.initiator], e.result.name or str(e.result)

        # An exchange is a read, and a write when it took place.
        moves: list[tuple[Literal["r", "w"], int]] = [("w" if e.kind == "write" else "r", e.value)]
        moves += [("w", e.desired or 0)] if e.stored else []
        events += [Bus("bus", rw, place.region, place.offset, e.size, value, result, tag) for rw, value in moves]
    return Trace(events)
