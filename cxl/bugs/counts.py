"""What a trace adds up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mmu.tcg.trace import Event, Tag

TAGS: tuple[Tag, ...] = ("ptw", "data", "fetch")


def counts_of(trace: Sequence[Event]) -> dict[str, Any]:
    """Recompilations, accesses on the bus by what they were for, how deep the big lock was held, blocks, atomics."""
    kinds = Counter(event[0] for event in trace)
    bus = Counter((event[1], event[7]) for event in trace if event[0] == "bus")
    depth = deepest = 0
    for event in trace:
        if event[0] == "lock":
            depth += 1 if event[1] == "+" else -1
            deepest = max(deepest, depth)
    return {
        "recompiles": kinds["recompile"],
        "bus_reads": {tag: bus["r", tag] for tag in TAGS},
        "bus_writes": {tag: bus["w", tag] for tag in TAGS},
        "lock_depth": deepest,
        "blocks": kinds["tb"],
        "atomic_exits": kinds["atomic_exit"],
    }
