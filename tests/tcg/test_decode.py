"""What the translator knows of instructions."""

import pytest

from mmu.tcg.decode_arm64 import decoder as arm64
from mmu.tcg.decode_x86 import decoder as x86
from mmu.tcg.instruction import Flow
from tests.guest.assembler import asm

X86 = {  # flow, alone, io, atomic, special
    "mov rax, [rdi]": (Flow.NEXT, True, False, False, ""),
    "mov eax, 5": (Flow.NEXT, False, False, False, ""),
    "lea rax, [rdi+8]": (Flow.NEXT, False, False, False, ""),
    "lock add qword ptr [rdi], rax": (Flow.NEXT, True, False, True, ""),
    "xchg [rdi], eax": (Flow.NEXT, True, False, True, ""),
    "xchg ebx, ecx": (Flow.NEXT, False, False, False, ""),
    "jmp .+5": (Flow.DIRECT, False, False, False, ""),
    "jne .+300": (Flow.DIRECT, False, False, False, ""),
    "call .+9": (Flow.DIRECT, True, False, False, ""),
    "loop .+2": (Flow.DIRECT, False, False, False, ""),
    "jmp rax": (Flow.INDIRECT, False, False, False, ""),
    "call [rdi]": (Flow.INDIRECT, True, False, False, ""),
    "ret": (Flow.INDIRECT, True, False, False, ""),
    "rep stosb": (Flow.DIRECT, True, False, False, ""),
    "stosb": (Flow.NEXT, True, False, False, ""),
    "mov cr3, rax": (Flow.MAIN_LOOP, True, False, False, "mov cr3 rax"),
    "mov rax, cr3": (Flow.NEXT, True, False, False, ""),
    "invlpg [rax]": (Flow.MAIN_LOOP, True, False, False, "invlpg"),
    "mov ds, eax": (Flow.MAIN_LOOP, True, False, False, ""),
    "in al, dx": (Flow.NEXT, True, True, False, ""),
    "iretq": (Flow.MAIN_LOOP, True, False, False, "mode"),
    "int3": (Flow.MAIN_LOOP, True, False, False, ""),
    "hlt": (Flow.HALT, True, False, False, "mode"),
    "pause": (Flow.MAIN_LOOP, True, False, False, ""),
    "sti": (Flow.MAIN_LOOP, True, False, False, ""),
    "div rcx": (Flow.NEXT, True, False, False, ""),
}
ARM64 = {
    "ldr x0, [x1]": (Flow.NEXT, True, False, False, ""),
    "add x0, x1, x2": (Flow.NEXT, False, False, False, ""),
    "b .+8": (Flow.DIRECT, False, False, False, ""),
    "bl .+8": (Flow.DIRECT, False, False, False, ""),
    "b.ne .+8": (Flow.DIRECT, False, False, False, ""),
    "cbz x0, .+8": (Flow.DIRECT, False, False, False, ""),
    "tbnz x0, #3, .+8": (Flow.DIRECT, False, False, False, ""),
    "br x1": (Flow.INDIRECT, False, False, False, ""),
    "blr x1": (Flow.INDIRECT, False, False, False, ""),
    "ret": (Flow.INDIRECT, False, False, False, ""),
    "eret": (Flow.MAIN_LOOP, True, False, False, "mode"),
    "svc #0": (Flow.MAIN_LOOP, True, False, False, ""),
    "wfi": (Flow.HALT, True, False, False, ""),
    "wfe": (Flow.MAIN_LOOP, True, False, False, ""),
    "nop": (Flow.NEXT, False, False, False, ""),
    "isb": (Flow.MAIN_LOOP, True, False, False, ""),
    "dsb sy": (Flow.NEXT, False, False, False, ""),
    "msr daifclr, #2": (Flow.MAIN_LOOP, True, False, False, "mode"),
    "msr ttbr0_el1, x0": (Flow.MAIN_LOOP, True, False, False, "msr"),
    "mrs x0, ttbr0_el1": (Flow.NEXT, True, False, False, ""),
    "tlbi vmalle1": (Flow.MAIN_LOOP, True, False, False, "tlbi"),
    "dc zva, x1": (Flow.NEXT, True, False, False, "dc zva"),
    "dc civac, x1": (Flow.NEXT, True, False, False, ""),
    "ldadd w1, w2, [x3]": (Flow.NEXT, True, False, True, ""),
    "casal x1, x2, [x3]": (Flow.NEXT, True, False, True, ""),
    "stlxr w1, x2, [x3]": (Flow.NEXT, True, False, True, ""),
    "ldaxr x2, [x3]": (Flow.NEXT, True, False, False, ""),
    "ldtr x2, [x3]": (Flow.NEXT, True, False, False, "unprivileged"),
    "ldr q0, [x3], #16": (Flow.NEXT, True, False, False, ""),
}
JOIN = {"ldr q0, [x3], #16": 16}


@pytest.mark.parametrize("arch, source, expected", [
    *(("x86_64", s, e) for s, e in X86.items()), *(("aarch64", s, e) for s, e in ARM64.items())])
def test_an_instruction(arch, source, expected):
    code = asm(arch, source)
    found = (x86 if arch == "x86_64" else arm64)().decode(code + bytes(15))
    assert found.length == len(code)
    assert (found.flow, found.alone, found.io, found.atomic, found.special) == expected
    assert found.join == JOIN.get(source, 0)


UNITS = {
    "mov eax, 0x11223344": [1, 4], "mov rax, [rdi+8]": [1, 1, 1, 1], "movabs rax, 0x1122334455667788": [1, 1, 8],
    "movabs rax, [0x1122334455667788]": [1, 1, 8], "cmp dword ptr [rip+0x1234], 0x5678": [1, 1, 4, 4],
    "jne .+300": [1, 1, 4], "mov dword ptr [rdi+rcx*4+0x1000], 5": [1, 1, 1, 4, 4], "lock add [rdi], ax": [1, 1, 1, 1],
}  # fmt: skip


@pytest.mark.parametrize("source", UNITS)
def test_the_units_that_a_translator_reads(source):
    code, known, units = asm("x86_64", source), b"", []
    while size := x86().unit(known):
        units.append(size)
        known = code[: len(known) + size]
    assert units == UNITS[source]


@pytest.mark.parametrize("source, expected", [
    ("invlpg [rax]", 0xA000), ("invlpg [rax+rcx*8-8]", 0xA000 + 0xC000 * 8 - 8), ("invlpg [rip+0x10]", 0x1017),
    ("invlpg [eax]", 0xA000), ("invlpg [r8d]", 0x8000), ("invlpg fs:[rax]", 0xA000 + 0xF0000),
    ("invlpg ds:[rax]", 0xA000)])  # fmt: skip
def test_the_address_of_an_operand(source, expected):
    registers = {"rax": 0xA000, "rcx": 0xC000, "r8": 0x1_0000_8000, "fs_base": 0xF0000}
    assert x86().address(asm("x86_64", source), 0x1000, registers.__getitem__) == expected


@pytest.mark.parametrize(
    "code, special",
    [("c5f1fec2", "undefined"), ("64c5fb10 00", "undefined"), ("c4e270f2c2", ""), ("0f01c1", ""),
     ("0fc7f0", "undefined")],
    ids=["vpaddd", "vmovsd fs:", "andn", "vmcall", "rdrand"],
)  # fmt: skip
def test_avx_and_random_numbers_are_none_of_the_cpu(code, special):
    assert x86().decode(bytes.fromhex(code)).special == special
