"""x86-64: CLFLUSH translates its operand as a load of a byte does. To the engine it is no operation."""

import pytest

from mmu import x86
from mmu.guest.stop import Interrupt
from mmu.types import Access
from tests.guest.kernel import USER, Kernel
from tests.guest.machines import CODE, DATA, MIB, PAGE, WINDOW, asm, code, machine
from tests.guest.test_x86_faults import HOLE, NON_CANONICAL, fault, leaf, page_fault

UD, PF = 6, 14
DELIVER = pytest.mark.parametrize("deliver", ["native", "reference"])
LOW = 0x7000_0000  # below 4 GiB; nothing is there


@pytest.fixture
def m():
    with machine() as m:
        yield m


OPERANDS = {
    "[rbx]": (HOLE, {"rbx": HOLE}),
    "[rbx+rcx*8-7]": (HOLE + 17, {"rbx": HOLE, "rcx": 3}),
    "[r13+r12*2+0x12345]": (HOLE + 0x12345, {"r13": HOLE - 2, "r12": 1}),
    "[rcx*4+0x1000]": (HOLE + 0x1000, {"rcx": HOLE // 4}),
    "fs:[rbx+5]": (HOLE + 5, {"rbx": 0x1000, "fs_base": HOLE - 0x1000}),
    "gs:[0x40]": (HOLE + 0x40, {"gs_base": HOLE}),
    "[ebx+ecx]": (LOW, {"rbx": LOW | 5 << 32, "rcx": 7 << 32}),
    "[ebx-1]": (0xFFFF_FFFF, {"rbx": 0}),
    "fs:[ebx+2]": (HOLE + LOW + 2, {"rbx": LOW | 1 << 40, "fs_base": HOLE}),
    "[rip+0x4000000]": (CODE + 3 + 7 + 0x400_0000, {}),
    "gs:[rip+0x4000000]": (HOLE + CODE + 3 + 8 + 0x400_0000, {"gs_base": HOLE}),
}  # fmt: skip


@pytest.mark.parametrize("operand", OPERANDS)
def test_flushing_a_line_of_no_page_is_a_page_fault_at_the_exact_address(m, operand):
    at, registers = OPERANDS[operand]
    stop = fault(m, f"clflush {operand}", **registers)
    assert (page_fault(stop), stop.pc, stop.fault.access) == ((0, at), CODE + 3, Access.READ)


@pytest.mark.parametrize("source, exception, at", [
    ("clflush [rbx+9]", x86.GeneralProtection(), NON_CANONICAL + 9),
    ("clflush [rbp+9]", x86.StackFault(), NON_CANONICAL + 9),
    ("clflush fs:[rcx]", x86.GeneralProtection(), (1 << 47) + 9),
])  # fmt: skip
def test_flushing_a_line_at_an_address_that_is_not_canonical(m, source, exception, at):
    stop = fault(m, source, rbx=NON_CANONICAL, rbp=NON_CANONICAL, fs_base=(1 << 47) - 16, rcx=25)
    assert (stop.exception, stop.fault.va, stop.pc) == (exception, at, CODE + 3)


@pytest.mark.parametrize("source, accessed", [
    ("clflush [rbx+0x7f]", 1), ("prefetcht0 [rbx]", 0), ("nop dword ptr [rbx]", 0),
])  # fmt: skip
def test_flushing_a_line_marks_its_page_as_accessed(m, source, accessed):
    m.load(code("x86_64", source)).set(rbx=DATA + 0x5000)
    assert m.run().stop.reason == "halt"
    assert (leaf(m, DATA + 0x5000)["A"], leaf(m, DATA + 0x5000)["D"]) == (accessed, 0)


def test_what_was_flushed_goes_on_and_flags_stay(m):
    m.load(code("x86_64", "cmp ecx, 5; clflush [rdi]; setl al; mfence; clflush [rdi+64]; inc r15"))
    r = m.run()
    assert (r.stop.reason, r.registers["rax"] & 0xFF, r.registers["r15"]) == ("halt", 1, 1)


@pytest.mark.parametrize("instruction", ["66 0fae3b", "66 0fae33", "f0 0fae3b", "f3 0fae3b", "f2 0fae3b"])
def test_lines_that_this_cpu_cannot_flush_so_are_invalid(m, instruction):
    """CLFLUSHOPT and CLWB, of which CPUID does not tell; CLFLUSH with LOCK or REP."""
    m.load(code("x86_64", "mov eax, 7; xor ecx, ecx; cpuid"))
    assert m.run().registers["rbx"] & (1 << 23 | 1 << 24) == 0
    m.write(CODE, bytes.fromhex(instruction))
    stop = m.set(rip=CODE, rbx=HOLE).run().stop
    assert (stop.exception, stop.pc) == (Interrupt(UD), CODE)


@DELIVER
def test_a_user_cannot_flush_lines_of_the_kernel(deliver):
    with Kernel(deliver=deliver) as kernel:
        kernel.handle(PF, "mov r12, cr2; mov r13, [rsp]; mov r14, [rsp+8]; hlt")
        r = kernel.run("mov rbx, rdi", user="cmp ecx, 5; clflush [rbx+3]; hlt", rcx=4)
        assert (r.registers["r12"], r.registers["r13"], r.registers["r14"]) == (DATA + 3, 5, USER + 3)
        assert kernel.words(r.registers["rsp"], 4)[3] & 0x8D5 == 0x95  # of 4 - 5


@DELIVER
def test_a_kernel_maps_what_it_flushes_and_goes_on(deliver):
    """At the end of a page of code, so that the instruction is on two."""
    with Kernel(deliver=deliver) as kernel:
        m = kernel.machine
        m.tables.map(0x2800_0000, WINDOW, 256 << 10, executable=False)
        m.tables.map(HOLE, WINDOW + 9 * MIB, PAGE)
        entry = x86.walk(m.space, m.walk_registers(), HOLE, Access.READ, update=False).steps[-1].address
        pte = 0x2800_0000 + entry - WINDOW
        back = "mov rax, cr2; invlpg [rax]; add rsp, 8; iretq"
        kernel.handle(PF, f"inc r12; mov rax, {pte}; or qword ptr [rax], 1; {back}")
        at = CODE + 0x6000 - 2
        m.write(at, asm("x86_64", "clflush [rbx]; inc r13; hlt"))
        r = kernel.run(f"mov rax, {pte}; and qword ptr [rax], -2; invlpg [rbx]; mov rcx, {at}; jmp rcx", rbx=HOLE)
        assert (r.stop.reason, r.registers["r12"], r.registers["r13"]) == ("halt", 1, 1)
        assert [d.pc for d in r.delivered] == [at]
