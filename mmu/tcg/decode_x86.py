"""x86-64 instructions as a translator sees them. Source: QEMU, target/i386/tcg/translate.c."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from mmu.guest.x86_control import MOVES
from mmu.tcg.instruction import Flow, Instruction

LONGEST = 15
MAIN_LOOP = frozenset((
    "int", "int1", "int3", "into", "iret", "iretd", "iretq", "syscall", "sysret", "sysretq", "sysenter", "sysexit",
    "sysexitq", "retf", "retfq", "ljmp", "lcall", "sti", "popf", "popfd", "popfq", "wrmsr", "invlpg", "invpcid", "lmsw",
    "clts", "pause", "ud2", "stac", "clac", "rsm", "swapgs", "xsetbv", "vmrun",
))  # fmt: skip
ENDING = ("ss", "ds", "es")  # segment registers after whose loads blocks end
INDIRECT = frozenset(("jmp", "call"))  # when their operand is not an address
RETURNS = frozenset(("ret", "retq"))
IO = frozenset(("in", "out", "insb", "insw", "insd", "outsb", "outsw", "outsd", "rdtsc", "rdtscp"))
STRINGS = ("movs", "stos", "lods", "cmps", "scas", "ins", "outs")
PORT_STRINGS = {"insb": 1, "insw": 2, "insd": 4, "outsb": 1, "outsw": 2, "outsd": 4}  # bytes of a port
SPECIAL = {
    "syscall": "syscall", "invlpg": "invlpg", "invpcid": "flush", "wrmsr": "wrmsr",
    "iretq": "mode", "iretd": "mode", "iret": "mode", "sysret": "mode", "sysretq": "mode", "retf": "mode",
    "retfq": "mode", "ljmp": "mode", "lcall": "mode", "popfq": "mode", "popf": "mode", "stac": "mode", "clac": "mode",
    "lmsw": "flush", "clts": "mode", "swapgs": "mode", "rdmsr": "system", "rdpmc": "system", "sysenter": "system",
    "sysexit": "system", "sysexitq": "system",
}  # fmt: skip
# VEX instructions on general registers: BMI1 and BMI2. Others are AVX, which the engine does not have.
BMI = frozenset((
    "andn", "bextr", "blsi", "blsmsk", "blsr", "bzhi", "mulx", "pdep", "pext", "rorx", "sarx", "shlx", "shrx",
))  # fmt: skip
VEX = (0xC4, 0xC5)
# They would be the host's, and the CPU has none; SSE4A.
MISSING = frozenset(("rdrand", "rdseed", "extrq", "insertq", "movntss", "movntsd"))
SEGMENTS_AND_SIZE = bytes.fromhex("262e363e646567")  # the prefixes that may stand before VEX
# Loads and stores of 16 bytes, all at once.
SIXTEEN = frozenset((
    "movups", "movaps", "movupd", "movapd", "movdqu", "movdqa", "lddqu", "movntps", "movntpd", "movntdq", "movntdqa",
))  # fmt: skip
# Without a memory operand these touch no memory and raise nothing, so several may run at a time.
PLAIN = frozenset((
    "mov", "movabs", "movzx", "movsx", "movsxd", "lea", "add", "or", "adc", "sbb", "and", "sub", "xor", "cmp", "test",
    "inc", "dec", "neg", "not", "shl", "sal", "shr", "sar", "rol", "ror", "rcl", "rcr", "shld", "shrd", "imul", "mul",
    "bt", "bts", "btr", "btc", "bsf", "bsr", "bswap", "popcnt", "tzcnt", "lzcnt", "xchg", "xadd", "cmpxchg", "nop",
    "endbr64", "cdq", "cdqe", "cqo", "cwd", "cwde", "cbw", "clc", "stc", "cmc", "cld", "std", "lfence",
    "mfence", "sfence", "jmp", "loop", "loope", "loopne", "jrcxz", "jecxz",
))  # fmt: skip


def full_name(register: str) -> str:
    """The 64-bit register that "ebx" or "r8d" is a part of; the name itself for others."""
    return "r" + register[1:] if register.startswith("e") else register.removesuffix("d")


class X86Decoder:
    longest = LONGEST

    def __init__(self) -> None:
        import capstone

        self._c = capstone
        self._engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self._engine.detail = True
        self._instructions: dict[bytes, Instruction] = {}
        self._units: dict[bytes, int] = {}

    def _disassemble(self, code: bytes) -> Any:
        return next(self._engine.disasm(code, 0, 1), None)

    def decode(self, code: bytes) -> Instruction:
        code = code[:LONGEST]
        found = self._instructions.get(code)
        if found is None:
            found = self._instructions[code] = self._decode(code)
        return found

    def _decode(self, code: bytes) -> Instruction:
        i = self._disassemble(code)
        if i is None:
            return Instruction(len(code), Flow.MAIN_LOOP)  # the engine will say what it is
        name = i.mnemonic.split()[-1]
        memory = any(op.type == self._c.x86.X86_OP_MEM for op in i.operands) and name not in ("lea", "nop")
        registers = [i.reg_name(op.reg) for op in i.operands if op.type == self._c.x86.X86_OP_REG]
        loaded = self._loaded(i, name)
        flow, special = self._flow(i, name, loaded)
        jump = name.startswith("j") or name.startswith(("cmov", "set"))
        plain = (name in PLAIN or jump) and not memory and not special and not self._system(registers)
        locked = bytes(i.prefix)[0] == 0xF0 or (name == "xchg" and memory)
        inhibit = name == "sti" or loaded == "ss"
        wide = name in SIXTEEN and any(op.type == self._c.x86.X86_OP_MEM and op.size == 16 for op in i.operands)
        join = 16 if wide else 0
        return Instruction(i.size, flow, not plain, name in IO, locked and memory, special, inhibit, join,
                           name == "movbe")

    def _system(self, registers: list[str]) -> bool:
        return any(r in ("cs", "ds", "es", "ss", "fs", "gs") or r[:2] in ("cr", "dr") for r in registers)

    def _loaded(self, i: Any, name: str) -> str:
        """The register that a MOV or POP loads, "" for other instructions."""
        if name not in ("mov", "pop") or i.operands[0].type != self._c.x86.X86_OP_REG:
            return ""
        loaded: str = i.reg_name(i.operands[0].reg)
        return loaded

    def _flow(self, i: Any, name: str, loaded: str) -> tuple[Flow, str]:
        if name == "hlt":
            return Flow.HALT, "mode"
        if (bytes(i.bytes).lstrip(SEGMENTS_AND_SIZE)[0] in VEX and name not in BMI) or name in MISSING:
            return Flow.MAIN_LOOP, "undefined"
        if loaded.startswith("cr"):
            return Flow.MAIN_LOOP, f"mov {loaded} {i.reg_name(i.operands[1].reg)}" if loaded in MOVES else "mode"
        if name in MAIN_LOOP or loaded in ENDING:
            return Flow.MAIN_LOOP, SPECIAL.get(name, "")
        if name in SPECIAL or (name == "mov" and i.op_str.endswith(", cr8")):
            return Flow.NEXT, SPECIAL.get(name, "system")
        if name in RETURNS:
            return Flow.INDIRECT, ""
        if name in INDIRECT and i.operands[0].type != self._c.x86.X86_OP_IMM:
            return Flow.INDIRECT, ""
        special = f"string {PORT_STRINGS[name]}" if name in PORT_STRINGS else ""
        repeated = bytes(i.prefix)[0] in (0xF2, 0xF3) and name.startswith(STRINGS)
        if repeated or name in INDIRECT or name.startswith(("j", "loop")):
            return Flow.DIRECT, special
        return Flow.NEXT, special

    def address(self, code: bytes, pc: int, read: Callable[[str], int]) -> int:
        """Address of the memory operand of the instruction at *pc*; *read* gives 64-bit registers by name."""
        i = self._disassemble(code)
        operand = next(op.mem for op in i.operands if op.type == self._c.x86.X86_OP_MEM)
        total: int = operand.disp
        for number, scale in ((operand.base, 1), (operand.index, operand.scale)):
            if number:
                name = full_name(i.reg_name(number))
                total += (pc + i.size if name == "rip" else read(name)) * scale
        if i.addr_size == 4:
            total &= 0xFFFFFFFF
        segment = i.reg_name(operand.segment) if operand.segment else ""
        if segment in ("fs", "gs"):
            total += read(f"{segment}_base")
        return total & (1 << 64) - 1

    def unit(self, known: bytes) -> int:
        """Prefixes, opcode, ModRM and SIB byte by byte, a displacement or an immediate at once."""
        found = self._units.get(known)
        if found is None:
            found = self._units[known] = self._unit(known)
        return found

    def _unit(self, known: bytes) -> int:
        at = len(known)
        i = self._disassemble(known + bytes(LONGEST - at)) if at else None
        if at >= LONGEST:
            return 0
        if i is None or at == 0:
            return 1
        if at >= i.size:
            return 0
        for offset, size in ((i.disp_offset, i.disp_size), (i.imm_offset, i.imm_size)):
            if offset == at and size:
                return min(int(size), int(i.size) - at)
        return 1


@cache
def decoder() -> X86Decoder:
    """One for all: it remembers what it has decoded."""
    return X86Decoder()
