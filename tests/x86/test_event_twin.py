"""What software sees of a fault, computed in C, against the reference: for every kind of fault that walks meet."""

import random

import pytest

from mmu import Fault, FaultKind, x86
from mmu.core import ffi, lib
from mmu.x86.native import c_registers
from tests.x86.images import ACCESSES, GUESTS, STAGE2, Image, address, chance, registers, stage2

IMAGES, QUERIES = 3, 40


def expected(event):
    """(kind, vector, code, address) as C has them."""
    match event:
        case x86.PageFault(error_code=code, cr2=cr2):
            return lib.MMU_X86_EXCEPTION, 14, code, cr2
        case x86.GeneralProtection() | x86.StackFault():
            return lib.MMU_X86_EXCEPTION, event.vector, 0, 0
        case x86.MachineCheck(address=where):
            return lib.MMU_X86_EXCEPTION, 18, 0, where or 0
        case x86.NestedPageFault(exit_info_1=code, gpa=gpa):
            return lib.MMU_X86_EXIT_NPF, 0, code, gpa
        case x86.EptViolation(qualification=code, gpa=gpa):
            return lib.MMU_X86_EXIT_EPT_VIOLATION, 0, code, gpa
        case x86.EptMisconfiguration(gpa=gpa):
            return lib.MMU_X86_EXIT_EPT_MISCONFIGURATION, 0, 0, gpa


def compare(image, r, seen):
    regs = registers(r, image.guest, stage2(r, image.nested), r.choice(("zero", "machine-check")))
    va, access = address(r, image.guest), r.choice(ACCESSES)
    if chance(r, 5):
        va ^= 1 << 60
    found, fault = ffi.new("struct mmu_x86_translation *"), ffi.new("struct mmu_x86_fault *")
    status = lib.mmu_x86_walk(image.space.port, c_registers(regs), va, access, 0, found, fault, ffi.NULL)
    answer = x86.walk(image.space, regs, va, access, engine="reference", update=False)
    assert isinstance(answer, Fault) == (status == lib.MMU_FAULTED)
    if isinstance(answer, Fault):
        event = ffi.new("struct mmu_x86_event *")
        lib.mmu_x86_exception(c_registers(regs), fault, event)
        assert (event.kind, event.vector, event.code, event.address) == expected(x86.exception(answer, regs))
        key = "protection_key" in answer.detail
        seen.add((answer.kind, answer.stage, answer.on_table, key and answer.kind is FaultKind.PERMISSION))


@pytest.fixture(scope="module")
def seen():
    out = set()
    for seed in range(IMAGES):
        r = random.Random(seed)
        for guest in GUESTS:
            for nested in ("none", *STAGE2):
                image = Image(seed, guest, nested)
                for _ in range(QUERIES):
                    compare(image, r, out)
    return out


@pytest.mark.parametrize("kind", ["NOT_PRESENT", "RESERVED_BIT", "PERMISSION"])
@pytest.mark.parametrize("stage, on_table", [(1, False), (2, False), (2, True)])
def test_c_and_reference_agree_on_every_kind_of_fault(seen, kind, stage, on_table):
    """Agreement is checked in the fixture; it proves little about a fault that no walk met."""
    assert (FaultKind[kind], stage, on_table, False) in seen


@pytest.mark.parametrize("kind", ["NON_CANONICAL", "PROTECTION_KEY", "BUS"])
def test_c_and_reference_agree_on_what_only_stage_1_has(seen, kind):
    assert (FaultKind[kind], 1, False, False) in seen


def test_c_and_reference_agree_on_a_key_that_forbids_among_others(seen):
    assert (FaultKind.PERMISSION, 1, False, True) in seen


def test_c_and_reference_agree_on_misconfigurations(seen):
    assert {(FaultKind.MISCONFIGURATION, 2, table, False) for table in (False, True)} <= seen
