"""x86-64: every fault with its exact address and error code, and the guest as it was before the instruction."""

import pytest

from mmu import x86
from mmu.guest.stop import Interrupt
from mmu.types import Access, FaultKind
from tests.guest.machines import CODE, DATA, DATA_SIZE, MIB, PAGE, STACK, WINDOW, asm, code, machine

HOLE = 0x3000_0000
READ_ONLY = 0x2000_0000
NO_EXEC = DATA
NON_CANONICAL = 0x8000_0000_0000_0000
EDGE = DATA + DATA_SIZE  # the first byte behind the data area: not mapped

W, U, I, P = 2, 4, 16, 1  # noqa: E741


@pytest.fixture
def m():
    with machine() as m:
        m.tables.map(READ_ONLY, WINDOW + 8 * MIB, 2 * PAGE, page_size=PAGE, writable=False, executable=False)
        yield m


def fault(m, source, **registers):
    """Run `inc r15; source; inc r15`; the stop, once it is sure that nothing but the first happened."""
    m.load(asm("x86_64", f"inc r15; {source}; inc r15; hlt")).set(**registers)
    before = m.registers
    memory = m.read(DATA, DATA_SIZE)
    result = m.run()
    assert result.stop.reason == "fault"
    changed = {n for n, v in result.registers.items() if v != before[n]}
    assert changed <= {"r15", "rip", "rflags", "cr2"}, changed
    assert result.registers["r15"] == 1
    assert m.read(DATA, DATA_SIZE) == memory
    return result.stop


READS = [
    ("mov rax, [rbx+5]", 5), ("mov al, [rbx+0xfff]", 0xFFF), ("movups xmm0, [rbx+3]", 3), ("cmp [rbx+8], rax", 8),
    ("test [rbx+8], rax", 8), ("push qword ptr [rbx+3]", 3), ("jmp qword ptr [rbx+16]", 16), ("fld tbyte ptr [rbx]", 0),
    ("call qword ptr [rbx+24]", 24), ("movzx eax, word ptr [rbx+7]", 7), ("bt [rbx+8], eax", 8), ("lodsb", 0),
    ("imul rax, [rbx+1]", 1), ("movsq", 0), ("scasq", 64), ("pop rax", 128),
]  # fmt: skip
WRITES = [
    ("mov [rbx+5], rax", 5), ("movups [rbx+3], xmm0", 3), ("stosq", 64), ("push rax", 120), ("fxsave [rbx+16]", 16),
    ("sete byte ptr [rbx+9]", 9), ("fstp tbyte ptr [rbx+4]", 4), ("call 1f; 1:", 120), ("mov [rbx+2], fs", 2),
]  # fmt: skip
# The CPU takes all of these for writes from the start.
READS_AND_WRITES = [
    f"{op} qword ptr [rbx+8]{rest}"
    for op, rest in [
        ("add", ", rax"), ("or", ", rax"), ("adc", ", 1"), ("sbb", ", rax"), ("and", ", 3"), ("sub", ", rax"),
        ("xor", ", rax"), ("inc", ""), ("dec", ""), ("not", ""), ("neg", ""), ("rol", ", 1"), ("ror", ", cl"),
        ("rcl", ", 1"), ("rcr", ", 1"), ("shl", ", 3"), ("shr", ", cl"), ("sar", ", 1"), ("shld", ", rax, 3"),
        ("shrd", ", rax, cl"), ("xchg", ", rax"), ("xadd", ", rax"), ("cmpxchg", ", rcx"), ("bts", ", 3"),
        ("btr", ", rax"), ("btc", ", 9"), ("lock add", ", rax"), ("lock xadd", ", rax"), ("lock cmpxchg", ", rcx"),
        ("lock bts", ", rax"), ("lock dec", ""),
    ]
] + ["cmpxchg8b [rbx+8]", "lock cmpxchg16b [rbx+8]", "xchg rax, [rbx+8]"]  # fmt: skip


def at_hole(base=HOLE):
    return {"rbx": base, "rsi": base, "rdi": base + 64, "rsp": base + 128}


def page_fault(stop):
    assert isinstance(stop.exception, x86.PageFault)
    return stop.exception.error_code, stop.exception.cr2


@pytest.mark.parametrize("source, offset", READS)
def test_a_read_of_nothing(m, source, offset):
    stop = fault(m, source, **at_hole())
    assert page_fault(stop) == (0, HOLE + offset)
    assert (stop.fault.kind, stop.fault.va, stop.pc) == (FaultKind.NOT_PRESENT, HOLE + offset, CODE + 3)
    assert m.registers["cr2"] == HOLE + offset


@pytest.mark.parametrize("source, offset", WRITES)
def test_a_write_to_nothing(m, source, offset):
    stop = fault(m, source, **at_hole())
    assert page_fault(stop) == (W, HOLE + offset)


@pytest.mark.parametrize("source", READS_AND_WRITES)
def test_a_read_modify_write_of_nothing_is_a_write(m, source):
    base = HOLE - 8 if "16b" in source else HOLE  # its operand is aligned, or it is #GP
    stop = fault(m, source, **at_hole(base))
    assert page_fault(stop) == (W, base + 8)
    assert stop.fault.access == Access.WRITE


@pytest.mark.parametrize("source", READS_AND_WRITES)
def test_a_read_modify_write_of_a_read_only_page(m, source):
    base = READ_ONLY + (8 if "16b" in source else 0)
    assert page_fault(fault(m, source, rbx=base)) == (W | P, base + 8)


@pytest.mark.parametrize("where", ["window", "ram"])
@pytest.mark.parametrize("source", ["mov rax, [rbx-3]", "mov [rbx-3], rax", "add [rbx-3], rax", "movups xmm0, [rbx-3]"])
def test_an_access_that_leaves_the_last_page_faults_on_the_next(source, where):
    with machine(data=where) as m:
        stop = fault(m, source, rbx=EDGE, rax=2**64 - 1)
        assert stop.exception.cr2 == EDGE


@pytest.mark.parametrize("source", ["mov rax, [rbx-3]", "mov [rbx-3], rax", "add [rbx-3], rax", "movups xmm0, [rbx-3]"])
def test_an_access_that_enters_the_first_page_faults_where_it_begins(m, source):
    assert fault(m, source, rbx=DATA).exception.cr2 == DATA - 3


def test_a_string_instruction_stops_where_it_got_to(m):
    m.load(code("x86_64", "rep stosq")).set(rdi=EDGE - 24, rcx=5, rax=0x11)
    stop = m.run()
    assert page_fault(stop.stop) == (W, EDGE)
    assert (stop.registers["rcx"], stop.registers["rdi"]) == (2, EDGE)
    assert m.read(EDGE - 24, 24) == (0x11).to_bytes(8, "little") * 3


@pytest.mark.parametrize(
    "source, target, error", [("jmp rbx", HOLE, I), ("call rbx", HOLE, I), ("jmp rbx", NO_EXEC, I | P)])
def test_a_fetch(m, source, target, error):
    m.load(code("x86_64", source)).set(rbx=target + 0x123)
    stop = m.run().stop
    assert page_fault(stop) == (error, target + 0x123)
    assert (stop.pc, stop.fault.access) == (target + 0x123, Access.FETCH)


def test_an_instruction_that_runs_out_of_its_page_faults_on_the_next(m):
    end = CODE + (64 << 10)
    m.load(code("x86_64", "jmp rbx")).set(rbx=end - 2)
    m.write(end - 2, b"\x48\xb8")  # mov rax, imm64: eight bytes are missing
    stop = m.run().stop
    assert page_fault(stop) == (I, end)
    assert stop.pc == end - 2


def test_a_jump_to_address_zero_is_a_fetch_of_nothing(m):
    m.load(code("x86_64", "jmp rbx"))
    stop = m.run().stop
    assert page_fault(stop) == (I, 0)
    assert stop.pc == 0


def test_code_at_address_zero_runs(m):
    m.load(code("x86_64", "jmp rbx"))
    m.tables.map(0, 8 * MIB, PAGE, executable=True)
    m.write(0, code("x86_64", "inc rax; jmp rcx"))
    m.set(rcx=CODE + 2)  # the HLT
    result = m.run()
    assert (result.stop.reason, result.registers["rax"]) == ("halt", 1)


@pytest.mark.parametrize(
    "source, exception, address, pc",
    [
        ("mov rax, [rbx+9]", x86.GeneralProtection(), NON_CANONICAL + 9, CODE + 3),
        ("mov [rbx+9], rax", x86.GeneralProtection(), NON_CANONICAL + 9, CODE + 3),
        ("push rax", x86.StackFault(), NON_CANONICAL - 8, CODE + 3),
        ("pop rax", x86.StackFault(), NON_CANONICAL, CODE + 3),
        ("mov rax, [rbp+1]", x86.StackFault(), NON_CANONICAL + 1, CODE + 3),
        ("mov rax, [rsp+1]", x86.StackFault(), NON_CANONICAL + 1, CODE + 3),
        ("push qword ptr [rbx]", x86.GeneralProtection(), NON_CANONICAL, CODE + 3),
    ],
)
def test_a_non_canonical_address(m, source, exception, address, pc):
    stop = fault(m, source, rbx=NON_CANONICAL, rbp=NON_CANONICAL, rsp=NON_CANONICAL)
    assert (stop.exception, stop.fault.va, stop.pc) == (exception, address, pc)


@pytest.mark.parametrize(
    "source, expected, pc",
    [
        ("ud2", Interrupt(6), CODE),
        ("div ecx", Interrupt(0), CODE),
        ("int3", Interrupt(3, software=True), CODE + 1),
        ("int 0x80", Interrupt(0x80, software=True), CODE + 2),
        ("int 13", Interrupt(13, software=True), CODE + 2),
        ("mov ss, ebx", Interrupt(13, 0x44), CODE),
        ("mov ds, ebx", Interrupt(13, 0x44), CODE),
    ],
)
def test_other_exceptions(m, source, expected, pc):
    m.load(code("x86_64", source)).set(rbx=0x44)
    stop = m.run().stop
    assert (stop.reason, stop.exception, stop.pc, stop.fault) == ("fault", expected, pc, None)


def test_a_reserved_bit_in_a_table(m):
    m.load(code("x86_64", "mov rax, [rdi]"))
    m.run()
    root = m.tables.root
    entry, _ = m.space.load(root, 8)
    m.space.store(root, 8, entry | 1 << 7)  # bit 7 of a PML4E
    stop = m.run(start=CODE).stop
    assert page_fault(stop) == (8 | P | I, CODE)
    assert (stop.fault.kind, stop.fault.level, stop.fault.entry_address) == (FaultKind.RESERVED_BIT, 4, root)


def test_the_fault_is_what_walk_says_of_the_same_registers(m):
    stop = fault(m, "mov [rbx+0x123], rax", rbx=READ_ONLY)
    again = x86.walk(m.space, m.walk_registers(), READ_ONLY + 0x123, Access.WRITE, update=False)
    assert again == stop.fault


# -- accessed and dirty flags ---------------------------------------------------------------------


def leaf(m, va):
    return x86.walk(m.space, m.walk_registers(), va, Access.READ, update=False).steps[-1].flags


@pytest.mark.parametrize("where", ["window", "ram"])
def test_accessed_and_dirty_flags_are_set_as_pages_are_used(where):
    with machine(tables=where) as m:
        m.load(code("x86_64", "mov rax, [rdi]; mov [rdi+0x1000], rax; mov rax, [rdi+0x2000]; mov [rdi+0x2000], rax"))
        assert m.run().stop.reason == "halt"
        flags = [(leaf(m, DATA + n * PAGE)["A"], leaf(m, DATA + n * PAGE)["D"]) for n in range(4)]
        assert flags == [(1, 0), (1, 1), (1, 1), (0, 0)]
        assert (leaf(m, CODE)["A"], leaf(m, CODE)["D"]) == (1, 0)
        assert (leaf(m, STACK)["A"], leaf(m, STACK)["D"]) == (0, 0)


def test_a_fault_sets_no_flag_of_the_page(m):
    fault(m, "mov [rbx], rax", rbx=READ_ONLY)
    assert (leaf(m, READ_ONLY)["A"], leaf(m, READ_ONLY)["D"]) == (0, 0)


def test_a_guest_sees_its_own_dirty_flags_after_a_flush(m):
    """It clears D in its own table, flushes the page, writes, and reads the entry back."""
    root = m.tables.root
    step = x86.walk(m.space, m.walk_registers(), DATA, Access.READ, update=False).steps[-1]
    m.tables.map(0x2800_0000, root & ~(PAGE - 1), 256 << 10, executable=False)
    pte = 0x2800_0000 + step.address - root
    m.load(code("x86_64", "mov [rdi], rax; and qword ptr [rbx], -65; invlpg [rdi]; mov rcx, [rbx]; mov [rdi], rax;"
                " mov rdx, [rbx]")).set(rbx=pte)
    result = m.run()
    assert result.stop.reason == "halt"
    assert (result.registers["rcx"] & 0x40, result.registers["rdx"] & 0x40) == (0, 0x40)
