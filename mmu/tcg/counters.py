"""What a run in the model cost."""

from __future__ import annotations

from dataclasses import dataclass, field

from mmu.memory.space import Traffic


@dataclass(slots=True)
class Counters:
    """Of one run. `reads` and `writes`: dispatches to regions without host memory, by tag (ptw, data, fetch).

    `data`, `tables` and `code` are what reached the devices behind windows, by name.
    `lock_depth`: the deepest that the big lock was held. `chained`: blocks entered straight from another one.
    """

    instructions: int = 0
    blocks: int = 0  # translated
    chained: int = 0
    lookups: int = 0  # by the helper that looks for the next block
    recompiles: int = 0
    atomic_exits: int = 0
    walks: int = 0
    faults: int = 0  # of walks, and external aborts, that the guest was told of
    exceptions: int = 0  # delivered to the guest's handlers, with interrupts
    interrupts: int = 0
    invalidated: int = 0  # blocks lost to stores to their code
    lock_depth: int = 0
    reads: dict[str, int] = field(default_factory=dict)
    writes: dict[str, int] = field(default_factory=dict)
    bus_errors: int = 0
    data: dict[str, Traffic] = field(default_factory=dict)
    tables: dict[str, Traffic] = field(default_factory=dict)
    code: dict[str, Traffic] = field(default_factory=dict)
