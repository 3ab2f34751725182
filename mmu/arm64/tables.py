"""Builds arm64 page tables: stage 1 with one or two address ranges, and stage 2, for every granule.

All of it is `mmu.radix.tables` over the geometry and the descriptors of `mmu.arm64.format`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mmu.arm64 import format as f
from mmu.arm64.radix import FORMS, radix, scan_form
from mmu.radix.form import Right
from mmu.radix.tables import Invalidate
from mmu.radix.tables import PageTables as AnyPageTables

if TYPE_CHECKING:
    from mmu.memory import AddressSpace
    from mmu.scan import Form

GRANULES = {1 << granule.page_shift: granule for granule in f.GRANULES}


class _Arm64Tables(AnyPageTables):
    """What both stages share.

    `invalidate` is called with the entry a hole where a block becomes a table or a table a block. `contiguous` is kept
    on whole, aligned, equal runs of pages only, and taken from a run that an edit breaks up: in place, which a CPU
    that holds the run in its TLB must be told before.
    """

    BREAK_BEFORE_MAKE = True
    STAGE: int

    def __init__(
        self,
        space: AddressSpace,
        frames: Callable[[], int],
        granule: int,
        bits: int,
        pa_bits: int,
        start: int | None,
        free: Callable[[int], None] | None,
        root: int | None,
        invalidate: Invalidate | None,
    ) -> None:
        if granule not in GRANULES:
            raise ValueError(f"granule must be one of {sorted(GRANULES)} bytes, not {granule}")
        if pa_bits not in f.PA_SIZES:
            raise ValueError(f"pa_bits must be one of {sorted(set(f.PA_SIZES))}, not {pa_bits}")
        geometry = GRANULES[granule]
        large = pa_bits > 48 or (bits > 48 and bool(geometry.has_ds))
        wide = large or not geometry.has_ds  # 64K granules have wide addresses without a form of their own
        low, high = 64 - geometry.max_txsz, 64 - (geometry.large_min_txsz if wide else geometry.min_txsz)
        if not low <= bits <= high:
            raise ValueError(f"addresses must have {low} to {high} bits with a granule of {granule} bytes, not {bits}")
        self.granule, self.ds = geometry, large and bool(geometry.has_ds)
        if self.ds:  # the field holds address bits, and TCR_ELx.SHn says it for all pages
            self.RIGHTS = {name: right for name, right in self.RIGHTS.items() if name != "shareability"}
        blocks = geometry.block_levels | (geometry.large_block_levels if large else 0)
        levels = radix(geometry, FORMS[granule][large], bits, self.STAGE, start, blocks, large)
        super().__init__(
            space, frames, levels, pa_bits, root_bits=pa_bits, free=free, root=root, invalidate=invalidate
        )

    def scan_form(self) -> Form:
        return scan_form(self.levels, self.STAGE, self.pa_bits)

    def _base_register(self) -> int:
        return self.root & f.Ttbr.BADDR.mask | (self.root >> 48) << 2


class PageTables(_Arm64Tables):
    """Stage 1 tables for TTBR0_ELx or TTBR1_ELx, which is `root` (plus ASID).

    Args:
        granule: 4096, 16384 or 65536 bytes; *frames* must be as large.
        va_bits: 64 - TCR_ELx.TnSZ, which decides the start level.
        pa_bits: output address size; with more than 48, or with more than 48 bits of VA and granules of 4K and 16K,
            descriptors have the 52-bit form (TCR_ELx.DS=1).
        upper: True for TTBR1's addresses (their upper bits are ones), False for TTBR0's. Default: what the first
            address mapped is.
    Others, and errors: see `mmu.radix.tables.PageTables`. Keywords of `map` and `protect`: RIGHTS, by the fields of
    the descriptors, and `executable`: pxn=not executable and uxn=not (executable and user).
    """

    STAGE = 1
    RIGHTS = {
        "writable": Right("AP", 1, inverted=True, bit=1),
        "user": Right("AP", 0, bit=0),
        "pxn": Right("PXN"),
        "uxn": Right("UXN", 1),
        "attr_index": Right("ATTRINDX"),
        "shareability": Right("SH", 3),
        "accessed": Right("AF", 1),
        "not_global": Right("NG"),
        "dbm": Right("DBM"),
        "contiguous": Right("CONTIGUOUS", loose=True),
        "guarded": Right("GP"),
        "non_secure": Right("NS"),
    }
    SHORTHANDS = {"executable": 1}

    def __init__(
        self,
        space: AddressSpace,
        frames: Callable[[], int],
        granule: int = 4096,
        va_bits: int = 48,
        *,
        pa_bits: int = 48,
        upper: bool | None = None,
        free: Callable[[int], None] | None = None,
        root: int | None = None,
        invalidate: Invalidate | None = None,
    ) -> None:
        super().__init__(space, frames, granule, va_bits, pa_bits, None, free, root, invalidate)
        self.upper = upper

    def map(self, va: int, pa: int, size: int, *, page_size: int | None = None, **rights: int) -> None:
        super().map(va, pa, size, page_size=page_size, **rights)
        self.upper = bool(va >> 63)

    def ttbr(self, asid: int = 0) -> int:
        """TTBR0_ELx or TTBR1_ELx. With a 52-bit form bits 51:48 of the root go to bits 5:2."""
        return f.Ttbr.ASID.put(asid) | self._base_register()

    def tcr(self) -> int:
        """The fields of TCR_EL1 for these tables' range, and IPS and DS; the other range's are its own tables'."""
        n, granule = ("1", self.granule.tg1) if self.upper else ("0", self.granule.tg0)
        size = {f"T{n}SZ": 64 - self.va_bits, f"TG{n}": granule}
        return f.Tcr.make(**size, IPS=f.PA_SIZES.index(self.pa_bits), DS=int(self.ds))

    def scan_form(self) -> Form:
        return scan_form(self.levels, 1, self.pa_bits, base=-1 << self.va_bits & (1 << 64) - 1 if self.upper else 0)

    def strip(self, va: int) -> int:
        ranges = {False: 0, True: (1 << (64 - self.va_bits)) - 1}
        wanted = ranges if self.upper is None else {self.upper: ranges[self.upper]}
        if va >> self.va_bits not in wanted.values():
            which = " or ".join("upper" if upper else "lower" for upper in wanted)
            raise ValueError(f"{va:#x} is not in the {which} range of {self.va_bits}-bit addresses")
        return va & ((1 << self.va_bits) - 1)

    def show(self, stripped: int) -> str:
        return f"{stripped | (-1 << self.va_bits & (1 << 64) - 1 if self.upper else 0):#x}"

    def expand(self, current: Mapping[str, int], changes: Mapping[str, int]) -> dict[str, int]:
        rights = {name: value for name, value in {**current, **changes}.items() if name in self.RIGHTS}
        if "executable" in changes:
            on = bool(changes["executable"])
            implied = {"pxn": int(not on), "uxn": int(not (on and rights["user"]))}
            rights.update({name: value for name, value in implied.items() if name not in changes})
        return rights


class SingleRangeTables(PageTables):
    """Stage 1 tables for a regime with one address range: EL3, and EL2 without HCR_EL2.E2H.

    Nothing in them is for EL0: AP[1] is RES1, and bit 54 is XN.
    """

    RIGHTS = {
        "writable": Right("AP", 1, inverted=True, bit=1),
        "executable": Right("UXN", 1, inverted=True),
        "res1": Right("AP", 1, bit=0),
        "attr_index": Right("ATTRINDX"),
        "shareability": Right("SH", 3),
        "accessed": Right("AF", 1),
        "dbm": Right("DBM"),
        "contiguous": Right("CONTIGUOUS", loose=True),
        "guarded": Right("GP"),
        "non_secure": Right("NS"),
    }
    SHORTHANDS = {}

    def expand(self, current: Mapping[str, int], changes: Mapping[str, int]) -> dict[str, int]:
        return {**current, **changes}

    def scan_form(self) -> Form:
        return scan_form(self.levels, 1, self.pa_bits, two_ranges=False)


class Stage2Tables(_Arm64Tables):
    """Stage 2 tables for VTTBR_EL2, intermediate to physical addresses.

    Args:
        ipa_bits: 64 - VTCR_EL2.T0SZ.
        start_level: VTCR_EL2.SL0's; one below what *ipa_bits* asks for concatenates up to 16 tables, for which
            *frames* must give frames that follow each other.
    `memory_attr` 15 is normal write-back memory; `xn0` is XN[0], `executable` the inverse of XN[1].
    """

    STAGE = 2
    RIGHTS = {
        "readable": Right("S2AP", 1, bit=0),
        "writable": Right("S2AP", 1, bit=1),
        "executable": Right("XN", 1, inverted=True, bit=1),
        "xn0": Right("XN", 0, bit=0),
        "memory_attr": Right("MEMATTR", 15),
        "shareability": Right("SH", 3),
        "accessed": Right("AF", 1),
        "dbm": Right("DBM"),
        "contiguous": Right("CONTIGUOUS", loose=True),
    }

    def __init__(
        self,
        space: AddressSpace,
        frames: Callable[[], int],
        granule: int = 4096,
        ipa_bits: int = 40,
        *,
        start_level: int | None = None,
        pa_bits: int = 48,
        free: Callable[[int], None] | None = None,
        root: int | None = None,
        invalidate: Invalidate | None = None,
    ) -> None:
        super().__init__(space, frames, granule, ipa_bits, pa_bits, start_level, free, root, invalidate)

    def vttbr(self, vmid: int = 0) -> int:
        """VTTBR_EL2."""
        return f.Ttbr.ASID.put(vmid) | self._base_register()

    def vtcr(self) -> int:
        """VTCR_EL2: T0SZ, SL0 (and SL2), TG0, PS and DS. Raises ValueError when no encoding has this start level."""
        start = self.levels[0].number
        codes = [
            code for code, level in enumerate(self.granule.start_level)
            if level == start and self.granule.start_pa[code] != f.NEVER
        ]  # fmt: skip
        if not codes:
            raise ValueError(f"VTCR_EL2 has no encoding for start level {start} with this granule")
        return f.Vtcr.make(
            T0SZ=64 - self.va_bits, SL0=codes[0] & 3, SL2=codes[0] >> 2, TG0=self.granule.tg0,
            PS=f.PA_SIZES.index(self.pa_bits), DS=int(self.ds),
        )  # fmt: skip
