"""The translations that generated code uses: one table for each index, in TCG's manner.

As QEMU has them: no entry is tagged with an address space, so what changes the space flushes all. A page without a host
address has entries too, whose flags send every access over the slow path. Tables and flags: `mmu.tlb.table`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from mmu.tcg.memory import Memory
from mmu.tlb.cpu import Found
from mmu.tlb.table import ANY, NONE, PAGE_MASK, Entry, Scope, Table
from mmu.types import Access

READ, WRITE, FETCH = int(Access.READ), int(Access.WRITE), int(Access.FETCH)
ORDER = (0, 0, 1, 0, 2)  # of comparators, by READ, WRITE or FETCH
EVERYTHING = Scope()


class SoftTlb:
    """*flushed*(page or None) is told of each flush: what else depends on translations goes with them."""

    def __init__(self, memory: Memory, entries: int, flushed: Callable[[int | None], None]) -> None:
        self.memory, self._entries, self._flushed = memory, entries, flushed
        self._tables: dict[Hashable, Table] = {}

    def find(self, index: Hashable, page: int, kind: int) -> Entry | None:
        """The entry whose comparator of *kind* is that of the page, among slots or victims."""
        table = self._tables.get(index)
        return None if table is None else table.find(page, 0, kind, self.memory.view)[0]

    def fill(self, index: Hashable, page: int, found: Found) -> Entry:
        table = self._tables.get(index)
        if table is None:
            table = self._tables[index] = Table(self._entries)
        pa = found.pa & PAGE_MASK
        entry = Entry(page, pa, comparators(page, int(found.allowed), self.memory.flags(pa)), None, self.memory.view)
        table.fill(entry, 0, found.size)
        return entry

    def flush(self) -> None:
        for table in self._tables.values():
            if table.dirty:
                table.flush(0, ANY, EVERYTHING, self.memory.view)
                table.turn = 0
        self._flushed(None)

    def flush_page(self, va: int) -> None:
        """All of an index where the page may be part of a large one."""
        for table in self._tables.values():
            if table.dirty:
                table.flush(va, va, EVERYTHING, self.memory.view)
        self._flushed(va & PAGE_MASK)


def comparators(page: int, allowed: int, flags: tuple[int, int, int]) -> tuple[int, int, int]:
    """For loads, stores and fetches of a page whose memory has *flags* (`Memory.flags`)."""
    read, write, fetch = flags
    return (
        page | read if allowed & READ else NONE,
        page | write if allowed & WRITE else NONE,
        page | fetch if allowed & FETCH else NONE,
    )
