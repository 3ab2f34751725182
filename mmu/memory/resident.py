"""Which parts of a sparse memory hold something, without touching the rest."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mmu.core import ffi

if TYPE_CHECKING:
    from mmu.memory.host import HostMemory, MappedFile

PAGEMAP = "/proc/self/pagemap"  # Linux, Documentation/admin-guide/mm/pagemap.rst: 8 bytes a page
ENTRY = 8
PRESENT_OR_SWAPPED = 3 << 62
SCAN, SCAN_ARG = 0xC0606610, struct.Struct("<12Q")  # the ioctl PAGEMAP_SCAN of Linux 6.7: struct pm_scan_arg
SCANNED = 1 << 3 | 1 << 4  # PAGE_IS_PRESENT, PAGE_IS_SWAPPED
REGIONS, REGION = 1 << 10, struct.Struct("<3Q")  # struct page_region, and how many are asked for at once
CHUNK = 1 << 18  # entries read at once
SPAN = 1 << 20  # bytes looked at at once
BLOCK = 4096  # what is told apart, in bytes
READ_WHOLE = 1 << 34  # bytes of a memory that is read as a whole where there is no page map (some sandboxes)


def runs(memory: HostMemory) -> Iterator[tuple[int, int]]:
    """(offset, bytes) of what is not zero, in whole blocks of 4096 bytes (the last may be cut), ascending.

    Anonymous memory that was never written is not looked at, nor are holes of files.
    """
    start = size = 0
    for at in _blocks(memory):
        n = min(BLOCK, memory.size - at)
        if size and start + size == at:
            size += n
            continue
        if size:
            yield start, size
        start, size = at, n
    if size:
        yield start, size


def _blocks(memory: HostMemory) -> Iterator[int]:
    """Offsets of the blocks that hold something."""
    for offset, length in touched(memory):
        for span in range(offset, offset + length, SPAN):
            n = min(SPAN, offset + length - span)
            data = memory.read(span, n)
            if data != bytes(n):
                yield from (span + at for at in range(0, n, BLOCK) if data[at : at + BLOCK].strip(b"\0"))


def touched(memory: HostMemory) -> Iterator[tuple[int, int]]:
    """(offset, bytes) of host pages that may hold something, ascending, none twice.

    Raises OSError when there is no page map, and the memory is too large to be read as a whole.
    """
    if not os.access(PAGEMAP, os.R_OK):
        if memory.size > READ_WHOLE:
            raise OSError(f"{PAGEMAP} cannot be read, so a memory of {memory.size:#x} bytes cannot be looked through")
        yield 0, memory.size
        return
    page = os.sysconf("SC_PAGESIZE")
    base = int(ffi.cast("uintptr_t", memory.address))
    pages = -(-memory.size // page)
    files = sorted(memory.files, key=lambda f: f.offset)
    with open(PAGEMAP, "rb", buffering=0) as pagemap:
        first = 0
        for file in files:
            yield from _anonymous(pagemap.fileno(), base, page, first, file.offset // page, memory.size)
            yield from ((at, min(n, memory.size - at)) for at, n in _in_file(file))
            first = (file.offset + file.size) // page
        yield from _anonymous(pagemap.fileno(), base, page, first, pages, memory.size)


def _in_file(file: MappedFile) -> Iterator[tuple[int, int]]:
    """(offset in the memory, bytes) of what is not a hole of the file; all of it when that cannot be told."""
    whole = (file.offset, file.size)
    try:
        fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield whole
        return
    try:
        info = os.fstat(fd)
        if (info.st_dev, info.st_ino) != file.inode:
            yield whole
            return
        end = 0
        while end < file.size:
            start = os.lseek(fd, end, os.SEEK_DATA) // BLOCK * BLOCK
            if start >= file.size:
                return
            end = -(-os.lseek(fd, start, os.SEEK_HOLE) // BLOCK) * BLOCK
            yield file.offset + start, min(end, file.size) - start
    except OSError as error:
        if error.errno != errno.ENXIO:  # no data behind `end`
            raise
    finally:
        os.close(fd)


def _anonymous(fd: int, base: int, page: int, first: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """Pages first .. end-1. Terabytes that nobody touched take no time where the kernel can scan."""
    try:
        found = list(_scan(fd, base + first * page, base + end * page))
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EINVAL):
            raise
        found = list(_read(fd, base, page, first, end))
    for start, stop in found:
        yield start - base, min(stop - base, size) - (start - base)


def _scan(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """(first byte, end) of runs of host addresses. Raises OSError with ENOTTY or EINVAL where there is no such call."""
    regions = ffi.new("char[]", REGIONS * REGION.size)
    address = int(ffi.cast("uintptr_t", regions))
    count = REGIONS
    while count == REGIONS:
        # size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted, _mask, _anyof_mask, return_mask
        arg = bytearray(SCAN_ARG.pack(SCAN_ARG.size, 0, start, end, 0, address, REGIONS, 0, 0, 0, SCANNED, SCANNED))
        count = fcntl.ioctl(fd, SCAN, arg)
        for i in range(count):
            first, start, _ = REGION.unpack_from(ffi.buffer(regions), i * REGION.size)
            yield first, start  # and on from here when there were too many: walk_end is not always to be relied on


def _read(fd: int, base: int, page: int, first: int, end: int) -> Iterator[tuple[int, int]]:
    """The same by reading an entry for each page."""
    import numpy as np

    for low in range(first, end, CHUNK):
        count = min(CHUNK, end - low)
        data = os.pread(fd, ENTRY * count, (base // page + low) * ENTRY)
        if len(data) != ENTRY * count:
            raise OSError(f"{PAGEMAP} has {len(data)} bytes for {count} pages at {base + low * page:#x}")
        flags = np.frombuffer(data, np.uint64) & np.uint64(PRESENT_OR_SWAPPED)
        for number in np.flatnonzero(flags).tolist():
            at = base + (low + number) * page
            yield at, at + page
