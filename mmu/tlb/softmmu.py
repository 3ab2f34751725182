"""The reference of `mmu.SoftMmu`: virtual accesses through a TLB in TCG's manner, in plain Python.

csrc/tlb*.c does the same faster: the same answers, hits, victims, walks and bus accesses, in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmu.tlb.cpu import Cpu, Registers, cpu_of
from mmu.tlb.table import ANY, NONE, PAGE, PAGE_MASK, Entry, Flag, Scope, Table
from mmu.types import Access, Fault, FaultKind, MemTxResult

if TYPE_CHECKING:
    from mmu.memory import AddressSpace
    from mmu.memory.flatview import FlatView

INDEXES = 16
ENTRIES = (64, 1 << 20)
WATCHPOINTS, WATCHED = 8, 256  # ranges at a time; hits kept
PLAIN, BUS = Flag(0), Flag.MMIO
ORDER = {Access.READ: 0, Access.WRITE: 1, Access.FETCH: 2}  # of comparators


@dataclass(slots=True)
class Stats:
    """Since the beginning.

    A lookup is a `hit` (of those, `victim_hits` were found among the victims) or a `miss`, which walks the tables.
    `upgrades`: misses of stores to a page that was there, but not dirty. `fills`: walks whose answer was kept.
    `faults`: walks that failed. `evictions`: entries lost to a fill. `flushes`: as asked for, or as a change of
    registers demands; `elided`: indexes that had nothing to flush. `flushed`: entries removed.
    `bus`: pieces (of at most 8 bytes) of pages without host memory. `discarded`: bytes stored to ROM.
    `bus_errors`: pieces that the bus refused. `watched`: accesses to what is watched.
    """

    hits: int = 0
    victim_hits: int = 0
    misses: int = 0
    upgrades: int = 0
    fills: int = 0
    faults: int = 0
    evictions: int = 0
    flushes: int = 0
    elided: int = 0
    flushed: int = 0
    bus: int = 0
    discarded: int = 0
    bus_errors: int = 0
    watched: int = 0


@dataclass(frozen=True, slots=True)
class Watched:
    """An access, or the part of it in one page, that touched a watched byte."""

    va: int
    size: int
    access: Access


@dataclass(frozen=True, slots=True)
class Kept:
    """What one entry holds. `place`: its slot, or entries + its number among the victims. `space` None: global.

    `read`, `write`, `fetch`: the flags of the comparators, None where there is no right.
    """

    index: int
    place: int
    page: int
    pa: int
    space: int | None
    read: Flag | None
    write: Flag | None
    fetch: Flag | None


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of an access in one page, translated. `view`: under which `flags` were made."""

    va: int
    pa: int
    size: int
    flags: Flag
    view: object


def pieces(address: int, size: int) -> Iterator[tuple[int, int]]:
    """(offset, size) of naturally aligned pieces of at most 8 bytes, each the largest that fits at its address."""
    done = 0
    while done < size:
        at = address + done | 8
        n = at & -at
        while n > size - done:
            n //= 2
        yield done, n
        done += n


def page_flags(view: FlatView, pa: int) -> tuple[Flag, Flag, Flag]:
    """Flags of loads, stores and fetches by what answers at the page that begins at *pa*: host memory only where it is
    there for all of the page.

    A flash chip that is readable is memory to loads, and sees what is stored.
    """
    from mmu.memory import Ram, Rom, RomDevice

    found = view.find(pa)
    if found is None or found.last < pa + PAGE - 1:
        return BUS, BUS, BUS
    if isinstance(found.region, RomDevice) and found.region.readable:
        return PLAIN, BUS, PLAIN
    if isinstance(found.region, Rom):
        return PLAIN, Flag.DISCARD_WRITE, PLAIN
    return (PLAIN, PLAIN, PLAIN) if isinstance(found.region, Ram) else (BUS, BUS, BUS)


def check_entries(entries: int) -> None:
    if not ENTRIES[0] <= entries <= ENTRIES[1] or entries & (entries - 1):
        raise ValueError(f"entries must be a power of two in {ENTRIES[0]}..{ENTRIES[1]}, not {entries}")


class SoftMmu:
    """See `mmu.SoftMmu`."""

    def __init__(self, space: AddressSpace, regs: Registers, entries: int = 256) -> None:
        check_entries(entries)
        self.space, self._entries = space, entries
        self.stats = Stats()
        self._keys: list[object] = []  # of the indexes in use, by number
        self._tables: list[Table] = []
        self._turns: list[int] = []  # when each index was last selected
        self._changes = 0  # of registers and by flushes: a walk during which it grows is not kept
        self._watches: list[tuple[int, int, Access]] = []
        self._watched: list[Watched] = []
        self._cpu: Cpu = cpu_of(regs)
        self._select()

    # -- registers ----------------------------------------------------------------------------------

    @property
    def index(self) -> int:
        return self._index

    def set_registers(self, regs: Registers) -> None:
        old, new = self._cpu, cpu_of(regs)
        if type(old) is not type(new):
            raise TypeError(f"regs must be of the same architecture as before, not {regs!r}")
        for flush in new.flushes(old):  # type: ignore[arg-type]
            self._flush(range(len(self._tables)), 0, ANY, Scope(flush.space, flush.global_too))
        self._cpu = new
        self._select()

    def _select(self) -> None:
        """The index of this context: the one it has, a new one, or the one that was selected longest ago."""
        self._changes += 1
        key = self._cpu.key
        if key in self._keys:
            self._index = self._keys.index(key)
        elif len(self._keys) < INDEXES:
            self._index = len(self._keys)
            self._keys.append(key)
            self._tables.append(Table(self._entries))
            self._turns.append(0)
        else:
            self._index = min(range(INDEXES), key=self._turns.__getitem__)
            self.stats.flushed += self._tables[self._index].flush(0, ANY, Scope(), self.space.view)
            self._keys[self._index] = key
            self._tables[self._index].turn = 0
        self._turns[self._index] = self._changes

    # -- flushes ------------------------------------------------------------------------------------

    def flush(
        self, va: int | None = None, size: int | None = None, *, index: int | None = None, space: int | None = None,
        global_too: bool = True,
    ) -> int:  # fmt: skip
        check_scope(index, space)
        first, last = flush_range(va, size)
        if va is not None:
            at = self._cpu.flush_address(va)
            first, last = at, min(at + last - first, ANY)
        indexes = [n for n in range(len(self._tables)) if index in (None, n)]
        return self._flush(indexes, first, last, Scope(space, global_too))

    def _flush(self, indexes: Iterable[int], first: int, last: int, scope: Scope) -> int:
        self._changes += 1
        self.stats.flushes += 1
        gone = 0
        for n in indexes:
            if self._tables[n].dirty:
                gone += self._tables[n].flush(first, last, scope, self.space.view)
            else:
                self.stats.elided += 1
        self.stats.flushed += gone
        return gone

    # -- watchpoints --------------------------------------------------------------------------------

    def watch(self, va: int, size: int, access: Access = Access.READ | Access.WRITE) -> None:
        first, last = watch_range(va, size, access)
        if len(self._watches) == WATCHPOINTS:
            raise ValueError(f"at most {WATCHPOINTS} ranges can be watched")
        self._watches.append((first, last, access))
        self._flush(range(len(self._tables)), first, last, Scope())

    def unwatch(self, va: int, size: int, access: Access = Access.READ | Access.WRITE) -> None:
        first, last = watch_range(va, size, access)
        if (first, last, access) not in self._watches:
            raise ValueError(f"{va:#x}+{size:#x} is not watched for {access!r}")
        self._watches.remove((first, last, access))
        self._flush(range(len(self._tables)), first, last, Scope())

    def watched(self) -> list[Watched]:
        found, self._watched = self._watched, []
        return found

    def _is_watched(self, first: int, last: int, access: Access) -> bool:
        return any(access & kinds and first <= end and start <= last for start, end, kinds in self._watches)

    # -- translation --------------------------------------------------------------------------------

    def _part(self, va: int, size: int, access: Access) -> Part | Fault:
        """The bytes va..va+size-1, all in one page."""
        kind, table, view = ORDER[access], self._tables[self._index], self.space.view
        address = self._cpu.linear(va, access)
        page = address & PAGE_MASK
        entry, was_victim = table.find(page, self._cpu.space, kind, view)
        if entry is not None and entry.comparators[kind] & Flag.NOTDIRTY:
            self.stats.upgrades += 1
            entry = None
        if entry is None:
            self.stats.misses += 1
            found = self._fill(va, address, access)
            if isinstance(found, Fault):
                return found
            entry = found
        else:
            self.stats.hits += 1
            self.stats.victim_hits += was_victim
        flags = Flag(entry.comparators[kind] & ~PAGE_MASK)
        if flags & Flag.WATCHPOINT and self._is_watched(address, address + size - 1, access):
            self.stats.watched += 1
            if len(self._watched) < WATCHED:
                self._watched.append(Watched(va, size, access))
        return Part(va, entry.pa | va % PAGE, size, flags, entry.view)

    def _fill(self, va: int, address: int, access: Access) -> Entry | Fault:
        """Walks; the entry is kept unless registers, a flush or the memory map came in between."""
        cpu, table, view, changes = self._cpu, self._tables[self._index], self.space.view, self._changes
        found = cpu.walk(self.space, va, access)
        if isinstance(found, Fault):
            self.stats.faults += 1
            if cpu.faults_invalidate:
                self._forget(address, cpu)
            return found
        page, now = address & PAGE_MASK, self.space.view
        comparators = self._comparators(page, found.pa & PAGE_MASK, found.allowed | access, found.writable)
        space = None if found.is_global else cpu.space
        entry = Entry(page, found.pa & PAGE_MASK, comparators, space, now)
        if (view, changes) == (now, self._changes):
            self.stats.fills += 1
            self.stats.evictions += table.fill(entry, cpu.space, found.size)
        return entry

    def _forget(self, address: int, cpu: Cpu) -> None:
        """A page fault removes what is kept of the page: a retry after the tables were mended needs no INVLPG.

        Of a large page only the part that faulted goes: what was denied elsewhere in it is walked for anyway.
        """
        for table in self._tables:
            if table.dirty:
                self.stats.flushed += table.forget(address & PAGE_MASK, Scope(cpu.space), self.space.view)

    def _comparators(self, page: int, pa: int, allowed: Access, writable: bool) -> tuple[int, int, int]:
        out: list[int] = []
        for access, kind in zip(ORDER, page_flags(self.space.view, pa)):
            flags = kind
            if access is not Access.FETCH and self._is_watched(page, page + PAGE - 1, access):
                flags |= Flag.WATCHPOINT
            if access & allowed:
                out.append(page | flags)
            elif access is Access.WRITE and writable:
                out.append(page | flags | Flag.NOTDIRTY)
            else:
                out.append(NONE)
        return out[0], out[1], out[2]

    # -- accesses -----------------------------------------------------------------------------------

    def read(self, va: int, size: int, access: Access = Access.READ) -> bytes | Fault:
        parts = self._translate(va, size, access)
        if isinstance(parts, Fault):
            return parts
        data = bytearray()
        for part in parts:
            for done, n in pieces(part.pa, part.size):
                self._count(part)
                value, result = self.space.load(part.pa + done, n)
                if fault := self._bus_error(result, part.va + done, access):
                    return fault
                data += value.to_bytes(n, "little")
        return bytes(data)

    def write(self, va: int, data: bytes) -> Fault | None:
        parts = self._translate(va, len(data), Access.WRITE)
        if isinstance(parts, Fault):
            return parts
        at = 0
        for part in parts:
            here, at = data[at : at + part.size], at + part.size
            if part.flags & Flag.DISCARD_WRITE and part.view is self.space.view:
                self.stats.discarded += part.size
                continue
            for done, n in pieces(part.pa, part.size):
                self._count(part)
                result = self.space.store(part.pa + done, n, int.from_bytes(here[done : done + n], "little"))
                if fault := self._bus_error(result, part.va + done, Access.WRITE):
                    return fault
        return None

    def fetch(self, va: int, size: int) -> bytes | Fault:
        return self.read(va, size, Access.FETCH)

    def _translate(self, va: int, size: int, access: Access) -> list[Part] | Fault:
        """The parts of va..va+size-1 page by page: all are translated before any byte is touched."""
        check_range(va, size)
        parts, done = [], 0
        while done < size:
            at = va + done & ANY
            part = self._part(at, min(PAGE - at % PAGE, size - done), access)
            if isinstance(part, Fault):
                return part
            parts.append(part)
            done += part.size
        return parts

    def _count(self, part: Part) -> None:
        self.stats.bus += bool(part.flags & Flag.MMIO)

    def _bus_error(self, result: MemTxResult, va: int, access: Access) -> Fault | None:
        """x86 has no such exception, unless bus errors are machine checks; arm64 has an external abort."""
        if not result:
            return None
        self.stats.bus_errors += 1
        if not self._cpu.bus_error_faults:
            return None
        return Fault(FaultKind.BUS, None, va, access, detail={"result": result})

    # -- what is there ------------------------------------------------------------------------------

    def entries(self) -> list[Kept]:
        return [
            Kept(n, place, e.page, e.pa, e.space, *(None if c == NONE else Flag(c & ~PAGE_MASK) for c in e.comparators))
            for n, table in enumerate(self._tables)
            for place, e in table.entries(self.space.view)
        ]



def check_range(va: int, size: int) -> None:
    if not 0 <= va <= ANY:
        raise ValueError(f"va must be in 0..{ANY:#x}, not {va:#x}")
    if size < 0:
        raise ValueError(f"size must be at least 0, not {size}")


def flush_range(va: int | None, size: int | None) -> tuple[int, int]:
    """First and last address (inclusive) of what a flush is about; raises ValueError for a range that is none."""
    if va is None:
        if size is not None:
            raise ValueError(f"a size ({size:#x}) goes with an address")
        return 0, ANY
    check_range(va, 0)
    if size is None:
        return va, va
    if size < 1:
        raise ValueError(f"size must be at least 1, not {size}")
    return va, min(va + size - 1, ANY)


def check_scope(index: int | None, space: int | None) -> None:
    if index is not None and not 0 <= index < INDEXES:
        raise ValueError(f"index must be in 0..{INDEXES - 1}, not {index}")
    if space is not None and not 0 <= space <= 0xFFFF:
        raise ValueError(f"space must be a PCID or ASID in 0..0xffff, not {space:#x}")


def watch_range(va: int, size: int, access: Access) -> tuple[int, int]:
    if not access or access & ~(Access.READ | Access.WRITE):
        raise ValueError(f"what is watched must be READ, WRITE or both, not {access!r}")
    return flush_range(va, size)
