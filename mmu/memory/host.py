"""Host memory behind RAM and devices: one run of addresses, sparse, optionally laid over files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from mmu.core import check, ffi, lib
from mmu.errors import AddressRangeError, BusError
from mmu.types import MemTxResult


@dataclass(frozen=True, slots=True)
class MappedFile:
    """Bytes 0..size-1 of a file are at `offset` of a memory. `inode` tells the file from one that took its name."""

    path: str
    inode: tuple[int, int]
    offset: int
    size: int

    def complaint(self, at: int) -> str:
        """Why byte *at* of the file is not to be had, as far as can be told now."""
        try:
            info = os.stat(self.path)
        except OSError as error:
            now = f"cannot be looked at ({error.strerror})"
        else:
            now = f"has {info.st_size} bytes now"
            if (info.st_dev, info.st_ino) != self.inode:
                now = "is another file now"
            elif info.st_size >= self.size:
                now += ", and yet the system could not read or store it (is the disk full, or broken?)"
        return f"byte {at:#x} of {self.path} is lost: {self.size} bytes were mapped; the file {now}"


class HostMemory:
    """*size* bytes (rounded up to host pages) of zeroes that cost nothing until touched."""

    def __init__(self, size: int) -> None:
        if not 0 < size < 1 << 62:
            raise AddressRangeError(f"a memory must have 1 .. 2^62-1 bytes, not {size}")
        out = ffi.new("mmu_hostmem **")
        check(lib.mmu_hostmem_create(size, out), f"host memory of {size:#x} bytes")
        self._handle = ffi.gc(out[0], lib.mmu_hostmem_destroy)
        self.size = size
        self.files: list[MappedFile] = []

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

    def advise_huge(self) -> None:
        """Wish for huge pages of the host: see `mmu.memory.Ram`."""
        lib.mmu_hostmem_advise_huge(self._handle)

    def map_file(self, offset: int, size: int, fd: int) -> None:
        """Lay bytes 0..size-1 of the open file over the memory at *offset*, shared: stores reach the file.

        Both must be multiples of the host page. Raises AddressRangeError or OSError, RegionOverlapError where a file
        is already; the file is not grown.
        A page that the file cannot give any more (it was cut short, the disk is full) is lost for good: accesses to
        it end with MemTxResult.ERROR, what a guest has mapped reads as 0 until then, and `failure` tells.
        """
        self._range(offset, size)
        check(lib.mmu_hostmem_map_file(self._handle, offset, size, fd),
              f"file mapping {offset:#x}+{size:#x} in {self.size:#x} bytes must be host pages that no file has yet")
        info = os.fstat(fd)
        try:
            path = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            path = f"file descriptor {fd}"
        self.files.append(MappedFile(path, (info.st_dev, info.st_ino), offset, size))

    def failure(self, offset: int, size: int) -> str | None:
        """One line on the first byte of offset .. offset+size-1 that a file lost; None when all are there."""
        first = ffi.new("uint64_t *")
        if not self.files or not lib.mmu_hostmem_failed(self._handle, offset, size, first):
            return None
        file = next(f for f in self.files if f.offset <= first[0] < f.offset + f.size)
        return file.complaint(first[0] - file.offset)

    def read(self, offset: int, size: int) -> bytes:
        self._range(offset, size)
        out = ffi.new("char[]", size)
        self._check(lib.mmu_hostmem_read(self._handle, offset, out, size), offset, size)
        return bytes(ffi.buffer(out))

    def write(self, offset: int, data: bytes) -> None:
        buffer = ffi.from_buffer(data)
        size = len(buffer)  # bytes: an array may have wider items
        self._range(offset, size)
        self._check(lib.mmu_hostmem_write(self._handle, offset, buffer, size), offset, size)

    def _check(self, status: int, offset: int, size: int) -> None:
        if check(status):
            raise BusError(self.failure(offset, size) or f"bytes {offset:#x}+{size:#x} are lost", MemTxResult.ERROR)

    def sync(self) -> None:
        """Wait until what is mapped from files is in the files. Raises OSError when it is not, and never will be."""
        status, failure = lib.mmu_hostmem_sync(self._handle), self.failure(0, self.size)
        if failure is not None:
            raise BusError(f"not all could be written back: {failure}", MemTxResult.ERROR)
        check(status, "writing device files back")
