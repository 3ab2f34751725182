"""Syndromes: codes that real QEMU gave, external aborts at every level, who takes the exception."""

import pytest

from mmu import Mmio, arm64
from mmu.types import Access, Fault, FaultKind, MemTxResult
from tests.arm64.hand import (
    AF,
    AP_RO_EL0,
    AP_RW_EL0,
    DS,
    IPS_52,
    PAGE,
    TABLE,
    TGE,
    R,
    W,
    X,
    el1,
    four_levels,
    memory,
    status,
)  # fmt: skip

NOWHERE, DEVICE = 1 << 40, 1 << 41
TEA, SCR_EA = 1 << 37, 1 << 3


# What QEMU 7.2 and 10.0 reported with a table in unassigned memory: ESR 0x96000016 and 0x96000017.
@pytest.mark.parametrize("level,esr", [(0, 0x9600_0014), (1, 0x9600_0015), (2, 0x9600_0016), (3, 0x9600_0017)])
def test_table_in_unassigned_memory_is_an_external_abort_of_its_level(engine, level, esr):
    words, regs = four_levels(0x5000 | PAGE | AF, va=0)
    if level:
        words[0x1000 * level] = NOWHERE | TABLE
    else:
        regs = el1("4K", 16, NOWHERE)
    space = memory(words)
    found = arm64.walk(space, regs, 0, R, engine=engine)
    assert (found.kind, found.level, found.entry_address, found.entry) == (FaultKind.BUS, level, NOWHERE, None)
    abort = arm64.exception(found, regs)
    assert (abort.esr, abort.fsc, abort.ea, abort.hpfar) == (esr, 0x14 + level, False, None)
    assert len(found.steps) == level


@pytest.mark.parametrize("result,ea", [
    (MemTxResult.ERROR, 0x200), (MemTxResult.DECODE_ERROR, 0), (MemTxResult.ACCESS_ERROR, 0x200),
    (MemTxResult.ERROR | MemTxResult.DECODE_ERROR, 0x200),
])  # fmt: skip
@pytest.mark.parametrize("level", range(4))
def test_table_that_a_device_refuses_sets_ea_unless_nothing_answered(engine, level, result, ea):
    words, regs = four_levels(0x5000 | PAGE | AF, va=0)
    words[0x1000 * max(level, 1)] = DEVICE | TABLE
    space = memory(words)
    space.map(DEVICE, Mmio(4096, lambda o, s: result))
    regs = regs if level else el1("4K", 16, DEVICE)
    assert status(space, regs, 0, W, engine) == ("BUS", level, 0x9600_0054 | level | ea)


@pytest.mark.parametrize("access,esr", [(R, 0x9600_0210), (W, 0x9600_0250), (X, 0x8600_0210)])
def test_external_abort_of_the_access_itself_is_not_one_on_a_walk(access, esr):
    fault = Fault(FaultKind.BUS, None, 0, access, detail={"result": MemTxResult.ERROR})
    abort = arm64.exception(fault, arm64.Registers())
    assert (abort.esr, abort.fsc, abort.level, abort.ea) == (esr, 0x10, None, True)


def test_external_abort_at_level_minus_1_has_its_own_code(engine):
    regs = el1("4K", 12, NOWHERE, IPS_52 | DS, pa_range=52)
    assert status(memory({}), regs, 0, R, engine) == ("BUS", -1, 0x9600_0013)


def test_translation_fault_at_level_minus_1_has_its_own_code(engine):
    regs = el1("4K", 12, 0x1000, IPS_52 | DS, pa_range=52)
    assert status(memory({}), regs, 0, X, engine) == ("NOT_PRESENT", -1, 0x8600_002B)


# Permission, access flag and translation faults through tables in MMIO: DFSC 0x0f, 0x0b, 0x07 as measured.
@pytest.mark.parametrize("leaf,dfsc", [
    (0x5000 | PAGE | AF | AP_RO_EL0, 0x0F), (0x5000 | PAGE | AP_RW_EL0, 0x0B), (0, 0x07),
])  # fmt: skip
def test_faults_through_tables_in_a_device(engine, leaf, dfsc):
    tables, regs = four_levels(leaf, va=0)
    reads = []

    def read(offset, size):
        reads.append((offset, size))
        return tables.get(offset, 0)

    space = memory({})
    space.map(0, Mmio(0x5000, read), priority=1)
    assert status(space, regs, 0, W, engine)[2] == 0x9600_0040 | dfsc
    assert reads == [(0x1000, 8), (0x2000, 8), (0x3000, 8), (0x4000, 8)]


def test_exception_of_a_device_in_a_walk_comes_out_unchanged(engine):
    def read(offset, size):
        raise KeyError("mine")

    space = memory({})
    space.map(0, Mmio(0x5000, read), priority=1)
    with pytest.raises(KeyError, match="mine"):
        arm64.walk(space, el1("4K", 16, 0x1000), 0, R, engine=engine)


# EL, access, further registers, ESR without FSC, EL that takes it.
ROUTES = [
    (0, R, {}, 0x9200_0000, 1), (1, R, {}, 0x9600_0000, 1), (0, W, {}, 0x9200_0040, 1), (1, W, {}, 0x9600_0040, 1),
    (0, X, {}, 0x8200_0000, 1), (1, X, {}, 0x8600_0000, 1), (2, R, {}, 0x9600_0000, 2), (3, X, {}, 0x8600_0000, 3),
    (0, R, {"hcr_el2": TGE}, 0x9200_0000, 2), (1, R, {"hcr_el2": TEA}, 0x9600_0000, 1),
    (1, W | Access.UNPRIVILEGED, {}, 0x9600_0040, 1), (1, R, {"scr_el3": SCR_EA}, 0x9600_0000, 1),
]  # fmt: skip


@pytest.mark.parametrize("el,access,more,esr,target", ROUTES)
def test_class_and_target_of_a_translation_fault(el, access, more, esr, target):
    abort = arm64.exception(Fault(FaultKind.NOT_PRESENT, 2, 0x1234, access), arm64.Registers(el=el, **more))
    assert (abort.esr, abort.target_el, abort.far) == (esr | 6, target, 0x1234)
    assert (abort.kind, abort.wnr) == ("instruction" if access is X else "data", bool(access & W))


@pytest.mark.parametrize("el,more,esr,target", [
    (1, {"hcr_el2": TEA}, 0x9200_0216, 2), (0, {"hcr_el2": TEA}, 0x9200_0216, 2), (2, {"hcr_el2": TEA}, 0x9600_0216, 2),
    (1, {"scr_el3": SCR_EA, "hcr_el2": TEA}, 0x9200_0216, 3), (2, {"scr_el3": SCR_EA}, 0x9200_0216, 3),
    (1, {}, 0x9600_0216, 1), (3, {}, 0x9600_0216, 3),
])  # fmt: skip
def test_external_aborts_follow_tea_and_ea(el, more, esr, target):
    fault = Fault(FaultKind.BUS, 2, 0, R, detail={"result": MemTxResult.ERROR})
    abort = arm64.exception(fault, arm64.Registers(el=el, **more))
    assert (abort.esr, abort.target_el, abort.ea) == (esr, target, True)


@pytest.mark.parametrize("kind,fsc", [(FaultKind.ALIGNMENT, 0x21), (FaultKind.UNSUPPORTED_ATOMIC, 0x31)])
def test_faults_without_a_level(kind, fsc):
    abort = arm64.exception(Fault(kind, None, 8, W), arm64.Registers())
    assert (abort.esr, abort.fsc, abort.level) == (0x9600_0040 | fsc, fsc, None)


def test_hpfar_holds_the_page_of_the_ipa():
    fault = Fault(FaultKind.NOT_PRESENT, 1, 0, R, stage=2, gpa=0xF_EDCB_A987_6543)
    assert arm64.exception(fault, arm64.Registers()).hpfar == 0xFE_DCBA_9876 << 4


@pytest.mark.parametrize("kind", [FaultKind.RESERVED_BIT, FaultKind.PROTECTION_KEY, FaultKind.MISCONFIGURATION])
def test_exception_wrong_kind(kind):
    with pytest.raises(ValueError, match=f"{kind.name} is not a fault of arm64"):
        arm64.exception(Fault(kind, 1, 0, R), arm64.Registers())


def test_exception_wrong_level():
    with pytest.raises(ValueError, match="PERMISSION does not exist at level -1"):
        arm64.exception(Fault(FaultKind.PERMISSION, -1, 0, R), arm64.Registers())
