"""x86-64: exceptions that few programs meet, delivered by the manual all the same."""

import struct

import pytest

from tests.guest.kernel import GDT, GDTR, USER, Kernel, segment

COMPATIBLE = 0x4B  # 32-bit code for users, behind what every kernel here has
UD = 6


@pytest.fixture
def kernel():
    with Kernel() as kernel:
        yield kernel


def test_handlers_of_a_32_bit_program_run_as_64_bit_code(kernel):
    kernel.machine.write(GDT + (COMPATIBLE & ~7), segment(0xFA, 0xC))
    kernel.machine.write(GDTR, struct.pack("<H", COMPATIBLE | 7))
    kernel.handle(UD, "mov r13, [rsp+8]; add qword ptr [rsp], 2; iretq")
    kernel.handle(0x80, "mov r14, [rsp+8]; hlt", dpl=3)
    kernel.machine.write(USER, bytes.fromhex("40 0f0b 40 cd80"))  # inc eax; ud2; inc eax; int 0x80
    result = kernel.run(f"push 0x1b; push {USER + 0x1F00}; push 2; push {COMPATIBLE}; push {USER}; xor eax, eax; iretq")
    r = result.registers
    assert (result.stop.reason, r["rax"], r["r13"], r["r14"]) == ("halt", 2, COMPATIBLE, COMPATIBLE)
