"""Public walks: one address, by the C walker or by the reference walker."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from mmu.arm64 import reference
from mmu.arm64.reference import Request
from mmu.arm64.regime import in_host, regime_of
from mmu.arm64.registers import Registers
from mmu.types import Access, Fault, Translation

if TYPE_CHECKING:
    from mmu.memory import AddressSpace

Engine = Literal["native", "reference"]
ENGINES = ("native", "reference")
_KINDS = (Access.READ, Access.WRITE, Access.FETCH)


def check_access(access: Access) -> Access:
    """Raises ValueError unless *access* is READ, WRITE or FETCH, or UNPRIVILEGED data."""
    kind = Access(access) & ~Access.UNPRIVILEGED
    if kind not in _KINDS or (kind is Access.FETCH and access & Access.UNPRIVILEGED):
        raise ValueError(f"access must be READ, WRITE or FETCH, perhaps UNPRIVILEGED data, not {access!r}")
    return Access(access)


def request_of(regs: Registers, va: int, access: Access, update: bool, stage1_only: bool = False) -> Request:
    """The access as the walkers take it. Raises ValueError for an address or an access that no CPU can make."""
    if not 0 <= va < 1 << 64:
        raise ValueError(f"va = {va:#x} must be 0 .. 2**64-1")
    access = check_access(access)
    # Pseudocode AArch64.IsUnprivAccessPriv.
    unprivileged = bool(access & Access.UNPRIVILEGED) and not regs.uao
    user = regs.el == 0 or (unprivileged and (regs.el == 1 or (regs.el == 2 and in_host(regs))))
    regime = regime_of(regs, regs.el)
    return Request(va, access, regime, user, bool(regs.pan) and not user, update, stage1_only)


def translate(
    space: AddressSpace, regs: Registers, request: Request, engine: str, steps: bool
) -> Translation | Fault:  # fmt: skip
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    if engine == "native":
        from mmu.arm64 import native

        return native.walk(space, regs, request, steps)
    found = reference.Walker(space, regs, request).run()
    return found if steps else replace(found, steps=())


def walk(
    space: AddressSpace,
    regs: Registers,
    va: int,
    access: Access,
    engine: Engine = "native",
    update: bool = True,
    steps: bool = True,
) -> Translation | Fault:
    """
    Translate *va* as a CPU without a TLB would: stage 1 of the regime that regs.el selects, then stage 2 if it is on.

    Args:
        va: 0 .. 2**64-1, top byte included.
        access: READ, WRITE or FETCH; UNPRIVILEGED with READ or WRITE is LDTR or STTR.
        engine: "native" (C) or "reference" (Python); both give the same result and the same bus accesses.
        update: write AF and dirty state back where TCR or VTCR tell hardware to. Without it the walk succeeds as if
            they had been written; nothing on the bus changes.
        steps: record every entry read.
    Returns:
        Translation, whose `attributes` `mmu.arm64.attributes.of` describes, or Fault. Fault.level is 0 where the
        address was refused before an entry was read.
    Raises:
        ValueError: an address, access or engine that does not exist. Whatever an MMIO callback raises.
    """
    return translate(space, regs, request_of(regs, va, access, update), engine, steps)
