"""x86-64: a branch to an address that is not canonical is #GP at the branch, which has not happened."""

import pytest

from mmu import x86
from mmu.types import Access, FaultKind
from tests.guest.kernel import USER, USER_STACK, Kernel
from tests.guest.machines import CODE, DATA, DATA_SIZE, MIB, PAGE, STACK, WINDOW, asm, code, machine

GP = 13
ODD = 1 << 47
EDGE = ODD - PAGE  # the last canonical page of the lower half
TARGETS = (ODD, 0x8000_0000_0000_0000, ODD + 0x123, 0xFFFF_7FFF_FFFF_FFFF)
DELIVER = pytest.mark.parametrize("deliver", ["native", "reference"])
STACK_TOP = STACK + 0x8000


@pytest.fixture
def m():
    with machine() as m:
        yield m


def branch(m, source, target, **registers):
    """The stop of *source* between other instructions, once it is sure that it did nothing."""
    lead = asm("x86_64", "inc r15; add r14, 7; cmp ebp, 5")
    m.load(lead + asm("x86_64", f"{source}; inc r15; hlt"))
    m.write(STACK_TOP, target.to_bytes(8, "little"))
    m.write(DATA + 0x40, target.to_bytes(8, "little"))
    m.set(rbx=target, r11=target, rcx=3, rsp=STACK_TOP, rbp=4, fs_base=DATA, **registers)
    before, memory = m.registers, (m.read(DATA, DATA_SIZE), m.read(STACK_TOP, 0x4000))
    result = m.run()
    assert {n for n, v in result.registers.items() if v != before[n]} == {"r15", "r14", "rip", "rflags"}
    assert (result.registers["r15"], result.registers["rflags"] & 0x8D5) == (1, 0x95)  # of 4 - 5
    assert (m.read(DATA, DATA_SIZE), m.read(STACK_TOP, 0x4000)) == memory
    assert result.stop.pc == CODE + len(lead)
    return result.stop


BRANCHES = (
    "jmp rbx", "jmp r11", "jmp [rdi+0x40]", "jmp fs:[0x40]", "call rbx", "call r11", "call [rdi+0x40]", "call [rsp]",
    "ret", "ret 24", "ret 0x7ff8", "ret 0xfff8", "notrack jmp rbx", "bnd ret",
)  # fmt: skip


@pytest.mark.parametrize("source", BRANCHES)
@pytest.mark.parametrize("target", TARGETS)
def test_a_branch_to_no_address_faults_where_it_is(m, source, target):
    stop = branch(m, source, target)
    assert (stop.exception, stop.fault.kind) == (x86.GeneralProtection(), FaultKind.NON_CANONICAL)
    assert (stop.fault.va, stop.fault.access) == (target, Access.FETCH)


@pytest.mark.parametrize("source", ["ret", "call rbx", "jmp rbx"])
def test_a_branch_to_no_address_that_is_a_block_of_its_own(m, source):
    m.write(STACK_TOP, ODD.to_bytes(8, "little"))
    m.load(asm("x86_64", source)).set(rbx=ODD, rsp=STACK_TOP)
    r = m.run()
    assert (r.stop.pc, r.registers["rsp"]) == (CODE, STACK_TOP)


def at_the_edge(m, source, **registers):
    """The stop of *source* at the end of the lower half; and what is on the registers."""
    m.tables.map(EDGE, WINDOW + 9 * MIB, PAGE, executable=True)
    data = asm("x86_64", source)
    m.load(b"\xf4")
    m.write(ODD - len(data), data)
    return m.set(rip=ODD - len(data), rsp=STACK_TOP, rbp=4, **registers).run()


@pytest.mark.parametrize("lead", ["cmp ebp, 4; ", "cmp ebp, 4; mov eax, 1; lea rdx, [rbp+0x12345678]; "])
@pytest.mark.parametrize("source", ["jmp .+0x40", "jz .+0x1234", "jmp .+0x1234", "call .+0x1000", "loop .+0x70",
                                    "loope .+0x70", "jz .+0x20"])  # fmt: skip
def test_a_branch_over_the_edge_faults_where_it_is(m, source, lead):
    r = at_the_edge(m, lead + source, rcx=3)
    at = ODD - len(asm("x86_64", source))
    assert (r.stop.exception, r.stop.pc) == (x86.GeneralProtection(), at)
    assert (r.registers["rcx"], r.registers["rsp"]) == (3, STACK_TOP)


@pytest.mark.parametrize("source", ["nop", "cmp ebp, 5; jz .+0x40", "mov ecx, 1; loop .+0x40", "jrcxz .+0x20"])
def test_code_that_runs_over_the_edge_faults_behind_it(m, source):
    r = at_the_edge(m, f"nop; {source}", rcx=3)
    assert (r.stop.exception, r.stop.pc) == (x86.GeneralProtection(), ODD)
    assert r.registers["rcx"] in (0, 3)


def test_an_instruction_that_leaves_the_edge_faults_where_it_begins(m):
    m.tables.map(EDGE, WINDOW + 9 * MIB, PAGE, executable=True)
    m.load(b"\xf4")
    m.write(ODD - 3, b"\x90\x48\xb8")
    assert m.set(rip=ODD - 3).run().stop.pc == ODD - 2
    m.load(asm("x86_64", "call rbx"))
    r = m.set(rip=CODE, rbx=ODD - 2, rsp=STACK_TOP).run()
    assert (r.stop.pc, r.registers["rsp"]) == (ODD - 2, STACK_TOP - 8)


def test_a_run_that_begins_at_no_address_has_no_branch(m):
    """Although the run before ended behind one."""
    m.load(asm("x86_64", "jmp rbx")).set(rbx=ODD)
    assert m.run().stop.pc == CODE
    assert m.set(rip=ODD).run().stop.pc == ODD


@DELIVER
@pytest.mark.parametrize("source", ["jmp rbx", "call rbx", "push rbx; ret", "push rbx; ret 8"])
def test_a_user_that_branches_to_no_address_can_be_mended(deliver, source):
    """The handler of the kernel gives it another target, and the branch is made."""
    with Kernel(deliver=deliver) as kernel:
        kernel.handle(GP, "mov r12, [rsp+8]; mov r13, [rsp+32]; mov r14, [rsp+16]; mov rbx, rcx; test r13, 15; jz 1f;"
                      " mov [r13], rcx; 1: inc rbp; cmp rbp, 2; je 2f; add rsp, 8; iretq; 2: hlt")  # fmt: skip
        kernel.machine.write(USER + 0x100, asm("x86_64", "inc r15; hlt"))
        r = kernel.run("mov ecx, 0x50000100", user=f"nop; {source}", rbx=ODD)
        at = USER + 1 + ("push" in source)
        assert [d.pc for d in r.delivered] == [at, USER + 0x103]
        assert (r.registers["r15"], r.delivered[0].exception.vector) == (1, GP)
        after = {"jmp rbx": 0, "call rbx": -8, "push rbx; ret": 0, "push rbx; ret 8": 8}[source]
        assert r.registers["r13"] == USER_STACK + after


def test_a_branch_to_no_address_counts_as_an_instruction():
    with machine() as m:
        m.load(code("x86_64", "nop; nop; jmp rbx")).set(rbx=ODD)
        r = m.run(limit=100)
        assert (r.stop.pc, r.counters.instructions) == (CODE + 2, 3)


def test_a_branch_to_no_address_from_a_page_of_code_on_the_stack(m):
    """CALL stores to code: it is run alone."""
    m.load(asm("x86_64", "call rbx"))
    r = m.set(rbx=ODD, rsp=CODE + 0x800).run()
    assert (r.stop.pc, r.registers["rsp"]) == (CODE, CODE + 0x800)
