"""Host memory behind RAM and devices: one run of addresses, sparse, optionally laid over files."""

from __future__ import annotations

from typing import Any

from mmu.core import check, ffi, lib
from mmu.errors import AddressRangeError


class HostMemory:
    """*size* bytes (rounded up to host pages) of zeroes that cost nothing until touched."""

    def __init__(self, size: int) -> None:
        if not 0 < size < 1 << 62:
            raise AddressRangeError(f"a memory must have 1 .. 2^62-1 bytes, not {size}")
        out = ffi.new("mmu_hostmem **")
        check(lib.mmu_hostmem_create(size, out), f"host memory of {size:#x} bytes")
        self._handle = ffi.gc(out[0], lib.mmu_hostmem_destroy)
        self.size = size
        self.files: list[tuple[int, int]] = []  # (offset, bytes) of what is laid over files

    @property
    def address(self) -> Any:
        """Host address of byte 0 (cdata, internal). While a guest runs, bytes behind a window may live elsewhere."""
        return lib.mmu_hostmem_address(self._handle)

    @property
    def places(self) -> Any:
        """Where the bytes live, for targets of windows (cdata, internal)."""
        out = ffi.new("mmu_places **")
        check(lib.mmu_hostmem_places(self._handle, out), "places of a memory")
        return out[0]

    def fix(self) -> None:
        """Plain RAM shows this memory too: keep its bytes where they are.

        Raises ValueError while a running guest has some of them in its mirror of a window.
        """
        if not lib.mmu_hostmem_fix(self._handle):
            raise ValueError("this memory is behind a window that a guest uses now: it cannot become RAM meanwhile")

    def _range(self, offset: int, size: int) -> None:
        if offset < 0 or size < 0 or offset + size > self.size:
            raise AddressRangeError(f"bytes {offset:#x}..{offset + size:#x} leave a memory of {self.size:#x} bytes")

    def map_file(self, offset: int, size: int, fd: int) -> None:
        """Lay bytes 0..size-1 of the open file over the memory at *offset*, shared: stores reach the file.

        Both must be multiples of the host page. Raises AddressRangeError or OSError; the file is not grown.
        """
        self._range(offset, size)
        check(lib.mmu_hostmem_map_file(self._handle, offset, size, fd),
              f"file mapping {offset:#x}+{size:#x} in {self.size:#x} bytes must be host pages")
        self.files.append((offset, size))

    def read(self, offset: int, size: int) -> bytes:
        self._range(offset, size)
        out = ffi.new("char[]", size)
        check(lib.mmu_hostmem_read(self._handle, offset, out, size), "read")
        return bytes(ffi.buffer(out))

    def write(self, offset: int, data: bytes) -> None:
        self._range(offset, len(data))
        check(lib.mmu_hostmem_write(self._handle, offset, ffi.from_buffer(data), len(data)), "write")

    def sync(self) -> None:
        """Wait until what is mapped from files is in the files."""
        check(lib.mmu_hostmem_sync(self._handle), "writing device files back")
