"""Stage 2 by hand: start levels and concatenated tables, permissions, faults of stage 1 walks, HPFAR."""

from dataclasses import replace

import pytest

from mmu import Mmio, arm64
from mmu.types import Fault, FaultKind, MemTxResult
from tests.arm64.hand import (
    AF,
    BLOCK,
    DC,
    EPD1,
    PAGE,
    PTW,
    S2_RW,
    TABLE,
    TG0,
    VM,
    R,
    W,
    X,
    bits,
    four_levels,
    memory,
    status,
    tcr,
    word,
)  # fmt: skip

V_DS, V_HA, V_HD = 1 << 32, 1 << 21, 1 << 22
DEVICE = 0 << 2 | 3 << 6 | AF  # stage 2 MemAttr Device, readable and writable


def stage2_only(granule, t0sz, sl, table, more=0, **registers):
    """Stage 1 off: the VA is the IPA."""
    vtcr = t0sz | (sl & 3) << 6 | (sl >> 2) << 33 | TG0[granule] | 5 << 16 | more
    return arm64.Registers(hcr_el2=VM, vtcr_el2=vtcr, vttbr_el2=table, **registers)


# Granule, T0SZ, SL2:SL0, further VTCR bits, start level, bits of the IPA that the start tables resolve, their size.
CONCATENATED = [
    ("4K", 39, 0, 0, 2, (24, 21), 0x80),  # 16 entries
    ("4K", 34, 0, 0, 2, (29, 21), 0x1000),  # one table
    ("4K", 30, 0, 0, 2, (33, 21), 0x1_0000),  # 16 tables
    ("4K", 33, 1, 0, 1, (30, 30), 0x10),  # two entries
    ("4K", 24, 1, 0, 1, (39, 30), 0x2000),  # two tables
    ("4K", 21, 1, 0, 1, (42, 30), 0x1_0000),  # 16 tables
    ("4K", 16, 2, 0, 0, (47, 39), 0x1000),
    ("4K", 24, 2, 0, 0, (39, 39), 0x10),
    ("4K", 43, 3, 0, 3, (20, 12), 0x1000),
    ("4K", 39, 3, 0, 3, (24, 12), 0x1_0000),  # 16 tables of pages
    ("4K", 12, 4, V_DS, -1, (51, 48), 0x80),
    ("4K", 15, 2, V_DS, 0, (48, 39), 0x2000),
    ("16K", 39, 0, 0, 3, (24, 14), 0x4000),
    ("16K", 24, 1, 0, 2, (39, 25), 0x4_0000),  # 16 tables
    ("16K", 28, 1, 0, 2, (35, 25), 0x4000),
    ("16K", 16, 2, 0, 1, (47, 36), 0x8000),
    ("16K", 12, 3, V_DS, 0, (51, 47), 0x100),
    ("64K", 35, 0, 0, 3, (28, 16), 0x1_0000),
    ("64K", 18, 1, 0, 2, (45, 29), 0x10_0000),  # 16 tables
    ("64K", 16, 2, 0, 1, (47, 42), 0x200),
    ("64K", 12, 2, 0, 1, (51, 42), 0x2000),
]


@pytest.mark.parametrize("granule,t0sz,sl,more,level,index,size", CONCATENATED)
def test_start_tables_are_indexed_as_one(engine, granule, t0sz, sl, more, level, index, size):
    ipa = (1 << 64 - t0sz) - 8  # the last entry of the last table
    table, page = 0x20_0000 + size, {"4K": 0x1000, "16K": 0x4000, "64K": 0x1_0000}[granule]
    at = table + 8 * bits(ipa, *index)
    assert at + 8 == table + size
    words, step, low = {}, 0x40_0000, index[1]
    stride = page.bit_length() - 4
    for _ in range(level, 3):
        words[at] = step | TABLE
        low -= stride
        at, step = step + 8 * bits(ipa, low + stride - 1, low), step + page
    words[at] = 0x70_0000 | PAGE | S2_RW
    regs = stage2_only(granule, t0sz, sl, table + size // 2, more, pa_range=52)
    assert ("", None, 0x70_0000 + (ipa & page - 1)) == status(memory(words), regs, ipa, R, engine)
    # One bit further is no IPA.
    if t0sz > 12:
        assert status(memory(words), regs, 1 << 64 - t0sz, R, engine) == ("NOT_PRESENT", 0, 0x9200_0004)


WRONG_START = [
    ("4K", 16, 0, 0, 48), ("4K", 39, 1, 0, 48), ("4K", 24, 2, 0, 40), ("4K", 20, 4, V_DS, 48), ("4K", 16, 5, V_DS, 52),
    ("4K", 16, 6, V_DS, 52), ("4K", 38, 3, 0, 48), ("4K", 20, 1, 0, 48), ("16K", 16, 3, 0, 48), ("16K", 23, 1, 0, 48),
    ("16K", 32, 2, 0, 36), ("64K", 16, 3, 0, 48), ("64K", 17, 1, 0, 48), ("64K", 24, 2, 0, 40),
]  # fmt: skip


@pytest.mark.parametrize("granule,t0sz,sl,more,pa_range", WRONG_START)
def test_start_level_that_does_not_fit_is_a_translation_fault_at_level_0(engine, granule, t0sz, sl, more, pa_range):
    regs = stage2_only(granule, t0sz, sl, 0x1000, more, pa_range=pa_range)
    assert status(memory({}), regs, 0, R, engine) == ("NOT_PRESENT", 0, 0x9200_0004)


# VA 0x5000 -> IPA 0x8_5000 by stage 1 tables at IPA 0x8_1000 ...; stage 2 maps IPA 0x8_xxxx to PA 0x10_xxxx by pages.
VA = 0x5000


def both_stages(change=None, more_hcr=0, more_tcr=0, more_vtcr=0, leaf=0, **registers):
    """*change*: entries of the stage 2 page table (at 0x4000) by page number."""
    words = {0x3000: 0x4000 | TABLE}  # stage 2, level 2 and 3
    words |= {0x4000 + 8 * n: n + 0x80 << 12 | PAGE | S2_RW for n in range(0x80, 0x88)}
    words |= {0x4000 + 8 * n: entry for n, entry in (change or {}).items()}
    for n in range(3):
        words[0x10_1000 + 0x1000 * n] = 0x8_2000 + 0x1000 * n | TABLE
    words[0x10_4000 + 8 * 5] = leaf or 0x8_5000 | PAGE | AF | 1 << 6
    regs = arm64.Registers(
        sctlr_el1=1, tcr_el1=tcr("4K", 16, more_tcr), ttbr0_el1=0x8_1000, hcr_el2=VM | more_hcr,
        vtcr_el2=34 | 0 << 6 | 5 << 16 | more_vtcr, vttbr_el2=0x3000, mair_el1=0xFF, **registers,
    )  # fmt: skip
    return memory(words), regs


def test_both_stages_translate_every_table_and_the_page(engine):
    space, regs = both_stages()
    with space.trace() as entries:
        found = arm64.walk(space, regs, VA + 8, W, engine=engine)
    assert (found.pa, found.attributes["ipa"], found.page_size) == (0x10_5008, 0x8_5008, 4096)
    stage2 = [(0x3000, 2), (None, 2)]
    expected = []
    for n, at in enumerate((0x10_1000, 0x10_2000, 0x10_3000, 0x10_4028)):
        expected += [0x3000, 0x4000 + 8 * (0x81 + n), at]
    assert [*expected, 0x3000, 0x4000 + 8 * 0x85] == [e.address for e in entries]
    assert {("read", 8)} == {(e.kind, e.size) for e in entries}
    assert [2, 2, 1] * 4 + [stage for _, stage in stage2] == [s.stage for s in found.steps]


@pytest.mark.parametrize("table,level", [(0x81, 0), (0x82, 1), (0x83, 2), (0x84, 3)])
def test_stage_1_table_that_stage_2_does_not_map_is_s1ptw_with_its_ipa(engine, table, level):
    space, regs = both_stages({table: 0})
    found = arm64.walk(space, regs, VA, R, engine=engine)
    ipa = (table << 12) + (0x28 if level == 3 else 0)
    assert isinstance(found, Fault)
    assert (FaultKind.NOT_PRESENT, 3, 2, True, ipa) == (
        found.kind, found.level, found.stage, found.on_table, found.gpa
    )  # fmt: skip
    abort = arm64.exception(found, regs)
    assert (0x9200_0087, table << 4, 2) == (abort.esr, abort.hpfar, abort.target_el)
    assert (abort.s1ptw, abort.stage, abort.wnr, abort.ea, abort.far) == (True, 2, False, False, VA)


def test_page_that_stage_2_does_not_map_is_no_s1ptw(engine):
    space, regs = both_stages({0x85: 0})
    abort = arm64.exception(arm64.walk(space, regs, VA + 0x123, W, engine=engine), regs)
    assert (abort.esr, abort.hpfar, abort.s1ptw, abort.far) == (0x9200_0047, 0x850, False, VA + 0x123)


def test_fetch_that_stage_2_refuses_is_an_instruction_abort_of_el2(engine):
    space, regs = both_stages({0x85: 0x10_5000 | PAGE | S2_RW | 2 << 53}, leaf=0x8_5000 | PAGE | AF)
    abort = arm64.exception(arm64.walk(space, regs, VA, X, engine=engine), regs)
    assert (abort.kind, abort.esr, abort.wnr) == ("instruction", 0x8200_000F, False)


@pytest.mark.parametrize("xn,el1_may,el0_may", [(0, True, True), (1, False, True), (2, False, False), (3, True, False)])
@pytest.mark.parametrize("el", (0, 1))
def test_stage_2_execute_never_by_exception_level(engine, xn, el1_may, el0_may, el):
    leaf = 0x8_5000 | PAGE | AF | 3 << 6  # read-only for both: executable by both
    space, regs = both_stages({0x85: 0x10_5000 | PAGE | S2_RW | xn << 53}, leaf=leaf, el=el)
    found = arm64.walk(space, regs, VA, X, engine=engine)
    assert (el0_may, el1_may)[el] == (not isinstance(found, Fault))


@pytest.mark.parametrize("s2ap,may", [(0, ""), (1, "R"), (2, "W"), (3, "RW")])
@pytest.mark.parametrize("access", (R, W))
def test_stage_2_data_permissions(engine, s2ap, may, access):
    space, regs = both_stages({0x85: 0x10_5000 | PAGE | AF | 0xF << 2 | s2ap << 6})
    found = status(space, regs, VA, access, engine)
    wnr = 0x40 if access is W else 0
    assert (found == ("", 3, 0x10_5000)) == (access.name[0] in may)
    if access.name[0] not in may:
        assert ("PERMISSION", 3, 0x9200_000F | wnr) == found


def test_walk_of_a_read_only_table_page_needs_no_stage_2_write(engine):
    space, regs = both_stages({n: n + 0x80 << 12 | PAGE | AF | 0xF << 2 | 1 << 6 for n in range(0x81, 0x85)})
    assert status(space, regs, VA, W, engine) == ("", 3, 0x10_5000)


def test_af_update_of_stage_1_needs_a_stage_2_write_to_its_table(engine):
    change = {0x84: 0x10_4000 | PAGE | AF | 0xF << 2 | 1 << 6}
    space, regs = both_stages(change, more_tcr=1 << 39, leaf=0x8_5000 | PAGE)
    found = arm64.walk(space, regs, VA, R, engine=engine)
    assert (found.kind, found.level, found.stage, found.on_table) == (FaultKind.PERMISSION, 3, 2, True)
    abort = arm64.exception(found, regs)
    assert (abort.esr, abort.hpfar) == (0x9200_008F, 0x840)
    assert word(space, 0x10_4028) == 0x8_5000 | PAGE


def test_af_of_stage_1_is_written_even_if_stage_2_then_refuses_the_page(engine):
    space, regs = both_stages({0x85: 0}, more_tcr=1 << 39, leaf=0x8_5000 | PAGE)
    assert status(space, regs, VA, R, engine)[0] == "NOT_PRESENT"
    assert word(space, 0x10_4028) == 0x8_5000 | PAGE | AF


def test_af_and_dirty_of_stage_2(engine):
    """The table's page gets AF by the walk and stays clean; the page written to gets S2AP[1]."""
    clean = 1 << 51 | PAGE | 0xF << 2 | 1 << 6
    space, regs = both_stages({0x84: 0x10_4000 | clean, 0x85: 0x10_5000 | clean}, more_vtcr=V_HA | V_HD)
    assert status(space, regs, VA, W, engine) == ("", 3, 0x10_5000)
    assert 0x10_4000 | clean | AF == word(space, 0x4000 + 8 * 0x84)
    assert 0x10_5000 | clean | AF | 2 << 6 == word(space, 0x4000 + 8 * 0x85)


def test_stage_2_access_flag_fault(engine):
    space, regs = both_stages({0x85: 0x10_5000 | PAGE | 0xF << 2 | 3 << 6})
    assert status(space, regs, VA, R, engine) == ("ACCESS_FLAG", 3, 0x9200_000B)


def test_ptw_refuses_stage_1_tables_in_device_memory_only(engine):
    change = {0x83: 0x10_3000 | PAGE | DEVICE, 0x85: 0x10_5000 | PAGE | DEVICE}
    space, regs = both_stages(change)
    assert status(space, regs, VA, R, engine) == ("", 3, 0x10_5000)
    space, regs = both_stages(change, more_hcr=PTW)
    found = arm64.walk(space, regs, VA, R, engine=engine)
    assert (found.kind, found.level, found.gpa) == (FaultKind.PERMISSION, 3, 0x8_3000)
    assert arm64.exception(found, regs).esr == 0x9200_008F


def test_external_abort_on_a_stage_2_table_during_a_stage_1_walk(engine):
    space, regs = both_stages()
    space.map(1 << 32, Mmio(4096, lambda o, s: MemTxResult.ERROR))
    space.write(0x3000, (1 << 32 | TABLE).to_bytes(8, "little"))
    found = arm64.walk(space, regs, VA, R, engine=engine)
    abort = arm64.exception(found, regs)
    assert (found.kind, found.stage, found.on_table, found.gpa) == (FaultKind.BUS, 2, True, 0x8_1000)
    assert abort.esr == 0x9200_0297  # EA, S1PTW, synchronous external abort on walk, level 3
    assert True is abort.ea


def test_stage_2_address_size_fault(engine):
    space, regs = both_stages({0x85: 1 << 44 | PAGE | S2_RW}, pa_range=44)
    assert status(space, regs, VA, R, engine) == ("ADDRESS_SIZE", 3, 0x9200_0003)


def test_page_size_is_that_of_the_smaller_stage(engine):
    """A 2 MiB block of stage 1, whose table and output lie in a 1 GiB block of stage 2 at PA 1 GiB."""
    space = memory({0x2000: 0x3000 | TABLE, 0x3000: 0x4000_0000 | BLOCK | S2_RW}, 0x4000_0000)
    space.write(0x4000_1000, (0x40_0000 | BLOCK | AF).to_bytes(8, "little"))
    regs = arm64.Registers(
        sctlr_el1=1, tcr_el1=39 | EPD1 | 5 << 32, ttbr0_el1=0x1000, hcr_el2=VM, vtcr_el2=16 | 2 << 6 | 5 << 16,
        vttbr_el2=0x2000,
    )  # fmt: skip
    found = arm64.walk(space, regs, 0x123, R, engine=engine)
    assert (found.pa, found.page_size) == (0x4040_0123, 2 << 20)


COMBINED = [  # MAIR byte, MemAttr, combined MAIR byte
    (0xFF, 0xF, 0xFF), (0xFF, 0x5, 0x44), (0xFF, 0xA, 0xBB), (0xBB, 0xF, 0xBB), (0x44, 0xF, 0x44), (0xFF, 0x0, 0x00),
    (0xFF, 0x1, 0x04), (0x0C, 0x2, 0x08), (0x00, 0x3, 0x00), (0x04, 0xF, 0x04), (0xF0, 0xF, 0xFF), (0x77, 0xF, 0x77),
    (0xFF, 0x7, 0x4F), (0xEE, 0xA, 0xAA), (0x33, 0xF, 0x33), (0x33, 0xA, 0x33), (0x77, 0xA, 0x33),
]  # fmt: skip


@pytest.mark.parametrize("one,two,combined", COMBINED)
def test_memory_types_of_the_stages_combine(engine, one, two, combined):
    space, regs = both_stages({0x85: 0x10_5000 | PAGE | AF | 3 << 6 | two << 2 | 3 << 8})
    regs = replace(regs, mair_el1=one)
    found = arm64.walk(space, regs, VA, R, engine=engine).attributes
    assert (combined, two) == (found["attr"], found["s2_memattr"])
    assert found["sh"] == (2 if combined in (0x00, 0x04, 0x08, 0x0C, 0x44) else 3)


def test_default_cacheable_turns_stage_1_off_and_stage_2_on(engine):
    space, regs = both_stages(more_hcr=DC)
    found = arm64.walk(space, regs, 0x8_5000, R, engine=engine)
    assert (found.pa, found.attributes["attr"], found.attributes["level"]) == (0x10_5000, 0xFF, None)


def test_stage_2_does_not_apply_to_el2(engine):
    words, _ = four_levels(0x5000 | PAGE | AF, va=0)
    regs = arm64.Registers(
        el=2, sctlr_el2=1, tcr_el2=16 | 5 << 16, ttbr0_el2=0x1000, hcr_el2=VM, vtcr_el2=34 | 5 << 16, vttbr_el2=0x9000
    )
    assert status(memory(words), regs, 0, R, engine) == ("", 3, 0x5000)
