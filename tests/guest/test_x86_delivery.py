"""x86-64: exceptions go through the guest's own IDT, as the manual says, and what goes wrong on the way."""

import pytest

from mmu import x86
from mmu.guest.stop import Interrupt
from tests.guest.kernel import (
    ABSENT_CODE,
    CODE32,
    GDT,
    HANDLER,
    IST1,
    KERNEL_CODE,
    KERNEL_DATA,
    RSP0,
    TSS,
    USER,
    USER_CODE,
    USER_DATA,
    USER_STACK,
    Kernel,
)
from tests.guest.machines import MIB, STACK, WINDOW, asm

HOLE = 0x3000_0000
RF = 1 << 16
IF = 1 << 9
DF, TS, NP, SS, GP, PF = 8, 10, 11, 12, 13, 14
DROP = "add rsp, 8; iretq"  # the error code


@pytest.fixture
def kernel():
    with Kernel() as kernel:
        yield kernel


def test_a_handler_fixes_a_fault_and_the_instruction_runs_again(kernel):
    handler = kernel.handle(PF, "mov r12, cr2; mov r13, [rsp]; mov rbx, rdi; " + DROP)
    result = kernel.run("mov rbx, 0x30000000; mov qword ptr [rbx+24], 0x77; mov r14, [rdi+24]")
    r = result.registers
    assert result.stop.reason == "halt"
    assert (r["r12"], r["r13"], r["r14"]) == (HOLE + 24, 2, 0x77)
    (only,) = result.delivered
    assert (only.exception, only.handler) == (x86.PageFault(2, HOLE + 24), handler)


def test_the_frame_of_a_fault_at_the_same_privilege(kernel):
    kernel.handle(PF, "mov rbp, rsp; hlt")
    result = kernel.run("mov rsp, 0x7ffffff08fff; stc; mov rbx, 0x30000000; mov al, [rbx]", )
    r = result.registers
    error, rip, cs, flags, rsp, ss = kernel.words(r["rbp"], 6)
    assert r["rbp"] == 0x7FFF_FFF0_8FF0 - 48  # aligned to 16 before the frame
    assert (error, cs, rsp, ss) == (0, KERNEL_CODE, STACK + 0x8FFF, KERNEL_DATA)
    assert (rip, flags & (RF | 1)) == (result.delivered[0].pc, RF | 1)


# With the frame of 32 bits, on a stack below 4 GiB.
IRETD = ("pop rax; pop r8; pop r9; pop r10; pop rax; pop r11; lea rsp, [rdi+0x800]; mov [rsp], r8d; mov [rsp+4], r9d; "
         "mov [rsp+8], r10d; mov [rsp+12], esp; mov [rsp+16], r11d; iretd")  # fmt: skip


@pytest.mark.parametrize("back", [DROP, IRETD], ids=["iretq", "iretd"])
@pytest.mark.parametrize("after", ["int 0x30", "int3"])
def test_an_interrupt_behind_what_was_resumed_has_no_resume_flag(kernel, after, back):
    """RF is for the one instruction that an IRET goes back to."""
    kernel.handle(PF, "mov rbx, rdi; " + back)
    for vector in 3, 0x30:
        kernel.handle(vector, "mov rbp, rsp; hlt", dpl=3)
    r = kernel.run(f"mov rbx, 0x30000000; mov al, [rbx]; {after}").registers
    assert kernel.words(r["rbp"], 3)[2] & RF == 0


def test_a_fault_of_a_user_program_switches_stacks_and_back(kernel):
    kernel.handle(PF, "mov rbp, rsp; mov r9d, cs; mov r10d, ss; mov rbx, [rsp+32]; sub rbx, 16; " + DROP)
    kernel.handle(GP, "hlt")
    result = kernel.run(
        "nop", user="mov rbx, 0x30000000; inc qword ptr [rbx+3]; mov r11d, cs; mov r12d, ss; mov r13, rsp; hlt")
    r = result.registers
    assert [d.exception for d in result.delivered] == [
        x86.PageFault(2 | 4, HOLE + 3), Interrupt(GP, 0)]  # HLT is privileged
    assert r["rbp"] == RSP0 - 48
    _, _, cs, _, rsp, ss = kernel.words(r["rbp"], 6)
    assert (cs, rsp, ss) == (USER_CODE, USER_STACK, USER_DATA)
    assert (r["r9"], r["r10"]) == (KERNEL_CODE, 0)
    assert (r["r11"], r["r12"], r["r13"]) == (USER_CODE, USER_DATA, USER_STACK)


def test_the_handler_has_supervisor_rights_and_the_program_has_not(kernel):
    kernel.handle(PF, f"mov r15, [rdi]; mov r14, [rsp]; mov rbx, {USER}; " + DROP)
    kernel.handle(GP, "hlt")
    result = kernel.run("nop", user="mov rbx, rdi; mov rax, [rbx]; hlt")
    assert result.registers["r14"] == 1 | 4  # present, but not for users
    assert result.registers["r15"] == 0


def test_int_n_needs_a_gate_for_users(kernel):
    kernel.handle(0x80, "mov r12, [rsp]; iretq", dpl=3)
    kernel.handle(0x81, "hlt")
    kernel.handle(GP, "mov r13, [rsp]; mov r14, [rsp+8]; hlt")
    result = kernel.run("nop", user="int 0x80; int 0x81")
    r = result.registers
    assert r["r12"] == USER + 2  # behind the instruction
    assert (r["r13"], r["r14"]) == (0x81 << 3 | 2, USER + 2)  # EXT is 0; on the instruction
    assert [d.exception for d in result.delivered] == [Interrupt(0x80, software=True), Interrupt(GP, 0x81 << 3 | 2)]


@pytest.mark.parametrize("kind, flag", [(14, 0), (15, IF)])
def test_an_interrupt_gate_masks_interrupts_and_a_trap_gate_does_not(kernel, kind, flag):
    kernel.handle(3, "pushfq; pop r12; iretq", kind=kind)
    result = kernel.run("sti; int3; pushfq; pop r13")
    assert (result.registers["r12"] & IF, result.registers["r13"] & IF) == (flag, IF)


def test_an_interrupt_stack_is_used_whatever_the_privilege(kernel):
    kernel.handle(PF, "mov rbp, rsp; mov r12d, ss; hlt", ist=1)
    result = kernel.run("mov rbx, 0x30000000; mov al, [rbx]")
    assert (result.registers["rbp"], result.registers["r12"]) == (IST1 - 48, KERNEL_DATA)


def test_a_hundred_faults_are_a_hundred_faults(kernel):
    """The engine forgets to forget an exception: the second #GP would be taken for a double fault."""
    kernel.handle(GP, "inc r12; add qword ptr [rsp+8], 2; " + DROP)
    result = kernel.run("mov ecx, 100; mov ebx, 0x44; 1: mov ds, ebx; dec ecx; jnz 1b")
    assert (result.stop.reason, result.registers["r12"]) == ("halt", 100)


@pytest.mark.parametrize(
    "options, error, vector",
    [
        ({"present": 0}, 0x33 << 3 | 2, NP),
        ({"kind": 12}, 0x33 << 3 | 2, GP),
        ({"selector": 0}, 0, GP),
        ({"selector": KERNEL_DATA}, KERNEL_DATA, GP),
        ({"selector": CODE32}, CODE32, GP),
        ({"selector": ABSENT_CODE}, ABSENT_CODE, NP),
        ({"selector": 0x1000}, 0x1000, GP),
    ],
)
def test_a_gate_that_cannot_be_used(kernel, options, error, vector):
    kernel.handle(0x33, "hlt", **options)
    kernel.handle(vector, "pop r12; hlt")
    result = kernel.run("int 0x33; hlt")
    assert (result.stop.reason, result.registers["r12"]) == ("halt", error)
    assert result.delivered[0].exception.vector == vector


def test_a_vector_behind_the_idt_is_gp():
    with Kernel(idt_limit=16 * 32 - 1) as kernel:
        kernel.handle(GP, "pop r12; hlt")
        assert kernel.run("int 0x33").registers["r12"] == 0x33 << 3 | 2


def test_ext_is_set_when_an_exception_cannot_be_delivered(kernel):
    kernel.handle(6, "hlt", kind=12)
    kernel.handle(GP, "pop r12; hlt")
    assert kernel.run("ud2").registers["r12"] == 6 << 3 | 2 | 1


def test_a_page_fault_without_gate_is_a_double_fault(kernel):
    kernel.handle(DF, "pop r12; pop r13; hlt")
    result = kernel.run("mov r12, -1; mov rbx, 0x30000000; mov al, [rbx]")
    assert (result.stop.reason, result.registers["r12"]) == ("halt", 0)
    assert result.delivered[0].exception == Interrupt(DF, 0)
    assert result.registers["cr2"] == HOLE


def test_a_stack_that_is_gone_is_a_double_fault_on_another(kernel):
    kernel.handle(PF, "hlt")
    kernel.handle(DF, "mov r12, rsp; hlt", ist=1)
    result = kernel.run("mov rsp, 0x30000800; push rax")
    assert result.registers["r12"] == IST1 - 48
    assert result.registers["cr2"] == 0x3000_07F8 & ~15 | 8


def test_a_benign_exception_before_a_page_fault_is_no_double_fault(kernel):
    kernel.handle(3, "hlt")
    kernel.handle(PF, "mov r12, cr2; hlt", ist=1)
    result = kernel.run("mov rsp, 0x30000800; int3")
    assert (result.registers["r12"], result.delivered[0].exception.vector) == (0x3000_07F8, PF)


def test_nothing_left_to_deliver_is_a_triple_fault(kernel):
    result = kernel.run("mov rbx, 0x30000000; mov al, [rbx]")
    assert result.stop.reason == "triple-fault"
    assert result.stop.exception == x86.PageFault(0, HOLE)
    assert result.stop.fault.va == HOLE


def test_a_tss_too_short_is_ts():
    with Kernel(tss_limit=8) as kernel:
        kernel.handle(0x80, "hlt", dpl=3)
        kernel.handle(TS, "hlt")
        result = kernel.run("nop", user="int 0x80")
        assert result.stop.reason == "triple-fault"  # #TS and #DF need that stack too
        assert result.stop.exception == Interrupt(0x80, software=True)
        assert result.stop.pc == USER


def test_a_handler_that_repairs_nothing_is_stopped_in_time(kernel):
    kernel.handle(PF, DROP)
    result = kernel.run("mov rbx, 0x30000000; mov al, [rbx]", timeout=0.2)
    assert result.stop.reason == "timeout"
    assert len(result.delivered) > 1
    assert {d.exception for d in result.delivered} == {x86.PageFault(0, HOLE)}


def test_a_user_loads_a_segment_from_a_table_it_cannot_read(kernel):
    """The descriptor is read by the CPU itself; the same page is out of reach for the program."""
    kernel.handle(PF, "mov r12, cr2; mov r13, [rsp]; hlt")
    user = f"mov eax, 0x1b; mov ds, eax; mov r14d, ds; mov rbx, {GDT}; mov rax, [rbx+8]"
    result = kernel.run("nop", user=user)
    r = result.registers
    assert (r["r14"], r["r12"], r["r13"]) == (USER_DATA, GDT + 8, 1 | 4)


def test_system_calls(kernel):
    m = kernel.machine
    m.write(HANDLER + 0x3000, asm("x86_64", "mov r12, rcx; mov r13, r11; mov r14d, cs; mov r15, [rdi]; sysretq"))
    kernel.handle(GP, "mov rbp, [rsp+16]; hlt")
    # STAR: SYSCALL loads CS 8 and SS 16, SYSRET CS 0x10+16 and SS 0x10+8
    m.set(star=0x10 << 48 | 8 << 32, lstar=HANDLER + 0x3000, sfmask=IF)
    result = kernel.run("nop", user="stc; syscall; mov r9d, cs; hlt")
    r = result.registers
    assert r["r12"] == USER + 3
    assert r["r13"] & (IF | 1) == IF | 1
    assert (r["r14"], r["r9"], r["rbp"]) == (KERNEL_CODE, USER_CODE, USER_CODE)


@pytest.mark.parametrize("where", ["window", "ram"])
def test_a_frame_pushed_over_code_is_seen_by_the_code(where):
    """What ran at that address before is forgotten: the saved RSP is the new function."""
    one, two = (asm("x86_64", f"mov r12d, {n}; ret; nop") for n in (1, 2))
    with Kernel(code=where) as kernel:
        kernel.handle(3, "iretq", ist=1)
        page = HANDLER + 0x3000
        kernel.machine.write(TSS + 0x24, (page + 0x800).to_bytes(8, "little"))
        kernel.machine.write(page + 0x7F0, one)
        call = f"mov rax, {page + 0x7F0}; call rax;"
        result = kernel.run(f"{call} mov r13, r12; mov rbx, rsp; mov rsp, rcx; int3; mov rsp, rbx; {call} nop",
                            rcx=int.from_bytes(two, "little"))
        assert (result.registers["r13"], result.registers["r12"]) == (1, 2)


@pytest.mark.parametrize("base", [WINDOW + 8 * MIB, 24 * MIB], ids=["window", "ram"])
def test_a_kernel_rewrites_the_code_of_its_user(base):
    """At the same address, but through the supervisor's entry of the TLB."""
    with Kernel(user=base) as kernel:
        kernel.handle(0x80, f"mov rbx, {USER + 0x100}; inc byte ptr [rbx+1]; iretq", dpl=3)
        kernel.handle(GP, "hlt")
        function = USER + 0x100
        kernel.machine.write(function, asm("x86_64", "mov eax, 1; ret"))
        again = f"mov rdx, {function}; mov ecx, 5; 1: call rdx; add r12, rax; int 0x80; dec ecx; jnz 1b; hlt"
        assert kernel.run("nop", user=again).registers["r12"] == 1 + 2 + 3 + 4 + 5


def test_a_run_ends_after_as_many_exceptions_as_allowed(kernel):
    handler = kernel.handle(PF, DROP)
    kernel.run("mov rbx, 0x30000000; mov al, [rbx]", timeout=0.05)
    result = kernel.machine.run(exceptions=3)
    assert (result.stop.reason, result.stop.pc, result.counters.exceptions) == ("limit", handler, 3)
    assert len(result.delivered) == 3


def test_the_first_exceptions_are_kept_and_all_counted(kernel):
    kernel.handle(GP, "add qword ptr [rsp+8], 2; " + DROP)
    result = kernel.run("mov ecx, 5000; mov ebx, 0x44; 1: mov ds, ebx; dec ecx; jnz 1b", timeout=None)
    assert (result.stop.reason, result.counters.exceptions, len(result.delivered)) == ("halt", 5000, 4096)
