"""The translations that generated code uses: one table for each index, in TCG's manner.

As QEMU has them: no entry is tagged with an address space, so what changes the space flushes all. A page without a host
address has entries too, whose flags send every access over the slow path. Tables and flags: `mmu.tlb.table`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from mmu.tcg.memory import Memory
from mmu.tlb.cpu import Found
from mmu.tlb.table import NONE, PAGE_MASK, Entry, Scope, Table
from mmu.types import Access

READ, WRITE, FETCH = int(Access.READ), int(Access.WRITE), int(Access.FETCH)
ORDER = (0, 0, 1, 0, 2)  # of comparators, by READ, WRITE or FETCH
EVERYTHING = Scope()
DOUBLE_ABOVE, SHRINK_BELOW = 70, 30  # percent in use
LEAST, MOST = 1 << 6, 1 << 22  # entries


class Sizing:
    """How large one index is, by how much of it was used. Asked at each flush, whose table is empty then.

    Source: QEMU, accel/tcg/cputlb.c (tlb_mmu_resize_locked).
    """

    def __init__(self, entries: int, window: int) -> None:
        """*window*: instructions after which it may shrink; 0: *entries* for ever."""
        self.entries, self._window = entries, window
        self._began, self._most = 0, 0

    def flushed(self, used: int, now: int) -> int:
        """How many entries the table has from now on; *used* of the old ones were, after *now* instructions."""
        if not self._window:
            return self.entries
        expired = now > self._began + self._window
        self._most = max(self._most, used)
        rate, size = self._most * 100 // self.entries, self.entries
        if rate > DOUBLE_ABOVE:
            size = min(size * 2, MOST)
        elif rate < SHRINK_BELOW and expired:
            size = 1 << max(self._most - 1, 0).bit_length()
            size = max(LEAST, size * 2 if self._most * 100 // size > DOUBLE_ABOVE else size)
        if size != self.entries or expired:
            self._began, self._most = now, used if size == self.entries else 0
        self.entries = size
        return size


class SoftTlb:
    """*flushed*(page or None) is told of each flush: what else depends on translations goes with them.

    *window*: see `Sizing`; `now` is to be kept at how many instructions have run.
    """

    def __init__(self, memory: Memory, entries: int, window: int, flushed: Callable[[int | None], None]) -> None:
        self.memory, self._entries, self._window, self._flushed = memory, entries, window, flushed
        self._tables: dict[Hashable, Table] = {}
        self._sizes: dict[Hashable, Sizing] = {}
        self.now: Callable[[], int] = lambda: 0

    def find(self, index: Hashable, page: int, kind: int) -> Entry | None:
        """The entry whose comparator of *kind* is that of the page, among slots or victims."""
        table = self._tables.get(index)
        return None if table is None else table.find(page, 0, kind, self.memory.view)[0]

    def fill(self, index: Hashable, page: int, found: Found) -> Entry:
        table = self._tables.get(index)
        if table is None:
            table = self._tables[index] = Table(self._entries)
            self._sizes[index] = Sizing(self._entries, self._window)
        pa = found.pa & PAGE_MASK
        entry = Entry(page, pa, comparators(page, int(found.allowed), self.memory.flags(pa)), None, self.memory.view)
        table.fill(entry, 0, found.size)
        return entry

    def flush(self) -> None:
        for index, table in self._tables.items():
            if table.dirty:
                used = sum(entry is not None for entry in table.slots)
                self._tables[index] = Table(self._sizes[index].flushed(used, self.now()))
        self._flushed(None)

    def forget(self) -> None:
        """As at the start of the emulator."""
        self._tables.clear()
        self._sizes.clear()
        self._flushed(None)

    def sizes(self) -> dict[Hashable, int]:
        """Entries of each index."""
        return {index: sizing.entries for index, sizing in self._sizes.items()}

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
