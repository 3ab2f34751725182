"""A CPU's accesses: translated by its TLB, cut into pieces, and made under the lock where a device answers.

Source: QEMU, accel/tcg/cputlb.c (mmu_lookup, io_prepare, int_ld_mmio_beN, int_st_mmio_leN, atomic_mmu_lookup).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from mmu.tcg.locks import Locks
from mmu.tcg.memory import DISCARD_WRITE, MMIO, Memory
from mmu.tcg.signals import AtomicRequest, GuestFault, RecompileRequest
from mmu.tcg.softmmu import FETCH, ORDER, READ, WRITE, SoftTlb
from mmu.tcg.stops import EmulatorAbort, HostSegv
from mmu.tcg.switches import Switches
from mmu.tcg.trace import Recorder, Tag
from mmu.tlb.cpu import Found
from mmu.tlb.softmmu import pieces
from mmu.tlb.table import NONE, PAGE, PAGE_MASK, Entry, Flag
from mmu.types import Fault, MemTxResult

if TYPE_CHECKING:
    from mmu.memory import AddressSpace
    from mmu.memory.space import Port

NATURAL = (1, 2, 4, 8)  # sizes of a dispatch
INLINE = int(Flag.NOTDIRTY | Flag.INVALID)  # the flags that are left in a comparator since others moved


def cut(va: int, size: int) -> Iterator[tuple[int, int]]:
    """(offset, size) of the dispatches for *size* bytes, at most 16: aligned pieces of what is more than 8, then of 8.

    Source: QEMU, accel/tcg/cputlb.c (do_ld16_mmio_beN, do_st16_mmio_leN).
    """
    first = max(size - 8, 0)
    yield from pieces(va, first)
    yield from ((first + done, n) for done, n in pieces(va + first, size - first))


class HostPc(NamedTuple):
    """A place in generated code, by a made-up host address. `registered`: its block can be found by it."""

    address: int
    registered: bool


class Mmu:
    """What a CPU knows of translation. Architectures derive from it. Kinds of access are those of `mmu.types.Access`,
    as plain numbers."""

    ignores_bus_errors = True

    def index(self, access: int) -> Hashable:
        """The mmu index of an access with the present registers."""
        raise NotImplementedError

    def walk(self, accesses: Accesses, va: int, access: int, ra: HostPc | None) -> Found | Fault:
        raise NotImplementedError

    def bus_fault(self, va: int, access: int, result: MemTxResult) -> Fault:
        """The external abort of an access that the bus refused."""
        raise NotImplementedError


class Accesses:
    """`can_do_io`: whether I/O is allowed at this place in generated code; true outside.

    `walking`: (level, physical address) of the entry that a walk is at. `touched`: physical address of the data that
    an access is at. Both tell where the emulator was when it ended. *stored*(pa, size) is told of stores to memory
    with a host address.
    """

    def __init__(
        self, space: AddressSpace, ports: dict[Tag, Port], switches: Switches, mmu: Mmu, trace: Recorder,
        flushed: Callable[[int | None], None], stored: Callable[[int, int], None],
    ) -> None:  # fmt: skip
        self.switches, self.mmu, self.trace = switches, mmu, trace
        self.memory = Memory(space, ports, trace, switches.io_must_be_last)
        self.locks = Locks(switches, trace)
        self.tlb = SoftTlb(self.memory, switches.tlb_entries, switches.tlb_window, flushed)
        self._stored = stored
        self.can_do_io = True
        self.walking: tuple[int, int] | None = None
        self.touched: int | None = None
        self.walks = 0
        self.asked = False  # a device, since somebody last looked

    def take_over(self) -> None:
        """See the memory map as it is now."""
        self.memory.take_over()
        self.tlb.flush()

    # -- translation --------------------------------------------------------------------------------

    def entry(self, va: int, access: int, ra: HostPc | None) -> Entry:
        """The TLB entry of the page of *va*, filled if need be. Raises GuestFault."""
        index, page = self.mmu.index(access), va & PAGE_MASK
        entry = self.tlb.find(index, page, ORDER[access & 7])
        if entry is None:
            self.walks += 1
            found = self.mmu.walk(self, va, access, ra)
            if isinstance(found, Fault):
                raise GuestFault(found)
            entry = self.tlb.fill(index, page, found)
        return entry

    def parts(self, va: int, size: int, access: int, ra: HostPc | None) -> list[tuple[int, Entry, int]]:
        """(address, entry, bytes) page by page: all are translated before any byte is touched."""
        room = PAGE - va % PAGE
        first = self.entry(va, access, ra)
        if size <= room:
            return [(va, first, size)]
        at = va + room & (1 << 64) - 1
        return [(va, first, room), (at, self.entry(at, access, ra), size - room)]

    # -- data ---------------------------------------------------------------------------------------

    def load(self, va: int, size: int, access: int, ra: HostPc | None, tag: Tag = "data") -> bytes:
        """Raises GuestFault, RecompileRequest, EmulatorStop."""
        out, kind = b"", ORDER[access & 7]
        parts = self.parts(va, size, access, ra)
        if self._around(va, size, kind, parts):
            low = va & -size
            both = self.load(low, size, access, ra, tag) + self.load(low + size, size, access, ra, tag)
            return both[va - low : va - low + size]
        for at, entry, n in parts:
            pa = entry.pa | at % PAGE
            if entry.comparators[kind] & MMIO:
                out += self._pieces(at, pa, n, None, access, ra, tag)
            else:
                out += self.memory.read(pa, n)
        return out

    def store(self, va: int, size: int, value: int, access: int, ra: HostPc | None) -> None:
        data = value.to_bytes(size, "little")
        parts = self.parts(va, size, access, ra)
        if self._around(va, size, ORDER[WRITE], parts):
            for done, byte in enumerate(data):
                self.store(va + done, 1, byte, access, ra)
            return
        for at, entry, n in parts:
            pa, here, data = entry.pa | at % PAGE, data[:n], data[n:]
            flags = entry.comparators[1]
            if flags & MMIO:
                self._pieces(at, pa, n, int.from_bytes(here, "little"), access, ra, "data")
            elif not flags & DISCARD_WRITE:
                self.memory.write(pa, here)
                self._stored(pa, n)

    def _around(self, va: int, size: int, kind: int, parts: list[tuple[int, Entry, int]]) -> bool:
        """Is an unaligned access made of aligned ones around it, or of bytes?"""
        if not self.switches.io_around or not va % size:
            return False
        return any(entry.comparators[kind] & MMIO for _, entry, _ in parts)

    def fetch(self, va: int, size: int, entry: Entry) -> bytes:
        """As `load` for a translator, of bytes in the page of *entry*, which is device memory."""
        if self.switches.io_around:
            return self.load(va, size, FETCH, None, "fetch")
        return self._pieces(va, entry.pa | va % PAGE, size, None, FETCH, None, "fetch")

    def _dispatch(self, pa: int, size: int, value: int | None, tag: Tag) -> tuple[int, int]:
        """One access of a device, which may change the memory map."""
        found = self.memory.dispatch(pa, size, value, tag)
        self.see_changes()
        return found

    def see_changes(self) -> None:
        """After a device was asked: take over a change of the memory map, and let the main loop look."""
        self.asked = True
        memory = self.memory
        if memory.view is not memory.space.view and not memory.defers:
            self.take_over()

    def _pieces(
        self, va: int, pa: int, size: int, value: int | None, access: int, ra: HostPc | None, tag: Tag
    ) -> bytes:
        """An access to a region without host memory, by its naturally aligned pieces, under one lock."""
        self.touched = pa
        self._prepare(ra)
        out = b""
        with self.locks.for_access():
            for done, n in ((0, size),) if size in NATURAL and not va % size else cut(va, size):
                piece = None if value is None else value >> 8 * done & (1 << 8 * n) - 1
                got, result = self._dispatch(pa + done, n, piece, tag)
                if result and not self.mmu.ignores_bus_errors:
                    raise GuestFault(self.mmu.bus_fault(va + done, access, MemTxResult(result)))
                out += got.to_bytes(n, "little")
        self.touched = None
        return out

    def dispatch(self, pa: int, size: int, value: int | None, ra: HostPc | None, tag: Tag) -> int:
        """An aligned access of the walker to a region without host memory, by a helper of generated code."""
        self._prepare(ra)
        with self.locks.for_access():
            return self._dispatch(pa, size, value, tag)[0]

    def _prepare(self, ra: HostPc | None) -> None:
        """I/O in mid-block: go back to the main loop, which runs the instruction alone."""
        if self.can_do_io:
            return
        if ra is None or not ra.registered:
            raise EmulatorAbort("io_recompile", detail="(nil)" if ra is None else f"{ra.address:#x}")
        raise RecompileRequest

    # -- atomics ------------------------------------------------------------------------------------

    def atomic(self, va: int, size: int, ra: HostPc | None) -> None:
        """Before a read-modify-write while other CPUs run: it needs one host address, and is refused otherwise.

        Raises AtomicRequest for what is misaligned or has no host address.
        """
        entry = self.entry(va, WRITE, ra)
        if entry.comparators[0] == NONE:
            entry = self.entry(va, READ, ra)
        if va % size:
            raise AtomicRequest
        flags = (entry.comparators[0] | entry.comparators[1]) & ~PAGE_MASK
        if self.switches.atomic_flags:
            flags &= INLINE
        if flags & (MMIO | DISCARD_WRITE):
            raise AtomicRequest
        pa = entry.pa | va % PAGE
        if self.memory.dispatches(pa):  # the address that a page without host memory has is its offset
            self.touched = pa
            raise HostSegv(va % PAGE)
