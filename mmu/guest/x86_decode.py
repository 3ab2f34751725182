"""What only the instruction itself tells about a fault: that it also writes, that it goes through the stack.

The engine asks to read before it asks to write, while the CPU treats a read-modify-write as a write from the start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmu.types import Access, FaultKind

if TYPE_CHECKING:
    from mmu.guest.x86 import X86Cpu

LONGEST = 15  # bytes of an instruction
PAGE, MASK_64 = 4096, (1 << 64) - 1
BIT_STRINGS = frozenset(("bt", "bts", "btr", "btc"))
_OLD = ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp")
WIDE = {f"e{n}": f"r{n}" for n in _OLD} | {n: f"r{n}" for n in _OLD} | {
    f"r{n}{part}": f"r{n}" for n in range(8, 16) for part in "dw"}  # fmt: skip
STACK_REGISTERS = ("rsp", "esp", "rbp", "ebp")
# Instructions that use the stack without saying so, and what they do there; a memory operand does the opposite.
STACK_ACCESS = {
    "push": Access.WRITE, "pushf": Access.WRITE, "pushfq": Access.WRITE, "call": Access.WRITE, "lcall": Access.WRITE,
    "enter": Access.WRITE,
    "pop": Access.READ, "popf": Access.READ, "popfq": Access.READ, "ret": Access.READ, "retf": Access.READ,
    "retfq": Access.READ, "leave": Access.READ, "iretq": Access.READ, "iretd": Access.READ, "iret": Access.READ,
}  # fmt: skip
# Instructions that write the memory operand that they read: one, and no other access. cmpxchg writes in any case.
READ_MODIFY_WRITE = frozenset((
    "add", "or", "adc", "sbb", "and", "sub", "xor", "inc", "dec", "not", "neg", "rol", "ror", "rcl", "rcr", "shl",
    "sal", "shr", "sar", "shld", "shrd", "xchg", "xadd", "cmpxchg", "cmpxchg8b", "cmpxchg16b", "bts", "btr", "btc",
))  # fmt: skip


def new_disassembler() -> Any:
    import capstone

    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    engine.detail = True
    return engine


def decode(cpu: X86Cpu, pc: int) -> Any:
    """The instruction at *pc* (capstone, with details), or None."""
    return next(cpu.disassembler.disasm(cpu.peek(pc, LONGEST), pc, 1), None)


def _memory(instruction: Any) -> list[Any]:
    import capstone

    return [op for op in instruction.operands if op.type == capstone.CS_OP_MEM]


def _mnemonic(instruction: Any) -> str:
    """Without prefixes such as lock and rep."""
    return str(instruction.mnemonic.split()[-1])


def _segment(instruction: Any, operand: Any) -> str:
    """FS or GS, the only ones that have a base in 64-bit code; else ""."""
    name = str(instruction.reg_name(operand.mem.segment) or "")
    return name if name in ("fs", "gs") else ""


def operand_address(cpu: X86Cpu, instruction: Any, operand: Any) -> int:
    """Where the operand of 64-bit code begins, with the registers as they are."""
    import capstone

    def value(register: int) -> int:
        name = instruction.reg_name(register) if register else None
        if name is None or name in ("riz", "eiz"):
            return 0
        if name in ("rip", "eip"):
            return int(instruction.address + instruction.size)
        return cpu.read(WIDE.get(name, name))

    at: int = value(operand.mem.base) + value(operand.mem.index) * operand.mem.scale + operand.mem.disp
    last = instruction.operands[-1]
    if _mnemonic(instruction) in BIT_STRINGS and last.type == capstone.CS_OP_REG:
        bits = 8 * last.size
        bit = value(last.reg) & (1 << bits) - 1
        at += ((bit ^ 1 << bits - 1) - (1 << bits - 1)) // bits * last.size
    at &= (1 << 8 * instruction.addr_size) - 1
    if segment := _segment(instruction, operand):
        at += cpu.read(f"{segment}_base")
    return at & MASK_64


def writes_back(instruction: Any) -> bool:
    """Whether it writes the memory that it reads. (Not by capstone's access flags: those of rotations are wrong.)"""
    import capstone

    if _mnemonic(instruction) not in READ_MODIFY_WRITE:
        return False
    first = instruction.operands[0].type == capstone.CS_OP_MEM
    return first or (_mnemonic(instruction) == "xchg" and bool(_memory(instruction)))


def through_stack(instruction: Any, access: Access) -> bool:
    """Whether an access of that kind goes through SS: implied by the instruction, or by RSP or RBP as a base."""
    implied = STACK_ACCESS.get(_mnemonic(instruction))
    operands = _memory(instruction)
    if implied is not None and (access & implied or not operands):
        return True
    return any(
        not _segment(instruction, op) and instruction.reg_name(op.mem.base) in STACK_REGISTERS for op in operands)


def refine(cpu: X86Cpu, stop: Any) -> Any:
    """The stop record of a fault, with the kind of access that the whole instruction makes."""
    access = Access(stop.access)
    non_canonical = stop.x86.kind == FaultKind.NON_CANONICAL
    if access & Access.FETCH or not (access & Access.READ or non_canonical):
        return stop
    instruction = decode(cpu, stop.pc)
    if instruction is None:
        return stop
    if non_canonical and through_stack(instruction, access):
        access |= Access.STACK
    writes = bool(access & Access.READ) and writes_back(instruction)
    if writes:
        access = access & ~Access.READ | Access.WRITE
    if access == Access(stop.access):
        return stop
    again = cpu.translate(stop.va, access)
    if isinstance(again, int):
        return stop
    return _ask_first_page(cpu, instruction, again) if writes else again


def _ask_first_page(cpu: X86Cpu, instruction: Any, stop: Any) -> Any:
    """The fault of an operand of two pages that is read and written: the CPU asks whether it may write the first page
    before it looks at the second; the engine reads both first."""
    if stop.va % PAGE:
        return stop
    first = cpu.translate(operand_address(cpu, instruction, _memory(instruction)[0]), Access(stop.access))
    return stop if isinstance(first, int) else first
