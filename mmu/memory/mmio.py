"""Memory made of calls: registers of devices, in Python or in C."""

from __future__ import annotations

from collections.abc import Callable
from operator import index
from typing import Any

from mmu.core import ffi, io_context, lib
from mmu.errors import AddressRangeError
from mmu.memory.host import HostMemory
from mmu.memory.region import Region
from mmu.types import MemTxResult

Read = Callable[[int, int], int | MemTxResult]
Write = Callable[[int, int, int], MemTxResult | None]
Accepts = Callable[[int, int, bool], bool]
Sizes = tuple[int, int]

CACHE_LINE = 64
POINTER = (1 << 8 * ffi.sizeof("void *")) - 1
SIZES = tuple((low, high) for low in (1, 2, 4, 8) for high in (1, 2, 4, 8) if low <= high)


class Guard:
    """A device that must not be entered from within itself, by whichever of its regions.

    While a callback of one of them runs, an access that it makes to any of them, however indirectly, ends with
    ACCESS_ERROR and no callback. Other threads are not kept out.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.token = ffi.new("char *")  # only its address counts

    def __repr__(self) -> str:
        return f"Guard({self.name!r})"


class IoRegion(Region):
    """What regions made of calls have in common.

    An access outside *valid* (smallest, largest size), or unaligned unless *unaligned*, ends with DECODE_ERROR,
    uncalled; one outside *implemented* is cut or widened to fit. Sizes are 1, 2, 4 or 8 bytes. The values of a
    *big_endian* device have their most significant byte at the lowest address.
    Unless *reentrant*, the region is guarded: alone, or together with all that share *guard*.
    """

    kind = lib.MMU_RANGE_IO

    def __init__(
        self, size: int, name: str, calls: dict[str, Any], valid: Sizes, implemented: Sizes, unaligned: bool,
        big_endian: bool, guard: Guard | None, reentrant: bool,
    ) -> None:  # fmt: skip
        super().__init__(size, name)
        for what, sizes in {"valid": valid, "implemented": implemented}.items():
            if not isinstance(sizes, tuple | list) or tuple(sizes) not in SIZES:
                raise ValueError(f"region {name}: {what} must be two of 1, 2, 4, 8 in order, not {sizes!r:.80}")
        if guard is not None and not isinstance(guard, Guard):
            raise TypeError(f"region {name}: guard must be a Guard, not {guard!r:.80}")
        if guard is not None and reentrant:
            raise ValueError(f"region {name}: it must be guarded by {guard} or reentrant, not both")
        self.guard = None if reentrant else guard or Guard(name)
        self.io = _in_one_line({
            **calls, "guard": self.guard.token if self.guard else ffi.NULL,
            "valid_min": valid[0], "valid_max": valid[1], "unaligned": unaligned,
            "impl_min": implemented[0], "impl_max": implemented[1], "big_endian": big_endian,
        })  # fmt: skip

    def published(self) -> dict[str, Any]:
        return {"kind": self.kind, "io": self.io}


def _in_one_line(fields: dict[str, Any]) -> Any:
    """A struct mmu_io that begins a line of the host's cache, so that finding out about an access touches only one."""
    room = ffi.new("char[]", ffi.sizeof("struct mmu_io") + CACHE_LINE)
    at = -int(ffi.cast("uintptr_t", room)) % CACHE_LINE
    # The pointer into the room keeps it.
    io = ffi.gc(ffi.cast("struct mmu_io *", room + at), lambda _: room)
    for name, value in fields.items():
        setattr(io, name, value)
    return io


class Mmio(IoRegion):
    """``read(offset, size) -> int`` and ``write(offset, size, value)``, in Python.

    Either may return a MemTxResult instead, to refuse. Without a callback reads give 0 and writes are dropped.
    Before anything else ``accepts(offset, size, is_write) -> bool`` may turn an access away with DECODE_ERROR.
    An exception comes out unchanged of the call that made the access. The rest is as `IoRegion` says.
    """

    def __init__(
        self,
        size: int,
        read: Read | None = None,
        write: Write | None = None,
        name: str = "mmio",
        valid: Sizes = (1, 8),
        implemented: Sizes = (1, 8),
        unaligned: bool = False,
        big_endian: bool = False,
        accepts: Accepts | None = None,
        guard: Guard | None = None,
        reentrant: bool = False,
    ) -> None:
        for what, call in {"read": read, "write": write, "accepts": accepts}.items():
            if call is not None and not callable(call):
                raise TypeError(f"region {name}: {what} must be a function or None, not {call!r:.80}")
        self._read, self._write, self._accepts = read, write, accepts
        self._context = io_context(self)
        calls = {
            "read": ffi.NULL if read is None else lib.mmu_py_io_read,
            "write": ffi.NULL if write is None else lib.mmu_py_io_write,
            "accepts": ffi.NULL if accepts is None else lib.mmu_py_io_accepts, "ctx": self._context,
        }  # fmt: skip
        super().__init__(size, name, calls, valid, implemented, unaligned, big_endian, guard, reentrant)

    def io_read(self, offset: int, size: int) -> tuple[int, MemTxResult]:
        assert self._read is not None
        value = self._read(offset, size)
        if isinstance(value, MemTxResult):
            return 0, value
        try:
            number = index(value)
        except TypeError:
            said = self._said("read", offset, size, repr(value))
            raise TypeError(f"{said}, neither an integer nor a MemTxResult") from None
        largest = (1 << 8 * size) - 1
        if not 0 <= number <= largest:
            raise OverflowError(f"{self._said('read', offset, size, hex(number))}, not one of 0..{largest:#x}")
        return number, MemTxResult.OK

    def _said(self, what: str, offset: int, size: int, returned: str) -> str:
        return f"region {self.name}: a {what} of {size} bytes at {offset:#x} returned {returned:.80}"

    def io_write(self, offset: int, size: int, value: int) -> MemTxResult:
        assert self._write is not None
        result = self._write(offset, size, value) or MemTxResult.OK
        if not isinstance(result, MemTxResult):
            raise TypeError(f"{self._said('write', offset, size, repr(result))}, neither None nor a MemTxResult")
        return result

    def io_accepts(self, offset: int, size: int, write: bool) -> bool:
        assert self._accepts is not None
        return self._accepts(offset, size, write)


class NativeMmio(IoRegion):
    """Callbacks in C, given by their addresses; `csrc/bus_api.h` has their types, mmu_io_read_fn and mmu_io_write_fn.

    *context* is handed to them as it is. They run without Python's lock, on any thread that makes an access, and must
    stay loaded as long as the region is mapped anywhere: *keep* is an object that sees to it.
    """

    def __init__(
        self,
        size: int,
        read: int = 0,
        write: int = 0,
        context: int = 0,
        name: str = "native",
        valid: Sizes = (1, 8),
        implemented: Sizes = (1, 8),
        unaligned: bool = False,
        big_endian: bool = False,
        accepts: int = 0,
        guard: Guard | None = None,
        reentrant: bool = False,
        keep: object = None,
    ) -> None:
        types = {"read": "mmu_io_read_fn *", "write": "mmu_io_write_fn *", "accepts": "mmu_io_accepts_fn *"}
        addresses = {"read": read, "write": write, "accepts": accepts, "context": context}
        for what, address in addresses.items():  # C would call or hand on what is left of a wider number
            if not 0 <= index(address) <= POINTER:
                raise AddressRangeError(f"region {name}: {what} must be an address, 0..{POINTER:#x}, not {address:#x}")
        calls = {what: ffi.cast(kind, index(addresses[what])) for what, kind in types.items()}
        calls["ctx"] = ffi.cast("void *", index(context))
        super().__init__(size, name, calls, valid, implemented, unaligned, big_endian, guard, reentrant)
        self.keep = keep


class RomDevice(Mmio):
    """A flash chip: reads come from `memory`, at the speed of RAM, while `readable`; the device sees every write.

    While it is not, in the middle of a command for instance, reads call *read*. Setting `readable` is seen by
    every access that begins later.
    """

    def __init__(
        self, data: bytes, write: Write, read: Read | None = None, name: str = "flash", **options: Any
    ) -> None:
        super().__init__(memoryview(data).nbytes, read, write, name, **options)
        self.memory = HostMemory(self.size)
        self.memory.write(0, data)
        self._readable = True

    @property
    def readable(self) -> bool:
        return self._readable

    @readable.setter
    def readable(self, value: bool) -> None:
        if value != self._readable:
            self._become(_readable=value)

    def published(self) -> dict[str, Any]:
        if not self._readable:
            return super().published()
        return {"kind": lib.MMU_RANGE_ROM, "host": self.memory.address, "io": self.io}
