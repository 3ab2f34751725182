"""Which parts of a sparse memory hold something, without touching the rest."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mmu.core import ffi

if TYPE_CHECKING:
    from mmu.memory.host import HostMemory, MappedFile

PAGEMAP = "/proc/self/pagemap"  # Linux, Documentation/admin-guide/mm/pagemap.rst: 8 bytes a page
ENTRY = 8
PRESENT_OR_SWAPPED = 3 << 62
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
    import numpy as np

    for low in range(first, end, CHUNK):
        count = min(CHUNK, end - low)
        data = os.pread(fd, ENTRY * count, (base // page + low) * ENTRY)
        if len(data) != ENTRY * count:
            raise OSError(f"{PAGEMAP} has {len(data)} bytes for {count} pages at {base + low * page:#x}")
        flags = np.frombuffer(data, np.uint64) & np.uint64(PRESENT_OR_SWAPPED)
        for number in np.flatnonzero(flags).tolist():
            at = (low + number) * page
            yield at, min(page, size - at)
