"""One mmu index of a softmmu TLB: direct-mapped slots, victim entries, and the range that large pages lie in.

The shape is that of TCG's cputlb. A comparator is a page address with flags in its low bits, or NONE; an access to a
page without flags needs one comparison. Two things differ: an entry carries the PCID or ASID that it was filled in, so
that a change of address space need not empty the index, and the view of the bus that it was filled under, so that a
change of the memory map makes it worthless without anybody looking for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntFlag
from typing import TypeGuard

PAGE = 4096
PAGE_MASK = (1 << 64) - PAGE
VICTIMS = 8
ANY = (1 << 64) - 1


class Flag(IntFlag):
    """Low bits of a comparator. One with any of them leaves the fast path."""

    INVALID = 0x800  # never hits
    NOTDIRTY = 0x400  # of stores: the tables grant writes, but must be asked once more (the dirty flag)
    MMIO = 0x200  # no host memory of its own: each access goes over the bus
    DISCARD_WRITE = 0x100  # of stores: ROM, whose bytes are dropped
    WATCHPOINT = 0x80  # of loads and stores: somebody watches a part of the page


HIT = PAGE_MASK | int(Flag.INVALID)  # bits of a comparator that say whether it is the page's
NONE = ANY  # a comparator of a right that is not there: its INVALID bit is set


@dataclass(slots=True)
class Entry:
    """One small page of a linear address space. `space` None: global. `comparators`: READ, WRITE, FETCH."""

    page: int
    pa: int
    comparators: tuple[int, int, int]
    space: int | None
    view: object

    def serves(self, page: int, space: int) -> bool:
        return self.page == page and self.space in (None, space)


def _ours(entry: Entry | None, page: int, space: int, view: object) -> TypeGuard[Entry]:
    return entry is not None and entry.view is view and entry.serves(page, space)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which entries a flush removes, besides their pages. `space` None: of any; it does not cover global entries."""

    space: int | None = None
    global_too: bool = True

    def covers(self, entry: Entry) -> bool:
        if entry.space is None:
            return self.global_too
        return self.space in (None, entry.space)

    @property
    def everything(self) -> bool:
        return self.space is None and self.global_too


class Table:
    """*entries* slots. An entry of another view than the present one counts as nothing."""

    def __init__(self, entries: int) -> None:
        self.mask = entries - 1
        self.slots: list[Entry | None] = [None] * entries
        self.victims: list[Entry | None] = [None] * VICTIMS
        self.turn = 0
        self.dirty = False  # something was filled since the last complete flush
        self.large: tuple[int, int] | None = None  # (address, mask): pages larger than PAGE lie in there

    def index(self, page: int) -> int:
        return page // PAGE & self.mask

    def find(self, page: int, space: int, kind: int, view: object) -> tuple[Entry | None, bool]:
        """(the entry whose comparator of *kind* matches *page*, whether a victim entry had it).

        A victim must match in every bit, so flags keep it from being found; it changes places with the slot.
        """
        index = self.index(page)
        entry = self.slots[index]
        if _ours(entry, page, space, view) and entry.comparators[kind] & HIT == page:
            return entry, False
        for n, victim in enumerate(self.victims):
            if _ours(victim, page, space, view) and victim.comparators[kind] == page:
                self.slots[index], self.victims[n] = victim, entry
                return victim, True
        return None, False

    def fill(self, entry: Entry, space: int, size: int) -> bool:
        """Put *entry*, of a page of *size* bytes, into its slot; whether another one was lost for that."""
        if size > PAGE:
            self._add_large(entry.page, size)
        self.dirty = True
        self.victims = [None if v is not None and v.serves(entry.page, space) else v for v in self.victims]
        index = self.index(entry.page)
        old, self.slots[index] = self.slots[index], entry
        if old is None or old.view is not entry.view or old.serves(entry.page, space):
            return False
        lost = self.victims[self.turn]
        self.victims[self.turn] = old
        self.turn = (self.turn + 1) % VICTIMS
        return lost is not None and lost.view is entry.view

    def _add_large(self, page: int, size: int) -> None:
        """One naturally aligned block around all large pages since the last complete flush."""
        mask = ANY & -size
        address = page
        if self.large is not None:
            address, mask = self.large[0], mask & self.large[1]
            while (address ^ page) & mask:
                mask = mask << 1 & ANY
        self.large = address & mask, mask

    def _meets_large(self, first: int, last: int) -> bool:
        if self.large is None:
            return False
        address, mask = self.large
        return first <= address + (ANY ^ mask) and address <= last

    def flush(self, first: int, last: int, scope: Scope, view: object) -> int:
        """Remove the pages that first..last (inclusive) touches; how many entries that were.

        All pages go when there are more than slots, or when some may belong to a large page.
        """
        pages = range(first & PAGE_MASK, (last & PAGE_MASK) + 1, PAGE)
        if len(pages) > self.mask + 1 or self._meets_large(first, last):
            first, last = 0, ANY
        gone = self._remove(self.slots, first & PAGE_MASK, last, scope, view)
        gone += self._remove(self.victims, first & PAGE_MASK, last, scope, view)
        if (first, last) == (0, ANY) and scope.everything:
            self.dirty, self.large = False, None
        return gone

    def forget(self, page: int, scope: Scope, view: object) -> int:
        """Remove *page* alone, whatever the size of the page that it is a part of."""
        return self._remove(self.slots, page, page, scope, view) + self._remove(self.victims, page, page, scope, view)

    @staticmethod
    def _remove(where: list[Entry | None], first: int, last: int, scope: Scope, view: object) -> int:
        gone = 0
        for n, entry in enumerate(where):
            if entry is not None and first <= entry.page <= last and scope.covers(entry):
                where[n] = None
                gone += entry.view is view
        return gone

    def entries(self, view: object) -> Iterator[tuple[int, Entry]]:
        """(place, entry) of what is of use; victims come after the slots."""
        for n, entry in enumerate((*self.slots, *self.victims)):
            if entry is not None and entry.view is view:
                yield n, entry
