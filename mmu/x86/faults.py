"""What software sees of a fault: an exception with its error code and CR2, or the exit from a guest."""

from __future__ import annotations

from dataclasses import dataclass

from mmu.types import Access, Fault, FaultKind
from mmu.x86.format import Cr4, Efer, EptQualification, NpfInfo, PageFaultCode
from mmu.x86.registers import Ept, Npt, Registers
from mmu.x86.rights import user_access
from mmu.x86.walk import linear_address


@dataclass(frozen=True, slots=True)
class PageFault:
    """#PF. `cr2` is the linear address, after masking where LAM applies."""

    error_code: int
    cr2: int
    vector: int = 14


@dataclass(frozen=True, slots=True)
class GeneralProtection:
    """#GP for a non-canonical address."""

    error_code: int = 0
    vector: int = 13


@dataclass(frozen=True, slots=True)
class StackFault:
    """#SS for a non-canonical address of a stack access."""

    error_code: int = 0
    vector: int = 12


@dataclass(frozen=True, slots=True)
class MachineCheck:
    """#MC: the bus answered a table access with an error. `address` is that of the entry, None when there is none."""

    address: int | None
    vector: int = 18


@dataclass(frozen=True, slots=True)
class NestedPageFault:
    """VMEXIT_NPF. `exit_info_1` is EXITINFO1; `gpa`, the guest-physical address, is EXITINFO2."""

    exit_info_1: int
    gpa: int


@dataclass(frozen=True, slots=True)
class EptViolation:
    """VM exit "EPT violation" with its exit qualification."""

    qualification: int
    gpa: int


@dataclass(frozen=True, slots=True)
class EptMisconfiguration:
    """VM exit "EPT misconfiguration"."""

    gpa: int


Event = (
    PageFault | GeneralProtection | StackFault | MachineCheck | NestedPageFault | EptViolation | EptMisconfiguration
)


def exception(fault: Fault, regs: Registers) -> Event:
    """What the fault of a walk with these registers looks like to software. Pure.

    Raises ValueError for a fault that no x86 walk with these registers can give.
    """
    match fault.kind:
        case FaultKind.BUS:
            return MachineCheck(fault.entry_address)
        case FaultKind.NON_CANONICAL if fault.stage == 1:
            through_ss = fault.access & Access.STACK and not fault.access & Access.SHADOW_STACK
            return StackFault() if through_ss else GeneralProtection()
        case FaultKind.NOT_PRESENT | FaultKind.RESERVED_BIT | FaultKind.PERMISSION | FaultKind.PROTECTION_KEY if (
            fault.stage == 1
        ):
            return PageFault(page_fault_code(fault, regs), linear_address(regs, fault.va, fault.access))
        case FaultKind.NOT_PRESENT | FaultKind.RESERVED_BIT | FaultKind.PERMISSION if isinstance(regs.stage2, Npt):
            assert fault.gpa is not None
            return NestedPageFault(npf_info(fault), fault.gpa)
        case FaultKind.NOT_PRESENT | FaultKind.PERMISSION if isinstance(regs.stage2, Ept):
            assert fault.gpa is not None
            return EptViolation(ept_qualification(fault), fault.gpa)
        case FaultKind.MISCONFIGURATION if isinstance(regs.stage2, Ept):
            assert fault.gpa is not None
            return EptMisconfiguration(fault.gpa)
    raise ValueError(f"no x86 walk with stage 2 {regs.stage2!r} gives {fault.kind.name} at stage {fault.stage}")


def page_fault_code(fault: Fault, regs: Registers) -> int:
    """Intel SDM vol. 3A, 'Page-Fault Exceptions'. A reserved bit is reported with P=1, as hardware does.

    PK is set whenever the key forbids the data access, also when another right is missing at the same time.
    """
    nxe = regs.cr4 & Cr4.PAE.mask and regs.efer & Efer.NXE.mask
    fetch = fault.access & Access.FETCH and (nxe or regs.cr4 & Cr4.SMEP.mask)
    return PageFaultCode.make(
        P=fault.kind is not FaultKind.NOT_PRESENT,
        WR=bool(fault.access & Access.WRITE),
        US=user_access(regs, fault.access),
        RSVD=fault.kind is FaultKind.RESERVED_BIT,
        ID=bool(fetch),
        PK="protection_key" in fault.detail,
        SS=bool(fault.access & Access.SHADOW_STACK),
    )


def npf_info(fault: Fault) -> int:
    """AMD APM vol. 2, 'Nested versus Guest Page Faults, Fault Ordering'."""
    wanted: Access = fault.detail["wanted"]
    return NpfInfo.make(
        P=fault.kind is not FaultKind.NOT_PRESENT,
        WR=bool(wanted & Access.WRITE),
        US=1,
        RSVD=fault.kind is FaultKind.RESERVED_BIT,
        ID=bool(wanted & Access.FETCH),
        SS=bool(fault.access & Access.SHADOW_STACK) and not fault.on_table,
        FINAL=not fault.on_table,
        TABLE=fault.on_table,
    )


def ept_qualification(fault: Fault) -> int:
    """Intel SDM vol. 3C, 'Exit Qualification for EPT Violations'. The linear address is always valid."""
    wanted: Access = fault.detail["wanted"]
    granted: Access = fault.detail["granted"]
    return EptQualification.make(
        READ=bool(wanted & Access.READ),
        WRITE=bool(wanted & Access.WRITE),
        FETCH=bool(wanted & Access.FETCH),
        READABLE=bool(granted & Access.READ),
        WRITABLE=bool(granted & Access.WRITE),
        EXECUTABLE=bool(granted & Access.FETCH),
        LINEAR_VALID=1,
        FINAL=not fault.on_table,
        SHADOW_STACK=bool(fault.access & Access.SHADOW_STACK) and not fault.on_table,
    )
