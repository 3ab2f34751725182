"""One access as a walk sees it: whose rights it has, and through which regime it goes."""

from __future__ import annotations

from dataclasses import dataclass

from mmu.arm64.regime import Regime, in_host, regime_of
from mmu.arm64.registers import Registers
from mmu.types import Access

_KINDS = (Access.READ, Access.WRITE, Access.FETCH)
_MORE = (Access(0), Access.UNPRIVILEGED, Access.MAINTENANCE)


@dataclass(frozen=True, slots=True)
class Request:
    """`user`: with EL0's rights; `pan`: PSTATE.PAN holds for it; `checked`: it needs the right to `access`.
    `dirties`: the page is not clean after it.
    """

    va: int
    access: Access
    regime: Regime
    user: bool
    pan: bool
    update: bool
    stage1_only: bool
    checked: bool
    dirties: bool


def check_access(access: Access) -> None:
    """Raises ValueError unless *access* is READ, WRITE or FETCH, or UNPRIVILEGED or MAINTENANCE with data."""
    kind = Access(access) & (Access.READ | Access.WRITE | Access.FETCH)
    more = Access(access) & ~kind
    if kind not in _KINDS or more not in _MORE or (kind is Access.FETCH and more):
        raise ValueError(
            f"access must be READ, WRITE or FETCH, perhaps UNPRIVILEGED or MAINTENANCE data, not {access!r}")


def check_address(va: int) -> None:
    """Raises ValueError unless *va* has 64 bits."""
    if not 0 <= va < 1 << 64:
        raise ValueError(f"va = {va:#x} must be 0 .. 2**64-1")


def request_of(regs: Registers, va: int, access: Access, update: bool, stage1_only: bool = False) -> Request:
    """Source: pseudocode AArch64.IsUnprivAccessPriv, TranslationRegime, and for cache maintenance
    AArch64.S1HasPermissionsFault, AArch64.SetDirtyState. Raises ValueError as the checks above do.
    """
    check_address(va)
    check_access(access)
    unprivileged = bool(access & Access.UNPRIVILEGED) and not regs.uao
    user = regs.el == 0 or (unprivileged and (regs.el == 1 or (regs.el == 2 and in_host(regs))))
    regime = regime_of(regs, regs.el)
    maintenance = bool(access & Access.MAINTENANCE)
    return Request(
        va, Access(access), regime, user, bool(regs.pan) and not user and not maintenance, update, stage1_only,
        checked=user or not maintenance or bool(access & Access.WRITE),
        dirties=bool(access & Access.WRITE) and not maintenance)
