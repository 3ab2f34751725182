"""The whole state of a CPU between two instructions, as plain values that another process can take over.

What is not here: breakpoint and watchpoint units, performance monitors, and what a CPU may forget at any time
(translations, an exclusive monitor). "time" is what its clock shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mmu.core import ffi, lib
from mmu.guest import asked
from mmu.guest.context import SSE_FLAGS, SSE_FLUSH, get, put, x86_places
from mmu.guest.format import MSRS, MsrRule, Pstate

if TYPE_CHECKING:
    from mmu.guest.arm64 import Arm64Cpu
    from mmu.guest.cpu import Cpu
    from mmu.guest.x86 import X86Cpu

State = dict[str, Any]  # what JSON can hold: groups of registers by name; those wider than 64 bits as hexadecimal text

# x86. CR0 comes after what it checks, EFER after CR0: LMA is as it was.
X86_CONTROL = ("cr4", "cr3", "cr0", "efer", "cr2", "cr8")
X86_GENERAL = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)), "rflags", "rip",
)  # fmt: skip
X86_MSRS = {
    "star": 0xC0000081, "lstar": 0xC0000082, "cstar": 0xC0000083, "sfmask": 0xC0000084, "fs_base": 0xC0000100,
    "gs_base": 0xC0000101, "kernel_gs_base": 0xC0000102, "sysenter_cs": 0x174, "sysenter_esp": 0x175,
    "sysenter_eip": 0x176, "tsc_aux": 0xC0000103, "pat": 0x277,
}  # fmt: skip
KEPT = (MsrRule.BITS, MsrRule.TYPE, MsrRule.TYPES)
X86_MSRS |= {  # those that the engine keeps and that have no name of their own here: of memory types and machine checks
    f"{number:#x}": number
    for msr in MSRS if msr.rule in KEPT and ~msr.reserved & (1 << 64) - 1
    for number in range(msr.first, msr.last + 1, msr.step) if number not in X86_MSRS.values()
}  # fmt: skip
X86_FLOATING = ("fpcw", "fpsw", "fptag", "mxcsr", "fip", "fcs", "fdp", "fds", "fop")
X86_WIDE = {**{f"fp{n}": 10 for n in range(8)}, **{f"xmm{n}": 16 for n in range(16)}}
X86_TABLES = ("gdtr", "idtr", "ldtr", "tr")
X86_TABLE = "<H6xQII"
SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")

# arm64. PSTATE first: it says which stack pointer SP is.
ARM64_SYSTEM = (
    "scr_el3", "hcr_el2", "mair_el1", "tcr_el1", "ttbr0_el1", "ttbr1_el1", "sctlr_el1", "cpacr_el1", "vbar_el1",
    "elr_el1", "spsr_el1", "esr_el1", "far_el1", "contextidr_el1", "tpidr_el0", "csselr_el1", "cntkctl_el1",
    "mdscr_el1", "pmuserenr_el0",
)  # fmt: skip
ARM64_GENERAL = tuple(f"x{n}" for n in range(31))
ARM64_PLAIN = ("sp_el0", "sp_el1", "sp", "tpidr_el1", "tpidrro_el0", "par_el1", "fpcr", "fpsr")
ARM64_WIDE = {f"q{n}": 16 for n in range(32)}


def take(cpu: Cpu) -> State:
    """Everything that decides what *cpu* does next, but for memory."""
    return {"time": lib.mmu_guest_time(cpu.guest), **_KINDS[cpu.ARCH][0](cpu)}


def give(cpu: Cpu, state: State) -> None:
    """Make *cpu* what `take` found. Raises KeyError or ValueError for a state that is not one of its kind."""
    time = asked.number("time", state["time"])
    _KINDS[cpu.ARCH][1](cpu, state)
    lib.mmu_guest_set_time(cpu.guest, time)


def _number(cpu: Cpu, prefix: str, name: str) -> int:
    number: int = getattr(cpu.constants, f"UC_{prefix}_REG_{name.upper()}")
    return number


def _take_wide(cpu: Cpu, prefix: str, sizes: Mapping[str, int]) -> dict[str, str]:
    out = {}
    for name, size in sizes.items():
        data = ffi.new("char[]", size)
        cpu.engine.transfer(_number(cpu, prefix, name), data)
        out[name] = bytes(ffi.buffer(data)).hex()
    return out


def _give_wide(cpu: Cpu, prefix: str, sizes: Mapping[str, int], values: Mapping[str, str]) -> None:
    for name, size in sizes.items():
        data = bytes.fromhex(values[name])
        if len(data) != size:
            raise ValueError(f"{name} must have {size} bytes, not {len(data)}")
        cpu.engine.transfer(_number(cpu, prefix, name), ffi.new("char[]", data), write=True)


# -- x86 --------------------------------------------------------------------------------------------


def _take_x86(cpu: X86Cpu) -> State:
    places = x86_places()
    blob = bytes(cpu.engine.save(cpu.context))
    floating = {name: cpu.engine.read(_number(cpu, "X86", name)) for name in X86_FLOATING}
    floating["mxcsr"] |= _met(get(blob, places.sse + SSE_FLAGS, 1))
    segments = {}
    for index, name in enumerate(SEGMENTS):
        at = places.segments + places.stride * index
        segments[name] = [get(blob, at, 4), get(blob, at + 8, 8), get(blob, at + 16, 4), get(blob, at + 20, 4)]
    return {
        "control": {name: _read(cpu, name) for name in X86_CONTROL},
        "general": {name: _read(cpu, name) for name in X86_GENERAL},
        "msrs": {name: cpu.msr(number) for name, number in X86_MSRS.items()},
        "floating": floating,
        "wide": _take_wide(cpu, "X86", X86_WIDE),
        "tables": {name: list(cpu.structure(_number(cpu, "X86", name), X86_TABLE)) for name in X86_TABLES},
        "segments": segments,
        "xcr0": get(blob, places.xcr0, 8),
        "mode": get(blob, places.hflags, 4),  # the engine's summary of privilege and operand sizes
    }


def _met(exceptions: int) -> int:
    """Flags of MXCSR for what SSE met and the engine has not told; csrc/guest_mxcsr.c. 0x80: a result became 0."""
    return exceptions & 0x3D | (0x30 if exceptions & 0x80 else 0)


def _read(cpu: X86Cpu, name: str) -> int:
    return cpu.read(name) if name == "efer" else cpu.engine.read(_number(cpu, "X86", name))


def _give_x86(cpu: X86Cpu, state: State) -> None:
    for name in X86_CONTROL:
        if name == "efer":
            cpu.write(name, state["control"][name])
        else:
            cpu.engine.write(_number(cpu, "X86", name), state["control"][name])
    for name, number in X86_MSRS.items():
        cpu.set_msr(number, state["msrs"][name])
    for name in X86_FLOATING:
        cpu.engine.write(_number(cpu, "X86", name), state["floating"][name])
    _give_wide(cpu, "X86", X86_WIDE, state["wide"])
    for name in X86_TABLES:
        cpu.set_structure(_number(cpu, "X86", name), X86_TABLE, *state["tables"][name])
    places = x86_places()
    blob = cpu.engine.save(cpu.context)
    for index, name in enumerate(SEGMENTS):
        selector, base, limit, flags = state["segments"][name]
        at = places.segments + places.stride * index
        for where, size, value in ((0, 4, selector), (8, 8, base), (16, 4, limit), (20, 4, flags)):
            put(blob, at + where, size, value)
    put(blob, places.sse + SSE_FLAGS, 1, 0)
    put(blob, places.sse + SSE_FLUSH, 1, state["floating"]["mxcsr"] >> 15 & 1)
    put(blob, places.hflags, 4, state["mode"])
    put(blob, places.xcr0, 8, state["xcr0"])
    put(blob, places.previous, 4, -1)
    put(blob, places.software, 4, 0)
    cpu.engine.restore(cpu.context)
    for name in X86_GENERAL:
        cpu.engine.write(_number(cpu, "X86", name), state["general"][name])


# -- arm64 ------------------------------------------------------------------------------------------


def _take_arm64(cpu: Arm64Cpu) -> State:
    return {
        "system": {name: cpu.read(name) for name in ARM64_SYSTEM},
        "general": {name: cpu.read(name) for name in (*ARM64_GENERAL, "pc", "pstate")},
        "plain": {name: cpu.engine.read(_number(cpu, "ARM64", name)) for name in ARM64_PLAIN},
        "wide": _take_wide(cpu, "ARM64", ARM64_WIDE),
    }


def _set_pstate(cpu: Arm64Cpu, value: int) -> None:
    """The engine derives the level and its stack pointer anew when a system register is written."""
    cpu.write("pstate", value)
    cpu.write("contextidr_el1", cpu.read("contextidr_el1"))


def _give_arm64(cpu: Arm64Cpu, state: State) -> None:
    pstate = state["general"]["pstate"]
    # The stack pointer in use is in SP; that of its level must not be overwritten by the stale copy.
    level, own = Pstate.EL.get(pstate), Pstate.SP.get(pstate)
    _set_pstate(cpu, pstate)
    for name in ARM64_SYSTEM:
        cpu.write(name, state["system"][name])
    for name in ARM64_PLAIN:
        if name != f"sp_el{level if own else 0}":
            cpu.engine.write(_number(cpu, "ARM64", name), state["plain"][name])
    _give_wide(cpu, "ARM64", ARM64_WIDE, state["wide"])
    for name in (*ARM64_GENERAL, "pc"):
        cpu.write(name, state["general"][name])
    _set_pstate(cpu, pstate)


_KINDS: dict[str, tuple[Callable[[Any], State], Callable[[Any, State], None]]] = {
    "x86_64": (_take_x86, _give_x86),
    "aarch64": (_take_arm64, _give_arm64),
}
