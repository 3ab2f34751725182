"""alias-path-base."""

from cxl.bugs.busside import several
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
