"""The tables of a tree, who refers to each, and how memory that a tree refers to is moved elsewhere.

The order is one that a walker survives: first everything is copied, then each entry that refers to the old place is
exchanged for one that refers to the copy, by one compare-and-exchange, so that a walker's flags are not lost.
Translations are the caller's to flush. While nothing is written to what moves, break-before-make is not needed for
tables (Arm ARM, "Using break-before-make when updating translation table entries": the leaves stay the same); a CPU
that may use a page while it moves must be kept out of it, as a kernel does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmu.errors import AlignmentError, BusError
from mmu.radix.form import Entry, Kind, Level
from mmu.types import MemTxResult

if TYPE_CHECKING:
    from mmu.memory import AddressSpace
    from mmu.radix.frames import FramePool

COPY = 1 << 20  # bytes copied at once


@dataclass(frozen=True, slots=True)
class Table:
    """One table: where it is, at which level, the first address (stripped) that it translates, and who refers to it.

    `references` are the physical addresses of the entries above, with their levels; the root has none. A table that is
    used at several levels is listed once for each.
    """

    address: int
    level: Level
    low: int
    references: tuple[tuple[int, Level], ...] = ()


@dataclass(frozen=True, slots=True)
class Move:
    """*size* bytes at *base* go to *to*; physical addresses in bytes."""

    base: int
    size: int
    to: int


def moved(moves: Sequence[Move], address: int) -> int:
    """Where *address* is after *moves*."""
    for move in moves:
        if move.base <= address < move.base + move.size:
            return address - move.base + move.to
    return address


@dataclass(frozen=True)
class Tree:
    """Tables on a bus: what entries look like (`Form.levels` of a scan, or a builder's), and where the root is."""

    space: AddressSpace
    levels: tuple[Level, ...]
    root: int
    big_endian: bool = False

    def entries(self, address: int, level: Level) -> list[int]:
        """All entries of one table. BusError when it cannot be read."""
        data, result = self.space.access(address, level.table_bytes)
        if result:
            raise BusError(f"the {level.name} table at {address:#x} cannot be read: {result.name}", result)
        order, width = "big" if self.big_endian else "little", level.width
        return [int.from_bytes(data[i : i + width], order) for i in range(0, len(data), width)]  # type: ignore[arg-type]

    def tables(self) -> list[Table]:
        """Every table, each before those below it. Reads only."""
        found: dict[tuple[int, int], Table] = {(self.root, 0): Table(self.root, self.levels[0], 0)}
        row = [(self.root, 0)]
        for depth, level in enumerate(self.levels[:-1]):
            below: list[tuple[int, int]] = []
            for key in row:
                address, low = key[0], found[key].low
                for index, entry in enumerate(self.entries(address, level)):
                    if level.kind(entry) is not Kind.TABLE or level.table is None:
                        continue
                    child = (level.table.target(entry), depth + 1)
                    reference = (address + index * level.width, level)
                    if child in found:
                        old = found[child]
                        found[child] = Table(old.address, old.level, old.low, (*old.references, reference))
                    else:
                        found[child] = Table(
                            child[0], self.levels[depth + 1], low + (index << level.shift), (reference,))
                        below.append(child)
            row = below
        return list(found.values())

    def retarget(self, moves: Sequence[Move], pages: bool) -> int:
        """Let every entry that refers to what was copied by *moves* refer to the copy; *pages*: leaves too.

        Returns how many entries changed. Everything is looked up where it is after the moves. Raises BusError, and
        no entry is changed, when one cannot be.
        """
        done: list[tuple[int, Level, Entry, int]] = []
        root = moved(moves, self.root)
        seen, rest = {(root, 0)}, [(root, 0)]
        try:
            while rest:
                address, depth = rest.pop()
                level = self.levels[depth]
                for index, entry in enumerate(self.entries(address, level)):
                    kind = level.kind(entry)
                    form = {Kind.TABLE: level.table, Kind.LEAF: level.leaf if pages else None}.get(kind)
                    if form is None:
                        continue
                    old = form.target(entry)
                    to, slot = moved(moves, old), address + index * level.width
                    if to != old:
                        self._point(slot, level, form, to)
                        done.append((slot, level, form, old))
                    if kind is Kind.TABLE and (to, depth + 1) not in seen:
                        seen.add((to, depth + 1))
                        rest.append((to, depth + 1))
        except BusError:
            for slot, level, form, old in reversed(done):
                self._point(slot, level, form, old)
            raise
        return len(done)

    def _swap(self, entry: int, width: int) -> int:
        return int.from_bytes(entry.to_bytes(width, "little"), "big") if self.big_endian else entry

    def _point(self, slot: int, level: Level, form: Entry, to: int) -> None:
        """Put another address into the entry at *slot*. BusError when it does not stay there, as in ROM."""
        width = level.width
        while True:
            raw, result = self.space.load(slot, width)
            if result == MemTxResult.OK:
                entry = self._swap(raw, width)
                wanted = self._swap(entry & ~form.address_mask | form.place(to), width)
                old, result = self.space.exchange(slot, width, raw, wanted)
                if result == MemTxResult.OK and old == raw:
                    after, result = self.space.load(slot, width)
                    if result == MemTxResult.OK and form.target(self._swap(after, width)) == to:
                        return
                    result = result or MemTxResult.ERROR
            if result != MemTxResult.OK:
                raise BusError(f"the {level.name} at {slot:#x} cannot be changed: {result.name}", result)


def copy(space: AddressSpace, moves: Sequence[Move]) -> None:
    """Fill the new places. BusError when something cannot be read or written."""
    for move in moves:
        for at in range(0, move.size, COPY):
            space.write(move.to + at, space.read(move.base + at, min(COPY, move.size - at)))


def relocate(tree: Tree, table: int, to: int, holds: Callable[[int], bool]) -> None:
    """Move the table at *table* to the free frame *to*. *holds* says whether entries can hold an address.

    Raises ValueError when *table* is no table of the tree, or *to* is one; AlignmentError when *to* is not aligned as
    the table must be; BusError, and nothing changed but the frame *to*, when the bus refuses.
    """
    nodes = tree.tables()
    size = max((node.level.table_bytes for node in nodes if node.address == table), default=0)
    if not size:
        raise ValueError(f"there is no table at {table:#x}")
    if to % size or not holds(to + size - 1):
        raise AlignmentError(f"a table of {size:#x} bytes must go to a multiple of that which entries can hold, "
                             f"not to {to:#x}")
    if any(to < node.address + node.level.table_bytes and node.address < to + size for node in nodes):
        raise ValueError(f"there is a table at {to:#x} already")
    moves = (Move(table, size, to),)
    copy(tree.space, moves)
    tree.retarget(moves, pages=False)


class Movable:
    """What a builder of page tables (`mmu.radix.tables`) inherits."""

    space: AddressSpace
    levels: tuple[Level, ...]
    root: int
    pa_bits: int
    va_bits: int
    frames: FramePool

    def _broken(self, low: int, size: int) -> None:
        raise NotImplementedError

    def tree(self) -> Tree:
        return Tree(self.space, self.levels, self.root)

    def nodes(self) -> list[Table]:
        """Every table of the tree, each before those below it. Reads only."""
        return self.tree().tables()

    def move(self, table: int, to: int) -> None:
        """Move the table at *table* to the free frame *to* (physical addresses in bytes), contents and references.

        When it is the root, `root` is *to* afterwards, and registers are the caller's. The old frame is not given
        back to the allocator. Errors: see `relocate`.
        """
        relocate(self.tree(), table, to, lambda address: 0 <= address < 1 << self.pa_bits)
        self.frames.owned.discard(table)
        self.frames.owned.add(to)
        if table == self.root:
            self.root = to
        self._broken(0, 1 << self.va_bits)
