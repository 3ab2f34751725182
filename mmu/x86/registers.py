"""The registers that a page walk depends on, as software wrote them, checked once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from mmu.layout import Layout
from mmu.x86.format import (
    EPT_FIVE_LEVEL,
    EPT_FOUR_LEVEL,
    FIVE_LEVEL,
    FOUR_LEVEL,
    PAE,
    TWO_LEVEL,
    TWO_LEVEL_PSE,
    Cr0,
    Cr3,
    Cr3Pae,
    Cr4,
    Cr332,
    Efer,
    Eptp,
    Level,
)

PHYS_BITS = (36, 52)  # MAXPHYADDR, inclusive


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        show = str if high < 100 else hex
        raise ValueError(f"{name} must be in {show(low)}..{show(high)}, not {show(value)}")


def _check_register(name: str, value: int, layout: type[Layout]) -> None:
    _check_range(name, value, 0, (1 << layout.BITS) - 1)
    if bad := value & layout.reserved_mask:
        mask = layout.reserved_mask
        raise ValueError(f"{name} must have its reserved bits {mask:#x} clear, not {bad:#x} set in {value:#x}")


def _refuse(wrong: bool, name: str, value: int, rule: str) -> None:
    if wrong:
        raise ValueError(f"{name} = {value:#x}: {rule}")


def _check_paging(prefix: str, cr4: int, efer: int) -> None:
    """Combinations of CR4 and EFER that hardware refuses while paging is on."""
    long_mode = bool(efer & Efer.LME.mask)
    _refuse(bool(efer & Efer.LMA.mask) and not long_mode, f"{prefix}efer", efer, "LMA=1 needs LME=1")
    _refuse(long_mode and not cr4 & Cr4.PAE.mask, f"{prefix}cr4", cr4, "long mode (EFER.LME=1) needs PAE=1")
    for name in ("LA57", "PCIDE", "LAM_SUP"):
        wrong = bool(cr4 & Cr4.fields[name].mask) and not long_mode
        _refuse(wrong, f"{prefix}cr4", cr4, f"{name}=1 needs long mode (EFER.LME=1), EFER is {efer:#x}")


def paging_levels(cr4: int, efer: int) -> tuple[Level, ...]:
    """The levels that these registers select while paging is on, root first."""
    if not cr4 & Cr4.PAE.mask:
        return TWO_LEVEL_PSE if cr4 & Cr4.PSE.mask else TWO_LEVEL
    if not efer & Efer.LME.mask:
        return PAE
    return FIVE_LEVEL if cr4 & Cr4.LA57.mask else FOUR_LEVEL


def root_address(cr3: int, levels: tuple[Level, ...]) -> int:
    """Physical address (bytes) of the first table; LAM bits and bit 63 (PCID, no flush) are no part of it."""
    if levels is PAE:
        return cr3 & Cr3Pae.ADDR.mask
    if levels in (TWO_LEVEL, TWO_LEVEL_PSE):
        return cr3 & Cr332.ADDR.mask
    return cr3 & Cr3.ADDR.mask


@dataclass(frozen=True)
class Npt:
    """AMD nested paging: the guest-physical space is translated by ordinary tables at *ncr3*.

    `cr4` and `efer` are the host's at VMRUN: they select the nested mode (4-level, 5-level, PAE, 32-bit) and NXE.
    Every nested access is a user access; accesses to guest table entries are writes. SMEP, SMAP and protection keys
    of the host do not apply. Source: AMD APM vol. 2, 'Nested Paging'.
    """

    ncr3: int
    cr4: int
    efer: int
    phys_bits: int = 52

    def __post_init__(self) -> None:
        _check_range("phys_bits", self.phys_bits, *PHYS_BITS)
        _check_register("ncr3", self.ncr3, Cr3)
        _check_register("cr4", self.cr4, Cr4)
        _check_register("efer", self.efer, Efer)
        _check_paging("", self.cr4, self.efer)
        _check_range("ncr3 address", root_address(self.ncr3, self.levels), 0, (1 << self.phys_bits) - 1)

    @property
    def levels(self) -> tuple[Level, ...]:
        return paging_levels(self.cr4, self.efer)


@dataclass(frozen=True)
class Ept:
    """Intel extended page tables at *eptp*, with execute-only entries and, by EPTP.AD, accessed and dirty flags.

    Left out: mode-based execute (bit 10 is ignored), supervisor shadow-stack rights (EPTP.SSS is refused), sub-page
    permissions, guest-paging verification, #VE. Source: Intel SDM vol. 3C, 'The Extended Page Table Mechanism (EPT)'.
    """

    eptp: int
    phys_bits: int = 52

    def __post_init__(self) -> None:
        _check_range("phys_bits", self.phys_bits, *PHYS_BITS)
        _check_register("eptp", self.eptp, Eptp)
        _refuse(Eptp.MT.get(self.eptp) not in (0, 6), "eptp", self.eptp, "memory type must be 0 (UC) or 6 (WB)")
        length = Eptp.LENGTH.get(self.eptp)
        _refuse(length not in (3, 4), "eptp", self.eptp, "walk length must be 3 or 4 (levels minus 1)")
        _refuse(bool(self.eptp & Eptp.SSS.mask), "eptp", self.eptp, "supervisor shadow-stack rights are not modelled")
        _check_range("eptp address", self.eptp & Eptp.ADDR.mask, 0, (1 << self.phys_bits) - 1)

    @property
    def levels(self) -> tuple[Level, ...]:
        return EPT_FIVE_LEVEL if Eptp.LENGTH.get(self.eptp) == 4 else EPT_FOUR_LEVEL

    @property
    def accessed_dirty(self) -> bool:
        return bool(self.eptp & Eptp.AD.mask)


@dataclass(frozen=True)
class Registers:
    """What translates a linear address. Values are those of the architecture; `phys_bits` is MAXPHYADDR.

    `cpl` and `ac` (EFLAGS.AC) belong to the instruction that accesses. `stage2` is None, Npt or Ept: everything that
    the tables of this stage name is then guest-physical.
    `bus_error` says what a table access gets that the bus answers with an error: "zero" (bytes that nobody answered
    read as 0 and a lost write stays lost, as in emulators) or "machine-check" (the walk ends with a BUS fault).

    Raises ValueError for a value out of range, a reserved bit, or a combination that hardware refuses.
    """

    cr0: int
    cr3: int
    cr4: int
    efer: int
    pkru: int = 0
    pkrs: int = 0
    ac: bool = False
    cpl: int = 0
    phys_bits: int = 52
    stage2: Npt | Ept | None = None
    bus_error: Literal["zero", "machine-check"] = "zero"

    def __post_init__(self) -> None:
        _check_range("phys_bits", self.phys_bits, *PHYS_BITS)
        _check_range("cpl", self.cpl, 0, 3)
        _check_range("pkru", self.pkru, 0, 0xFFFFFFFF)
        _check_range("pkrs", self.pkrs, 0, 0xFFFFFFFF)
        if self.bus_error not in ("zero", "machine-check"):
            raise ValueError(f"bus_error must be 'zero' or 'machine-check', not {self.bus_error!r}")
        _check_register("cr0", self.cr0, Cr0)
        _check_register("cr4", self.cr4, Cr4)
        _check_register("efer", self.efer, Efer)
        _check_range("cr3", self.cr3, 0, (1 << 64) - 1)
        _refuse(bool(self.cr4 & Cr4.LASS.mask), "cr4", self.cr4, "LASS is not modelled")
        _refuse(bool(self.efer & Efer.UAIE.mask), "efer", self.efer, "UAIE is not modelled")
        if self.paging:
            self._check_combinations()

    def _check_combinations(self) -> None:
        _refuse(not self.cr0 & Cr0.PE.mask, "cr0", self.cr0, "PG=1 needs PE=1")
        _check_paging("", self.cr4, self.efer)
        wrong = bool(self.cr4 & Cr4.CET.mask) and not self.cr0 & Cr0.WP.mask
        _refuse(wrong, "cr4", self.cr4, f"CET=1 needs CR0.WP=1, CR0 is {self.cr0:#x}")
        if self.long_mode:
            _check_register("cr3", self.cr3, Cr3)
            no_flush = bool(self.cr3 & Cr3.NOFLUSH.mask) and not self.cr4 & Cr4.PCIDE.mask
            _refuse(no_flush, "cr3", self.cr3, f"bit 63 needs CR4.PCIDE=1, CR4 is {self.cr4:#x}")
            _check_range("cr3 address", self.root, 0, (1 << self.phys_bits) - 1)

    @property
    def paging(self) -> bool:
        return bool(self.cr0 & Cr0.PG.mask)

    @property
    def long_mode(self) -> bool:
        """4-level or 5-level paging: IA32_EFER.LMA, which hardware sets when LME and PG are 1."""
        return self.paging and bool(self.efer & Efer.LME.mask)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels of the walk, root first; empty while paging is off."""
        return paging_levels(self.cr4, self.efer) if self.paging else ()

    @property
    def root(self) -> int:
        return root_address(self.cr3, self.levels)

    def __getstate__(self) -> dict[str, Any]:
        # the C form that the native walker keeps in __dict__ is no part of the value
        return {f.name: getattr(self, f.name) for f in fields(self)}
