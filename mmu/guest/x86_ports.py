"""Who may use which I/O port: what csrc/guest_port.c does, step by step.

Source: Intel SDM vol. 1, 'Input/Output', 'Protected-Mode I/O'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mmu.guest.format import Rflags
from mmu.x86.format import Cr0

if TYPE_CHECKING:
    from mmu.guest.x86 import X86Cpu

TSS_TYPES = (9, 11)  # available, busy; others have no map
TSS_TYPE_SHIFT = 8
MAP_BASE = 0x66  # where the TSS has the offset of its map


def permitted(cpu: X86Cpu, port: int, size: int, load: Callable[[int], int]) -> bool:
    """Whether the program of *cpu* may use *size* ports from *port* on. *load*(va): two bytes, as the supervisor."""
    flags = cpu.read("rflags")
    if not cpu.read("cr0") & Cr0.PE.mask or (not flags & Rflags.VM.mask and cpu.cpl <= Rflags.IOPL.get(flags)):
        return True
    _, base, limit, kind = cpu.table_flags("tr")
    if kind >> TSS_TYPE_SHIFT & 15 not in TSS_TYPES or limit < MAP_BASE + 1:
        return False
    at = load(base + MAP_BASE) + port // 8
    if at + 1 > limit:  # two bytes are read, whatever the port's place in the first one
        return False
    return not load(base + at) >> port % 8 & (1 << size) - 1
