"""What a run costs, page by page: the bus accesses of page walks, fetches, loads and stores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cxl.groom.find import Found
    from mmu.guest.result import RunResult
    from mmu.machine import Machine
    from mmu.memory import Port, TraceEntry

PAGE = 4096
CAPACITY = 1 << 18  # accesses that are recorded for each initiator
INITIATORS = ("walk", "code", "data")  # ports of a guest's CPU


@dataclass
class Usage:
    """Accesses by page, for each initiator. An exchange is a read, and a write when it took place.

    `complete`: none was left out because there were more than CAPACITY. `walks`: page walks of the run.
    Loads and stores count only where they go to the bus: what is in RAM, the engine reaches by itself. Code is copied
    page by page before it runs, which is counted by device (`Counters.code`) and not here; in the model of an emulator
    it is fetched, and counts.
    """

    walks: int = 0
    complete: bool = True
    reads: dict[str, Counter[int]] = field(default_factory=lambda: {name: Counter() for name in INITIATORS})
    writes: dict[str, Counter[int]] = field(default_factory=lambda: {name: Counter() for name in INITIATORS})

    def of(self, found: Found) -> dict[str, tuple[int, int]]:
        """(reads, writes) by initiator, of those that had any. Pages count whole."""
        pages = range(found.base // PAGE, found.last // PAGE + 1)
        out = {}
        for name in INITIATORS:
            both = tuple(sum(counts[name][page] for page in pages) for counts in (self.reads, self.writes))
            if any(both):
                out[name] = (both[0], both[1])
        return out

    def dispatches(self, found: Found) -> int:
        """Accesses that went through a window to a device, whoever made them."""
        return sum(map(sum, self.of(found).values())) if found.in_window else 0

    def per_walk(self, found: Found) -> float:
        """Dispatches that page walks made there, for each walk of the run."""
        return sum(self.of(found).get("walk", (0, 0))) / self.walks if found.in_window and self.walks else 0.0


def recorded(machine: Machine, run: Callable[[], RunResult]) -> tuple[RunResult, Usage]:
    """Do *run* (a run of *machine*) and count what it did."""
    usage = Usage()
    with ExitStack() as stack:
        traces = {name: stack.enter_context(_trace(machine.cpu.ports[name], usage)) for name in INITIATORS}
        result = run()
    usage.walks = result.counters.walks
    for name, entries in traces.items():
        for entry in entries:
            for page in range(entry.address // PAGE, (entry.address + entry.size - 1) // PAGE + 1):
                usage.reads[name][page] += entry.kind != "write"
                usage.writes[name][page] += entry.kind == "write" or bool(entry.stored)
    return result, usage


@contextmanager
def _trace(port: Port, usage: Usage) -> Iterator[list[TraceEntry]]:
    entries: list[TraceEntry] = []
    trace = port.trace(CAPACITY)
    inner = trace.__enter__()
    try:
        yield entries
    finally:
        try:
            trace.__exit__(None, None, None)
        except BufferError:
            usage.complete = False
        entries += inner
