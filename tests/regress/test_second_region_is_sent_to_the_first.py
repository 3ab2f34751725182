"""hdm-decoder-count."""

from cxl.bugs.busside import several
from mmu.tcg import Switches
from tests.regress import faulty, fixed

SIZE = 256 << 20


def test_the_device_of_the_first_region_refuses_it():
    seen = faulty("hdm-decoder-count")
    assert seen.outcome == "error"
    assert [event.result for event in seen.trace] == ["OK", "ERROR", "OK", "ERROR"]


def test_both_regions_answer_when_fixed():
    seen = fixed("hdm-decoder-count")
    assert seen.outcome == "ok"
    assert [event.value for event in seen.trace] == [0x1234, 0x1235, 0x1234, 0x1235]


def test_a_bridge_asks_no_range_and_a_device_no_commit():
    topology = several(2)
    topology.emulate(Switches(hdm_decoder_count=True))
    first = topology.create_region(0, ["mem0"], size=SIZE)
    assert topology.decode(first.base + SIZE).level == "device mem0"
    topology.devices["mem0"].registers.uncommit(0)
    assert topology.decode(first.base).device == "mem0"
    topology.bridges["cxl.0"].registers.uncommit(0)
    assert topology.decode(first.base).level == "host bridge cxl.0"
