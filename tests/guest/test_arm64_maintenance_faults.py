"""Cache maintenance by address faults as a CPU's does, and AT answers from the guest's own tables.

The engine does nothing for the one, and looks for tables where it has none for the other.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmu import arm64
from mmu.types import Access, FaultKind
from tests.guest.machines import CODE, DATA, MIB, PAGE, WINDOW, asm, code, machine

HOLE, READ_ONLY, EXTERNAL = 0x3000_0000, 0x2000_0000, 0x7F80_0000_0000
USER, KERNEL = 0x5000_0000, 0x5800_0000
VECTORS = CODE + 0x2000
SPX, LOWER = VECTORS + 0x200, VECTORS + 0x400
CM, WNR, IL, UCI, PAN, DZE = 1 << 8, 1 << 6, 1 << 25, 1 << 26, 1 << 22, 1 << 14
ABORT, ABORT_LOWER = 0x25 << 26 | IL | CM | WNR, 0x24 << 26 | IL | CM | WNR
TRANSLATION_2, ACCESS_FLAG_3, PERMISSION_3, WALK_1 = 6, 11, 15, 0x15
CLEANING = ("dc cvac", "dc cvau", "dc cvap", "dc civac")
AT_EL0 = (*CLEANING, "ic ivau")
BY_ADDRESS = (*AT_EL0, "dc ivac")


@pytest.fixture
def m():
    with machine("aarch64") as m:
        m.tables.map(READ_ONLY, WINDOW + 8 * MIB, 2 * PAGE, page_size=PAGE, writable=False, executable=False)
        m.tables.map(USER, WINDOW + 9 * MIB, 2 * PAGE, page_size=PAGE, user=1, writable=False, executable=True)
        m.tables.map(KERNEL, WINDOW + 10 * MIB, PAGE, page_size=PAGE, executable=False)
        yield m


def faulted(m, source, **registers):
    """The stop of *source*, which neither takes effect nor ends the instructions behind it."""
    m.load(asm("aarch64", f"add x27, x27, #1; {source}; add x27, x27, #1; str x27, [x0]; wfi")).set(**registers)
    before, memory = m.registers, m.read(DATA, 64)
    result = m.run()
    assert result.stop.reason == "fault"
    assert {n for n, v in result.registers.items() if v != before[n]} == {"x27", "pc"}
    assert (result.registers["x27"], result.stop.pc, m.read(DATA, 64)) == (1, CODE + 4, memory)
    return result.stop


@pytest.mark.parametrize("source", BY_ADDRESS)
def test_cache_maintenance_of_nothing_is_a_data_abort_at_the_exact_address(m, source):
    stop = faulted(m, f"{source}, x8", x8=HOLE + 0x123)
    assert (stop.exception.esr, stop.exception.far) == (ABORT | TRANSLATION_2, HOLE + 0x123)
    assert (stop.fault.kind, stop.fault.va) == (FaultKind.NOT_PRESENT, HOLE + 0x123)
    assert stop.fault.access == (Access.WRITE if source == "dc ivac" else Access.READ) | Access.MAINTENANCE


@pytest.mark.parametrize("source", BY_ADDRESS)
def test_cache_maintenance_without_the_access_flag_faults_unless_hardware_sets_it(m, source):
    m.tables.protect(DATA, PAGE, accessed=0)
    stop = m.load(code("aarch64", f"{source}, x0")).run().stop
    assert (stop.exception.esr, stop.exception.far) == (ABORT | ACCESS_FLAG_3, DATA)
    m.load(code("aarch64", f"{source}, x0")).set(tcr_el1=m.registers["tcr_el1"] | 1 << 39)
    assert m.run().stop.reason == "halt"
    assert arm64.walk(m.space, m.walk_registers(), DATA, Access.READ, update=False).attributes["af"] == 1


@pytest.mark.parametrize("source", BY_ADDRESS)
def test_only_what_invalidates_needs_the_right_to_write(m, source):
    if source == "dc ivac":
        stop = faulted(m, f"{source}, x8", x8=READ_ONLY + 24)
        assert (stop.exception.esr, stop.exception.far) == (ABORT | PERMISSION_3, READ_ONLY + 24)
        assert stop.fault.entry is not None
    else:
        assert m.load(code("aarch64", f"{source}, x8")).set(x8=READ_ONLY + 24).run().stop.reason == "halt"
    assert m.load(code("aarch64", f"{source}, x8")).set(x8=DATA + 24).run().stop.reason == "halt"


def test_what_invalidates_makes_no_page_dirty(m):
    """With hardware that could: the page may be written, and stays clean."""
    m.tables.protect(DATA, PAGE, dbm=1, writable=0)
    m.load(code("aarch64", "dc ivac, x0")).set(tcr_el1=m.registers["tcr_el1"] | 1 << 39 | 1 << 40)
    assert m.run().stop.reason == "halt"
    found = arm64.walk(m.space, m.walk_registers(), DATA, Access.READ, update=False)
    assert found.steps[-1].value >> 7 & 1 == 1


@pytest.mark.parametrize("source", CLEANING)
def test_pan_is_not_for_cache_maintenance(m, source):
    source = f"msr pan, #1; {source}, x8"
    assert m.load(code("aarch64", source)).set(x8=USER).run().stop.reason == "halt"
    assert m.load(code("aarch64", f"{source}; ldr x9, [x8]")).set(x8=USER).run().stop.pc == CODE + 8


def test_a_walk_for_maintenance_that_the_bus_refuses_is_external(m):
    """The upper table entry points to where nothing is."""
    root, index = m.tables.root, EXTERNAL >> 39 & 511
    m.space.write(root + 8 * index, (0xF000_0000 | 3).to_bytes(8, "little"))
    for source in ("dc cvac, x8", "at s1e1r, x8"):
        stop = faulted(m, source, x8=EXTERNAL + 9)
        assert (stop.exception.esr & ~(1 << 9), stop.exception.far) == (ABORT | WALK_1, EXTERNAL + 9)
        assert stop.fault.kind == FaultKind.BUS


def user(m, source, uci=True, **registers):
    """Run *source* at EL0, whose page is at USER; its exceptions end the run in the handler."""
    sctlr = m.registers["sctlr_el1"]
    m.load(code("aarch64", "msr vbar_el1, x1; isb; msr spsr_el1, xzr; msr elr_el1, x2; eret"))
    m.write(LOWER, asm("aarch64", "mrs x12, esr_el1; mrs x13, far_el1; mrs x14, elr_el1; wfi"))
    m.space.write(WINDOW + 9 * MIB, asm("aarch64", f"{source}; svc #3"))
    m.set(x1=VECTORS, x2=USER, sctlr_el1=sctlr | UCI if uci else sctlr & ~UCI, **registers)
    r = m.run(timeout=2).registers
    return r["x12"], r["x13"], r["x14"]


@pytest.mark.parametrize("source", AT_EL0)
def test_el0_maintains_what_it_can_read(m, source):
    assert user(m, f"{source}, x2")[0] == 0x5600_0003
    assert user(m, f"{source}, x8", x8=HOLE + 3) == (ABORT_LOWER | TRANSLATION_2, HOLE + 3, USER)


@pytest.mark.parametrize("source", CLEANING)
def test_el0_maintains_nothing_of_the_kernel(m, source):
    assert user(m, f"nop; {source}, x8", x8=KERNEL + 3) == (ABORT_LOWER | PERMISSION_3, KERNEL + 3, USER + 4)


def test_el0_may_invalidate_code_that_it_cannot_read(m):
    """The manual leaves that open."""
    assert user(m, "ic ivau, x8", x8=KERNEL)[0] == 0x5600_0003


@pytest.mark.parametrize("source", AT_EL0)
def test_without_uci_el0_is_trapped_before_it_is_translated(m, source):
    esr, _, at = user(m, f"{source}, x8", uci=False, x8=HOLE)
    assert (esr >> 26, esr & 1, at) == (0x18, 0, USER)


@pytest.mark.parametrize("source", ["dc ivac", "at s1e1r", "at s1e0w", "dc isw"])
def test_el0_may_not_what_is_the_kernels(m, source):
    assert user(m, f"{source}, x8", x8=HOLE) == (IL, 0, USER)


def test_maintenance_that_faults_is_carried_out_again_behind_the_handler(m):
    m.load(code("aarch64", "msr vbar_el1, x1; isb; mov x9, #1; dc civac, x8; add x9, x9, #1; str x9, [x0]"))
    m.write(SPX, asm("aarch64", "mrs x12, esr_el1; mov x8, x0; eret"))
    result = m.set(x1=VECTORS, x8=HOLE).run()
    assert (result.registers["x12"], result.registers["x9"]) == (ABORT | TRANSLATION_2, 2)
    assert [(d.pc, d.exception.far, d.exception.wnr) for d in result.delivered] == [(CODE + 12, HOLE, True)]


def test_lines_of_one_page_are_walked_once(m):
    """The second TLB answers for a loop over a buffer."""
    loop = "mov x9, #64; 1: dc cvac, x0; add x0, x0, #64; sub x9, x9, #1; cbnz x9, 1b"
    assert m.load(code("aarch64", loop)).run().counters.walks == 2  # code and data


# -- AT -------------------------------------------------------------------------------------------

PAR = "s3_0_c7_c4_0"
OPERATIONS = ("s1e1r", "s1e1w", "s1e0r", "s1e0w", "s1e1rp", "s1e1wp")
PLACES = (HOLE + 5, READ_ONLY + 24, DATA + 0x1234, USER + 8, KERNEL, CODE, 1 << 55, 1 << 47)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("pan", (0, 1))
def test_at_says_what_a_walk_of_the_guests_tables_does(m, operation, pan):
    """With the flags of memory: entry 1 of MAIR is a device's."""
    m.tables.protect(KERNEL, PAGE, attr_index=1)
    for va in PLACES:
        m.load(code("aarch64", f"msr pan, #{pan}; at {operation}, x8; isb; mrs x9, {PAR}"))
        result = m.set(x8=va, mair_el1=0x44BB04FF).run()
        assert result.registers["x9"] == arm64.at(m.space, m.walk_registers(), va, operation.upper()), hex(va)


def test_at_without_translation_is_flat_device_memory(m):
    """Code, tables and all are where they are; the guest turns stage 1 off and looks."""
    m.tables.map(WINDOW + MIB, WINDOW + MIB, PAGE, page_size=PAGE)
    off = "mrs x10, sctlr_el1; bic x11, x10, #1; msr sctlr_el1, x11; isb; at s1e1r, x8; mrs x9, " + PAR
    m.load(code("aarch64", "br x7"))
    m.write(CODE + 0x100, asm("aarch64", f"{off}; msr sctlr_el1, x10; isb; wfi"))
    r = m.set(x7=WINDOW + MIB + 0x100, x8=0x12345678).run().registers
    assert r["x9"] == 0x12345000 | 1 << 11 | 1 << 9 | 2 << 7


def test_at_sets_no_access_flag(m):
    m.tables.protect(DATA, PAGE, accessed=0)
    m.load(code("aarch64", f"at s1e1r, x0; mrs x9, {PAR}")).set(tcr_el1=m.registers["tcr_el1"] | 1 << 39)
    assert m.run().registers["x9"] & 1 == 0
    assert arm64.walk(m.space, m.walk_registers(), DATA, Access.READ, update=False).steps[-1].value >> 10 & 1 == 0


attributes = st.fixed_dictionaries({
    "shareability": st.sampled_from((0, 2, 3)), "attr_index": st.integers(0, 7), "user": st.integers(0, 1),
    "writable": st.integers(0, 1), "accessed": st.integers(0, 1),
})  # fmt: skip


@given(attributes, st.integers(0, (1 << 64) - 1), st.sampled_from(OPERATIONS), st.booleans())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_at_is_that_of_the_library(m, drawn, mair, operation, hardware):
    m.tables.protect(READ_ONLY, PAGE, **drawn)
    tcr = m.registers["tcr_el1"] & ~(1 << 39) | hardware << 39
    m.load(code("aarch64", f"msr pan, #0; at {operation}, x8; isb; mrs x9, {PAR}"))
    m.set(x8=READ_ONLY + 8, mair_el1=mair, tcr_el1=tcr)
    assert m.run().registers["x9"] == arm64.at(m.space, m.walk_registers(), READ_ONLY + 8, operation.upper())


def test_el0_zeroes_a_block_of_a_window_only_with_dze():
    """That is not RAM for the engine, so it is not the engine that asks."""
    trapped = 0x18 << 26 | IL | 1 << 20 | 1 << 17 | 3 << 14 | 7 << 10 | 8 << 5 | 4 << 1
    for dze, expected in (DZE, 0x5600_0003), (0, trapped):
        with machine("aarch64", dispatch="exact") as m:
            m.tables.map(USER, WINDOW + 9 * MIB, PAGE, page_size=PAGE, user=1, executable=True)
            m.tables.map(USER + PAGE, WINDOW + 10 * MIB, PAGE, page_size=PAGE, user=1, executable=False)
            m.set(sctlr_el1=m.registers["sctlr_el1"] & ~DZE | dze)
            m.space.write(WINDOW + 10 * MIB, b"\x55" * 64)
            assert user(m, "dc zva, x8", x8=USER + PAGE)[0] == expected
            assert m.space.read(WINDOW + 10 * MIB, 64) == (bytes(64) if dze else b"\x55" * 64)
