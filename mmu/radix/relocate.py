"""The tables of a tree, who refers to each, and how one is moved to another frame under a CPU that walks it.

Only the entries that refer to tables are known here. Pages that map a table, and whatever else remembers its physical
address, are the caller's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmu.errors import AlignmentError, BusError
from mmu.radix.form import Kind, Level
from mmu.types import MemTxResult

if TYPE_CHECKING:
    from mmu.memory import AddressSpace


@dataclass(frozen=True, slots=True)
class Table:
    """One table: where it is, at which level, the first address (stripped) that it translates, and who refers to it.

    `references` are the physical addresses of the entries above, with their levels; the root has none. A table that is
    reached on several paths is listed once for each level at which it is used.
    """

    address: int
    level: Level
    low: int
    references: tuple[tuple[int, Level], ...] = ()


def entries(space: AddressSpace, address: int, level: Level) -> list[int]:
    """All entries of one table. BusError when it cannot be read."""
    data, result = space.access(address, level.table_bytes)
    if result:
        raise BusError(f"the {level.name} table at {address:#x} cannot be read: {result.name}", result)
    width = level.width
    return [int.from_bytes(data[i : i + width], "little") for i in range(0, len(data), width)]


def tables(space: AddressSpace, levels: tuple[Level, ...], root: int) -> list[Table]:
    """Every table of the tree at *root*, each before those below it. Reads only."""
    found: dict[tuple[int, int], Table] = {(root, 0): Table(root, levels[0], 0)}
    row = [(root, 0)]
    for depth, level in enumerate(levels[:-1]):
        below: list[tuple[int, int]] = []
        for key in row:
            address, low = key[0], found[key].low
            for index, entry in enumerate(entries(space, address, level)):
                if level.kind(entry) is not Kind.TABLE or level.table is None:
                    continue
                child = (level.table.target(entry), depth + 1)
                reference = (address + index * level.width, level)
                if child in found:
                    old = found[child]
                    found[child] = Table(old.address, old.level, old.low, (*old.references, reference))
                else:
                    found[child] = Table(child[0], levels[depth + 1], low + (index << level.shift), (reference,))
                    below.append(child)
        row = below
    return list(found.values())


def relocate(space: AddressSpace, levels: tuple[Level, ...], root: int, table: int, to: int, limit: int) -> None:
    """Copy the table at *table* to *to*, then let every entry that referred to it refer to the copy.

    Each reference is exchanged by one compare-and-exchange, so that flags which a walker sets meanwhile stay. Before
    that nobody uses the copy, afterwards nobody the original once translations are flushed; the leaves are the same,
    so break-before-make is not needed (Arm ARM, "Using break-before-make when updating translation table entries").
    Raises ValueError when *table* is no table of the tree, or *to* is one; AlignmentError when *to* is not aligned as
    the table must be; BusError, and nothing changed but the frame *to*, when the bus refuses.
    """
    tree = tables(space, levels, root)
    found = [node for node in tree if node.address == table]
    if not found:
        raise ValueError(f"there is no table at {table:#x}")
    size = max(node.level.table_bytes for node in found)
    if to % size or not 0 <= to < limit:
        raise AlignmentError(f"a table of {size:#x} bytes must go to a multiple of that below {limit:#x}, not {to:#x}")
    if any(to < node.address + node.level.table_bytes and node.address < to + size for node in tree):
        raise ValueError(f"there is a table at {to:#x} already")
    space.write(to, space.read(table, size))
    # A table that refers to itself was copied with that reference: the copy's is the one in use from now on.
    slots = {slot: level for node in found for slot, level in node.references}
    inside = {slot - table + to: level for slot, level in slots.items() if table <= slot < table + size}
    outside = {slot: level for slot, level in slots.items() if not table <= slot < table + size}
    done: list[tuple[int, Level]] = []
    try:
        for slot, level in {**inside, **outside}.items():
            _retarget(space, slot, level, to)
            done.append((slot, level))
    except BusError:
        for slot, level in reversed(done):
            _retarget(space, slot, level, table)
        raise


def _retarget(space: AddressSpace, slot: int, level: Level, to: int) -> None:
    """Put another address into the entry at *slot*. BusError when it does not stay there, as in ROM."""
    assert level.table is not None
    while True:
        entry, result = space.load(slot, level.width)
        if result == MemTxResult.OK:
            wanted = entry & ~level.table.address_mask | level.table.place(to)
            old, result = space.exchange(slot, level.width, entry, wanted)
            if result == MemTxResult.OK and old == entry:
                after, result = space.load(slot, level.width)
                if level.table.target(after) == to:
                    return
                result = result or MemTxResult.ERROR
        if result != MemTxResult.OK:
            raise BusError(f"the {level.name} at {slot:#x} cannot be changed: {result.name}", result)
