"""Moving what is in windows to RAM, in the guest's own tables: copy, retarget every entry and register, flush.

What moves together: memory that one page maps, that an arm64 contiguous run maps, and a buffer as a whole, because its
device sees it in one piece. A physical address that the guest keeps anywhere else than in a table entry (a DMA
descriptor, a variable) is not found: drivers must be told, which is why every move is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mmu.errors import AddressRangeError
from mmu.guest.plan import Area, Plan
from mmu.guest.trees import GuestTree, point, trees
from mmu.memory.region import Ram
from mmu.radix.relocate import Move, copy, moved
from mmu.scan import Flag

if TYPE_CHECKING:
    from cxl.groom.find import Found
    from cxl.topology import Topology
    from mmu.machine import Machine
    from mmu.memory import AddressSpace

PAGE = 4096
Range = tuple[int, int]  # first, end (exclusive)


@dataclass(frozen=True, slots=True)
class Unit:
    """What moves in one piece: first .. end-1, to an address that is the same modulo *align*."""

    first: int
    end: int
    align: int

    def joined(self, other: Unit) -> Unit:
        return Unit(min(self.first, other.first), max(self.end, other.end), max(self.align, other.align))


class Room:
    """Free RAM: *free* ranges, handed out from their ends down, so that what the guest takes next is likely below."""

    def __init__(self, space: AddressSpace, free: Iterable[Range], must_be_blank: bool) -> None:
        self._space, self._blank = space, must_be_blank
        self._free = sorted(free)

    def take(self, unit: Unit) -> int:
        """Base of a free place. AddressRangeError when there is none."""
        size = unit.end - unit.first
        for i, (first, end) in reversed(list(enumerate(self._free))):
            base = end - size
            base -= (base - unit.first) % unit.align
            while base >= first and self._blank and not self._is_blank(base, size):
                base -= unit.align
            if base >= first:
                self._free[i : i + 1] = [r for r in ((first, base), (base + size, end)) if r[0] < r[1]]
                return base
        rest = ", ".join(f"{first:#x}..{end - 1:#x}" for first, end in self._free) or "nothing"
        raise AddressRangeError(
            f"{size:#x} bytes, aligned to {unit.align:#x}, must go to RAM, where {rest} is free")

    def _is_blank(self, base: int, size: int) -> bool:
        return self._space.read(base, size) == bytes(size)


def plan_moves(
    machine: Machine, topology: Topology, found: Sequence[Found], to: tuple[int, int] | None = None
) -> list[Move]:
    """Where those of *found* that are in windows can go. Changes nothing.

    *to*: (base, size) of RAM that is free, whatever is in it. Default: RAM outside windows that no page maps, no table,
    buffer or area of the machine's plan is in, and that is all zero.
    Raises AddressRangeError when that is too little, or *to* is not RAM that is free.
    """
    roots = trees(machine.cpu)
    extents = sorted(set(_extents(roots)), key=lambda unit: unit.first)
    units = _closed([_unit(f) for f in found if f.in_window], extents)
    used = [(u.first, u.end) for u in extents] + [(f.base, f.last + 1) for f in found]
    used += [(node.address, node.address + node.level.table_bytes) for tree in roots for node in tree.tables()]
    ram = list(_ram(machine.space, topology))
    if to is not None:
        first, end = to[0], to[0] + to[1]
        if to[1] <= 0 or not any(low <= first and end <= high for low, high in ram):
            raise AddressRangeError(f"{first:#x}:{to[1]:#x} is not RAM outside of windows")
        if clash := [u for u in used if u[0] < end and first < u[1]]:
            raise AddressRangeError(f"{first:#x}:{to[1]:#x} is in use, at {clash[0][0]:#x}")
        room = Room(machine.space, [(first, end)], must_be_blank=False)
    else:
        used += [] if machine.plan is None else [(a.base, a.last + 1) for a in _areas(machine.plan)]
        room = Room(machine.space, _without(ram, used), must_be_blank=True)
    return [Move(unit.first, unit.end - unit.first, room.take(unit)) for unit in units]


def migrate(machine: Machine, moves: Sequence[Move]) -> int:
    """Carry *moves* out while the guest stands still. Returns how many entries and registers changed.

    The guest's next run starts without translations or code kept from before. What the host maps for it later goes to
    the areas of the machine's plan, as before. Raises BusError when the bus refuses; entries are as they were then.
    """
    roots = trees(machine.cpu)
    copy(machine.space, moves)
    changed, done = 0, []
    try:
        for tree in roots:
            changed += tree.retarget(moves, pages=True)
            done.append(tree)
    except BaseException:
        back = [Move(m.to, m.size, m.base) for m in moves]
        for tree in done:
            replace(tree, root=moved(moves, tree.root)).retarget(back, pages=True)
        raise
    for tree in roots:
        if (root := moved(moves, tree.root)) != tree.root:
            point(machine.cpu, tree, root)
            changed += 1
    machine.adopt(machine.plan, machine.program)
    return changed


def _unit(found: Found) -> Unit:
    """A table on its own, and else whole pages."""
    align = found.size if found.kind == "tables" else PAGE
    grain = align if found.kind == "tables" else PAGE
    return Unit(found.base // grain * grain, -(-(found.last + 1) // grain) * grain, align)


def _extents(roots: Sequence[GuestTree]) -> Iterator[Unit]:
    """The physical memory of each leaf, or of the contiguous run that it is one of."""
    for tree in roots:
        runs = {level.size: level.size << level.run for level in tree.levels if level.run}
        for record in tree.mappings():
            base, size = int(record["pa"]), int(record["size"])
            if int(record["flags"]) & Flag.CONTIGUOUS:
                size = runs[size]
                base = base // size * size
            yield Unit(base, base + size, size)


def _closed(wanted: Sequence[Unit], extents: Sequence[Unit]) -> list[Unit]:
    """*wanted*, with every leaf that reaches into them, joined where they touch; ascending."""
    units = _joined(wanted)
    while True:
        reached = [e for e in extents if any(u.first < e.end and e.first < u.end for u in units)]
        grown = _joined([*units, *reached])
        if grown == units:
            return units
        units = grown


def _joined(units: Iterable[Unit]) -> list[Unit]:
    out: list[Unit] = []
    for unit in sorted(units, key=lambda u: (u.first, u.end)):
        if out and unit.first <= out[-1].end:
            out[-1] = out[-1].joined(unit)
        else:
            out.append(unit)
    return out


def _ram(space: AddressSpace, topology: Topology) -> Iterator[Range]:
    """Whole pages of plain memory outside every window (the cache of a window is memory, too)."""
    for r in space.view.ranges:
        if type(r.region) is Ram and topology.window_at(r.first) is None:
            first, end = -(-r.first // PAGE) * PAGE, (r.last + 1) // PAGE * PAGE
            if first < end:
                yield first, end


def _areas(plan: Plan) -> list[Area]:
    return [plan.tables, plan.code, plan.data, plan.stack, *plan.levels.values()]


def _without(ranges: Iterable[Range], used: Iterable[Range]) -> list[Range]:
    """*ranges* less the pages that *used* touches."""
    out = list(ranges)
    for low, high in used:
        low, high = low // PAGE * PAGE, -(-high // PAGE) * PAGE
        cut: list[Range] = []
        for first, end in out:
            apart = high <= first or end <= low
            parts = [(first, end)] if apart else [(first, low), (high, end)]
            cut += [part for part in parts if part[0] < part[1]]
        out = cut
    return out
