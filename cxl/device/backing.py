"""Files behind device memory. Looks first, acts after: nothing is created or changed when anything is refused."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable

from cxl.blueprint import Backing
from cxl.errors import TopologyError
from mmu import HostMemory

COPY_CHUNK = 1 << 20


def inspect(backings: Iterable[Backing]) -> None:
    """Raise TopologyError unless every file can be opened, or made, with its size. Touches nothing."""
    page = os.sysconf("SC_PAGESIZE")
    for backing in backings:
        if backing.path is None:
            continue
        if backing.size % page:
            raise TopologyError(
                f"memory {backing.name}: a file mapping must be a multiple of {page} bytes, not {backing.size}")
        try:
            info = os.stat(backing.path)
        except FileNotFoundError:
            folder = os.path.dirname(os.path.abspath(backing.path))
            if not os.access(folder, os.W_OK | os.X_OK):
                raise TopologyError(f"memory {backing.name}: {backing.path} cannot be created in {folder}") from None
            continue
        except OSError as error:
            raise TopologyError(f"memory {backing.name}: {backing.path}: {error.strerror}") from None
        _fits(backing, info)


def _fits(backing: Backing, info: os.stat_result) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise TopologyError(f"memory {backing.name}: {backing.path} must be a regular file")
    if 0 < info.st_size < backing.size:
        raise TopologyError(
            f"memory {backing.name}: file {backing.path} has {info.st_size} bytes, but size is {backing.size}")
    assert backing.path is not None
    if not os.access(backing.path, os.R_OK | (os.W_OK if backing.share else 0)):
        raise TopologyError(f"memory {backing.name}: {backing.path} must be readable and, when shared, writable")


class Files:
    """Opens what `inspect` found good, and can take back what that made or grew."""

    def __init__(self) -> None:
        self._made: list[str] = []
        self._grown: list[str] = []

    def lay(self, memory: HostMemory, offset: int, backing: Backing) -> None:
        """Put *backing* at *offset* of *memory*: shared, or as a private copy. Missing files are made, sparse."""
        if backing.path is None:
            return
        try:
            fd = self._open(backing)
            try:
                if backing.share:
                    memory.map_file(offset, backing.size, fd)
                else:
                    _copy(memory, offset, backing.size, fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise TopologyError(f"memory {backing.name}: {backing.path}: {error.strerror}") from error

    def undo(self) -> None:
        for path in self._made:
            os.unlink(path)
        for path in self._grown:
            os.truncate(path, 0)
        self._made, self._grown = [], []

    def _open(self, backing: Backing) -> int:
        assert backing.path is not None
        try:
            fd = os.open(backing.path, (os.O_RDWR if backing.share else os.O_RDONLY) | os.O_CLOEXEC)
        except FileNotFoundError:
            fd = os.open(backing.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            self._made.append(backing.path)
            os.ftruncate(fd, backing.size)
            return fd
        if backing.share and os.fstat(fd).st_size == 0:
            self._grown.append(backing.path)
            os.ftruncate(fd, backing.size)
        return fd


def _copy(memory: HostMemory, offset: int, size: int, fd: int) -> None:
    """The file's data, holes left out: a private mapping that nobody else changes."""
    at = 0
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
            end = os.lseek(fd, at, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data behind `at`
                return
            raise
        while at < min(end, size):
            data = os.pread(fd, min(COPY_CHUNK, end - at, size - at), at)
            if not data:
                return
            memory.write(offset + at, data)
            at += len(data)
