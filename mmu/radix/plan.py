"""Changes to a tree of page tables: planned on what is there, then written in an order that walkers survive.

Planning only reads. Committing takes every frame first, then goes bottom up: a new table is zeroed through the bus,
filled, and only then linked by one store. A failure on the way undoes the stores, last one first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmu.errors import BusError
from mmu.radix.form import Entry, Kind, Level
from mmu.types import MemTxResult

if TYPE_CHECKING:
    from mmu.memory import AddressSpace
    from mmu.radix.edits import Edit


class Node:
    """One table as a plan will leave it. `address` None: a table still to be made, whose entries are all new.

    `low`: the first address that the table covers. `new`: entries to be written. `children`: tables below that the
    plan has looked at or will make.
    """

    __slots__ = ("address", "children", "depth", "low", "new", "old")

    def __init__(self, depth: int, low: int, address: int | None, new: dict[int, int] | None = None) -> None:
        self.depth, self.low, self.address = depth, low, address
        self.old: dict[int, int] = {}
        self.new = new or {}
        self.children: dict[int, Node] = {}


@dataclass
class Plan:
    """Reads entries once, and collects what is to be written."""

    space: AddressSpace
    levels: tuple[Level, ...]
    root: Node
    split: Callable[[Level, Level, int], dict[int, int]]  # (from, to, entry) -> the entries of the smaller level
    link: Callable[[Level, int], int]  # (level, address of a table) -> the entry that refers to it
    drop: list[Node] = field(default_factory=list)  # existing tables that nothing refers to when the plan is done

    def level(self, node: Node) -> Level:
        return self.levels[node.depth]

    def entry(self, node: Node, index: int) -> int:
        """The entry as the plan stands; BusError when it cannot be read."""
        if (value := node.new.get(index)) is not None:
            return value
        if node.address is None:
            return 0
        if (value := node.old.get(index)) is None:
            level = self.level(node)
            address = node.address + index * level.width
            value, result = self.space.load(address, level.width)
            if result != MemTxResult.OK:
                raise BusError(f"{level.name} at {address:#x} (for {node.low:#x}) cannot be read: {result}", result)
            node.old[index] = value
        return value

    def entries(self, node: Node) -> Iterator[int]:
        return (self.entry(node, index) for index in range(1 << self.level(node).bits))

    def put(self, node: Node, index: int, entry: int) -> None:
        """Let *entry*, which has been looked at, become this one. A new table is zero where nothing is put."""
        if entry != (0 if node.address is None else node.old[index]):
            node.new[index] = entry
        else:
            node.new.pop(index, None)

    def run(self, first: int, last: int, op: Edit) -> None:
        """Apply *op* to the addresses first..last (inclusive, bytes)."""
        self._visit(self.root, first, last, op)

    def _visit(self, node: Node, first: int, last: int, op: Edit) -> None:
        level = self.level(node)
        mask = (1 << level.bits) - 1
        for number in range(first >> level.shift, (last >> level.shift) + 1):
            index, low = number & mask, number << level.shift
            high = low + level.size - 1
            whole = first <= low and high <= last
            if (child := node.children.get(index)) is None:
                entry = self.entry(node, index)
                kind = level.kind(entry)
                if kind is not Kind.TABLE:
                    value = op.slot(level, low, whole, entry, kind)
                    if value is not None:
                        if value != entry:
                            self.put(node, index, value)
                        continue
                child = self._child(node, index, low, entry, kind)
                if kind is Kind.TABLE:
                    op.enter(level, low, entry)
            self._visit(child, max(first, low), min(last, high), op)
            op.leave(self, node, index)

    def _child(self, node: Node, index: int, low: int, entry: int, kind: Kind) -> Node:
        level, below = self.level(node), self.levels[node.depth + 1]
        if kind is Kind.TABLE:
            assert level.table is not None
            child = Node(node.depth + 1, low, level.table.target(entry))
        else:
            child = Node(node.depth + 1, low, None, self.split(level, below, entry) if kind is Kind.LEAF else None)
        node.children[index] = child
        return child

    def settle(self, node: Node | None = None) -> None:
        """Take the hint from every run of pages that does not agree on it any more."""
        node = node or self.root
        level = self.level(node)
        if level.hint and level.leaf is not None:
            for first in {(index >> level.run) << level.run for index in (*node.new, *node.children)}:
                self._settle_run(node, level, level.leaf, range(first, first + (1 << level.run)))
        for child in node.children.values():
            self.settle(child)

    def _settle_run(self, node: Node, level: Level, leaf: Entry, run: range) -> None:
        made = {index for index in run if index in node.children and node.children[index].address is None}
        entries = {index: self.entry(node, index) for index in run if index not in made}
        hinted = [i for i, e in entries.items() if level.kind(e) is Kind.LEAF and e & level.hint]
        if not hinted:
            return
        start = entries[hinted[0]]
        base = leaf.target(start) - (hinted[0] - run.start) * level.size
        agree = len(hinted) == len(run) and base % (level.size << level.run) == 0
        rest = start & ~leaf.address_mask
        if not (agree and all(entries[i] == rest | leaf.place(base + n * level.size) for n, i in enumerate(run))):
            for index in hinted:
                self.put(node, index, entries[index] & ~level.hint)

    def missing(self, node: Node | None = None) -> Iterator[Node]:
        """The tables to be made, in the order in which a commit takes their frames."""
        node = node or self.root
        if node.address is None:
            yield node
        for child in node.children.values():
            yield from self.missing(child)


@dataclass
class Commit:
    """One writing of a plan. `on_break`: None, or called with (address, size) while an entry is a hole.

    Arm ARM, "Using break-before-make when updating translation table entries": a valid entry goes through a hole
    before a page becomes a table or a table a page.
    """

    plan: Plan
    frames: Iterator[int]
    on_break: Callable[[int, int], None] | None
    changed: bool = False  # a valid entry was replaced: a TLB may know it
    undo: list[tuple[int, Level, int]] = field(default_factory=list)

    def run(self) -> None:
        """Write everything, or nothing: then what refused is raised."""
        try:
            self._write(self.plan.root)
        except BaseException:
            for address, level, entry in reversed(self.undo):
                self.plan.space.store(address, level.width, entry)
            raise

    def _write(self, node: Node) -> None:
        level = self.plan.level(node)
        made = node.address is None
        if node.address is None:
            node.address = next(self.frames)
            self.plan.space.write(node.address, bytes(level.table_bytes))
        for index, child in node.children.items():
            unlinked = child.address is None
            self._write(child)
            if unlinked:
                assert child.address is not None
                node.new[index] = self.plan.link(level, child.address)
        for index, entry in node.new.items():
            address = node.address + index * level.width
            if not made:
                self._replace(node, level, index, entry)
            self._store(address, level, entry)

    def _replace(self, node: Node, level: Level, index: int, entry: int) -> None:
        """Note what is there before it goes."""
        assert node.address is not None
        address, old = node.address + index * level.width, node.old[index]
        self.undo.append((address, level, old))
        before, after = level.kind(old), level.kind(entry)
        if before not in (Kind.LEAF, Kind.TABLE):
            return
        self.changed = True
        if self.on_break and before is not after and after is not Kind.HOLE:
            self._store(address, level, 0)
            self.on_break(node.low + (index << level.shift), level.size)

    def _store(self, address: int, level: Level, entry: int) -> None:
        result = self.plan.space.store(address, level.width, entry)
        if result != MemTxResult.OK:
            raise BusError(f"{level.name} at {address:#x} cannot be written: {result}", result)
