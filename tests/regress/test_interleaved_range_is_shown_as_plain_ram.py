"""alias-path-base."""

from cxl.bugs.busside import several
from cxl.bugs.reserved_iw import commit
from mmu import AddressSpace
from mmu.memory.region import Ram
from mmu.tcg import Switches
from tests.regress import faulty, fixed

SIZE = 256 << 20


def test_a_granule_of_one_device_lands_in_another():
    seen = faulty("alias-path-base")
    assert seen.outcome == "wrong-data"
    assert [event.region for event in seen.trace] == ["mem0 memory"]


def test_the_granule_goes_through_the_decoders_when_fixed():
    seen = fixed("alias-path-base")
    assert seen.outcome == "ok"
    assert [event.region for event in seen.trace] == ["window0"]


def machine(ways=2, **switches):
    topology, space = several(ways), AddressSpace()
    topology.emulate(Switches(**switches))
    topology.attach(space)
    return topology, space


def shown(topology, space):
    """(offset in the window, whether it is RAM, offset in the region) of each range of the window."""
    (window,) = topology.windows
    return [
        (r.first - window.base, type(r.region) is Ram, r.offset)
        for r in space.view.ranges if window.base <= r.first <= window.last
    ]  # fmt: skip


def test_what_is_not_interleaved_is_ram_while_it_is_committed():
    topology, space = machine()
    assert shown(topology, space) == [(0, False, 0)]
    topology.create_region(0, ["mem0"], size=SIZE, name="one")
    two = topology.create_region(0, ["mem1"], size=SIZE, name="two")
    assert shown(topology, space) == [(0, True, 0), (SIZE, True, 0), (2 * SIZE, False, 2 * SIZE)]
    space.store(two.base + 8, 8, 5)
    assert topology.devices["mem1"].read(8, 1) == b"\5"
    topology.destroy_region("two")
    assert shown(topology, space) == [(0, True, 0), (SIZE, False, SIZE)]
    assert space.load(two.base + 8, 8)[0] == 0


def test_interleaved_regions_are_never_ram():
    topology, space = machine()
    topology.commit()
    assert shown(topology, space) == [(0, False, 0)]


def test_without_the_direct_path_nothing_is_ram():
    topology, space = machine(ways=1, alias_path=True)
    topology.commit()
    assert shown(topology, space) == [(0, False, 0)]


def programmed(device_ways):
    """The bridge's decoder 0 goes straight to mem0, whose decoder 0 has *device_ways*; (topology, space)."""
    topology, space = machine()
    base = topology.windows[0].base
    commit(topology.bridges["cxl.0"].registers, 0, base, ways=0)
    commit(topology.devices["mem0"].registers, 0, base, ways=device_ways)
    return topology, space


def test_a_device_decoder_that_interleaves_is_no_ram():
    assert shown(*programmed(0))[0] == (0, True, 0)
    assert shown(*programmed(1)) == [(0, False, 0)]


def test_the_device_takes_its_ram_back_alone():
    topology, space = programmed(0)
    topology.devices["mem0"].registers.uncommit(0)
    assert shown(topology, space) == [(0, False, 0)]


def test_a_second_region_begins_where_the_first_one_ends_in_the_device():
    topology, space = several(2, "512M"), AddressSpace()
    topology.emulate(Switches())
    topology.attach(space)
    regions = [topology.create_region(0, ["mem0"], size=SIZE) for _ in range(2)]
    assert shown(topology, space)[0] == (0, True, 0)
    space.store(regions[1].base + 8, 8, 7)
    assert topology.devices["mem0"].read(SIZE + 8, 1) == b"\7"
