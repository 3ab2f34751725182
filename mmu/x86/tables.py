"""Builds x86 page tables: 5-level, 4-level, PAE and 32-bit paging, nested (NPT) and extended (EPT) page tables.

All of it is `mmu.radix.tables` over the levels of `mmu.x86.format`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mmu.radix.form import Right
from mmu.radix.tables import Invalidate
from mmu.radix.tables import PageTables as AnyPageTables
from mmu.x86 import format as f
from mmu.x86.radix import radix, scan_form

if TYPE_CHECKING:
    from mmu.memory import AddressSpace
    from mmu.scan import Form

# levels -> (levels of the mode, bits of an address in CR3, widest physical address)
MODES = {
    5: (f.FIVE_LEVEL, 52, 52),
    4: (f.FOUR_LEVEL, 52, 52),
    3: (f.PAE, 32, 52),
    2: (f.TWO_LEVEL_PSE, 32, 40),
}
EPT_MODES = {5: (f.EPT_FIVE_LEVEL, 52, 52), 4: (f.EPT_FOUR_LEVEL, 52, 52)}


class PageTables(AnyPageTables):
    """Page tables for CR3, which is `root` (plus PCID and cache bits).

    Args:
        levels: 5 and 4 (4K, 2M, 1G pages), 3 for PAE (4K, 2M), 2 for 32-bit paging (4K, 4M, PSE-36).
        phys_bits: MAXPHYADDR; addresses beyond are refused.
    Others, and errors: see `mmu.radix.tables.PageTables`. Keywords of `map` and `protect`: see RIGHTS. Entries that
    refer to tables allow everything (R/W=1, U/S=1, XD=0), so that pages alone decide.
    """

    MODES = MODES
    RIGHTS = {
        "writable": Right("RW", 1),
        "user": Right("US"),
        "executable": Right("XD", 1, inverted=True),
        "global_": Right("G"),
        "pwt": Right("PWT"),
        "pcd": Right("PCD"),
        "pat": Right("PAT"),
        "pkey": Right("PK"),
        "accessed": Right("A", loose=True),
        "dirty": Right("D", loose=True),
    }

    def __init__(
        self,
        space: AddressSpace,
        frames: Callable[[], int],
        levels: int = 4,
        *,
        phys_bits: int = 52,
        free: Callable[[int], None] | None = None,
        root: int | None = None,
        invalidate: Invalidate | None = None,
    ) -> None:
        if levels not in self.MODES:
            raise ValueError(f"levels must be one of {sorted(self.MODES)}, not {levels}")
        if not 32 <= phys_bits <= 52:
            raise ValueError(f"phys_bits must be in 32..52, not {phys_bits}")
        rows, root_bits, pa_bits = self.MODES[levels]
        super().__init__(
            space, frames, radix(rows), min(phys_bits, pa_bits),
            root_bits=min(phys_bits, root_bits), free=free, root=root, invalidate=invalidate,
        )
        self._rows = rows

    def scan_form(self) -> Form:
        return scan_form(self._rows, self.pa_bits)

    def strip(self, va: int) -> int:
        low = va & ((1 << self.va_bits) - 1)
        if int(self.show(low), 16) != va:
            raise ValueError(f"{va:#x} is not a canonical address of {self.va_bits} bits")
        return low

    def show(self, stripped: int) -> str:
        upper = self.va_bits > 32 and stripped >> (self.va_bits - 1)
        return f"{stripped | -(upper << self.va_bits) & (1 << 64) - 1:#x}"


class NptTables(PageTables):
    """Nested page tables for nCR3. Nested accesses are user accesses, so `user` is the default."""

    RIGHTS = {**PageTables.RIGHTS, "user": Right("US", 1)}


class EptTables(PageTables):
    """Extended page tables, guest-physical to physical. Guest-physical addresses are not sign-extended.

    `memory_type` 6 is write-back, 0 uncacheable. A page without readable, writable and executable is a hole.
    """

    MODES = EPT_MODES
    RIGHTS = {
        "readable": Right("R", 1),
        "writable": Right("W", 1),
        "executable": Right("X", 1),
        "user_executable": Right("XU"),
        "memory_type": Right("MT", 6),
        "ignore_pat": Right("IPAT"),
        "suppress_ve": Right("SVE"),
        "accessed": Right("A", loose=True),
        "dirty": Right("D", loose=True),
    }

    def strip(self, va: int) -> int:
        return AnyPageTables.strip(self, va)

    def show(self, stripped: int) -> str:
        return f"{stripped:#x}"

    def eptp(self, accessed_dirty: bool = False) -> int:
        """The EPTP that refers to these tables, as write-back memory."""
        return f.Eptp.make(MT=6, LENGTH=len(self.levels) - 1, AD=int(accessed_dirty)) | self.root
