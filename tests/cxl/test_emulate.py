"""A topology under an emulator: by release or by switches, before it is on a bus, with what is programmed."""

import pytest

from cxl import Topology, TopologyError
from mmu import AddressSpace
from mmu.tcg import Switches, release


@pytest.mark.parametrize("name", ["qemu-7.2", "7.2"])
def test_a_release_by_name_is_its_switches(name):
    topology = Topology.default()
    topology.emulate(name)
    assert topology.devices["mem0"].registers.switches == release("7.2")
    assert not topology.strict


@pytest.mark.parametrize("wrong, message", [("5.0", "release must be one of"), (8.2, "emulator must be a release")])
def test_an_unknown_release_changes_nothing(wrong, message):
    topology = Topology.default()
    with pytest.raises(ValueError, match=message):
        topology.emulate(wrong)
    assert topology.strict
    assert topology.devices["mem0"].registers.strict


def test_what_is_programmed_stays():
    topology = Topology.default()
    (region,) = topology.commit()
    before = [topology.decode(region.base + i * 256) for i in range(4)]
    topology.emulate(Switches())
    assert [topology.decode(region.base + i * 256) for i in range(4)] == before
    space = AddressSpace()
    topology.attach(space)
    space.store(region.base + 256, 8, 7)
    assert topology.devices["mem1"].read(0, 1) == b"\7"


def test_once_on_a_bus_it_is_too_late():
    topology = Topology.default()
    topology.attach(AddressSpace())
    with pytest.raises(TopologyError, match="before the windows are attached"):
        topology.emulate(Switches())
    assert topology.strict


def test_batches_of_addresses_follow_the_mistakes_too():
    import numpy as np

    from cxl.bugs.busside import several

    topology = several(8)
    topology.emulate(Switches(hdm_target_list=True))
    (region,) = topology.commit()
    rows = topology.decode_many(np.arange(region.base, region.base + 8 * 256, 256, dtype=np.uint64))
    assert rows["device"].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
