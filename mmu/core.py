"""The only file that imports mmu._core: handles, status codes, and callbacks from C.

`ffi` and `lib` go from here to the rooms' own `native.py`; no cdata leaves through a public signature.
"""

from __future__ import annotations

import os
import sys
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from mmu._core import ffi, lib
from mmu.errors import AddressRangeError, MmuError, RegionOverlapError
from mmu.types import MemTxResult

__all__ = ["check", "ffi", "io_context", "lib", "memtx", "unset_bytes"]

# A callback runs on the thread that entered C, so what it raised waits here for that thread.
_pending = threading.local()


class Device(Protocol):
    """What a Python MMIO region must offer."""

    def io_read(self, offset: int, size: int) -> tuple[int, MemTxResult]: ...
    def io_write(self, offset: int, size: int, value: int) -> MemTxResult: ...
    def io_accepts(self, offset: int, size: int, write: bool) -> bool: ...


def _raise(status: int, message: str) -> NoReturn:
    if status == lib.MMU_ECALLBACK:
        if (error := _pending.__dict__.pop("error", None)) is None:
            raise MmuError(f"{message}: a callback in C failed, and left no exception")
        raise error
    if status == lib.MMU_ENOMEM:
        raise MemoryError(message)
    if status == lib.MMU_EHOST:
        raise OSError(ffi.errno, f"{message}: {os.strerror(ffi.errno)}")
    if status == lib.MMU_EOVERLAP:
        raise RegionOverlapError(message)
    raise AddressRangeError(message)


def check(status: int, message: str = "") -> int:
    """Return *status* unless it is negative (host misuse): then raise what it stands for.

    An exception raised inside a callback comes out unchanged.
    """
    if status < 0:
        _raise(status, message)
    return status


_MEMTX = tuple(MemTxResult(n) for n in range(8))


def memtx(status: int, message: str = "") -> MemTxResult:
    """MemTxResult of a port call's status; raises on a negative one."""
    return _MEMTX[status] if status >= 0 else _MEMTX[check(status, message)]


def unset_bytes(size: int) -> bytes:
    """Bytes for C to fill before anybody looks at them, at least 2: a copy out of a buffer costs as much as the read.

    CPython's C API allows to fill what PyBytes_FromStringAndSize(NULL, size) gives.
    """
    if size > sys.maxsize:
        raise MemoryError(f"{size:#x} bytes are more than an object can have")
    made: bytes = _bytes_maker()(None, size)
    return made


@lru_cache(maxsize=1)
def _bytes_maker() -> Any:
    import ctypes

    # A function object of our own: types set on those of ctypes.pythonapi would be everybody's.
    make = ctypes.PyDLL(None)["PyBytes_FromStringAndSize"]
    make.restype, make.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_ssize_t)
    return make


def io_context(device: Device) -> Any:
    """A handle that C hands back to the callbacks. The caller keeps it alive as long as C may use it."""
    return ffi.new_handle(device)


def _stash(exception: type[BaseException], error: BaseException, traceback: Any) -> None:
    _pending.error = error


# `onerror` and not try/except: it also catches KeyboardInterrupt before the first line, and a value too wide for C.
if not TYPE_CHECKING:

    @ffi.def_extern(error=lib.MMU_ECALLBACK, onerror=_stash)
    def mmu_py_io_read(context, offset, size, ret):
        ret[0], result = ffi.from_handle(context).io_read(offset, size)
        return result.value

    @ffi.def_extern(error=lib.MMU_ECALLBACK, onerror=_stash)
    def mmu_py_io_write(context, offset, size, value):
        return ffi.from_handle(context).io_write(offset, size, value).value

    @ffi.def_extern(error=lib.MMU_ECALLBACK, onerror=_stash)
    def mmu_py_io_accepts(context, offset, size, write):
        return bool(ffi.from_handle(context).io_accepts(offset, size, bool(write)))
