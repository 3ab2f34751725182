"""AT instructions: PAR_EL1 by its bits."""

from dataclasses import replace

import pytest

from mmu import Mmio, arm64
from mmu.arm64.par import OPERATIONS
from mmu.types import MemTxResult
from tests.arm64.hand import (
    AF,
    AP_RO_EL0,
    AP_RW_EL0,
    DBM,
    E2H,
    HA,
    HD,
    PAGE,
    SH_INNER,
    TABLE,
    TGE,
    el1,
    four_levels,
    memory,
    word,
)  # fmt: skip
from tests.arm64.test_stage2 import VA, both_stages

NS_RES1 = 1 << 9 | 1 << 11
PLAIN = SH_INNER | PAGE | AF


def one(leaf, more=0, **registers):
    words, _ = four_levels(leaf, va=0x1000)
    return memory(words), el1("4K", 16, 0x1000, more, **registers)


def test_success_holds_address_shareability_and_attributes(engine):
    space, regs = one(0x1234_5000 | PLAIN | 1 << 2, mair_el1=0xFF00)
    assert arm64.at(space, regs, 0x1ABC, "S1E1R", engine=engine) == 0xFF << 56 | 0x1234_5000 | 3 << 7 | NS_RES1


def test_52_bit_address(engine):
    space = memory({0x1_0000: 0x2_0000 | TABLE, 0x2_0000: 0x3_0000 | TABLE, 0x3_0000: 0x4_F000 | PAGE | AF})
    regs = el1("64K", 16, 0x1_0000, 6 << 32, pa_range=52)
    assert arm64.at(space, regs, 0x1234, "S1E1W", engine=engine) == 0xF_0000_0004_1000 | 2 << 7 | NS_RES1


@pytest.mark.parametrize("operation,fst", [
    ("S1E1R", None), ("S1E1W", 0x0F), ("S1E0R", None), ("S1E0W", 0x0F), ("S1E1RP", 0x0F), ("S1E1WP", 0x0F),
    ("S12E1R", None), ("S12E1W", 0x0F), ("S12E0R", None), ("S12E0W", 0x0F),
])  # fmt: skip
def test_operation_says_who_asks_for_what(engine, operation, fst):
    """A page that EL0 may read, with PSTATE.PAN set, which only the P forms look at."""
    space, regs = one(0x5000 | PLAIN | AP_RO_EL0, pan=True, mair_el1=0xFF)
    expected = 0xFF << 56 | 0x5000 | 3 << 7 | NS_RES1 if fst is None else fst << 1 | 1 | 1 << 11
    assert arm64.at(space, regs, 0x1000, operation, engine=engine) == expected


def test_access_flag_and_dirty_state_are_not_written(engine):
    space, regs = one(0x5000 | PAGE | DBM | 2 << 6, HA | HD)
    assert arm64.at(space, regs, 0x1000, "S1E1W", engine=engine) & 1 == 0
    assert word(space, 0x4008) == 0x5000 | PAGE | DBM | 2 << 6
    space, regs = one(0x5000 | PAGE)
    assert arm64.at(space, regs, 0x1000, "S1E1R", engine=engine) == 0x0B << 1 | 1 | 1 << 11


@pytest.mark.parametrize("el", (2, 3))
def test_single_range_regimes(engine, el):
    words, _ = four_levels(0x5000 | PLAIN, va=0)
    regs = arm64.Registers(**{
        f"sctlr_el{el}": 1, f"tcr_el{el}": 16 | 5 << 16, f"ttbr0_el{el}": 0x1000, f"mair_el{el}": 0xBB,
    })  # fmt: skip
    found = arm64.at(memory(words), regs, 0, f"S1E{el}R", engine=engine)
    assert found == 0xBB << 56 | 0x5000 | 3 << 7 | NS_RES1
    assert arm64.at(memory({}), regs, 0, f"S1E{el}W", engine=engine) == 0x04 << 1 | 1 | 1 << 11


def test_host_uses_el2_and_el0_for_the_operations_of_el1(engine):
    words, _ = four_levels(0x5000 | PLAIN | AP_RW_EL0, va=0)
    regs = arm64.Registers(el=2, hcr_el2=E2H | TGE, sctlr_el2=1, tcr_el2=16 | 5 << 32, ttbr0_el2=0x1000)
    for operation in ("S1E1R", "S1E0W", "S1E2W"):
        assert arm64.at(memory(words), regs, 0, operation, engine=engine) & 0xFFFF_F001 == 0x5000


def test_stage_1_only_gives_the_ipa_and_both_stages_the_pa(engine):
    space, regs = both_stages()
    assert arm64.at(space, regs, VA, "S1E1R", engine=engine) & 0xF_FFFF_FFFF_F001 == 0x8_5000
    assert arm64.at(space, regs, VA, "S12E1R", engine=engine) & 0xF_FFFF_FFFF_F001 == 0x10_5000


def test_stage_2_fault_sets_s_and_of_a_table_ptw(engine):
    space, regs = both_stages({0x85: 0})
    assert arm64.at(space, regs, VA, "S1E1R", engine=engine) & 1 == 0
    assert arm64.at(space, regs, VA, "S12E0R", engine=engine) == 0x07 << 1 | 1 | 1 << 9 | 1 << 11
    space, regs = both_stages({0x83: 0})
    for operation in ("S1E1R", "S12E1W"):
        assert arm64.at(space, regs, VA, operation, engine=engine) == 0x07 << 1 | 1 | 1 << 8 | 1 << 9 | 1 << 11


def test_external_abort(engine):
    space, regs = one(0)
    space.map(0x3000, Mmio(0x1000, lambda o, s: MemTxResult.ERROR), priority=1)
    assert arm64.at(space, regs, 0x1000, "S1E1R", engine=engine) == 0x16 << 1 | 1 | 1 << 11


def test_stage_1_off(engine):
    found = arm64.at(memory({}), arm64.Registers(), 0x1234_5678, "S1E1R", engine=engine)
    assert found == 0x1234_5000 | 2 << 7 | NS_RES1


def test_privilege_of_the_caller_does_not_matter(engine):
    space, regs = one(0x5000 | PLAIN)
    expected = arm64.at(space, regs, 0x1000, "S1E1W", engine=engine)
    for el in (0, 2, 3):
        other = replace(regs, el=el)
        assert arm64.at(space, other, 0x1000, "S1E1W", engine=engine) == expected


def test_at_wrong_operation():
    with pytest.raises(ValueError, match=r"operation must be one of S1E1R, .*, not 'S1E9R'"):
        arm64.at(memory({}), arm64.Registers(), 0, "S1E9R")
    assert len(OPERATIONS) == 14
