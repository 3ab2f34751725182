"""Translations kept for later: the reference for software TLBs, in plain Python.

The store has the shape of TCG's softmmu TLB, so that a C twin can follow: direct-mapped by page number, a few victim
entries, and an entry for the small page that was touched, whatever the size of the page. What differs is that every
entry carries its tags (PCID or ASID, VMID, global), so that an invalidation removes what the architecture says and
no more. `mmu.tlb.x86` and `mmu.tlb.arm64` say which instruction has which `Scope`.

Entries are complete translations. Paging-structure caches (x86) and walk caches (arm64) are not modelled: a miss
reads the tables from the root.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

from mmu.types import Access, Translation

PAGE_SHIFT = 12
ENTRIES, VICTIMS = 256, 8

KIND = Access.READ | Access.WRITE | Access.FETCH


@dataclass(frozen=True, slots=True)
class Domain:
    """On whose behalf an access is made; entries are found from their own domain, global ones from any `space`.

    `regime`: the translation regime. `space`: PCID or ASID. `vm`: VMID. `context`: all else that the rights of an
    entry depend on (privilege, CR0.WP, PSTATE.PAN, ...): an entry answers for the context that filled it only.
    """

    regime: str
    space: int
    vm: int = 0
    context: Hashable = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One small page. `first` and `size` (bytes) are those of the page that the tables have around it.

    `allowed`: READ, WRITE and FETCH that may be answered without a walk; WRITE is withheld while the page is clean.
    `stage` 2: guest-physical to physical. A combination of both stages counts as stage 1, as invalidations see it.
    """

    page: int
    domain: Domain
    is_global: bool
    first: int
    size: int
    allowed: Access
    answer: Translation
    stage: Literal[1, 2] = 1

    def serves(self, page: int, domain: Domain, stage: int) -> bool:
        mine = self.domain
        return (
            self.page == page
            and (mine.space == domain.space or self.is_global)
            and (mine.regime, mine.vm, mine.context) == (domain.regime, domain.vm, domain.context)
            and self.stage == stage
        )


@dataclass(frozen=True, slots=True)
class Scope:
    """What an invalidation removes: entries for which all of this holds; None means any.

    `space` alone does not cover global entries, which belong to none: `global_too` says whether they go as well.
    `first`..`last` (inclusive): a page goes when any byte of it is in there, however many entries it has.
    """

    regime: str | None = None
    vm: int | None = None
    space: int | None = None
    global_too: bool = True
    first: int = 0
    last: int = (1 << 64) - 1
    stage: int | None = None

    def covers(self, entry: Entry) -> bool:
        if entry.is_global:
            if not self.global_too:
                return False
        elif self.space not in (None, entry.domain.space):
            return False
        return (
            self.regime in (None, entry.domain.regime)
            and self.vm in (None, entry.domain.vm)
            and self.stage in (None, entry.stage)
            and entry.first <= self.last
            and self.first <= entry.first + entry.size - 1
        )


@dataclass(slots=True)
class Stats:
    """Since the beginning. A miss is a lookup without an answer; `denied` are those that an entry was there for."""

    hits: int = 0
    victim_hits: int = 0
    misses: int = 0
    denied: int = 0
    fills: int = 0
    evictions: int = 0
    invalidations: int = 0
    invalidated: int = 0


class Tlb:
    """*entries* slots (a power of two) and *victims* further entries for what a fill pushes out of its slot."""

    def __init__(self, entries: int = ENTRIES, victims: int = VICTIMS, page_shift: int = PAGE_SHIFT) -> None:
        if entries < 1 or entries & (entries - 1):
            raise ValueError(f"entries must be a power of two, not {entries}")
        if victims < 1:
            raise ValueError(f"victims must be at least 1, not {victims}")
        self.page_shift = page_shift
        self.stats = Stats()
        self._slots: list[Entry | None] = [None] * entries
        self._victims: list[Entry | None] = [None] * victims
        self._turn = 0

    def entries(self) -> list[Entry]:
        """What is kept, slots first."""
        return [entry for entry in (*self._slots, *self._victims) if entry is not None]

    def __len__(self) -> int:
        return len(self.entries())

    def find(self, va: int, domain: Domain, stage: int = 1) -> Entry | None:
        """The entry that serves *va*, whatever it allows. A victim goes back to its slot."""
        page = va >> self.page_shift
        index = page & (len(self._slots) - 1)
        slot = self._slots[index]
        if slot is not None and slot.serves(page, domain, stage):
            return slot
        for n, victim in enumerate(self._victims):
            if victim is not None and victim.serves(page, domain, stage):
                self._slots[index], self._victims[n] = victim, slot
                self.stats.victim_hits += 1
                return victim
        return None

    def lookup(self, va: int, access: Access, domain: Domain, stage: int = 1) -> Translation | None:
        """The translation of *va* for READ, WRITE or FETCH, or None: then the tables must be walked."""
        entry = self.find(va, domain, stage)
        if entry is None or not access & KIND & entry.allowed:
            self.stats.misses += 1
            self.stats.denied += entry is not None
            return None
        self.stats.hits += 1
        known, inside = entry.answer, va & ((1 << self.page_shift) - 1)
        return Translation(
            known.pa | inside, known.page_size, known.writable, known.user, known.executable, known.attributes)

    def fill(
        self,
        va: int,
        answer: Translation,
        allowed: Access,
        domain: Domain,
        *,
        is_global: bool = False,
        stage: Literal[1, 2] = 1,
    ) -> None:
        """Keep what a walk of *va* answered; it takes the place of an entry that serves the same accesses."""
        page, inside = va >> self.page_shift, (1 << self.page_shift) - 1
        size = max(answer.page_size, 1 << self.page_shift)
        base = Translation(
            answer.pa & ~inside, answer.page_size, answer.writable, answer.user, answer.executable, answer.attributes)
        entry = Entry(page, domain, is_global, va & -size, size, allowed, base, stage)
        self._victims = [None if v is not None and v.serves(page, domain, stage) else v for v in self._victims]
        index = page & (len(self._slots) - 1)
        old = self._slots[index]
        if old is not None and not old.serves(page, domain, stage):
            self._retire(old)
        self._slots[index] = entry
        self.stats.fills += 1

    def invalidate(self, scope: Scope) -> int:
        """Remove what *scope* covers; how many entries that were."""
        before = len(self)
        self._slots = [None if e is not None and scope.covers(e) else e for e in self._slots]
        self._victims = [None if e is not None and scope.covers(e) else e for e in self._victims]
        self.stats.invalidations += 1
        self.stats.invalidated += before - len(self)
        return before - len(self)

    def _retire(self, entry: Entry) -> None:
        self.stats.evictions += self._victims[self._turn] is not None
        self._victims[self._turn] = entry
        self._turn = (self._turn + 1) % len(self._victims)
