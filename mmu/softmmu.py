"""Virtual accesses through a TLB in C: what a translating emulator's memory accesses go through."""

from __future__ import annotations

from dataclasses import fields, replace
from threading import RLock
from typing import TYPE_CHECKING, Any

from mmu.arm64 import native as arm64_native
from mmu.arm64 import registers as arm64_registers
from mmu.core import check, ffi, lib
from mmu.tlb.softmmu import (
    WATCHPOINTS,
    Kept,
    Stats,
    Watched,
    check_entries,
    check_range,
    check_scope,
    flush_range,
    watch_range,
)
from mmu.tlb.table import NONE, PAGE, PAGE_MASK, Flag
from mmu.types import Access, Fault, FaultKind, MemTxResult
from mmu.x86 import native as x86_native
from mmu.x86 import registers as x86_registers
from mmu.x86.format import Cr3

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from mmu.memory import AddressSpace

Registers = x86_registers.Registers | arm64_registers.Registers
_FAULTED, _tlb_read = lib.MMU_FAULTED, lib.mmu_tlb_read
_READ, _FETCH = lib.MMU_ACCESS_READ, lib.MMU_ACCESS_FETCH
_INDEXES, _VICTIMS = lib.MMU_TLB_INDEXES, lib.MMU_TLB_VICTIMS
_SIZES = (1, 2, 4, 8)


class _Scratch:
    """Memory that a call of C works in. Kept in a pool: a device may make a call while another one waits for it."""

    __slots__ = ("data", "fault", "parts")

    def __init__(self) -> None:
        self.data = ffi.new("uint8_t[]", PAGE)
        self.fault = ffi.new("struct mmu_tlb_fault *")
        self.parts = ffi.new("struct mmu_tlb_part[]", 2)


_pool: list[_Scratch] = []  # list.pop and list.append are atomic, so threads never share one


def _scratch() -> _Scratch:
    try:
        return _pool.pop()
    except IndexError:
        return _Scratch()


def _room(size: int) -> tuple[Any, Any, int]:
    """(bytes, parts, how many parts) for an access of *size* bytes, which scratch memory is too small for."""
    count = size // PAGE + 2
    return ffi.new("uint8_t[]", size), ffi.new("struct mmu_tlb_part[]", count), count


class SoftMmu:
    """
    Reads, writes and fetches at virtual addresses of *space*, through a TLB in the manner of QEMU's TCG.

    Args:
        regs: x86.Registers or arm64.Registers. Accesses are made with their privilege.
        entries: of each mmu index: a power of two, 64 .. 2^20. It never changes.

    **Indexes.** An mmu index stands for a context: all registers that a translation depends on but the table bases.
    There are 16, made as contexts come; the one that was selected longest ago is emptied for a 17th. Entries carry the
    PCID or ASID, global pages none, so that a change of address space need not empty anything.

    **Entries** are direct-mapped, with 8 victims per index. RAM is accessed where the host has it. Everything else
    (devices, interleaved windows, pages that RAM only covers in part) is kept as well, but each piece of an access
    goes over the bus and is counted there. Stores to ROM are dropped. An entry is worth nothing once the memory map or
    a route has changed, and a first store to a clean page walks the tables again, so that they mark it dirty.

    **Accesses** are cut into naturally aligned pieces of at most 8 bytes, each the largest that fits at its address.
    Every page is translated before any byte is touched. A guest's fault is a value, as of `x86.walk`, without steps;
    `va` is where the page at fault begins to be accessed. A bus error of the access itself is a Fault BUS with level
    None on arm64 (an external abort), and on x86 with `bus_error="machine-check"`; otherwise it is counted, and what
    nobody answered reads as 0.

    One thread at a time is let in; a device that is called may use the object again. While an access runs, the GIL is
    free. The specification is `mmu.tlb.softmmu`.
    """

    def __init__(self, space: AddressSpace, regs: Registers, entries: int = 256) -> None:
        check_entries(entries)
        self.space, self.entry_count = space, entries
        self._lock = RLock()
        out = ffi.new("mmu_tlb **")
        check(lib.mmu_tlb_create(entries, out), "softmmu TLB")
        self._tlb = ffi.gc(out[0], lib.mmu_tlb_destroy)
        self._x86 = isinstance(regs, x86_registers.Registers)
        self.set_registers(regs)

    def __repr__(self) -> str:
        return f"SoftMmu({self.space.name!r}, {'x86' if self._x86 else 'arm64'}, {self.entry_count} entries)"

    # -- registers and flushes ----------------------------------------------------------------------

    @property
    def regs(self) -> Registers:
        """As they were set; CR3 without bit 63."""
        return self._regs

    @property
    def index(self) -> int:
        """The mmu index in use."""
        return int(lib.mmu_tlb_index(self._tlb))

    def set_registers(self, regs: Registers) -> None:
        """Go on with *regs*, after removing what the architecture removes on such a change.

        x86: MOV to CR0, CR3 (by PCID, unless bit 63 says not to) and CR4. That CR3 was written with the value that it
        has cannot be seen here: call `flush`. arm64: nothing, also for another table base; TLBI is a call of `flush`.
        Raises TypeError for registers of another architecture.
        """
        kind = x86_registers.Registers if self._x86 else arm64_registers.Registers
        if not isinstance(regs, kind):
            raise TypeError(f"regs must be {kind.__module__}.{kind.__name__}, not {regs!r}")
        with self._lock:
            if isinstance(regs, x86_registers.Registers):
                status = lib.mmu_tlb_set_x86(self._tlb, self.space.port, x86_native.c_registers(regs))
                regs = replace(regs, cr3=regs.cr3 & ~Cr3.NOFLUSH.mask) if regs.cr3 & Cr3.NOFLUSH.mask else regs
            else:
                status = lib.mmu_tlb_set_arm64(self._tlb, self.space.port, arm64_native.c_registers(regs))
            check(status, "registers of a softmmu")
            self._regs = regs

    def flush(
        self, va: int | None = None, size: int | None = None, *, index: int | None = None, space: int | None = None,
        global_too: bool = True,
    ) -> int:  # fmt: skip
        """
        Remove entries, and say how many that were.

        Args:
            va: only the page of this address, as INVLPG or TLBI would take it; with *size*, what these bytes touch.
                Where that may meet a page larger than 4 KiB, or is more pages than there are slots, every page goes.
                Behind stage 2 any page may be such a one.
            index: only of this mmu index.
            space: only of this PCID or ASID (and global pages).
            global_too: whether global pages go as well.
        Raises ValueError for what cannot be.
        """
        check_scope(index, space)
        first, last = flush_range(va, size)
        with self._lock:
            if va is not None:
                at = lib.mmu_tlb_flush_address(self._tlb, va)
                first, last = at, min(at + last - first, NONE)
            scope = ffi.new("struct mmu_tlb_scope *", {
                "first": first, "last": last, "indexes": (1 << _INDEXES) - 1 if index is None else 1 << index,
                "space": space or 0, "any_space": space is None, "global_too": global_too,
            })  # fmt: skip
            return int(lib.mmu_tlb_flush(self._tlb, self.space.port, scope))

    # -- accesses -----------------------------------------------------------------------------------

    def read(self, va: int, size: int) -> bytes | Fault:
        """Bytes va .. va+size-1; after the last address comes 0. A fault leaves everything untouched."""
        return self._read(va, size, _READ)

    def fetch(self, va: int, size: int) -> bytes | Fault:
        """As `read`, with the right to execute."""
        return self._read(va, size, _FETCH)

    def _read(self, va: int, size: int, access: int) -> bytes | Fault:
        if not (0 <= va <= NONE and size >= 0):
            check_range(va, size)
        scratch = _scratch()
        data, parts, count = (scratch.data, scratch.parts, 2) if size <= PAGE else _room(size)
        with self._lock:
            status = _tlb_read(self._tlb, self.space.port, va, data, size, access, parts, count, scratch.fault)
            found = bytes(ffi.buffer(data, size)) if status == 0 else self._answer(status, scratch, "read")
        _pool.append(scratch)
        assert found is not None
        return found

    def write(self, va: int, data: bytes) -> Fault | None:
        """Store *data* at va .. va+len(data)-1; None, or the fault, which leaves memory untouched."""
        check_range(va, 0)
        buffer = ffi.from_buffer("uint8_t[]", data)
        scratch, size = _scratch(), len(buffer)  # bytes: an array may have wider items
        _, parts, count = (None, scratch.parts, 2) if size <= PAGE else _room(size)
        with self._lock:
            status = lib.mmu_tlb_write(
                self._tlb, self.space.port, va, buffer, size, parts, count, scratch.fault)
            found = self._answer(status, scratch, "write")
        _pool.append(scratch)
        return found

    def _answer(self, status: int, scratch: _Scratch, what: str) -> Fault | None:
        check(status, f"softmmu {what}")
        if status != _FAULTED:
            return None
        raw = scratch.fault
        access = Access(raw.access)
        if raw.on_data:
            return Fault(FaultKind.BUS, None, raw.va, access, detail={"result": MemTxResult(raw.result)})
        if isinstance(self._regs, x86_registers.Registers):
            return x86_native.fault_of(ffi.addressof(raw.x86), self._regs, raw.va, access, ())
        return arm64_native.fault_of(ffi.addressof(raw.arm64), raw.va, access, ())

    # -- batches ------------------------------------------------------------------------------------

    def load_many(
        self, vas: ArrayLike, size: int, out: NDArray[Any] | None = None, status: NDArray[np.uint8] | None = None
    ) -> NDArray[Any] | Fault:
        """
        A load of *size* (1, 2, 4, 8) bytes at each address of *vas*, one after the other.

        Args:
            vas: an array of uint64 of any shape.
            out: where the values go: contiguous, of the shape of *vas* and of the unsigned type of *size* bytes.
            status: an array of uint8 of that shape; it gets the number of the FaultKind of each load, 0 without one.
                Both may lie in the memory of *vas*, but not in that of each other.
        Returns:
            the values. Without *status*, the Fault of the first load that faults; no load is made after it.
            With it all loads are made, and one that faults gives 0.
        Raises ValueError before the first load, and whatever an MMIO callback raises. The GIL is free meanwhile.
        """
        import numpy as np

        addresses, kind = _addresses(vas), _type(size)
        if out is None:
            out = np.empty(addresses.shape, kind)
        _check_array("out", out, kind, addresses.shape)
        if isinstance(status, np.ndarray) and np.may_share_memory(out, status):
            raise ValueError("out and status must not share memory")
        addresses = _apart(addresses, out, status)
        fault = self._many(lib.mmu_tlb_load_many, addresses, size, ffi.from_buffer(out, require_writable=True), status)
        return out if fault is None else fault

    def store_many(
        self, vas: ArrayLike, values: ArrayLike, size: int | None = None, status: NDArray[np.uint8] | None = None
    ) -> Fault | None:
        """
        A store of *size* bytes at each address of *vas*, one after the other. See `load_many`.

        Args:
            values: numbers that fit in *size* bytes, of the shape of *vas* or to be repeated for it.
            size: default: that of the numbers of the array *values*.
        Returns:
            None; without *status*, the Fault of the first store that faults: those before it were made.
        """
        import numpy as np

        addresses, given = _addresses(vas), np.asarray(values)
        size = given.itemsize if size is None else size
        kind = _type(size)
        if given.size and given.dtype.kind not in "iu":
            raise ValueError(f"values must be integers, not an array of {given.dtype}")
        if given.dtype != kind and given.size and not 0 <= int(given.min()) <= int(given.max()) < 1 << 8 * size:
            raise ValueError(f"values must fit in {size} bytes, not {given.min()} .. {given.max()}")
        ready = np.ascontiguousarray(np.broadcast_to(given.astype(kind, copy=False), addresses.shape))
        addresses, ready = _apart(addresses, status), _apart(ready, status)
        return self._many(lib.mmu_tlb_store_many, addresses, size, ffi.from_buffer(ready), status)

    def _many(self, call: Any, vas: NDArray[np.uint64], size: int, values: Any, status: Any) -> Fault | None:
        kept, states = _scratch(), ffi.NULL
        if status is not None:
            _check_array("status", status, "u1", vas.shape)
            status.fill(0)
            states = ffi.from_buffer("uint8_t[]", status, require_writable=True)
        with self._lock:
            code = call(
                self._tlb, self.space.port, ffi.from_buffer("uint64_t[]", vas), vas.size, size, values, states,
                kept.fault)  # fmt: skip
            found = self._answer(code, kept, f"batch of {vas.size} accesses")
        _pool.append(kept)
        return found

    # -- watchpoints --------------------------------------------------------------------------------

    def watch(self, va: int, size: int, access: Access = Access.READ | Access.WRITE) -> None:
        """Note accesses (READ, WRITE) to va .. va+size-1, linear addresses. At most 8 ranges at a time (ValueError)."""
        first, last = watch_range(va, size, access)
        with self._lock:
            if lib.mmu_tlb_watch(self._tlb, self.space.port, first, last, access):
                raise ValueError(f"at most {WATCHPOINTS} ranges can be watched")

    def unwatch(self, va: int, size: int, access: Access = Access.READ | Access.WRITE) -> None:
        """End what `watch` began with the same arguments; ValueError when it did not."""
        first, last = watch_range(va, size, access)
        with self._lock:
            if lib.mmu_tlb_unwatch(self._tlb, self.space.port, first, last, access):
                raise ValueError(f"{va:#x}+{size:#x} is not watched for {access!r}")

    def watched(self) -> list[Watched]:
        """Accesses to what is watched since the last call, oldest first; the 257th and later only count in `stats`."""
        raw = ffi.new("struct mmu_tlb_watched[]", lib.MMU_TLB_WATCHED)
        with self._lock:
            count = lib.mmu_tlb_take_watched(self._tlb, raw)
        return [Watched(raw[i].va, raw[i].size, Access(raw[i].access)) for i in range(count)]

    # -- what is there ------------------------------------------------------------------------------

    @property
    def stats(self) -> Stats:
        """Counters since the beginning, as of now."""
        with self._lock:
            raw = lib.mmu_tlb_stats(self._tlb)
            return Stats(*(getattr(raw, f.name) for f in fields(Stats)))

    def entries(self) -> list[Kept]:
        """What is kept, by index and place."""
        room = self.entry_count + _VICTIMS
        raw = ffi.new("struct mmu_tlb_kept[]", room)
        found: list[Kept] = []
        with self._lock:
            for index in range(_INDEXES):
                count = lib.mmu_tlb_kept(self._tlb, self.space.port, index, raw, room)
                found += [_kept(index, raw[i]) for i in range(count)]
        return found


def _kept(index: int, raw: Any) -> Kept:
    read, write, fetch = (None if c == NONE else Flag(c & ~PAGE_MASK) for c in raw.comparators)
    return Kept(index, raw.place, raw.page, raw.pa, None if raw.is_global else raw.space, read, write, fetch)


def _addresses(vas: ArrayLike) -> NDArray[np.uint64]:
    import numpy as np

    found = np.asarray(vas)
    if found.dtype != np.uint64:
        if found.size and (found.dtype.kind not in "iu" or found.min() < 0):
            raise ValueError(f"vas must be numbers in 0..{NONE:#x} as uint64, not an array of {found.dtype}")
        found = found.astype(np.uint64)
    return np.require(found, requirements=["C_CONTIGUOUS", "ALIGNED"])


def _apart(read: NDArray[Any], *written: Any) -> NDArray[Any]:
    """*read*, or a copy where a batch would write to it before it is done with it."""
    import numpy as np

    return read.copy() if any(isinstance(w, np.ndarray) and np.may_share_memory(read, w) for w in written) else read


def _type(size: int) -> str:
    if isinstance(size, bool) or size not in _SIZES:
        raise ValueError(f"size must be one of {', '.join(map(str, _SIZES))} bytes, not {size}")
    return f"u{size:d}"


def _check_array(name: str, array: NDArray[Any], kind: str, shape: tuple[int, ...]) -> None:
    import numpy as np

    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} must be an array of {kind} and shape {shape}, not {array!r:.80}")
    if array.dtype != kind or array.shape != shape or not array.flags.c_contiguous or not array.flags.writeable:
        raise ValueError(
            f"{name} must be a writeable contiguous array of {kind} and shape {shape}, "
            f"not of {array.dtype} and {array.shape}")
