"""arm64: every fault with its exact address and syndrome, delivery through VBAR_EL1, and EL0."""

import pytest

from mmu import arm64
from mmu.errors import AddressRangeError
from mmu.guest.stop import Synchronous
from mmu.types import Access, FaultKind
from tests.guest.machines import CODE, DATA, DATA_SIZE, MIB, PAGE, STACK, WINDOW, asm, code, machine

HOLE = 0x3000_0000
READ_ONLY = 0x2000_0000
USER = 0x5000_0000
EDGE = DATA + DATA_SIZE
VECTORS = CODE + 0x2000
SPX, LOWER = VECTORS + 0x200, VECTORS + 0x400

DATA_ABORT, FETCH_ABORT = 0x25 << 26 | 1 << 25, 0x21 << 26 | 1 << 25
WNR = 1 << 6
TRANSLATION_2, TRANSLATION_3, PERMISSION_3 = 6, 7, 15


@pytest.fixture
def m():
    with machine("aarch64") as m:
        m.tables.map(READ_ONLY, WINDOW + 8 * MIB, 2 * PAGE, page_size=PAGE, writable=False, executable=False)
        m.tables.map(USER, WINDOW + 9 * MIB, 2 * PAGE, page_size=PAGE, user=1, writable=False, executable=True)
        m.tables.map(USER + 4 * PAGE, WINDOW + 10 * MIB, PAGE, page_size=PAGE, user=1, executable=False)
        yield m


def fault(m, source, **registers):
    m.load(asm("aarch64", f"add x27, x27, #1; {source}; add x27, x27, #1; wfi")).set(**registers)
    before, memory = m.registers, m.read(DATA, DATA_SIZE)
    result = m.run()
    assert result.stop.reason == "fault"
    assert {n for n, v in result.registers.items() if v != before[n]} == {"x27", "pc"}
    assert (result.registers["x27"], result.stop.pc) == (1, CODE + 4)
    assert m.read(DATA, DATA_SIZE) == memory
    return result.stop


@pytest.mark.parametrize(
    "source, write, offset",
    [
        ("ldr x9, [x8, #8]", 0, 8), ("ldrb w9, [x8, #5]", 0, 5), ("ldur x9, [x8, #3]", 0, 3),
        ("ldp x9, x10, [x8, #16]", 0, 16), ("ldr q0, [x8, #16]", 0, 16), ("ldr x9, [x8], #8", 0, 0),
        ("ldxr x9, [x8]", 0, 0), ("ldar x9, [x8]", 0, 0), ("ldtr x9, [x8, #8]", 0, 8),
        ("str x9, [x8, #8]", WNR, 8), ("strb w9, [x8, #5]", WNR, 5), ("stur x9, [x8, #3]", WNR, 3),
        ("stp x9, x10, [x8, #16]", WNR, 16), ("str q0, [x8, #16]", WNR, 16), ("str x9, [x8, #8]!", WNR, 8),
        ("stlr x9, [x8]", WNR, 0), ("sttr x9, [x8, #8]", WNR, 8), ("dc zva, x8", WNR, 0),
        # A read of these would fault, so they are reported as reads (DDI 0487, ISS of a Data Abort, WnR).
        ("ldadd x9, x10, [x8]", 0, 0), ("swp x9, x10, [x8]", 0, 0), ("cas x9, x10, [x8]", 0, 0),
    ],
)  # fmt: skip
def test_an_access_to_nothing(m, source, write, offset):
    stop = fault(m, source, x8=HOLE)
    assert (stop.exception.esr, stop.exception.far) == (DATA_ABORT | TRANSLATION_2 | write, HOLE + offset)
    assert (stop.fault.kind, stop.fault.level, stop.fault.va) == (FaultKind.NOT_PRESENT, 2, HOLE + offset)


@pytest.mark.parametrize("source", ["str x9, [x8, #24]", "ldadd x9, x10, [x8, #24]", "swp x9, x10, [x8, #24]"])
def test_a_write_to_a_read_only_page(m, source):
    if "[x8, #24]" in source and source[:3] != "str":
        source = "add x8, x8, #24; " + source.replace(", #24", "")
        stop = m.load(asm("aarch64", source + "; wfi")).set(x8=READ_ONLY).run().stop
    else:
        stop = fault(m, source, x8=READ_ONLY)
    assert (stop.exception.esr, stop.exception.far) == (DATA_ABORT | PERMISSION_3 | WNR, READ_ONLY + 24)


def test_a_store_exclusive_is_a_write_even_where_nothing_is(m):
    """The engine reads first, to compare; the CPU does not. The guest takes its page away in between."""
    m.tables.map(0x2800_0000, m.tables.root, 256 << 10, executable=False)
    entry = 0x2800_0000 + find(m, DATA) - m.tables.root
    gone = "ldxr x9, [x8]; str xzr, [x11]; dsb ish; tlbi vmalle1; dsb ish; isb"
    stop = m.load(code("aarch64", f"{gone}; stxr w9, x10, [x8]")).set(x8=DATA + 8, x11=entry).run().stop
    assert stop.pc == CODE + 24
    assert (stop.exception.esr, stop.exception.far) == (DATA_ABORT | TRANSLATION_3 | WNR, DATA + 8)
    assert stop.fault.access == Access.WRITE


@pytest.mark.parametrize("source", ["ldur x9, [x8, #-3]", "stur x9, [x8, #-3]", "ldp x9, x10, [x8, #-8]"])
def test_an_access_that_leaves_the_last_page_faults_on_the_next(m, source):
    assert fault(m, source, x8=EDGE, x9=2**64 - 1).exception.far == EDGE


@pytest.mark.parametrize("source", ["ldur x9, [x8, #-3]", "stur x9, [x8, #-3]"])
def test_an_access_that_enters_the_first_page_faults_where_it_begins(m, source):
    assert fault(m, source, x8=DATA).exception.far == DATA - 3


@pytest.mark.parametrize("target, fsc", [(HOLE + 8, TRANSLATION_2), (DATA + 16, PERMISSION_3), (0, TRANSLATION_2)])
def test_a_fetch(m, target, fsc):
    stop = m.load(code("aarch64", "br x8")).set(x8=target).run().stop
    assert (stop.pc, stop.exception.esr, stop.exception.far) == (target, FETCH_ABORT | fsc, target)


@pytest.mark.parametrize(
    "source, esr, pc, far",
    [
        ("svc #5", 0x5600_0005, CODE + 4, None),
        ("brk #7", 0xF200_0007, CODE, None),
        ("udf #0", 0x0200_0000, CODE, None),
        ("hvc #1", 0x0200_0000, CODE, None),
        ("smc #1", 0x0200_0000, CODE, None),
        ("ldxr x9, [x8]", 0x9600_0021, CODE, DATA + 1),
    ],
)
def test_other_exceptions(m, source, esr, pc, far):
    stop = m.load(code("aarch64", source)).set(x8=DATA + 1).run().stop
    assert (stop.reason, stop.exception, stop.pc) == ("fault", Synchronous(esr, far), pc)


def test_a_handler_is_told_that_a_store_exclusive_is_a_write(m):
    m.tables.map(0x2800_0000, m.tables.root, 256 << 10, executable=False)
    entry = 0x2800_0000 + find(m, DATA) - m.tables.root
    gone = "ldxr x9, [x8]; str xzr, [x11]; dsb ish; tlbi vmalle1; dsb ish; isb"
    result = with_vectors(m, f"{gone}; stxr w9, x10, [x8]", {SPX: "mrs x13, esr_el1; wfi"}, x8=DATA + 8, x11=entry)
    assert result.registers["x13"] == DATA_ABORT | TRANSLATION_3 | WNR


def test_the_fault_is_what_walk_says_of_the_same_registers(m):
    stop = fault(m, "str x9, [x8, #0x128]", x8=READ_ONLY)
    again = arm64.walk(m.space, m.walk_registers(), READ_ONLY + 0x128, Access.WRITE, update=False)
    assert again == stop.fault


# -- delivery -------------------------------------------------------------------------------------


def with_vectors(m, source, handlers, **registers):
    m.load(code("aarch64", "msr vbar_el1, x1; isb; " + source))
    for at, text in handlers.items():
        m.write(at, asm("aarch64", text))
    return m.set(x1=VECTORS, **registers).run(timeout=2)


def test_a_handler_fixes_a_fault_and_the_instruction_runs_again(m):
    handler = "mrs x12, far_el1; mrs x13, esr_el1; mrs x14, elr_el1; mrs x15, spsr_el1; mov x8, x0; eret"
    result = with_vectors(m, "cmp x0, x0; str x9, [x8, #24]; mov x11, #1", {SPX: handler}, x8=HOLE, x9=0x77)
    r = result.registers
    assert (result.stop.reason, r["x11"]) == ("halt", 1)
    assert (r["x12"], r["x13"], r["x14"]) == (HOLE + 24, DATA_ABORT | TRANSLATION_2 | WNR, CODE + 12)
    assert r["x15"] == 0x6000_03C5  # Z and C, EL1h, everything masked
    assert m.read(DATA + 24, 8) == (0x77).to_bytes(8, "little")
    (only,) = result.delivered
    assert (only.pc, only.handler, only.exception.far) == (CODE + 12, SPX, HOLE + 24)


def test_svc_returns_behind_itself(m):
    result = with_vectors(m, "svc #9; mov x11, #1", {SPX: "mrs x12, esr_el1; eret"})
    assert (result.registers["x11"], result.registers["x12"]) == (1, 0x5600_0009)


def test_stack_pointer_0_selects_the_first_vectors_and_the_other_stack(m):
    source = "msr spsel, #0; mov sp, x2; svc #1; mov x15, sp"
    result = with_vectors(m, source, {VECTORS: "mov x12, sp; mrs x13, spsel; mrs x14, sp_el0; eret"}, x2=DATA + 0x800)
    r = result.registers
    assert (r["x12"], r["x13"], r["x14"], r["x15"]) == (STACK + (64 << 10), 1, DATA + 0x800, DATA + 0x800)


def user(m, source, handler, **registers):
    """EL1 drops to EL0, which runs *source* on the user page; exceptions of EL0 go to *handler*."""
    m.write(USER, asm("aarch64", source))
    drop = "msr elr_el1, x2; msr spsr_el1, xzr; msr sp_el0, x3; eret"
    return with_vectors(m, drop, {LOWER: handler}, x2=USER, x3=USER + 5 * PAGE, **registers)


def test_el0_runs_and_calls_el1(m):
    handler = "mrs x12, esr_el1; mrs x13, elr_el1; mrs x14, spsr_el1; mov x15, sp; mrs x16, sp_el0; ldr x17, [x0]; wfi"
    result = user(m, "str x4, [sp, #-16]!; ldr x5, [sp]; svc #3", handler, x4=0x55)
    r = result.registers
    assert (r["x5"], r["x12"], r["x13"]) == (0x55, 0x5600_0003, USER + 12)
    assert (r["x14"], r["x15"], r["x16"]) == (0, STACK + (64 << 10), USER + 5 * PAGE - 16)


def test_el0_may_not_touch_the_kernels_pages_and_el1_may(m):
    handler = "mrs x12, esr_el1; mrs x13, far_el1; ldr x17, [x0, #8]; wfi"
    result = user(m, "ldr x9, [x0, #8]", handler)
    assert (result.registers["x12"], result.registers["x13"]) == (0x24 << 26 | 1 << 25 | PERMISSION_3, DATA + 8)
    assert result.stop.reason == "halt"


def test_ldtr_has_the_rights_of_el0(m):
    ok = m.load(code("aarch64", "ldtr x9, [x8]; sttr x9, [x8]")).set(x8=USER + 4 * PAGE).run()
    assert ok.stop.reason == "halt"
    stop = fault(m, "ldtr x9, [x8, #16]", x8=DATA)
    assert (stop.exception.esr, stop.exception.far) == (DATA_ABORT | PERMISSION_3, DATA + 16)
    assert stop.fault.access == Access.READ | Access.UNPRIVILEGED


def test_ldtr_after_ldr_of_the_same_page_still_faults(m):
    m.load(code("aarch64", "ldr x9, [x8]; ldtr x9, [x8]")).set(x8=DATA)
    assert m.run().stop.pc == CODE + 4


def test_vectors_that_cannot_be_fetched_end_the_run(m):
    m.load(code("aarch64", "msr vbar_el1, x1; isb; svc #1")).set(x1=HOLE)
    stop = m.run(timeout=2).stop
    assert (stop.reason, stop.pc) == ("fault", HOLE + 0x200)
    assert stop.exception.far == HOLE + 0x200


def test_a_handler_that_repairs_nothing_is_stopped_in_time(m):
    m.load(code("aarch64", "msr vbar_el1, x1; isb; ldr x9, [x8]")).set(x1=VECTORS, x8=HOLE)
    m.write(SPX, asm("aarch64", "eret"))
    result = m.run(timeout=0.2)
    assert result.stop.reason == "timeout"
    assert len(result.delivered) > 1


# -- access flag and dirty state ------------------------------------------------------------------


def descriptor(m, va):
    return arm64.walk(m.space, m.walk_registers(), va, Access.READ, update=False).steps[-1].value


@pytest.mark.parametrize("where", ["window", "ram"])
def test_hardware_sets_the_access_flag_and_the_dirty_state(where):
    af, dbm, read_only = 1 << 10, 1 << 51, 1 << 7
    ha, hd = 1 << 39, 1 << 40
    with machine("aarch64", tables=where) as m:
        m.tables.protect(DATA, 4 * PAGE, accessed=0, dbm=1, writable=0)
        m.load(code("aarch64", "ldr x9, [x0]; add x8, x0, #0x1000; str x9, [x8]"))
        m.set(tcr_el1=m.registers["tcr_el1"] | ha | hd)
        assert m.run().stop.reason == "halt"
        values = [m.space.load(find(m, DATA + n * PAGE), 8)[0] & (af | dbm | read_only) for n in range(3)]
        assert values == [af | dbm | read_only, af | dbm, dbm | read_only]


def find(m, va):
    """Address of the last-level entry, found by hand."""
    table = m.tables.root
    for shift in (39, 30, 21):
        table = m.space.load(table + 8 * (va >> shift & 511), 8)[0] & 0xFFFF_FFFF_F000
    return table + 8 * (va >> 12 & 511)


def test_without_hardware_help_the_access_flag_faults(m):
    m.tables.protect(DATA, PAGE, accessed=0)
    stop = m.load(code("aarch64", "ldr x9, [x0, #8]")).run().stop
    assert (stop.fault.kind, stop.exception.fsc, stop.exception.far) == (FaultKind.ACCESS_FLAG, 0x0B, DATA + 8)
    with pytest.raises(AddressRangeError, match="cannot be read through the page tables: ACCESS_FLAG"):
        m.read(DATA, 8)


# -- addresses of instructions ----------------------------------------------------------------------

PC_ALIGNMENT = 0x22 << 26 | 1 << 25


@pytest.mark.parametrize("target", [CODE + 0x102, CODE + 0x101, CODE + 0x103, HOLE + 2])
def test_a_jump_to_no_multiple_of_four_is_an_alignment_fault(m, target):
    """Each time anew, with the flags of the jump. The engine translates code at any address."""
    handler = "mrs x12, esr_el1; mrs x13, far_el1; mrs x14, elr_el1; mrs x15, spsr_el1; sub x9, x9, #1; cbz x9, 1f;"
    m.load(asm("aarch64", "msr vbar_el1, x1; isb; mov x9, #3; cmp x0, x0; br x5"))
    if target != HOLE + 2:
        m.write(target, code("aarch64", "add x20, x20, #1"))  # as good as any other, to the engine
    m.write(SPX, asm("aarch64", f"{handler} eret; 1: wfi"))
    result = m.set(x1=VECTORS, x5=target).run(timeout=2)
    r = result.registers
    assert (result.stop.reason, result.stop.pc) == ("halt", SPX + 32)
    assert (r["x12"], r["x13"], r["x14"], r["x15"]) == (PC_ALIGNMENT, target, target, 0x6000_07C5)  # and BTYPE of BR
    assert [d.exception for d in result.delivered] == [Synchronous(PC_ALIGNMENT, target)] * 3
    assert r["x20"] == 0


def test_a_run_that_starts_at_no_multiple_of_four_ends_at_once(m):
    m.load(code("aarch64", "nop"))
    m.write(CODE + 0x102, code("aarch64", "nop"))
    stop = m.run(start=CODE + 0x102).stop
    assert (stop.reason, stop.exception, stop.pc) == ("fault", Synchronous(PC_ALIGNMENT, CODE + 0x102), CODE + 0x102)
