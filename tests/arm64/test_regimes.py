"""Which registers count: regimes, halves, tags, the reasons not to walk, and what Registers refuses."""

import copy
import pickle
from dataclasses import replace

import pytest

from mmu import arm64
from mmu.types import Access, Fault
from tests.arm64.hand import (
    AF,
    AP_RO_EL0,
    AP_RW_EL0,
    DC,
    DS,
    E2H,
    EPD0,
    EPD1,
    PAGE,
    TGE,
    R,
    W,
    X,
    el1,
    four_levels,
    memory,
    status,
    tcr,
)  # fmt: skip

UNPRIVILEGED = Access.UNPRIVILEGED
LEAF = 0x5000 | PAGE | AF
BOTH = 16 | 16 << 16 | 2 << 30 | 5 << 32  # two 4K ranges of 48 bits
TBI0, TBI1, TBID0 = 1 << 37, 1 << 38, 1 << 51
UPPER = 0xFFFF_0000_0000_0000
FAULT = ("NOT_PRESENT", 0, 0x9600_0004)


def halves(more=0, **registers):
    """VA 0 -> 0x5000 through TTBR0 at 0x1000, VA 0xFFFF_0000_0000_0000 -> 0x6000 through TTBR1 at 0x11000."""
    words, _ = four_levels(LEAF | AP_RW_EL0, va=0)
    words |= {at + 0x1_0000: w + 0x1_0000 for at, w in words.items()}
    words[0x1_4000] = 0x6000 | PAGE | AF | AP_RW_EL0
    regs = arm64.Registers(sctlr_el1=1, tcr_el1=BOTH | more, ttbr0_el1=0x1000, ttbr1_el1=0x1_1000, **registers)
    return memory(words), regs


@pytest.mark.parametrize("va,pa", [(0x123, 0x5123), (UPPER | 0x123, 0x6123)])
def test_bit_55_selects_the_table(engine, va, pa):
    assert status(*halves(), va, R, engine) == ("", 3, pa)


@pytest.mark.parametrize("va", [1 << 48, 1 << 55, 1 << 63, UPPER ^ 1 << 48, UPPER ^ 1 << 55, UPPER ^ 1 << 63])
def test_address_between_the_halves_is_refused(engine, va):
    assert status(*halves(), va, R, engine) == FAULT


@pytest.mark.parametrize("tbi,va,pa", [(TBI0, 0x5A << 56, 0x5000), (TBI1, UPPER ^ 0x5A << 56, 0x6000)])
def test_top_byte_is_ignored_where_tbi_says_so(engine, tbi, va, pa):
    assert status(*halves(tbi), va, R, engine) == ("", 3, pa)
    assert status(*halves(tbi ^ TBI0 ^ TBI1), va, R, engine) == FAULT
    assert status(*halves(tbi), va ^ 1 << 55, R, engine) == FAULT


def test_tbid_keeps_the_tag_to_data(engine):
    space, regs = halves(TBI0 | TBID0, el=0)
    assert status(space, regs, 0x5A << 56, R, engine) == ("", 3, 0x5000)
    assert status(space, regs, 0x5A << 56, X, engine) == ("NOT_PRESENT", 0, 0x8200_0004)


@pytest.mark.parametrize("epd,va", [(EPD0, 0), (EPD1, UPPER)])
def test_disabled_half_is_a_translation_fault_and_reads_nothing(engine, epd, va):
    space, regs = halves(epd)
    with space.trace() as entries:
        assert status(space, regs, va, R, engine) == FAULT
    assert entries == []
    assert status(space, regs, va ^ UPPER, R, engine)[0] == ""


@pytest.mark.parametrize("e0pd,va", [(1 << 55, 0), (1 << 56, UPPER)])
def test_e0pd_refuses_unprivileged_access_to_a_half(engine, e0pd, va):
    space, regs = halves(e0pd)
    assert status(space, regs, va, R, engine)[0] == ""
    assert status(space, regs, va, R | UNPRIVILEGED, engine) == FAULT
    user = halves(e0pd, el=0)[1]
    assert status(space, user, va, R, engine) == ("NOT_PRESENT", 0, 0x9200_0004)
    assert status(space, user, va ^ UPPER, R, engine)[0] == ""


def test_hpd_ignores_the_tables_attributes(engine):
    words, regs = four_levels(LEAF | AP_RW_EL0, va=0)
    words[0x2000] |= 3 << 61 | 3 << 59  # APTable, UXNTable, PXNTable
    space = memory(words)
    assert status(space, regs, 0, W, engine) == ("PERMISSION", 3, 0x9600_004F)
    free = el1("4K", 16, 0x1000, 1 << 41)
    assert status(space, free, 0, W, engine) == ("", 3, 0x5000)
    assert arm64.walk(space, free, 0, W, engine=engine).attributes["user"] == R | W | X


def test_el3_and_el2_have_one_range_and_their_own_registers(engine):
    words, _ = four_levels(LEAF | AP_RO_EL0, va=0)
    for el in (2, 3):
        regs = arm64.Registers(**{
            "el": el, f"sctlr_el{el}": 1, f"tcr_el{el}": 16 | 5 << 16, f"ttbr0_el{el}": 0x1000, f"mair_el{el}": 0xBB,
        })  # fmt: skip
        found = arm64.walk(memory(words), regs, 0, R, engine=engine)
        assert (found.pa, found.writable, found.user, found.attributes["attr"]) == (0x5000, False, False, 0xBB)
        assert status(memory(words), regs, 0, W, engine) == ("PERMISSION", 3, 0x9600_004F)
        assert status(memory(words), regs, UPPER, R, engine) == FAULT
        tagged = replace(regs, **{f"tcr_el{el}": 16 | 5 << 16 | 1 << 20})
        assert status(memory(words), tagged, 0x5A << 56, R, engine) == ("", 3, 0x5000)


def test_host_el2_has_two_ranges_in_the_layout_of_el1(engine):
    words, _ = four_levels(LEAF | AP_RW_EL0, va=0)
    host = {"hcr_el2": E2H | TGE, "sctlr_el2": 1, "tcr_el2": BOTH, "ttbr1_el2": 0x1000, "ttbr0_el2": 0x1000}
    for el, esr in ((0, 0x9200_0004), (2, 0x9600_0004)):
        regs = arm64.Registers(el=el, **host)
        assert status(memory(words), regs, UPPER, W, engine) == ("", 3, 0x5000)
        assert status(memory(words), regs, UPPER | 1 << 40, R, engine) == ("NOT_PRESENT", 0, esr)
    abort = arm64.exception(arm64.walk(memory(words), arm64.Registers(el=0, **host), 1 << 40, R), regs)
    assert abort.target_el == 2
    pan = arm64.Registers(el=2, pan=True, **host)
    assert status(memory(words), pan, 0, R, engine) == ("PERMISSION", 3, 0x9600_000F)


def test_stage_1_off_is_flat_up_to_parange(engine):
    regs = arm64.Registers(pa_range=40, mair_el1=0xFF)
    found = arm64.walk(memory({}), regs, (1 << 40) - 1, R, engine=engine)
    assert (found.pa, found.page_size, found.attributes["attr"], found.attributes["sh"]) == ((1 << 40) - 1, 4096, 0, 2)
    assert (found.writable, found.user, found.executable, found.steps) == (True, True, True, ())
    assert status(memory({}), regs, 1 << 40, R, engine) == ("ADDRESS_SIZE", 0, 0x9600_0000)
    tagged = arm64.Registers(pa_range=40, tcr_el1=TBI0)
    assert status(memory({}), tagged, 0x5A << 56 | 0x123, R, engine) == ("", None, 0x123)


@pytest.mark.parametrize("sctlr,attr", [(0, 0x44), (1 << 12, 0xAA)])
def test_fetches_with_stage_1_off_are_normal_memory(engine, sctlr, attr):
    found = arm64.walk(memory({}), arm64.Registers(sctlr_el1=sctlr), 0, X, engine=engine)
    assert (found.attributes["attr"], found.attributes["sh"]) == (attr, 2)


def test_tge_turns_stage_1_of_el0_off_and_sends_faults_to_el2(engine):
    regs = arm64.Registers(sctlr_el1=1, tcr_el1=tcr("4K", 16), hcr_el2=TGE, el=0, pa_range=40)
    found = arm64.walk(memory({}), regs, 1 << 41, R, engine=engine)
    assert isinstance(found, Fault)
    assert arm64.exception(found, regs).target_el == 2


def test_upper_half_that_was_never_programmed_faults(engine):
    regs = arm64.Registers(sctlr_el1=1, tcr_el1=16 | 5 << 32, ttbr0_el1=0x1000)
    assert status(memory({}), regs, UPPER, R, engine) == FAULT


WRONG = [
    ({"sctlr_el1": 1, "tcr_el1": 15 | EPD1}, r"tcr_el1\.T0SZ = 15 must be 16 \.\. 48"),
    ({"sctlr_el1": 1, "tcr_el1": 49 | EPD1}, r"tcr_el1\.T0SZ = 49 must be 16 \.\. 48"),
    ({"sctlr_el1": 1, "tcr_el1": 11 | DS | EPD1}, r"tcr_el1\.T0SZ = 11 must be 12 \.\. 48"),
    ({"sctlr_el1": 1, "tcr_el1": 48 | 1 << 14 | EPD1}, r"tcr_el1\.T0SZ = 48 must be 12 \.\. 47"),
    ({"sctlr_el1": 1, "tcr_el1": 16 | 3 << 14 | EPD1}, r"tcr_el1\.TG0 = 3 must be one of 0 \(4K\), 2 \(16K\)"),
    ({"sctlr_el1": 1, "tcr_el1": 16 | 5 << 16 | 2 << 30}, r"tcr_el1\.T1SZ = 5 must be 16 \.\. 48"),
    ({"sctlr_el1": 1, "tcr_el1": 16 | 16 << 16}, r"tcr_el1\.TG1 = 0 must be one of 2 \(4K\), 1 \(16K\), 3 \(64K\)"),
    ({"sctlr_el2": 1, "tcr_el2": 4}, r"tcr_el2\.T0SZ = 4 must be 16 \.\. 48"),
    ({"sctlr_el3": 1, "tcr_el3": 63}, r"tcr_el3\.T0SZ = 63 must be 16 \.\. 48"),
    ({"hcr_el2": 1, "vtcr_el2": 15}, r"vtcr_el2\.T0SZ = 15 must be 16 \.\. 48"),
    ({"hcr_el2": 1, "vtcr_el2": 23, "pa_range": 40}, r"vtcr_el2\.T0SZ = 23 must be 24 \.\. 48"),
    ({"hcr_el2": DC, "vtcr_el2": 3 << 14 | 24}, r"vtcr_el2\.TG0 = 3 must be one of"),
    ({"el": 4}, r"el = 4 must be 0 \.\. 3"),
    ({"el": -1}, r"el = -0x1 must be 0 \.\. 2\*\*64-1"),
    ({"ttbr0_el1": 1 << 64}, r"ttbr0_el1 = 0x10000000000000000 must be 0 \.\. 2\*\*64-1"),
    ({"pa_range": 47}, r"pa_range = 47 must be one of 32, 36, 40, 42, 44, 48, 52"),
]  # fmt: skip


@pytest.mark.parametrize("fields,message", WRONG)
def test_registers_wrong_value(fields, message):
    with pytest.raises(ValueError, match=message):
        arm64.Registers(**fields)


def test_registers_wrong_type():
    with pytest.raises(TypeError, match="ttbr0_el1 must be an int, not '0x1000'"):
        arm64.Registers(ttbr0_el1="0x1000")


@pytest.mark.parametrize("fields", [
    {"tcr_el1": 63}, {"sctlr_el1": 1, "tcr_el1": 63 | EPD0 | EPD1}, {"vtcr_el2": 1}, {"sctlr_el1": 1, "tcr_el1": 16},
    {"sctlr_el2": 1, "tcr_el2": 12 | 1 << 32}, {"sctlr_el2": 1, "hcr_el2": E2H, "tcr_el2": 12 | DS},
])  # fmt: skip
def test_registers_take_what_does_not_count(fields):
    assert arm64.Registers(**fields).el == 1


@pytest.mark.parametrize("va", (-1, 1 << 64))
def test_walk_wrong_address(va):
    with pytest.raises(ValueError, match=r"va = .* must be 0 \.\. 2\*\*64-1"):
        arm64.walk(memory({}), arm64.Registers(), va, R)
    with pytest.raises(ValueError, match="va = "):
        arm64.at(memory({}), arm64.Registers(), va, "S1E1R")


@pytest.mark.parametrize("access", [
    Access(0), R | W, X | UNPRIVILEGED, R | Access.IMPLICIT, X | Access.MAINTENANCE,
    R | UNPRIVILEGED | Access.MAINTENANCE,
])
def test_walk_wrong_access(access):
    with pytest.raises(ValueError, match="access must be READ, WRITE or FETCH"):
        arm64.walk(memory({}), arm64.Registers(), 0, access)


def test_walk_wrong_engine():
    with pytest.raises(ValueError, match="engine must be one of native, reference, not 'fast'"):
        arm64.walk(memory({}), arm64.Registers(), 0, R, engine="fast")


def test_registers_and_results_survive_pickling_after_a_walk():
    words, regs = four_levels(LEAF, va=0)
    found = arm64.walk(memory(words), regs, 0, R)
    assert pickle.loads(pickle.dumps(regs)) == regs == copy.deepcopy(regs)
    again = pickle.loads(pickle.dumps(found))
    assert (again, again.steps) == (found, found.steps)
