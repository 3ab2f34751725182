"""What `x86.Registers`, `x86.Npt` and `x86.Ept` refuse, and that they are values."""

import copy
import pickle
from dataclasses import FrozenInstanceError, replace

import pytest

from mmu import Access, AddressSpace, Fault, FaultKind, Ram, x86

GOOD = {"cr0": 0x80010033, "cr3": 0x1000, "cr4": 0x6A0, "efer": 0xD01}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cr0": -1}, "cr0 must be in 0x0..0xffffffffffffffff, not -0x1"),
        ({"cr0": 1 << 32 | 0x80010033}, "cr0 must have its reserved bits .* clear"),
        ({"cr0": 0x80010032}, "cr0 = 0x80010032: PG=1 needs PE=1"),
        ({"cr3": 1 << 64}, "cr3 must be in"),
        ({"cr3": 1 << 52}, "cr3 must have its reserved bits"),
        ({"cr3": 1 << 40, "phys_bits": 40}, "cr3 address must be in 0x0..0xffffffffff, not 0x10000000000"),
        ({"cr3": 1 << 63 | 0x1000}, "bit 63 needs CR4.PCIDE=1"),
        ({"cr4": 0x680}, r"cr4 = 0x680: long mode \(EFER.LME=1\) needs PAE=1"),
        ({"cr4": 1 << 15 | 0x20}, "cr4 must have its reserved bits"),
        ({"cr4": 1 << 12 | 0x20, "efer": 0}, r"LA57=1 needs long mode \(EFER.LME=1\), EFER is 0x0"),
        ({"cr4": 1 << 17 | 0x20, "efer": 0}, "PCIDE=1 needs long mode"),
        ({"cr4": 1 << 28 | 0x20, "efer": 0}, "LAM_SUP=1 needs long mode"),
        ({"cr4": 1 << 23 | 0x20, "cr0": 0x80000033}, "CET=1 needs CR0.WP=1"),
        ({"cr4": 1 << 27 | 0x20}, "LASS is not modelled"),
        ({"efer": 1 << 10}, "efer = 0x400: LMA=1 needs LME=1"),
        ({"efer": 1 << 9 | 0x500}, "efer must have its reserved bits"),
        ({"efer": 1 << 20 | 0x500}, "UAIE is not modelled"),
        ({"pkru": 1 << 32}, "pkru must be in 0x0..0xffffffff, not 0x100000000"),
        ({"pkrs": -1}, "pkrs must be in"),
        ({"cpl": 4}, "cpl must be in 0..3, not 4"),
        ({"phys_bits": 53}, "phys_bits must be in 36..52, not 53"),
        ({"phys_bits": 35}, "phys_bits must be in 36..52, not 35"),
        ({"bus_error": "abort"}, "bus_error must be 'zero' or 'machine-check', not 'abort'"),
    ],
)
def test_registers_wrong_values(change, message):
    x86.Registers(**GOOD)
    with pytest.raises(ValueError, match=message):
        x86.Registers(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: x86.Npt(1 << 52, 0x20, 0x500), "ncr3 must have its reserved bits"),
        (lambda: x86.Npt(1 << 40, 0x20, 0x500, phys_bits=40), "ncr3 address must be in"),
        (lambda: x86.Npt(0, 0, 0x500), "needs PAE=1"),
        (lambda: x86.Npt(0, 1 << 12 | 0x20, 0), "LA57=1 needs long mode"),
        (lambda: x86.Ept(0x1F), "memory type must be 0"),
        (lambda: x86.Ept(0x16), "walk length must be 3 or 4"),
        (lambda: x86.Ept(0x11E), "eptp must have its reserved bits"),
        (lambda: x86.Ept(0x9E), "supervisor shadow-stack rights are not modelled"),
        (lambda: x86.Ept(1 << 40 | 0x1E, phys_bits=40), "eptp address must be in"),
    ],
)
def test_stage_2_wrong_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_modes_that_boot_code_passes_through_are_accepted():
    x86.Registers(cr0=0x10, cr3=0, cr4=0, efer=0)
    x86.Registers(cr0=0x11, cr3=0x1000, cr4=1 << 12 | 0x20, efer=0x100)  # LA57 and LME before paging is on
    x86.Registers(cr0=0x80000011, cr3=0xFFFF_FFFF_0000_1000, cr4=0, efer=0)  # CR3 has 32 bits there
    x86.Registers(cr0=0x80000011, cr3=0x1000, cr4=0x20, efer=0x100)  # LMA follows from LME and PG


def test_registers_are_values_also_after_a_walk():
    regs, space = x86.Registers(**GOOD), AddressSpace()
    space.map(0, Ram(0x10000))
    x86.walk(space, regs, 0, Access.READ)
    with pytest.raises(FrozenInstanceError):
        regs.cr3 = 0
    again = [copy.copy(regs), copy.deepcopy(regs), pickle.loads(pickle.dumps(regs)), replace(regs, cpl=0)]
    assert again == [regs] * 4 and len({hash(r) for r in (*again, regs)}) == 1
    assert replace(regs, cpl=3) != regs
    assert x86.walk(space, replace(regs, cr3=0x2000), 0, Access.READ).entry_address == 0x2000


@pytest.mark.parametrize(
    ("kind", "stage", "stage2"),
    [
        (FaultKind.NONE, 1, None),
        (FaultKind.MISCONFIGURATION, 1, None),
        (FaultKind.MISCONFIGURATION, 2, x86.Npt(0, 0x20, 0x500)),
        (FaultKind.NOT_PRESENT, 2, None),
        (FaultKind.RESERVED_BIT, 2, x86.Ept(0x1E)),
        (FaultKind.NON_CANONICAL, 2, x86.Ept(0x1E)),
        (FaultKind.ACCESS_FLAG, 1, None),
    ],
)
def test_exception_of_a_fault_that_no_walk_gives(kind, stage, stage2):
    regs = x86.Registers(**GOOD, stage2=stage2)
    with pytest.raises(ValueError, match=f"no x86 walk .* gives {kind.name} at stage {stage}"):
        x86.exception(Fault(kind, 1, 0, Access.READ, stage=stage, gpa=0), regs)
