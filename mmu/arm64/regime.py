"""Registers -> the parameters of one walk, as the manual's pseudocode gathers them before it starts.

Source: DDI 0487, shared pseudocode, AArch64.GetS1TTWParams, AArch64.GetS2TTWParams, AArch64.S1StartLevel,
AArch64.S1TTBaseAddress and their stage 2 twins.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from mmu.arm64.format import (
    FINAL_LEVEL,
    GRANULES,
    PA_SIZES,
    Form,
    Granule,
    Hcr,
    Sctlr,
    Tcr,
    TcrSingle,
    Ttbr,
    Vtcr,
)
from mmu.arm64.registers import Registers, granule_by, stage2_txsz_limits, txsz_limits


class Regime(Enum):
    """A stage 1 translation regime: (name, EL whose registers it uses, has an upper VA range and EL0)."""

    EL10 = ("EL1&0", 1, True)
    EL20 = ("EL2&0", 2, True)
    EL2 = ("EL2", 2, False)
    EL3 = ("EL3", 3, False)

    @property
    def el(self) -> int:
        return self.value[1]

    @property
    def two_ranges(self) -> bool:
        return self.value[2]


@dataclass(frozen=True, slots=True)
class Tables:
    """Where a walk starts and what it may meet. Sizes in bits; `valid` False: every address is refused at level 0."""

    stage: int
    valid: bool
    granule: Granule
    form: Form
    input_bits: int
    start_level: int
    output_bits: int
    descriptor_bits: int  # of an address in a descriptor: 52 with DS=1 (4K, 16K) or a 52-bit PARange (64K), else 48
    base: int
    block_levels: int  # mask, bit L for level L
    ha: bool
    hd: bool  # HD and HA
    big_endian: bool
    sh: int  # TCR.SHx or VTCR.SH0: the pages' shareability with DS=1


@dataclass(frozen=True, slots=True)
class Stage1:
    """Stage 1 of a regime, for one half of the address space. `enabled` False: flat."""

    regime: Regime
    upper: bool
    enabled: bool
    cacheable: bool  # HCR_EL2.DC: flat, and cacheable
    fetch_cacheable: bool  # SCTLR.I
    tables: Tables
    tbi: bool
    tbid: bool
    epd: bool
    e0pd: bool
    hpd: bool
    wxn: bool
    epan: bool
    mair: int


@dataclass(frozen=True, slots=True)
class Stage2:
    tables: Tables
    ptw: bool  # a stage 1 table in Device memory is a Permission fault
    fwb: bool
    cd: bool  # HCR_EL2.CD: data is Non-cacheable


def in_host(regs: Registers) -> bool:
    """EL0 belongs to EL2 (HCR_EL2.E2H and TGE)."""
    return bool(Hcr.E2H.get(regs.hcr_el2) and Hcr.TGE.get(regs.hcr_el2))


def regime_of(regs: Registers, el: int) -> Regime:
    """Source: pseudocode TranslationRegime."""
    if el == 3:
        return Regime.EL3
    if el == 2:
        return Regime.EL20 if Hcr.E2H.get(regs.hcr_el2) else Regime.EL2
    return Regime.EL20 if el == 0 and in_host(regs) else Regime.EL10


def _output_bits(granule: Granule, ds: bool, encoded: int, pa_range: int) -> int:
    """Source: pseudocode AArch64.PhysicalAddressSize."""
    widest = pa_range if ds or not granule.has_ds else min(pa_range, 48)
    return min(PA_SIZES[encoded], widest)


def _form(granule: Granule, ds: bool) -> Form:
    form = Form(GRANULES.index(granule))
    return {Form.K4: Form.K4_DS, Form.K16: Form.K16_DS}[form] if ds else form


def _base(ttbr: int, large: bool, table_shift: int) -> int:
    """The first table, aligned to its size; the 52-bit form is aligned to 64 bytes at least."""
    address = ttbr & Ttbr.BADDR.mask
    if large:
        address = address & ~0x3F | (ttbr >> 2 & 0xF) << 48
        table_shift = max(table_shift, 6)
    return address >> table_shift << table_shift


def _large(granule: Granule, ds: bool, pa_range: int) -> bool:
    """Descriptors hold 52-bit addresses."""
    return ds if granule.has_ds else pa_range >= 52


def _block_levels(granule: Granule, ds: bool, pa_range: int) -> int:
    """Source: pseudocode AArch64.BlockDescSupported."""
    return granule.block_levels | (granule.large_block_levels if _large(granule, ds, pa_range) else 0)


def _large_base(granule: Granule, ds: bool, encoded: int, pa_range: int) -> bool:
    return ds or (not granule.has_ds and encoded >= 6 and pa_range >= 52)


def stage1_tables(
    regs: Registers, granule: Granule, ds: bool, txsz: int, encoded: int, ttbr: int, *, valid: bool, ha: int, hd: int,
    big_endian: int, sh: int,
) -> Tables:  # fmt: skip
    low, high = txsz_limits(granule, ds)
    valid = valid and low <= txsz <= high
    input_bits = 64 - txsz if valid else granule.page_shift + 1
    start = FINAL_LEVEL - (input_bits - 1 - granule.page_shift) // granule.stride
    table_shift = input_bits - (FINAL_LEVEL - start) * granule.stride - granule.page_shift + 3
    return Tables(
        stage=1,
        valid=valid,
        granule=granule,
        form=_form(granule, ds),
        input_bits=input_bits,
        start_level=start,
        output_bits=_output_bits(granule, ds, encoded, regs.pa_range),
        descriptor_bits=52 if _large(granule, ds, regs.pa_range) else 48,
        base=_base(ttbr, _large_base(granule, ds, encoded, regs.pa_range), table_shift),
        block_levels=_block_levels(granule, ds, regs.pa_range),
        ha=bool(ha),
        hd=bool(ha and hd),
        big_endian=bool(big_endian),
        sh=sh,
    )


def _two_ranges(regs: Registers, regime: Regime, upper: bool) -> Stage1:
    one = regime is Regime.EL10
    sctlr, tcr, mair = (
        (regs.sctlr_el1, regs.tcr_el1, regs.mair_el1) if one else (regs.sctlr_el2, regs.tcr_el2, regs.mair_el2)
    )
    ttbr = (regs.ttbr1_el1 if one else regs.ttbr1_el2) if upper else (regs.ttbr0_el1 if one else regs.ttbr0_el2)
    n = "1" if upper else "0"

    def field(name: str) -> int:
        return Tcr.fields[name].get(tcr)

    granule = granule_by("tg" + n, field("TG" + n))
    ds = bool(field("DS") and (granule or GRANULES[0]).has_ds)
    tables = stage1_tables(
        regs, granule or GRANULES[0], ds, field(f"T{n}SZ"), field("IPS"), ttbr,
        valid=granule is not None, ha=field("HA"), hd=field("HD"), big_endian=Sctlr.EE.get(sctlr), sh=field("SH" + n),
    )  # fmt: skip
    dc = bool(one and Hcr.DC.get(regs.hcr_el2))
    return Stage1(
        regime=regime,
        upper=upper,
        enabled=bool(Sctlr.M.get(sctlr)) and not (one and regs.hcr_el2 & (Hcr.DC.mask | Hcr.TGE.mask)),
        cacheable=dc,
        fetch_cacheable=bool(Sctlr.I.get(sctlr)),
        tables=tables,
        tbi=bool(field("TBI" + n)),
        tbid=bool(field("TBID" + n)),
        epd=bool(field("EPD" + n)),
        e0pd=bool(field("E0PD" + n)),
        hpd=bool(field("HPD" + n)),
        wxn=bool(Sctlr.WXN.get(sctlr)),
        epan=bool(Sctlr.EPAN.get(sctlr)),
        mair=mair,
    )


def _one_range(regs: Registers, regime: Regime) -> Stage1:
    two = regime is Regime.EL2
    sctlr, tcr, mair = (
        (regs.sctlr_el2, regs.tcr_el2, regs.mair_el2) if two else (regs.sctlr_el3, regs.tcr_el3, regs.mair_el3)
    )
    granule = granule_by("tg0", TcrSingle.TG0.get(tcr))
    ds = bool(TcrSingle.DS.get(tcr) and (granule or GRANULES[0]).has_ds)
    tables = stage1_tables(
        regs, granule or GRANULES[0], ds, TcrSingle.T0SZ.get(tcr), TcrSingle.PS.get(tcr),
        regs.ttbr0_el2 if two else regs.ttbr0_el3, valid=granule is not None, ha=TcrSingle.HA.get(tcr),
        hd=TcrSingle.HD.get(tcr), big_endian=Sctlr.EE.get(sctlr), sh=TcrSingle.SH0.get(tcr),
    )  # fmt: skip
    return Stage1(
        regime=regime,
        upper=False,
        enabled=bool(Sctlr.M.get(sctlr)),
        cacheable=False,
        fetch_cacheable=bool(Sctlr.I.get(sctlr)),
        tables=tables,
        tbi=bool(TcrSingle.TBI.get(tcr)),
        tbid=bool(TcrSingle.TBID.get(tcr)),
        epd=False,
        e0pd=False,
        hpd=bool(TcrSingle.HPD.get(tcr)),
        wxn=bool(Sctlr.WXN.get(sctlr)),
        epan=False,
        mair=mair,
    )


@lru_cache(maxsize=256)
def stage1_of(regs: Registers, regime: Regime, upper: bool) -> Stage1:
    """Parameters of stage 1; *upper* (VA bit 55) only counts in regimes with two ranges."""
    return _two_ranges(regs, regime, upper) if regime.two_ranges else _one_range(regs, regime)


def _start_level_fits(granule: Granule, input_bits: int, start: int) -> bool:
    """The start level resolves 1 .. stride+4 bits. Source: pseudocode AArch64.S2InconsistentSL."""
    least = (FINAL_LEVEL - start) * granule.stride + granule.page_shift + 1
    return least <= input_bits <= least + granule.stride - 1 + 4


@lru_cache(maxsize=256)
def stage2_of(regs: Registers, regime: Regime) -> Stage2 | None:
    """Parameters of stage 2; None when it is off for *regime*."""
    if regime is not Regime.EL10 or not regs.hcr_el2 & (Hcr.VM.mask | Hcr.DC.mask):
        return None
    vtcr = regs.vtcr_el2
    found = granule_by("tg0", Vtcr.TG0.get(vtcr))
    granule = found or GRANULES[0]
    ds = bool(Vtcr.DS.get(vtcr) and granule.has_ds)
    code = Vtcr.SL0.get(vtcr) | (Vtcr.SL2.get(vtcr) << 2 if ds and granule is GRANULES[0] else 0)
    start, txsz = granule.start_level[code], Vtcr.T0SZ.get(vtcr)
    low, high = stage2_txsz_limits(granule, ds, regs.pa_range)
    valid = (
        found is not None
        and low <= txsz <= high
        and granule.start_pa[code] <= regs.pa_range
        and (ds or start != granule.start_ds_level)
        and _start_level_fits(granule, 64 - txsz, start)
    )
    input_bits = 64 - txsz if valid else granule.page_shift + 1
    start = start if valid else FINAL_LEVEL
    table_shift = input_bits - (FINAL_LEVEL - start) * granule.stride - granule.page_shift + 3
    encoded = Vtcr.PS.get(vtcr)
    tables = Tables(
        stage=2,
        valid=valid,
        granule=granule,
        form=_form(granule, ds),
        input_bits=input_bits,
        start_level=start,
        output_bits=_output_bits(granule, ds, encoded, regs.pa_range),
        descriptor_bits=52 if _large(granule, ds, regs.pa_range) else 48,
        base=_base(regs.vttbr_el2, _large_base(granule, ds, encoded, regs.pa_range), table_shift),
        block_levels=_block_levels(granule, ds, regs.pa_range),
        ha=bool(Vtcr.HA.get(vtcr)),
        hd=bool(Vtcr.HA.get(vtcr) and Vtcr.HD.get(vtcr)),
        big_endian=bool(Sctlr.EE.get(regs.sctlr_el2)),
        sh=Vtcr.SH0.get(vtcr),
    )
    hcr = regs.hcr_el2
    return Stage2(tables, bool(Hcr.PTW.get(hcr)), bool(Hcr.FWB.get(hcr)), bool(Hcr.CD.get(hcr)))
