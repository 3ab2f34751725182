"""The system registers that translation reads, checked when they are put together."""

from __future__ import annotations

from dataclasses import dataclass, fields

from mmu.arm64.format import GRANULES, Granule, Hcr, Sctlr, Tcr, TcrSingle, Vtcr

PA_RANGES = (32, 36, 40, 42, 44, 48, 52)


@dataclass(frozen=True)
class Registers:
    """One CPU's view: register values as MRS reads them, PSTATE.EL, PAN and UAO, and PARange in bits.

    A regime whose SCTLR_ELx.M is 0 is off, and its TCR is not looked at. The CPU has every extension of the formats in
    `mmu.arm64.format` (FEAT_HAFDBS, LPA2, LVA, TTST, PAN3, UAO, XNX, E0PD); FEAT_S1PIE, FEAT_NV and FEAT_D128 are not
    modelled, and the security state is Non-secure.

    Raises ValueError, naming the field, the value and what is legal. The architecture lets a CPU fault on a T0SZ that
    is out of range or clamp it; here it is refused. An upper half that was never programmed (T1SZ and TG1 both 0) is
    accepted: any access to it is a Translation fault at level 0.
    """

    sctlr_el1: int = 0
    tcr_el1: int = 0
    ttbr0_el1: int = 0
    ttbr1_el1: int = 0
    mair_el1: int = 0
    hcr_el2: int = 0
    vtcr_el2: int = 0
    vttbr_el2: int = 0
    el: int = 1
    pan: bool = False
    pa_range: int = 48
    uao: bool = False
    sctlr_el2: int = 0
    tcr_el2: int = 0
    ttbr0_el2: int = 0
    ttbr1_el2: int = 0
    mair_el2: int = 0
    sctlr_el3: int = 0
    tcr_el3: int = 0
    ttbr0_el3: int = 0
    mair_el3: int = 0
    scr_el3: int = 0

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if not isinstance(value, int):
                raise TypeError(f"{f.name} must be an int, not {value!r}")
            if not 0 <= value < 1 << 64:
                raise ValueError(f"{f.name} = {value:#x} must be 0 .. 2**64-1")
        if self.el > 3:
            raise ValueError(f"el = {self.el} must be 0 .. 3")
        if self.pa_range not in PA_RANGES:
            raise ValueError(f"pa_range = {self.pa_range} must be one of {', '.join(map(str, PA_RANGES))} (bits)")
        _check_regimes(self)

    def __getstate__(self) -> dict[str, int]:
        """The fields only: the C walker's form of them, kept beside, is made anew."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def granule_by(encoding: str, value: int) -> Granule | None:
    """The granule with this TG0 or TG1 encoding ("tg0", "tg1"); None for the reserved one."""
    return next((g for g in GRANULES if getattr(g, encoding) == value), None)


def txsz_limits(granule: Granule, ds: int) -> tuple[int, int]:
    """Least and greatest TxSZ of stage 1. Source: pseudocode AArch64.S1MinTxSZ, AArch64.MaxTxSZ."""
    large = ds if granule.has_ds else True
    return granule.large_min_txsz if large else granule.min_txsz, granule.max_txsz


def stage2_txsz_limits(granule: Granule, ds: int, pa_range: int) -> tuple[int, int]:
    """Least and greatest VTCR_EL2.T0SZ. Source: pseudocode AArch64.S2MinTxSZ."""
    large = ds if granule.has_ds else True
    return 64 - (pa_range if large else min(pa_range, 48)), granule.max_txsz


def _check_txsz(name: str, value: int, limits: tuple[int, int]) -> None:
    if not limits[0] <= value <= limits[1]:
        raise ValueError(f"{name} = {value} must be {limits[0]} .. {limits[1]} with this granule")


def _granule(name: str, encoding: str, value: int) -> Granule:
    granule = granule_by(encoding, value)
    if granule is None:
        legal = ", ".join(f"{getattr(g, encoding)} ({1 << g.page_shift - 10}K)" for g in GRANULES)
        raise ValueError(f"{name} = {value} must be one of {legal}")
    return granule


def _check_two_ranges(name: str, tcr: int) -> None:
    ds = Tcr.DS.get(tcr)
    if not Tcr.EPD0.get(tcr):
        granule = _granule(f"{name}.TG0", "tg0", Tcr.TG0.get(tcr))
        _check_txsz(f"{name}.T0SZ", Tcr.T0SZ.get(tcr), txsz_limits(granule, ds))
    if not Tcr.EPD1.get(tcr) and tcr & (Tcr.T1SZ.mask | Tcr.TG1.mask):
        granule = _granule(f"{name}.TG1", "tg1", Tcr.TG1.get(tcr))
        _check_txsz(f"{name}.T1SZ", Tcr.T1SZ.get(tcr), txsz_limits(granule, ds))


def _check_one_range(name: str, tcr: int) -> None:
    granule = _granule(f"{name}.TG0", "tg0", TcrSingle.TG0.get(tcr))
    _check_txsz(f"{name}.T0SZ", TcrSingle.T0SZ.get(tcr), txsz_limits(granule, TcrSingle.DS.get(tcr)))


def _check_regimes(regs: Registers) -> None:
    if Sctlr.M.get(regs.sctlr_el1):
        _check_two_ranges("tcr_el1", regs.tcr_el1)
    if Sctlr.M.get(regs.sctlr_el2):
        check = _check_two_ranges if Hcr.E2H.get(regs.hcr_el2) else _check_one_range
        check("tcr_el2", regs.tcr_el2)
    if Sctlr.M.get(regs.sctlr_el3):
        _check_one_range("tcr_el3", regs.tcr_el3)
    if regs.hcr_el2 & (Hcr.VM.mask | Hcr.DC.mask):
        granule = _granule("vtcr_el2.TG0", "tg0", Vtcr.TG0.get(regs.vtcr_el2))
        limits = stage2_txsz_limits(granule, Vtcr.DS.get(regs.vtcr_el2), regs.pa_range)
        _check_txsz("vtcr_el2.T0SZ", Vtcr.T0SZ.get(regs.vtcr_el2), limits)
