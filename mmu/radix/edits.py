"""The edits of a tree of page tables: map, unmap, protect, split, merge. Each decides, entry by entry.

None writes anything: they refuse by ValueError, or say what an entry becomes (see `mmu.radix.plan`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mmu.radix.form import Kind, Level
from mmu.radix.plan import Node, Plan

if TYPE_CHECKING:
    from mmu.radix.tables import PageTables


class Edit:
    """An edit of the addresses first..last (inclusive) that refuses nothing and changes nothing."""

    def __init__(self, tables: PageTables, first: int, last: int) -> None:
        self.tables, self.first, self.last = tables, first, last

    def slot(self, level: Level, low: int, whole: bool, entry: int, kind: Kind) -> int | None:
        """The entry for a range that is no table; None: go down (a page is split, a hole gets a table).

        `low` is the first address of the entry, `whole` says that the edit covers all of it.
        """
        return entry

    def enter(self, level: Level, low: int, entry: int) -> None:
        """Called before an existing table is entered."""

    def leave(self, plan: Plan, parent: Node, index: int) -> None:
        """Called when the table at `index` of *parent* has been edited."""

    def where(self, level: Level, low: int) -> str:
        """The part of an entry's addresses that is being edited, for messages."""
        first, last = max(low, self.first), min(low + level.size - 1, self.last)
        return f"{self.tables.show(first)}..{self.tables.show(last)}"

    def wanted(self, level: Level, low: int, entry: int, kind: Kind) -> ValueError:
        return ValueError(f"{self.where(level, low)} must be mapped, but its {level.name} is {entry:#x} ({kind.value})")


class Map(Edit):
    """Map first..last to *pa* and up, by pages of the given sizes."""

    def __init__(
        self, tables: PageTables, first: int, last: int, pa: int, sizes: tuple[int, ...], rights: Mapping[str, int]
    ) -> None:
        super().__init__(tables, first, last)
        self.pa, self.sizes, self.rights = pa, sizes, rights
        # Made at once, so that rights that no page can have are refused before anything is read.
        self._entries = {v.number: self._entry(v) for v in tables.levels if v.leaf is not None and v.size in sizes}

    def _entry(self, level: Level) -> int:
        entry = self.tables.page(level, self.rights)
        if level.kind(entry) is not Kind.LEAF:
            raise ValueError(f"{self.tables.describe(self.rights)} does not make a page that a walker accepts")
        return entry

    def slot(self, level: Level, low: int, whole: bool, entry: int, kind: Kind) -> int | None:
        form, pa = level.leaf, self.pa + low - self.first
        if kind is Kind.HOLE:
            if form is None or not whole or level.size not in self.sizes or pa % level.size:
                return None
            if pa & ~form.reach:
                raise ValueError(f"{pa:#x} does not fit in the address field of a {level.name}")
            return self._entries[level.number] | form.place(pa)
        if kind is Kind.LEAF and form is not None:
            forced = len(self.sizes) == 1 and level.size not in self.sizes
            same = self.tables.same(self.tables.rights(level, entry), self.rights)
            if same and form.target(entry) == pa and not forced:
                return entry
        asked = f"{pa + max(low, self.first) - low:#x} with {self.tables.describe(self.rights)}"
        raise ValueError(
            f"{self.where(level, low)} cannot be mapped to {asked}: "
            f"{self.tables.show(low)} is {self.tables.explain(level, entry)} already"
        )

    def enter(self, level: Level, low: int, entry: int) -> None:
        if len(self.sizes) == 1 and level.size <= self.sizes[0]:
            raise ValueError(
                f"{self.where(level, low)} cannot be one page of {self.sizes[0]:#x} bytes: "
                f"{self.tables.show(low)} is {self.tables.explain(level, entry)} already"
            )


class Unmap(Edit):
    """Remove every page of first..last; tables that are empty then go as well, when they came from `frames`."""

    def slot(self, level: Level, low: int, whole: bool, entry: int, kind: Kind) -> int | None:
        if kind is not Kind.LEAF:
            raise self.wanted(level, low, entry, kind)
        return 0 if whole else None

    def leave(self, plan: Plan, parent: Node, index: int) -> None:
        child = parent.children[index]
        if child.address in self.tables.frames.owned and not any(plan.entries(child)):
            plan.put(parent, index, 0)
            plan.drop.append(child)


class Protect(Edit):
    """Change some rights of every page of first..last."""

    def __init__(self, tables: PageTables, first: int, last: int, changes: Mapping[str, int]) -> None:
        super().__init__(tables, first, last)
        self.changes = changes

    def slot(self, level: Level, low: int, whole: bool, entry: int, kind: Kind) -> int | None:
        if kind is not Kind.LEAF:
            raise self.wanted(level, low, entry, kind)
        rights = self.tables.rights(level, entry)
        changed = self.tables.rewrite(level, entry, self.tables.expand(rights, self.changes))
        return changed if whole or changed == entry else None


class Split(Edit):
    """Split every page of first..last that is larger than `size` bytes."""

    def __init__(self, tables: PageTables, first: int, last: int, size: int) -> None:
        super().__init__(tables, first, last)
        self.size = size

    def slot(self, level: Level, low: int, whole: bool, entry: int, kind: Kind) -> int | None:
        return None if kind is Kind.LEAF and level.size > self.size else entry


class Merge(Edit):
    """Replace tables by pages of up to `size` bytes where they lie in first..last and say the same."""

    def __init__(self, tables: PageTables, first: int, last: int, size: int) -> None:
        super().__init__(tables, first, last)
        self.size = size

    def leave(self, plan: Plan, parent: Node, index: int) -> None:
        level, child = plan.level(parent), parent.children[index]
        low = parent.low + (index << level.shift)
        if level.leaf is None or level.size > self.size or low < self.first or low + level.size - 1 > self.last:
            return
        entry = self._merged(level, plan.level(child), list(plan.entries(child)))
        if entry is not None:
            plan.put(parent, index, entry)
            plan.drop.append(child)

    def _merged(self, level: Level, below: Level, entries: list[int]) -> int | None:
        """The one entry that says what *entries* say together, or None."""
        tables, leaf = self.tables, below.leaf
        if leaf is None or level.leaf is None or any(below.kind(e) is not Kind.LEAF for e in entries):
            return None
        base = leaf.target(entries[0])
        if base % level.size or any(leaf.target(e) != base + i * below.size for i, e in enumerate(entries)):
            return None
        kept = entries[0] & leaf.ignored
        rights = [tables.rights(below, entry) for entry in entries]
        if any(e & leaf.ignored != kept or not tables.same(r, rights[0]) for e, r in zip(entries, rights)):
            return None
        # What hardware noted in one of them (accessed, dirty) must not be lost.
        noted = {name: max(r[name] for r in rights) for name in tables.loose}
        return tables.resize(below, level, entries[0], base, {**rights[0], **noted})
