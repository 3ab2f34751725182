"""x86-64: operands and strings that end at the last byte that may be accessed, or go on behind it."""

import struct

import pytest

from mmu.types import Access
from tests.guest.kernel import Kernel
from tests.guest.machines import CODE, DATA, MIB, PAGE, WINDOW, code, machine
from tests.guest.test_x86_faults import EDGE, NON_CANONICAL, READ_ONLY, P, W, fault, page_fault

PF = 14
END = READ_ONLY + 2 * PAGE  # nothing is there
DELIVER = pytest.mark.parametrize("deliver", ["native", "reference"])
ZF, ARITHMETIC = 0x40, 0x8D5


@pytest.fixture
def m():
    with machine() as m:
        m.tables.map(READ_ONLY, WINDOW + 8 * MIB, 2 * PAGE, page_size=PAGE, writable=False, executable=False)
        yield m


# -- operands of two pages ------------------------------------------------------------------------

# With the operand's first byte at RBX - 3, by one way or another.
READ_AND_WRITTEN = [
    "add [rbx-3], rax", "xchg [rbx-3], eax", "inc qword ptr [rbx-3]", "sar dword ptr [rbx-3], cl",
    "lock xadd [rbx-3], rax", "cmpxchg [rbx-3], rax", "not qword ptr [rbx+rcx*2-5]", "shld [ebx-3], rax, 3",
    "add fs:[rbx-0x103], rax", "add es:[rbx-3], rax", "bts [rbx-3], rdx", "btc [rbx+rdx*8-3], r8",
    "btr [rbx-7], r9d", "bts [rbx+5], r10d", "bts dword ptr [rbx-3], 9",
]  # fmt: skip
REGISTERS = {
    "rcx": 1, "fs_base": 0x100, "rdx": 0, "r8": 0x21, "r9": 0xF_0000_0033, "r10": 2**64 - 33, "rax": 3,
}  # r9d is 51: the doubleword at + 4; r10d is -33: the one at - 8  # fmt: skip


@pytest.mark.parametrize("source", READ_AND_WRITTEN)
def test_what_is_read_and_written_faults_where_it_begins_when_only_that_page_is_read_only(m, source):
    """The CPU asks for the right to write the first page before it looks at the second, where nothing is."""
    stop = fault(m, source, **{**REGISTERS, "rbx": END})
    assert (page_fault(stop), stop.fault.access) == ((W | P, END - 3), Access.WRITE)


@pytest.mark.parametrize("source", READ_AND_WRITTEN)
def test_what_is_read_and_written_faults_on_the_second_page_when_the_first_may_be_written(m, source):
    stop = fault(m, source, **{**REGISTERS, "rbx": EDGE})
    assert page_fault(stop) == (W, EDGE)


def test_a_bit_of_a_string_of_words(m):
    """19 is in the word behind the first."""
    assert page_fault(fault(m, "btr [rbx-3], r9w", rbx=END, r9=0xF0013)) == (W | P, END - 1)
    assert page_fault(fault(m, "btr [rbx+1], r9w", rbx=END, r9=0xFFFF)) == (W | P, END - 1)


def test_what_is_read_and_written_and_begins_a_page_has_one():
    """The page before is read-only, and it has nothing to do with it."""
    with machine() as m:
        m.tables.map(READ_ONLY, WINDOW + 8 * MIB, 2 * PAGE, page_size=PAGE, writable=False, executable=False)
        assert page_fault(fault(m, "add [rbx], rax", rbx=END)) == (W, END)


@DELIVER
@pytest.mark.parametrize("source, before", [
    ("add [rbx-3], rax", 3), ("xchg [rbx-3], eax", 3), ("bts [rbx+5], r10d", 3), ("add fs:[rbx-0x103], rax", 3),
    ("btr [rbx-7], r9w", 1),
])  # fmt: skip
def test_the_handler_is_told_where_an_operand_of_two_pages_begins(deliver, source, before):
    with Kernel(deliver=deliver) as kernel:
        kernel.machine.tables.map(
            READ_ONLY, WINDOW + 9 * MIB, PAGE, page_size=PAGE, writable=False, executable=False)
        kernel.handle(PF, "mov r12, cr2; mov r13, [rsp]; hlt")
        r = kernel.run(source, **{**REGISTERS, "rbx": READ_ONLY + PAGE})
        assert (r.registers["r12"], r.registers["r13"]) == (READ_ONLY + PAGE - before, W | P)


# -- loads of the engine that are longer than the operand -----------------------------------------

SHORT = {
    "cvtps2pd xmm0, [rbx-8]": (8, struct.pack("<2f", 1.5, -2), struct.pack("<2d", 1.5, -2)),
    "cvtdq2pd xmm0, [rbx-8]": (8, struct.pack("<2i", 7, -9), struct.pack("<2d", 7, -9)),
    "cvtps2pi mm0, [rbx-8]; movq2dq xmm0, mm0": (8, struct.pack("<2f", 2.5, -3), struct.pack("<2i", 2, -3)),
    "cvttps2pi mm0, [rbx-8]; movq2dq xmm0, mm0": (8, struct.pack("<2f", 2.7, -3), struct.pack("<2i", 2, -3)),
    "pxor mm0, mm0; punpcklbw mm0, [rbx-4]; movq2dq xmm0, mm0": (4, b"\1\2\3\4", b"\0\1\0\2\0\3\0\4"),
    "pxor mm0, mm0; punpckldq mm0, [rbx-4]; movq2dq xmm0, mm0": (4, b"\1\2\3\4", b"\0\0\0\0\1\2\3\4"),
}  # fmt: skip


@pytest.mark.parametrize("limit", [None, 20])
@pytest.mark.parametrize("source", SHORT)
def test_an_operand_of_half_a_register_ends_with_its_page(source, limit):
    """The engine loads as many bytes behind it, where nothing is."""
    size, given, expected = SHORT[source]
    with machine() as m:
        m.load(code("x86_64", f"{source}; movdqu [rdi], xmm0; inc r15"))
        m.write(EDGE - size, given)
        r = m.set(rbx=EDGE, rcx=1).run(limit=limit)
        assert (r.stop.reason, r.registers["r15"]) == ("halt", 1)
        assert m.read(DATA, len(expected)) == expected
        if limit:
            assert r.counters.instructions == source.count(";") + 4


@pytest.mark.parametrize("source", SHORT)
def test_an_operand_of_half_a_register_that_leaves_its_page_faults(m, source):
    for behind in 1, SHORT[source][0] - 1, SHORT[source][0]:
        assert page_fault(fault(m, source, rbx=EDGE + behind)) == (0, EDGE)


def test_what_is_behind_an_operand_of_half_a_register_is_as_absent_as_before(m):
    m.load(code("x86_64", "cvtps2pd xmm0, [rbx-8]; mov rax, [rbx]")).set(rbx=EDGE)
    stop = m.run().stop
    assert (page_fault(stop), stop.pc) == ((0, EDGE), CODE + 4)


def test_an_operand_of_a_whole_register_that_leaves_its_page_faults(m):
    for instruction in "cvtpd2ps", "cvtdq2ps", "cvtpd2dq", "movups":
        assert page_fault(fault(m, f"{instruction} xmm0, [rbx-8]", rbx=EDGE)) == (0, EDGE)


# -- repeated comparisons -------------------------------------------------------------------------


def flags_at(kernel):
    """RFLAGS that the handler of page faults found, of the arithmetic ones."""
    return kernel.words(kernel.machine.registers["rsp"], 4)[3] & ARITHMETIC


@DELIVER
@pytest.mark.parametrize("source", ["repne scasb", "repe scasb", "repne scasq", "repe cmpsb", "repne cmpsd"])
@pytest.mark.parametrize("before", ["cmp eax, eax", "cmp al, 0xff; stc"])
def test_a_repeated_comparison_that_faults_leaves_the_flags_of_before_its_first_round(source, before, deliver):
    with Kernel(deliver=deliver) as kernel:
        kernel.machine.write(EDGE - 64, bytes(64) if "repe " in source else bytes(range(1, 65)))
        kernel.machine.write(DATA + 0x6000, bytes(64))
        kernel.handle(PF, "hlt")
        registers = {"rbx": EDGE - 64, "rcx": 100, "rsi": DATA + 0x6000}
        r = kernel.run(f"mov rdi, rbx; xor eax, eax; {before}; pushfq; pop r14; {source}", **registers)
        assert (r.stop.reason, r.registers["rdi"]) == ("halt", EDGE)
        assert flags_at(kernel) == r.registers["r14"] & ARITHMETIC


@DELIVER
def test_a_search_that_goes_on_behind_what_it_found_has_flags_of_its_own(deliver):
    """The second one begins where the first ended, with the count that is left."""
    with Kernel(deliver=deliver) as kernel:
        m = kernel.machine
        m.write(EDGE - 8, b"\1\1\0\1\1\1\1\1")
        kernel.handle(PF, "hlt")
        source = "mov rdi, rbx; xor eax, eax; cmp eax, 1; 1: repne scasb; pushfq; pop r14; jz 1b"
        r = kernel.run(source, rbx=EDGE - 8, rcx=20)
        assert (r.registers["rdi"], r.registers["rcx"]) == (EDGE, 12)
        assert r.registers["r14"] & ZF
        assert flags_at(kernel) == r.registers["r14"] & ARITHMETIC


def test_a_repeated_comparison_that_ends_has_the_flags_of_its_last_round():
    with machine() as m:
        m.write(EDGE - 8, b"\1\1\0\1\1\1\1\1")
        m.load(code("x86_64", "; ".join(f"repne scasb; pushfq; pop r{n}" for n in (14, 13, 12))))
        r = m.set(rdi=EDGE - 8, rcx=5, rax=0).run().registers
        assert (r["r14"] & ZF, r["r13"] & ZF, r["r12"] & ZF, r["rcx"]) == (ZF, 0, 0, 0)
        assert r["r12"] & ARITHMETIC == r["r13"] & ARITHMETIC  # no round, no change


# -- the segment of an operand --------------------------------------------------------------------


@pytest.mark.parametrize("source, vector", [
    ("mov rax, ds:[rbp]", 12), ("mov rax, es:[rbp]", 12), ("add cs:[rbp], rax", 12), ("mov rax, [rbp+rbx]", 12),
    ("mov rax, ss:[rbx]", 13), ("mov rax, fs:[rbp]", 13), ("mov rax, gs:[rbp]", 13),
])  # fmt: skip
@DELIVER
def test_segments_without_a_base_say_nothing_about_the_exception(source, vector, deliver):
    """In 64-bit code the prefixes of CS, DS, ES and SS are ignored; RBP means the stack."""
    with Kernel(deliver=deliver) as kernel:
        for known in 12, 13:
            kernel.handle(known, f"mov r12, {known}; hlt")
        r = kernel.run(source, rbp=NON_CANONICAL, rbx=NON_CANONICAL if "rbp" not in source else 8)
        assert (r.registers["r12"], kernel.words(r.registers["rsp"], 1)) == (vector, (0,))
