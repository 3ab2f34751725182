"""x86-64: code that goes on on a page that cannot be fetched. The engine translates before it runs what is before."""

import struct

import pytest

from mmu import Ram, x86
from mmu.guest.stop import Interrupt
from mmu.types import Access, FaultKind
from tests.guest.kernel import Kernel
from tests.guest.machines import CODE, DATA, MIB, PAGE, WINDOW, asm, machine

DE, UD, PF = 0, 6, 14
DELIVER = pytest.mark.parametrize("deliver", ["native", "reference"])
END = CODE + (64 << 10)  # the first byte behind the code area: not mapped
INC = "inc r15; "


@pytest.fixture
def m():
    with machine() as m:
        m.load(b"\xf4")
        yield m


def before_the_end(m, source, more=b""):
    """*source* and *more*, all before END; where it begins."""
    data = asm("x86_64", source) + more
    m.write(END - len(data), data)
    m.set(rip=END - len(data))
    return END - len(data)


@pytest.mark.parametrize("count", [1, 2, 50, 500])
def test_the_instructions_before_a_page_that_is_not_there_run(m, count):
    before_the_end(m, INC * count)
    r = m.run()
    assert (r.stop.pc, r.registers["r15"]) == (END, count)
    assert (r.stop.exception.error_code, r.stop.exception.cr2) == (16, END)
    assert (r.stop.fault.kind, r.stop.fault.access) == (FaultKind.NOT_PRESENT, Access.FETCH)


@pytest.mark.parametrize("part", ["48b8", "4881c3000000", "66", "0f", "e8000000"])
def test_the_fault_is_that_of_the_first_instruction_that_is_there_as_well(m, part):
    part = bytes.fromhex(part)
    before_the_end(m, INC * 3, part)
    r = m.run()
    assert (r.stop.pc, r.registers["r15"], r.stop.exception.cr2) == (END - len(part), 3, END)


def test_what_faults_before_comes_first(m):
    at = before_the_end(m, "div ecx; inc r15")
    r = m.run()
    assert (r.stop.exception, r.stop.pc, r.registers["r15"]) == (Interrupt(DE), at, 0)
    m.set(rcx=1)
    assert m.run().stop.pc == END


def test_what_is_stored_before_is_stored(m):
    before_the_end(m, "mov [rdi], rcx; mov [rdi+8], rcx")
    assert m.set(rcx=77).run().stop.pc == END
    assert struct.unpack("<2Q", m.read(DATA, 16)) == (77, 77)


def test_a_loop_that_ends_before_the_page(m):
    before_the_end(m, "mov ecx, 1000; 1: inc r15; dec ecx; jnz 1b; inc r15")
    r = m.run()
    assert (r.stop.pc, r.registers["r15"]) == (END, 1001)


def test_instructions_before_the_end_are_counted_once(m):
    before_the_end(m, INC * 5)
    r = m.run(limit=100)
    assert (r.stop.pc, r.counters.instructions) == (END, 5)
    before_the_end(m, INC * 5)
    r = m.run(limit=3)
    assert (r.stop.reason, r.registers["r15"], r.counters.instructions) == ("limit", 8, 3)


def test_a_page_that_goes_away_after_its_code_was_translated(m):
    """The guest calls code on two pages, takes the second one away, calls it again."""
    m.tables.map(0x2800_0000, WINDOW, 256 << 10, executable=False)
    step = x86.walk(m.space, m.walk_registers(), CODE + 2 * PAGE, Access.READ, update=False).steps[-1]
    at = CODE + 2 * PAGE - 6
    m.load(asm("x86_64", "call rbx; and qword ptr [rsi], -2; invlpg [rcx]; call rbx; hlt"))
    m.write(at, asm("x86_64", "inc r15; inc r15; inc r14; ret"))
    m.set(rbx=at, rcx=CODE + 2 * PAGE, rsi=0x2800_0000 + step.address - WINDOW)
    r = m.run()
    assert (r.stop.pc, r.registers["r15"], r.registers["r14"]) == (CODE + 2 * PAGE, 4, 1)
    assert r.stop.exception.cr2 == CODE + 2 * PAGE


def test_a_page_that_must_not_run(m):
    m.tables.map(END, WINDOW + 9 * MIB, PAGE, executable=False)
    before_the_end(m, INC * 2)
    r = m.run()
    assert (r.stop.pc, r.stop.exception.error_code, r.registers["r15"]) == (END, 17, 2)


def test_code_that_nobody_gives(m):
    """The page behind is of no device: a bus error."""
    m.tables.map(END, 1 << 45, PAGE, executable=True)
    before_the_end(m, INC * 2)
    r = m.run()
    assert (r.stop.reason, r.stop.pc, r.registers["r15"]) == ("bus-error", END, 2)


@pytest.mark.parametrize("part", ["48b8", "4881c3000000", "90"])
def test_code_of_which_only_the_beginning_is_given(m, part):
    """All of a page is translated, so all of it must be there."""
    m.space.map(1 << 45, Ram(PAGE // 2))
    m.tables.map(END, 1 << 45, PAGE, executable=True)
    before_the_end(m, INC * 2, bytes.fromhex(part))
    r = m.run()
    at = END - (0 if part == "90" else len(part) // 2)
    assert (r.stop.reason, r.stop.pc, r.registers["r15"]) == ("bus-error", at, 2)


@DELIVER
def test_a_kernel_that_maps_code_as_it_is_reached(deliver):
    """The user's code is on eight pages, one after the other; its handler sees how far it got."""
    base = 0x5100_0000
    with Kernel(deliver=deliver) as kernel:
        m = kernel.machine
        m.tables.map(base, WINDOW + 9 * MIB, 8 * PAGE, page_size=PAGE, user=1, executable=1)
        entry = x86.walk(m.space, m.walk_registers(), base, Access.READ, update=False).steps[-1].address
        m.tables.map(0x2800_0000, WINDOW, 256 << 10, executable=False)
        m.write(base, asm("x86_64", INC) * (8 * PAGE // 3) + b"\xcd\x80")
        entries = m.read(0x2800_0000 + entry - WINDOW, 64)
        m.write(0x2800_0000 + entry - WINDOW, bytes(64))
        m.write(DATA + 0x3000, entries)
        kernel.handle(PF, "push rax; push rcx; mov rax, cr2; mov ecx, eax; shr ecx, 12; and ecx, 7;"
                      " mov r8, [rdi+rcx*8+0x3000]; mov [rsi+rcx*8], r8; mov [rdi+rcx*8+0x4000], r15;"
                      " pop rcx; pop rax; add rsp, 8; iretq")  # fmt: skip
        kernel.handle(0x80, "hlt", dpl=3)
        r = kernel.run("mov rsi, rbx", user="jmp rbp", rbx=0x2800_0000 + entry - WINDOW, rbp=base)
        whole = 8 * PAGE // 3
        assert (r.stop.reason, r.registers["r15"]) == ("halt", whole)
        assert kernel.words(DATA + 0x4000, 8) == tuple(n * PAGE // 3 for n in range(8))
        assert [d.pc for d in r.delivered[:8]] == [base + n * PAGE // 3 * 3 for n in range(8)]


@pytest.mark.parametrize("limit", [None, 100])
@pytest.mark.parametrize("refused", ["c5f05807", "0fc7f0", "f0 0f01 3f"])
def test_what_begins_a_page_behind_others_of_its_block_is_looked_at(m, refused, limit):
    """VADDPS, which the engine has for ADDPS; RDRAND, which it asks the host; LOCK INVLPG."""
    at = CODE + PAGE
    m.write(at - 6, bytes.fromhex(f"90 04ff ffc1 90 {refused} f4"))  # add al, -1; inc ecx
    found = m.run(start=at - 6, limit=limit)
    assert (found.stop.exception, found.stop.pc) == (Interrupt(UD), at)
