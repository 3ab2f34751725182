"""x86-64: RCL and RCR of memory that may be read and not written fault with the flags from before them.

The engine rotates, and works the flags out, before it stores. Bytes that look like these instructions are frequent in
code, so they are found in what the engine has translated.
"""

import pytest

from tests.guest.machines import CODE, DATA, MIB, PAGE, WINDOW, asm, machine

FIXED = 0x2000_0000
ROTATIONS = (
    "rcl dword ptr [rbx], 1", "rcr dword ptr [rbx], 1", "rcl qword ptr [rbx], 3", "rcr byte ptr [rbx+5], 7",
    "rcl word ptr [rbx], cl", "rcr qword ptr [rbx], cl",
)  # fmt: skip
BEFORE = {"add al, -1": 0x10, "neg al": 0x80, "shl al, 1": 0x40, "stc": 0, "cmp al, al": 0}
LEADS = {"first": "", "loaded": "mov r9, [rbx]; ", "jumped": "jmp 1f; 1: ", "called": "call 1f; 1: "}


def run(lead, before, then, rax, **given):
    with machine(**given) as m:
        m.tables.map(FIXED, WINDOW + 8 * MIB, PAGE, writable=False, executable=False)
        m.space.write(WINDOW + 8 * MIB, bytes.fromhex("81ff00f10e7ec381"))
        m.load(asm("x86_64", f"{lead}{before}; {then}; hlt"))
        return m.set(rbx=FIXED, rcx=5, rax=rax).run()


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("lead", LEADS)
def test_a_rotation_that_cannot_be_stored_leaves_the_flags(lead, rotation, before):
    nop = run(LEADS[lead], before, "nop", BEFORE[before])
    found = run(LEADS[lead], before, rotation, BEFORE[before])
    assert (nop.stop.reason, found.stop.reason, found.stop.exception.error_code) == ("halt", "fault", 3)
    assert found.registers["rflags"] == nop.registers["rflags"]


def test_a_rotation_in_the_middle_of_a_block_that_was_translated_for_another_address():
    """The block begins before it in one run, and at it in the next; the host lets it store in between."""
    with machine() as m:
        m.tables.map(FIXED, WINDOW + 8 * MIB, PAGE, writable=True, executable=False)
        code = asm("x86_64", "nop; clc; rcl dword ptr [rbx], 1; inc r15; hlt")
        m.space.write(WINDOW + 8 * MIB, b"\0\0\0\xc0")
        m.load(code).set(rbx=FIXED)
        assert m.run().registers["r15"] == 1
        m.tables.protect(FIXED, PAGE, writable=False)
        for at in (0, 1, 0):
            found = m.set(rip=CODE + at, rflags=2).run()
            assert (found.stop.reason, found.registers["rflags"] & 0x8D5) == ("fault", 0)


def test_rotations_that_can_be_stored_are_counted_once():
    with machine() as m:
        m.load(asm("x86_64", "jmp 2f; 2: mov ecx, 3; 1: stc; rcl dword ptr [rdi], 1; dec ecx; jnz 1b; hlt"))
        result = m.run(limit=1000, timeout=5)
        assert (result.stop.reason, result.counters.instructions) == ("halt", 2 + 3 * 4 + 1)
        assert m.read(DATA, 4) == b"\x07\0\0\0"


def test_a_rotation_across_two_pages_of_code():
    with machine() as m:
        m.tables.map(FIXED, WINDOW + 8 * MIB, PAGE, writable=False, executable=False)
        m.space.write(WINDOW + 8 * MIB, b"\1")
        m.load(asm("x86_64", "jmp rsi"))
        at = CODE + 2 * PAGE - 2
        m.write(at, asm("x86_64", "clc; rcr dword ptr [rbx], 1; hlt"))
        found = m.set(rbx=FIXED, rsi=at).run()
        assert (found.stop.reason, found.stop.pc, found.registers["rflags"] & 0x8D5) == ("fault", at + 1, 0)


def test_a_rotation_that_a_program_writes_itself():
    with machine() as m:
        m.tables.map(FIXED, WINDOW + 8 * MIB, PAGE, writable=False, executable=False)
        m.space.write(WINDOW + 8 * MIB, b"\0\0\0\x80")
        at = CODE + 2 * PAGE
        code = asm("x86_64", "clc; rcl dword ptr [rbx], 1; hlt")
        m.load(asm("x86_64", "call rsi; mov [rsi], rax; jmp rsi"))
        m.write(at, b"\xc3")
        found = m.set(rbx=FIXED, rsi=at, rax=int.from_bytes(code.ljust(8, b"\x90"), "little")).run()
        assert (found.stop.reason, found.stop.pc, found.registers["rflags"] & 0x8D5) == ("fault", at + 1, 0)


def test_a_rotation_before_what_goes_on_in_a_page_that_is_searched_meanwhile():
    """What may be an opcode there, with prefixes here, is a site that covers the rotation and came behind it."""
    at = CODE + PAGE - 10
    with machine() as m:
        m.tables.map(FIXED, WINDOW + 8 * MIB, PAGE, writable=False, executable=False)
        m.load(b"\xf4")
        m.write(at, bytes.fromhex("66d113 b902000000 410f ae3b f4"))  # rcl word [rbx], 1; mov ecx, 2; clflush [r11]
        found = m.set(rbx=FIXED, rflags=0xAD6).run(start=at)
    assert (found.stop.reason, found.stop.pc, found.registers["rflags"] & 0x8D5) == ("fault", at, 0x8D4)
