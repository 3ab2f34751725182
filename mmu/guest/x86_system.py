"""System instructions of x86 that the engine carries out wrongly: what a CPU says to each, and those done here.

What csrc/guest_x86_system.c and csrc/system_x86.c do, step by step. Source: Intel SDM vol. 2.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from mmu.core import lib
from mmu.guest import x86_msr
from mmu.guest.format import Rflags, Segment, Star
from mmu.guest.x86_control import MOVES, move_permitted
from mmu.x86.format import Cr0, Efer

if TYPE_CHECKING:
    from mmu.guest.x86 import X86Cpu

HALF, WHOLE = (1 << 32) - 1, (1 << 64) - 1
SYSRET_FLAGS = 0x3C7FD7
SYSENTER_CS, SYSENTER_ESP, SYSENTER_EIP = 0x174, 0x175, 0x176


class Verdict(Enum):
    RUNS = auto()
    REFUSED = auto()  # #GP(0)
    UNDEFINED = auto()  # #UD
    OURS = auto()


def canonical(va: int) -> bool:
    return va + (1 << 47) & WHOLE < 1 << 48


def _pair(cpu: X86Cpu) -> int:
    """EDX:EAX."""
    return (cpu.read("rdx") & HALF) << 32 | cpu.read("rax") & HALF


def _registers(instruction: Any) -> list[str]:
    return [instruction.reg_name(op.reg) for op in instruction.operands]


# -- what a CPU says ------------------------------------------------------------------------------------


def _move(cpu: X86Cpu, instruction: Any) -> Verdict:
    """Between a control register and a general one."""
    to, source = _registers(instruction)
    if to in MOVES and not move_permitted(cpu, to, cpu.read(source)):
        return Verdict.REFUSED
    return Verdict.OURS if "cr8" in (to, source) else Verdict.RUNS


def _ours_if_clock(cpu: X86Cpu) -> Verdict:
    return Verdict.OURS if cpu.read("rcx") & HALF == x86_msr.CLOCK else Verdict.RUNS


def _rdmsr(cpu: X86Cpu, instruction: Any) -> Verdict:
    return _ours_if_clock(cpu) if x86_msr.find(cpu.read("rcx") & HALF) else Verdict.REFUSED


def _wrmsr(cpu: X86Cpu, instruction: Any) -> Verdict:
    permitted = x86_msr.permitted(cpu, cpu.read("rcx") & HALF, _pair(cpu))
    return _ours_if_clock(cpu) if permitted else Verdict.REFUSED


def _rdpmc(cpu: X86Cpu, instruction: Any) -> Verdict:
    return Verdict.REFUSED  # there are no counters


def _sysenter(cpu: X86Cpu, instruction: Any) -> Verdict:
    protected = cpu.read("cr0") & Cr0.PE.mask
    return Verdict.OURS if protected and cpu.msr(SYSENTER_CS) & ~3 else Verdict.REFUSED


def _sysexit(cpu: X86Cpu, instruction: Any) -> Verdict:
    if cpu.cpl or (_wide(instruction) and not (canonical(cpu.read("rcx")) and canonical(cpu.read("rdx")))):
        return Verdict.REFUSED
    return _sysenter(cpu, instruction)


JUDGES = {
    "mov": _move, "rdmsr": _rdmsr, "wrmsr": _wrmsr, "rdpmc": _rdpmc, "sysenter": _sysenter, "sysexit": _sysexit,
    "sysexitq": _sysexit,
}  # fmt: skip
PRIVILEGED = frozenset(("mov", "rdmsr", "wrmsr"))


def verdict(cpu: X86Cpu, instruction: Any) -> Verdict:
    """What is to become of an instruction of 64-bit code (capstone, with details), which comes next."""
    name = instruction.mnemonic
    if name in PRIVILEGED and cpu.cpl:
        return Verdict.RUNS  # into the engine's #GP
    return JUDGES[name](cpu, instruction)


# -- those done here ------------------------------------------------------------------------------------


def _wide(instruction: Any) -> bool:
    return bool(instruction.rex & 8)


def _priority(cpu: X86Cpu, instruction: Any, after: int) -> int:
    to, source = _registers(instruction)
    cpu.write(to, cpu.read(source))
    return after


def _read_clock(cpu: X86Cpu, instruction: Any, after: int) -> int:
    time = lib.mmu_guest_look(cpu.guest)
    cpu.write("rax", time & HALF)
    cpu.write("rdx", time >> 32)
    return after


def _set_clock(cpu: X86Cpu, instruction: Any, after: int) -> int:
    lib.mmu_guest_set_time(cpu.guest, _pair(cpu))
    return after


def _switch(cpu: X86Cpu, selector: int, code: int, cpl: int) -> None:
    """Into flat segments from *selector* on, the code's and the stack's."""
    cs = selector & 0xFFFC | cpl
    dpl = Segment.DPL.put(cpl)
    cpu.switch({"cs": (cs, code | dpl), "ss": (cs + 8, cpu.FLAT_DATA | dpl)}, cpl)


def _enter(cpu: X86Cpu, instruction: Any, after: int) -> int:
    wide = cpu.read("efer") & Efer.LMA.mask
    half = WHOLE if wide else HALF
    cpu.write("rflags", cpu.read("rflags") & ~(Rflags.VM.mask | Rflags.IF.mask | Rflags.RF.mask))
    _switch(cpu, cpu.msr(SYSENTER_CS), cpu.FLAT_CODE if wide else cpu.FLAT_CODE_32, cpl=0)
    cpu.write("rsp", cpu.msr(SYSENTER_ESP) & half)
    return cpu.msr(SYSENTER_EIP) & half


def _exit(cpu: X86Cpu, instruction: Any, after: int) -> int:
    wide, selector = _wide(instruction), cpu.msr(SYSENTER_CS)
    half = WHOLE if wide else HALF
    _switch(cpu, selector + (32 if wide else 16), cpu.FLAT_CODE if wide else cpu.FLAT_CODE_32, cpl=3)
    cpu.write("rsp", cpu.read("rcx") & half)
    return cpu.read("rdx") & half


def _sysret(cpu: X86Cpu, instruction: Any, after: int) -> int:
    """With flags that the engine would take or leave."""
    wide, selector, dpl = _wide(instruction), Star.SYSRET.get(cpu.read("star")), Segment.DPL.put(3)
    cpu.write("rflags", cpu.read("r11") & SYSRET_FLAGS | Rflags.ONE.mask)
    code = cpu.FLAT_CODE if wide else cpu.FLAT_CODE_32
    cs, ss = (selector + (16 if wide else 0)) & 0xFFFF | 3, selector + 8 & 0xFFFF | 3
    cpu.switch({"cs": (cs, code | dpl), "ss": (ss, cpu.FLAT_DATA | dpl)}, 3)
    return cpu.read("rcx") & (WHOLE if wide else HALF)


DONE: dict[str, Callable[[X86Cpu, Any, int], int]] = {
    "mov": _priority, "rdmsr": _read_clock, "wrmsr": _set_clock, "sysenter": _enter, "sysexit": _exit,
    "sysexitq": _exit, "sysret": _sysret, "sysretq": _sysret,
}  # fmt: skip


def carry_out(cpu: X86Cpu, instruction: Any) -> int:
    """Do what an instruction that is OURS does. Returns where it goes on."""
    return DONE[instruction.mnemonic](cpu, instruction, instruction.address + instruction.size)
