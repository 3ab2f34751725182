"""AT instructions: PAR_EL1 for an address.

Source: DDI 0487, "AT S1E1R" and the other AT instructions, "PAR_EL1, Physical Address Register", pseudocode
AArch64.AT, AArch64.EncodePAR.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mmu.arm64.faults import fault_status
from mmu.arm64.format import Par, ParFault
from mmu.arm64.regime import in_host
from mmu.arm64.registers import Registers
from mmu.arm64.walker import Engine, translate
from mmu.types import Access, Fault

if TYPE_CHECKING:
    from mmu.memory import AddressSpace


@dataclass(frozen=True, slots=True)
class _Operation:
    el: int
    access: Access
    stage1_only: bool = True
    pan: bool = False  # PSTATE.PAN counts


OPERATIONS = {
    "S1E1R": _Operation(1, Access.READ),
    "S1E1W": _Operation(1, Access.WRITE),
    "S1E0R": _Operation(0, Access.READ),
    "S1E0W": _Operation(0, Access.WRITE),
    "S1E1RP": _Operation(1, Access.READ, pan=True),
    "S1E1WP": _Operation(1, Access.WRITE, pan=True),
    "S1E2R": _Operation(2, Access.READ),
    "S1E2W": _Operation(2, Access.WRITE),
    "S1E3R": _Operation(3, Access.READ),
    "S1E3W": _Operation(3, Access.WRITE),
    "S12E1R": _Operation(1, Access.READ, stage1_only=False),
    "S12E1W": _Operation(1, Access.WRITE, stage1_only=False),
    "S12E0R": _Operation(0, Access.READ, stage1_only=False),
    "S12E0W": _Operation(0, Access.WRITE, stage1_only=False),
}


def at(space: AddressSpace, regs: Registers, va: int, operation: str, engine: Engine = "native") -> int:
    """
    PAR_EL1 after ``AT operation, va``.

    The operation names its regime itself, so regs.el is not looked at, and with HCR_EL2.E2H and TGE set S1E1* and S1E0*
    use EL2&0, as they do at EL2. Nothing is written: AF and dirty state that hardware would update count as updated.
    A fault that a CPU at EL1 would take to EL2 instead (stage 2, during a stage 1 walk), or as an external abort, is
    reported in PAR_EL1 too. PAR_EL1.NS is 1: the Non-secure state.

    Raises ValueError on an address that does not exist or an operation that is not one of `OPERATIONS`.
    """
    if operation not in OPERATIONS:
        raise ValueError(f"operation must be one of {', '.join(OPERATIONS)}, not {operation!r}")
    op = OPERATIONS[operation]
    el = 2 if op.el == 1 and in_host(regs) else op.el
    regs = replace(regs, el=el, pan=regs.pan and op.pan, uao=False)
    found = translate(space, regs, va, op.access, engine, False, False, op.stage1_only)
    if isinstance(found, Fault):
        return ParFault.make(F=1, FST=fault_status(found), PTW=int(found.on_table), S=int(found.stage == 2), RES11=1)
    a = found.attributes
    return Par.make(F=0, SH=a["sh"], NS=1, RES11=1, PA=found.pa >> 12, ATTR=a["attr"])
