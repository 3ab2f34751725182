"""x86-64: exceptions that few programs meet, delivered by the manual all the same."""

import struct

import pytest

from mmu.guest.stop import Interrupt
from tests.guest.kernel import GDT, GDTR, IDT, USER, Kernel, gate, segment
from tests.guest.machines import CODE

COMPATIBLE = 0x4B  # 32-bit code for users, behind what every kernel here has
DB, UD, SS, GP, PF = 1, 6, 12, 13, 14


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


def test_a_frame_that_would_leave_the_canonical_addresses_is_a_stack_fault(kernel):
    """RSP itself is canonical, what is below it is not."""
    kernel.handle(UD, "hlt")
    kernel.handle(SS, "mov r12, [rsp]; hlt", ist=1)
    result = kernel.run("mov rsp, -0x800000000000; ud2")
    assert (result.delivered[0].exception, result.registers["r12"]) == (Interrupt(SS, 1), 1)


def test_a_frame_below_the_last_canonical_address_is_pushed(kernel):
    """RSP itself is not canonical, what is below it is."""
    kernel.machine.tables.map(0x7FFF_FFFF_F000, 0x100_0000, 0x1000)
    kernel.handle(UD, "mov r12, rsp; hlt")
    assert kernel.run("mov rsp, rbx; ud2", rbx=1 << 47).registers["r12"] == (1 << 47) - 40


def test_a_handler_that_is_not_canonical_is_a_fault_of_the_instruction(kernel):
    kernel.machine.write(IDT + 16 * UD, gate(1 << 63))
    kernel.handle(GP, "mov r12, [rsp]; mov r13, [rsp+8]; mov r14, rsp; hlt")
    result = kernel.run("mov rbx, rsp; ud2")
    (only,) = result.delivered
    r = result.registers
    assert (only.exception, r["r12"], r["r13"], r["r14"]) == (Interrupt(GP, 1), 1, only.pc, r["rbx"] - 48)


@pytest.mark.parametrize("source, length", [(".byte 0xf1", 1), (".byte 0x66, 0x48, 0xf1", 3)])
def test_int1_is_a_trap_that_users_may_raise(kernel, source, length):
    kernel.handle(DB, "mov r12, [rsp]; iretq")
    kernel.handle(GP, "hlt")
    result = kernel.run("nop", user=f"{source}; inc r13; hlt")
    assert [d.exception for d in result.delivered] == [Interrupt(DB), Interrupt(GP, 0)]
    assert (result.registers["r12"], result.registers["r13"]) == (USER + length, 1)


def test_lock_makes_int1_invalid(kernel):
    kernel.handle(UD, "hlt")
    assert kernel.run(".byte 0xf0, 0xf1").delivered[0].exception == Interrupt(UD)


def test_int1_without_idt_ends_the_run_behind_it():
    with Kernel() as kernel:
        stop = kernel.machine.set(rip=CODE).run().stop  # nothing but HLT is there
        assert stop.reason == "halt"
        kernel.machine.write(CODE, b"\xf1\xf4")
        stop = kernel.machine.run(start=CODE).stop
        assert (stop.reason, stop.exception, stop.pc) == ("fault", Interrupt(DB), CODE + 1)


@pytest.mark.parametrize("prefix", ["", ".byte 0x48; ", ".byte 0x66, 0x41; "])
def test_a_syscall_that_is_off_faults_where_it_begins(kernel, prefix):
    kernel.handle(UD, "mov r12, [rsp]; hlt")
    off = "mov ecx, 0xc0000080; rdmsr; and eax, -2; wrmsr; lea rbx, [rip+1f]; 1: "
    r = kernel.run(f"{off}{prefix}syscall").registers
    assert r["r12"] == r["rbx"]


@pytest.mark.parametrize("offset", [0x800, 0xFFF])
def test_a_user_reads_no_selector_from_the_page_of_the_descriptors(kernel, offset):
    """The descriptor is read with the kernel's rights, the selector with those of the program."""
    kernel.handle(PF, "mov r12, cr2; mov r13, [rsp]; mov r14, [rsp+8]; hlt")
    kernel.handle(GP, "hlt")
    kernel.machine.write(GDT + offset, b"\x1b\0")
    r = kernel.run("mov rbx, rcx", rcx=GDT + offset, user="mov ds, word ptr [rbx]; mov r15d, ds; hlt").registers
    assert (r["r12"], r["r13"], r["r14"], r["r15"]) == (GDT + offset, 5, USER, 0)
