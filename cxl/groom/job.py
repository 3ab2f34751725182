"""The whole of it: run, say what is in windows and what it costs, move it, run again, compare."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cxl.groom.compare import Side, contents, differences
from cxl.groom.cost import recorded
from cxl.groom.find import KINDS, survey
from cxl.groom.moving import migrate, plan_moves
from mmu.radix.relocate import Move, moved

if TYPE_CHECKING:
    from cxl.topology import Topology
    from mmu.guest.result import RunResult
    from mmu.machine import Machine


@dataclass(frozen=True)
class Grooming:
    """What was found, and with moves, what they changed. `differences` is empty when nothing that counts did."""

    before: Side
    moves: list[Move] = field(default_factory=list)
    changed: int = 0  # entries and registers
    after: Side | None = None
    differences: list[str] = field(default_factory=list)
    kinds: tuple[str, ...] = KINDS

    @property
    def left(self) -> int:
        """How many things of the kinds that were asked about are in windows in the end."""
        side = self.after or self.before
        return sum(f.in_window and f.kind in self.kinds for f in side.found)


def groom(
    machine: Machine, topology: Topology, run: Callable[[], RunResult], *, dma: Iterable[tuple[int, int]] = (),
    kinds: Sequence[str] = KINDS, apply: bool = False, to: tuple[int, int] | None = None,
) -> Grooming:  # fmt: skip
    """Run *machine* as it stands and report; *apply*: then from the same state once more, with *kinds* moved to RAM.

    *run* runs it; *dma* and *to* are as of `survey` and `plan_moves`, and so is what it raises, before anything ran.
    Afterwards the machine is as its last run left it.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"what is groomed must be of {', '.join(KINDS)}, not {kind!r}")
    buffers = list(dma)
    start = machine.snapshot() if apply else None
    found = survey(machine, topology, buffers)
    moves = plan_moves(machine, topology, [f for f in found if f.kind in kinds], to) if apply else []
    before = _side(machine, topology, buffers, run)
    if start is None:
        return Grooming(before, kinds=tuple(kinds))
    machine.restore(start)
    changed = migrate(machine, moves)
    moved_buffers = [(moved(moves, base), size) for base, size in buffers]
    after = _side(machine, topology, moved_buffers, run)
    return Grooming(before, moves, changed, after, differences(machine, before, after), tuple(kinds))


def _side(
    machine: Machine, topology: Topology, dma: Sequence[tuple[int, int]], run: Callable[[], RunResult]
) -> Side:
    result, usage = recorded(machine, run)
    return Side(result, survey(machine, topology, dma), usage, contents(machine))
