"""bus-error-arm."""

import pytest

from cxl.bugs.rig import ARM64_LOAD, CODE, DATA, Rig
from mmu.tcg import Switches
from tests.regress import bus, fixed

EA, NOWHERE = 1 << 9, 0x7_0000_0000  # an address where nothing is
ON_WALK, PLAIN = 0x14, 0x10


def syndrome(seen):
    (event,) = [event for event in seen.trace if event[0] == "fault"]
    return event.syndrome & (0x3F | EA)


def test_the_syndrome_names_the_level():
    seen = fixed("bus-error-arm")
    assert seen.outcome == "guest-fault"
    assert syndrome(seen) == ON_WALK | 3 | EA
    assert [(event[1], event[6], event[7]) for event in bus(seen)] == [("r", "ERROR", "ptw")]


@pytest.mark.parametrize("page, ea", [("h", EA), (NOWHERE, 0)])
def test_data_is_a_plain_one_and_ea_tells_a_device_from_nothing(page, ea):
    rig = Rig("aarch64", Switches())
    rig.code(CODE, ARM64_LOAD)
    rig.map(DATA, page)
    seen = rig.observe(registers={"x0": DATA})
    assert (seen.outcome, syndrome(seen)) == ("guest-fault", PLAIN | ea)
