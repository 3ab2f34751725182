"""Which model-specific registers the CPU has, and what WRMSR refuses with #GP(0): csrc/guest_msr.c, step by step.

The engine reads 0 from those that nobody has, and writes whatever it is given. The tables are in mmu.guest.format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmu.guest.format import MSRS, MTRR_TYPES, PAT_TYPES, Msr, MsrRule
from mmu.x86.format import Cr0, Efer

if TYPE_CHECKING:
    from mmu.guest.x86 import X86Cpu

CLOCK = 0x10
EFER_BITS = Efer.make(SCE=1, LME=1, LMA=1, NXE=1)  # LMA is the CPU's own: what is written there counts for nothing


def find(number: int) -> Msr | None:
    """The row of a register, None where there is no such register."""
    rows = (m for m in MSRS if m.first <= number <= m.last and not (number - m.first) % m.step)
    return next(rows, None)


def _types(value: int, types: tuple[int, ...]) -> bool:
    return set(value.to_bytes(8, "little")) <= set(types)


def _efer(cpu: X86Cpu, value: int) -> bool:
    changed = value ^ cpu.read("efer")
    return not value & ~EFER_BITS and not (cpu.read("cr0") & Cr0.PG.mask and changed & Efer.LME.mask)


def permitted(cpu: X86Cpu, number: int, value: int) -> bool:
    """Whether WRMSR may write *value*."""
    msr = find(number)
    if msr is None or value & msr.reserved:
        return False
    match msr.rule:
        case MsrRule.READ_ONLY:
            return False
        case MsrRule.ADDRESS:
            return (value + (1 << 47)) % (1 << 64) < 1 << 48
        case MsrRule.TYPE:
            return value & 0xFF in MTRR_TYPES
        case MsrRule.TYPES:
            return _types(value, MTRR_TYPES)
        case MsrRule.PAT:
            return _types(value, PAT_TYPES)
        case MsrRule.EFER:
            return _efer(cpu, value)
    return True
