"""arm-hafdbs-mmio."""

import pytest

from cxl.bugs.rig import ARM64_LOAD, CODE, DATA, Rig
from mmu.arm64.format import Page4K, Tcr
from mmu.tcg import Switches
from tests.regress import bus, faulty, fixed

LEVEL_3_ACCESS_FLAG = 0x0B
UNSUPPORTED_ATOMIC = 0x31


def syndrome(seen):
    (event,) = [event for event in seen.trace if event[0] == "fault"]
    return event[1]


def test_the_guest_gets_a_fault_for_unsupported_atomics():
    seen = faulty("arm-hafdbs-mmio")
    assert seen.outcome == "guest-fault"
    assert syndrome(seen) & 0x3F == UNSUPPORTED_ATOMIC
    assert [(event[1], event[4]) for event in bus(seen)] == [("r", 8)]


def test_the_descriptor_is_updated_on_the_bus_when_fixed():
    seen = fixed("arm-hafdbs-mmio")
    assert seen.outcome == "ok"
    assert [(event[1], event[4]) for event in bus(seen)] == [("r", 8), ("r", 8), ("w", 8)]
    assert bus(seen)[2][5] == bus(seen)[0][5] | Page4K.AF.mask
    assert seen.counts["recompiles"] == 0


@pytest.mark.parametrize("hafdbs", [True, False])
def test_without_hardware_updates_both_modes_fault_as_the_book_says(hafdbs):
    rig = Rig("aarch64", Switches(arm_hafdbs_mmio=hafdbs))
    rig.code(CODE, ARM64_LOAD)
    rig.map(DATA, tables="rrw", clear=Page4K.AF.mask)
    seen = rig.observe(registers={"x0": DATA})
    assert (seen.outcome, syndrome(seen) & 0x3F) == ("guest-fault", LEVEL_3_ACCESS_FLAG)


@pytest.mark.parametrize("hafdbs", [True, False])
def test_in_ram_both_modes_update(hafdbs):
    rig = Rig("aarch64", Switches(arm_hafdbs_mmio=hafdbs))
    rig.code(CODE, ARM64_LOAD)
    rig.map(DATA, clear=Page4K.AF.mask)
    control = rig.machine.registers["tcr_el1"] | Tcr.HA.mask
    seen = rig.observe(registers={"x0": DATA, "tcr_el1": control})
    assert (seen.outcome, bus(seen)) == ("ok", [])
    assert rig.word(rig.entry(DATA)) & Page4K.AF.mask
