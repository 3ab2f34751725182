"""Host memory in which guests have the pages of interleaved windows in order."""

from __future__ import annotations

from typing import Any

from mmu.core import check, ffi, lib

PAGE = 4096


class Mirror:
    """Room for *pages* pages of 4 KiB, of which only those in use cost memory. Shared by the guests of a space.

    Raises MemoryError when not even the addresses can be had.
    """

    def __init__(self, pages: int) -> None:
        out = ffi.new("mmu_mirror **")
        check(lib.mmu_mirror_create(pages, out), f"a mirror of {pages} pages")
        self.handle = ffi.gc(out[0], lib.mmu_mirror_destroy)

    @property
    def address(self) -> Any:
        return lib.mmu_mirror_address(self.handle)

    @property
    def size(self) -> int:
        """Bytes."""
        size: int = lib.mmu_mirror_size(self.handle)
        return size

    @property
    def used(self) -> int:
        """Pages in use by running guests."""
        used: int = lib.mmu_mirror_used(self.handle)
        return used
