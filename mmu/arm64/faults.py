"""Fault -> what the guest sees: syndrome, fault address, target EL. A pure function of the fault and the registers.

Source: DDI 0487, "ESR_EL1, ISS encoding for an exception from a Data Abort" and "... Instruction Abort", pseudocode
EncodeLDFSC and AArch64.Abort.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmu.arm64.format import Esr, ExceptionClass, FaultStatus, Hcr, Hpfar, Scr
from mmu.arm64.registers import Registers
from mmu.types import Access, Fault, FaultKind, MemTxResult

# Kind -> (code to which the level is added, code at level -1).
_LEVELLED = {
    FaultKind.NOT_PRESENT: (FaultStatus.TRANSLATION, FaultStatus.TRANSLATION_MINUS_1),
    FaultKind.ADDRESS_SIZE: (FaultStatus.ADDRESS_SIZE, FaultStatus.ADDRESS_SIZE_MINUS_1),
    FaultKind.BUS: (FaultStatus.EXTERNAL_ON_WALK, FaultStatus.EXTERNAL_ON_WALK_MINUS_1),
    FaultKind.ACCESS_FLAG: (FaultStatus.ACCESS_FLAG, None),
    FaultKind.PERMISSION: (FaultStatus.PERMISSION, None),
}
_PLAIN = {
    FaultKind.ALIGNMENT: FaultStatus.ALIGNMENT,
    FaultKind.UNSUPPORTED_ATOMIC: FaultStatus.UNSUPPORTED_ATOMIC,
}


@dataclass(frozen=True, slots=True)
class Abort:
    """A Data or Instruction Abort.

    `esr` is ESR_ELx of `target_el`, without an instruction syndrome (ISV=0): a walk does not know the instruction.
    `far` is the address as the access gave it, top byte included. `hpfar` is HPFAR_EL2, None for stage 1; for a
    stage 2 Permission fault of the access itself the architecture leaves it UNKNOWN, and it holds the IPA here.
    `wnr` is False for an Instruction Abort, whose ISS has no such bit, and True for cache maintenance (CM=1).
    """

    kind: Literal["data", "instruction"]
    esr: int
    fsc: int
    level: int | None
    far: int
    stage: int
    wnr: bool
    s1ptw: bool
    ea: bool
    hpfar: int | None
    target_el: int


def fault_status(fault: Fault) -> int:
    """DFSC or IFSC. Raises ValueError for a fault that arm64 does not have."""
    if fault.kind in _PLAIN:
        return _PLAIN[fault.kind]
    if fault.kind is FaultKind.BUS and fault.level is None:  # no table: the bus refused the access itself
        return FaultStatus.EXTERNAL
    if fault.kind not in _LEVELLED:
        raise ValueError(f"{fault.kind.name} is not a fault of arm64")
    code, minus_1 = _LEVELLED[fault.kind]
    level = fault.level or 0
    if level >= 0:
        return code + level
    if minus_1 is None:
        raise ValueError(f"{fault.kind.name} does not exist at level -1")
    return minus_1


def target_el(fault: Fault, regs: Registers) -> int:
    """The EL that takes the exception. Source: pseudocode AArch64.Abort, route_to_el2, route_to_el3."""
    external = fault.kind is FaultKind.BUS
    if regs.el == 3 or (external and Scr.EA.get(regs.scr_el3)):
        return 3
    if regs.el == 2 or fault.stage == 2 or (regs.el == 0 and Hcr.TGE.get(regs.hcr_el2)):
        return 2
    return 2 if external and Hcr.TEA.get(regs.hcr_el2) else 1


def exception(fault: Fault, regs: Registers) -> Abort:
    """What *fault*, met by an access of a CPU with *regs*, does to that CPU."""
    fetch, maintenance = bool(fault.access & Access.FETCH), bool(fault.access & Access.MAINTENANCE)
    write = maintenance or bool(fault.access & Access.WRITE)
    target = target_el(fault, regs)
    lower = ExceptionClass.INSTRUCTION_ABORT_LOWER if fetch else ExceptionClass.DATA_ABORT_LOWER
    ea = fault.kind is FaultKind.BUS and fault.detail.get("result") != MemTxResult.DECODE_ERROR
    fsc = fault_status(fault)
    esr = Esr.make(
        EC=lower + (target == regs.el), IL=1, EA=int(ea), S1PTW=int(fault.on_table), CM=int(maintenance),
        WNR=int(write), FSC=fsc,
    )
    return Abort(
        kind="instruction" if fetch else "data",
        esr=esr,
        fsc=fsc,
        level=fault.level,
        far=fault.va,
        stage=fault.stage,
        wnr=write,
        s1ptw=fault.on_table,
        ea=ea,
        hpfar=None if fault.gpa is None else Hpfar.make(FIPA=fault.gpa >> 12),
        target_el=target,
    )
