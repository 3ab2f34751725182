"""x86-64: WRFSBASE and WRGSBASE refuse what no CPU holds. The engine takes it all."""

import pytest

from mmu.guest.stop import Interrupt
from tests.guest.kernel import USER, Kernel

UD, GP = 6, 13
ODD, TOP, LOW = 1 << 47, 0xFFFF_8000_0000_0000, 0x7FFF_FFFF_FFFF  # not canonical, and what lies on either side
FSGSBASE = "mov rax, cr4; bts rax, 16; mov cr4, rax; cmp ebp, 5"
DELIVER = pytest.mark.parametrize("deliver", ["native", "reference"])


def write(instruction, value, deliver="native", before=FSGSBASE, ebp=4):
    """(result, RFLAGS in the frame) of a user program that writes the base."""
    with Kernel(deliver=deliver) as kernel:
        kernel.handle(GP, "hlt")
        kernel.handle(UD, "hlt")
        registers = {"rbx": value, "r11": value, "rbp": ebp, "fs_base": 0x1000, "gs_base": 0x2000}
        r = kernel.run(before, user=f"nop; cmp ebp, 5; {instruction}; inc r15; hlt", **registers)
        words = kernel.words(r.registers["rsp"], 4)
        return r, words[3] if words[2] == 0x23 else words[2]  # with an error code, or without


@pytest.mark.parametrize("value", [ODD, TOP - 1, 1 << 63])
@pytest.mark.parametrize("instruction", ["wrfsbase rbx", "wrgsbase r11"])
@DELIVER
def test_a_base_that_is_not_canonical_is_gp_and_is_not_written(instruction, value, deliver):
    r, flags = write(instruction, value, deliver)
    assert [(d.exception, d.pc) for d in r.delivered] == [(Interrupt(GP, 0), USER + 4)]
    assert (r.registers["fs_base"], r.registers["gs_base"], r.registers["r15"]) == (0x1000, 0x2000, 0)
    assert flags & 0x8D5 == 0x95  # of 4 - 5


@pytest.mark.parametrize("instruction, value, expected", [
    ("wrfsbase rbx", TOP, (TOP, 0x2000)), ("wrgsbase r11", LOW, (0x1000, LOW)),
    ("wrfsbase ebx", ODD | 5, (5, 0x2000)), ("wrgsbase r11d", 1 << 63, (0x1000, 0)),
    ("rdfsbase rbx", ODD, (0x1000, 0x2000)),
])  # fmt: skip
def test_a_base_that_a_cpu_holds_is_written(instruction, value, expected):
    r, _ = write(instruction, value)
    assert (r.registers["fs_base"], r.registers["gs_base"], r.registers["r15"]) == (*expected, 1)


@pytest.mark.parametrize("instruction", ["wrfsbase rbx", "wrgsbase rbx", "rdfsbase rbx"])
@pytest.mark.parametrize("ebp, expected", [(0, 0x91), (4, 0x95), (5, 0x44), (0x15, 0)])
def test_without_fsgsbase_it_is_an_invalid_instruction(instruction, ebp, expected):
    r, flags = write(instruction, ODD, before="nop", ebp=ebp)
    assert [d.exception for d in r.delivered] == [Interrupt(UD)]
    assert flags & 0x8D5 == expected  # of a comparison with 5
