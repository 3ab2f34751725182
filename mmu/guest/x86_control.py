"""What MOV to a control register refuses with #GP(0): what csrc/guest_control.c does, step by step.

Source: Intel SDM vol. 2, 'MOV - Move to/from Control Registers'; vol. 3A, 'Control Registers', 'IA-32e Mode Related
Control Registers'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmu.x86.format import Cr0, Cr3, Cr3Pae, Cr4, Efer, PaePdpte

if TYPE_CHECKING:
    from mmu.guest.x86 import X86Cpu

# Of this CPU: no VME, UMIP, 5-level paging, VMX, SMX, protection keys, CET, user interrupts, LASS, LAM or FRED.
CR4_BITS = Cr4.make(
    TSD=1, DE=1, PSE=1, PAE=1, MCE=1, PGE=1, PCE=1, OSFXSR=1, OSXMMEXCPT=1, FSGSBASE=1, PCIDE=1,
    OSXSAVE=1, SMEP=1, SMAP=1)  # fmt: skip
CR3_UPPER = Cr3.reserved_mask | Cr3.LAM_U57.mask | Cr3.LAM_U48.mask
CR3_PCID = 0xFFF
# What makes PAE paging load its pointers when it changes.
CR0_LOADS = Cr0.make(CD=1, NW=1, PG=1)
CR4_LOADS = Cr4.make(PAE=1, PGE=1, PSE=1, SMEP=1)
TSS_16 = (1, 3)  # types; busy


def _cr0(cpu: X86Cpu, value: int) -> bool:
    now, cr4 = cpu.read("cr0"), cpu.read("cr4")
    if value & Cr0.reserved_mask:
        return False
    if (value & Cr0.PG.mask and not value & Cr0.PE.mask) or (value & Cr0.NW.mask and not value & Cr0.CD.mask):
        return False
    if now & ~value & Cr0.PG.mask:
        return not cpu.in_64_bit_code and not cr4 & Cr4.PCIDE.mask
    if value & ~now & Cr0.PG.mask and cpu.read("efer") & Efer.LME.mask:
        return bool(cr4 & Cr4.PAE.mask) and _may_enter_long_mode(cpu)
    return not (value ^ now) & CR0_LOADS or _pointers_permitted(cpu, value, cr4, cpu.read("cr3"))


def _may_enter_long_mode(cpu: X86Cpu) -> bool:
    """Long mode begins in code of other sizes, and knows no TSS of 16 bits."""
    return not cpu.marked_long and cpu.table_flags("tr")[3] >> 8 & 15 not in TSS_16


def _pointers_permitted(cpu: X86Cpu, cr0: int, cr4: int, cr3: int) -> bool:
    """PAE paging loads its four pointers, which must not have a reserved bit."""
    if not (cr0 & Cr0.PG.mask and cr4 & Cr4.PAE.mask) or cpu.read("efer") & Efer.LME.mask:
        return True
    pointers = cpu.peek_physical(cr3 & Cr3Pae.ADDR.mask, 4)
    return not any(p & PaePdpte.P.mask and p & PaePdpte.reserved_mask for p in pointers)


def _cr3(cpu: X86Cpu, value: int) -> bool:
    if value & CR3_UPPER:
        return False
    if value & Cr3.NOFLUSH.mask and not cpu.read("cr4") & Cr4.PCIDE.mask:
        return False
    return _pointers_permitted(cpu, cpu.read("cr0"), cpu.read("cr4"), value)


def _cr4(cpu: X86Cpu, value: int) -> bool:
    long_mode = bool(cpu.read("efer") & Efer.LMA.mask)
    if value & ~CR4_BITS or (long_mode and not value & Cr4.PAE.mask):
        return False
    now, cr3 = cpu.read("cr4"), cpu.read("cr3")
    if value & ~now & Cr4.PCIDE.mask and (not long_mode or cr3 & CR3_PCID):
        return False
    return not (value ^ now) & CR4_LOADS or _pointers_permitted(cpu, cpu.read("cr0"), value, cr3)


def _cr8(cpu: X86Cpu, value: int) -> bool:
    return value < 16


MOVES = {"cr0": _cr0, "cr3": _cr3, "cr4": _cr4, "cr8": _cr8}


def move_permitted(cpu: X86Cpu, register: str, value: int) -> bool:
    """Whether MOV may write *value* to the control register."""
    return MOVES[register](cpu, value)
