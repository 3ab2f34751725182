"""hdm-target-list."""

import pytest

from cxl.bugs.busside import several
from mmu.tcg import Switches
from tests.regress import faulty, fixed


def test_device_4_writes_over_device_0():
    seen = faulty("hdm-target-list")
    assert seen.outcome == "wrong-data"
    assert seen.message == "mem0 DPA 0x0 holds 0x5555555555555555, not 0x1111111111111111"
    assert all(event.result == "OK" for event in seen.trace)


def test_each_device_has_its_own_when_fixed():
    assert fixed("hdm-target-list").outcome == "ok"


def shift_of(index):
    """What x86 makes of the shift that the C code asked for: its count modulo 32, for the lower word."""
    return (index * 8 if index > 4 else (index - 4) * 8) % 32


@pytest.mark.parametrize("ways", [2, 4, 8])
@pytest.mark.parametrize("granularity", [256, 1024, 16384])
def test_routing_is_that_of_the_shift(ways, granularity):
    topology = several(ways, granularity=granularity)
    topology.emulate(Switches(hdm_target_list=True))
    (region,) = topology.commit()
    low = bytes(range(4)) if ways >= 4 else bytes((0, 1, 0, 0))
    for index in range(ways):
        found = topology.decode(region.base + index * granularity)
        target = int.from_bytes(low, "little") >> shift_of(index) & 255
        assert found.device == f"mem{target}"
        assert topology.route(0).locate(region.base + index * granularity)[0] == topology.devices[found.device].number
