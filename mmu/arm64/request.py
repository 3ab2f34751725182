"""One access as a walk sees it: whose rights it has, and through which regime it goes."""

from __future__ import annotations

from dataclasses import dataclass

from mmu.arm64.regime import Regime, in_host, regime_of
from mmu.arm64.registers import Registers
from mmu.types import Access

_KINDS = (Access.READ, Access.WRITE, Access.FETCH)


@dataclass(frozen=True, slots=True)
class Request:
    """`user`: with EL0's rights; `pan`: PSTATE.PAN holds for it."""

    va: int
    access: Access
    regime: Regime
    user: bool
    pan: bool
    update: bool
    stage1_only: bool


def check_access(access: Access) -> None:
    """Raises ValueError unless *access* is READ, WRITE or FETCH, or UNPRIVILEGED data."""
    kind = Access(access) & ~Access.UNPRIVILEGED
    if kind not in _KINDS or (kind is Access.FETCH and access & Access.UNPRIVILEGED):
        raise ValueError(f"access must be READ, WRITE or FETCH, perhaps UNPRIVILEGED data, not {access!r}")


def check_address(va: int) -> None:
    """Raises ValueError unless *va* has 64 bits."""
    if not 0 <= va < 1 << 64:
        raise ValueError(f"va = {va:#x} must be 0 .. 2**64-1")


def request_of(regs: Registers, va: int, access: Access, update: bool, stage1_only: bool = False) -> Request:
    """Source: pseudocode AArch64.IsUnprivAccessPriv, TranslationRegime. Raises ValueError as the checks above do."""
    check_address(va)
    check_access(access)
    unprivileged = bool(access & Access.UNPRIVILEGED) and not regs.uao
    user = regs.el == 0 or (unprivileged and (regs.el == 1 or (regs.el == 2 and in_host(regs))))
    regime = regime_of(regs, regs.el)
    return Request(va, Access(access), regime, user, bool(regs.pan) and not user, update, stage1_only)
