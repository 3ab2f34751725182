"""Cache maintenance by address: it translates, needs few rights, and its aborts say that it was maintenance."""

from dataclasses import replace

import pytest

from mmu import Access, Translation, arm64
from tests.arm64.hand import (
    AF,
    AP_RO,
    AP_RO_EL0,
    AP_RW,
    AP_RW_EL0,
    DBM,
    HA,
    HD,
    PAGE,
    S2_RW,
    VM,
    R,
    W,
    el1,
    four_levels,
    memory,
    status,
    word,
)  # fmt: skip

CLEAN, INVALIDATE = R | Access.MAINTENANCE, W | Access.MAINTENANCE
OLD, AT = 0x5000 | PAGE, 0x4000
CM_WNR = 0x140


def one(leaf, more=0, **registers):
    words, _ = four_levels(leaf, va=0)
    return memory(words), el1("4K", 16, 0x1000, more, **registers)


@pytest.mark.parametrize("rights", (AP_RW, AP_RW_EL0, AP_RO, AP_RO_EL0))
@pytest.mark.parametrize("el", (0, 1))
@pytest.mark.parametrize("access", (CLEAN, INVALIDATE))
def test_what_cleans_needs_the_right_to_read_at_el0_and_what_invalidates_to_write(engine, rights, el, access):
    """PAN, as PSTATE has it here, is for other accesses."""
    space, regs = one(OLD | AF | rights, el=el, pan=bool(el))
    user, write = rights in (AP_RW_EL0, AP_RO_EL0), rights in (AP_RW, AP_RW_EL0)
    permitted = (el or user) if access == CLEAN else write and (el or user)
    expected = ("", 3, 0x5000) if permitted else ("PERMISSION", 3, (0x9600_000F if el else 0x9200_000F) | CM_WNR)
    assert status(space, regs, 0, access, engine) == expected


@pytest.mark.parametrize("access", (CLEAN, INVALIDATE))
def test_it_faults_where_nothing_is_and_without_the_access_flag(engine, access):
    assert status(*one(0), 0, access, engine) == ("NOT_PRESENT", 3, 0x9600_0007 | CM_WNR)
    assert status(*one(OLD), 0, access, engine) == ("ACCESS_FLAG", 3, 0x9600_000B | CM_WNR)
    space, regs = one(0x0001_0000_0000_0000 >> 1 | OLD | AF, pa_range=40)
    assert status(space, regs, 0, access, engine) == ("ADDRESS_SIZE", 3, 0x9600_0003 | CM_WNR)


@pytest.mark.parametrize("access", (CLEAN, INVALIDATE))
def test_hardware_sets_the_access_flag_and_no_dirty_state(engine, access):
    space, regs = one(OLD | AP_RO | DBM, HA | HD)
    assert status(space, regs, 0, access, engine) == ("", 3, 0x5000)
    assert word(space, AT) == OLD | AP_RO | DBM | AF


@pytest.mark.parametrize("access,s2ap,kind", [
    (CLEAN, 0, ""), (CLEAN, 3, ""), (INVALIDATE, 1, "PERMISSION"), (INVALIDATE, 3, ""),
])  # fmt: skip
def test_stage_2_is_asked_alike(engine, access, s2ap, kind):
    leaf = 0x5000 | PAGE | S2_RW & ~(3 << 6) | s2ap << 6
    regs = arm64.Registers(hcr_el2=VM, vtcr_el2=34 | 5 << 16, vttbr_el2=0x8000)
    found = arm64.walk(memory({0x8000: 0x9000 | 3, 0x9000: leaf}), regs, 0, access, engine=engine)
    assert kind == ("" if isinstance(found, Translation) else found.kind.name)


def test_an_abort_of_maintenance_is_one_of_a_write():
    space, regs = one(0)
    abort = arm64.exception(arm64.walk(space, regs, 8, CLEAN), replace(regs, el=0))
    assert (abort.esr, abort.wnr, abort.far, abort.kind) == (0x9200_0007 | CM_WNR, True, 8, "data")
