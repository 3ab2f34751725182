"""What ndctl's tests check on Linux' cxl_test machine, on ours."""

import errno

import pytest

from cxl import CommitError, Miss, Route, Topology, TopologyError
from cxl.mock import AUTO_REGION, QTG, blueprint, cxl_test
from mmu import AddressSpace, MemTxResult, stripes
from tests.cxl.machines import MIB
from tests.cxl.test_cxl_list import same

GIB = 1 << 30
EIGHT = [f"cxl_mem.{n}" for n in range(8)]


@pytest.fixture
def topo():
    return cxl_test()


# -- topology --------------------------------------------------------------------------------------------


def test_bridges_switches_and_devices(topo):
    assert [len(b.ports) for b in topo.bridges.values()] == [2, 2, 1, 1]
    assert [len(s.ports) for s in topo.switches.values()] == [2] * 5
    assert list(topo.devices) == [*EIGHT, "cxl_mem.8", "cxl_mem.9", "cxl_rcd.10"]
    assert all(d.sizes == (GIB, GIB, 0) for d in topo.devices.values())


def test_windows(topo):
    assert [(w.ways, w.size // MIB) for w in topo.windows] == [
        (1, 1024), (2, 2048), (1, 1024), (2, 2048), (1, 1024), (1, 256)]
    assert {w.qtg for w in topo.windows} == {QTG}
    xor = cxl_test(xor=True)
    assert [(w.ways, w.granularity, w.maps) for w in xor.windows] == [
        (1, 4096, ()), (2, 256, (0x404100,)), (3, 512, ())]


def test_auto_region(topo):
    """512 MiB over mem.0 and mem.4: devices and switch 2 ways at 4096, host bridge 1 way."""
    region = topo.regions["region0"]
    assert (region.base, region.size) == (topo.windows[0].base, AUTO_REGION)
    for name in ("cxl_mem.0", "cxl_mem.4"):
        s = topo.devices[name].registers.settings(0)
        assert (s.ways, s.granularity, s.base, s.size) == (2, 4096, region.base, region.size)
    switch = topo.switches["switch.0"].registers.settings(0)
    assert (switch.ways, switch.granularity, switch.targets[:2]) == (2, 4096, (0, 4))
    assert topo.bridges["host_bridge.0"].registers.settings(0).ways == 1
    assert topo.decode(region.base + 4096).device == "cxl_mem.4"
    assert topo.check() == []


# -- region-sysfs ----------------------------------------------------------------------------------------


def test_eight_way_persistent_region(topo):
    """Positions by host bridge, then root port, then switch port; granularity doubles with each level."""
    region = topo.create_region("window3", EIGHT, size=8 * 256 * MIB, mode="pmem")
    for device in region.devices:
        (s,) = [s for s in device.registers.committed.values() if s.base == region.base]
        assert (s.ways, s.granularity, s.size) == (8, 4096, region.size)
        assert device.partition(s.dpa) == "pmem"
    nodes = [(1, topo.bridges[f"host_bridge.{n}"]) for n in range(2)]
    nodes += [(2, topo.switches[f"switch.{n}"]) for n in range(4)]
    for depth, node in nodes:
        (s,) = [s for s in node.registers.committed.values() if s.base == region.base]
        assert (s.ways, s.granularity) == (2, 4096 << depth)
    for position, device in enumerate(region.devices):
        assert topo.decode(region.base + position * 4096).device == device.name
    assert topo.check() == []
    topo.destroy_region(region)
    assert all(d.free("pmem") == GIB for d in region.devices)


def test_natural_order_is_the_one_of_the_test(topo):
    (region,) = [r for r in topo.commit("window3") if r.mode == "pmem"]
    assert [d.name for d in region.devices] == EIGHT


# -- create-region, destroy-region -----------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 2, 4, 6, 8, 9])
def test_one_way_region_on_each_device_twice(topo, n):
    """Those below host bridges 0 and 2: windows of one target are over these."""
    window = "window4" if n >= 8 else "window2"
    for _ in range(2):
        region = topo.create_region(window, [f"cxl_mem.{n}"], mode="pmem", size=GIB)
        assert topo.decode(region.base).device == f"cxl_mem.{n}"
        topo.destroy_region(region)


def test_slices_fill_persistent_memory_and_go_in_reverse(topo):
    made = [topo.create_region("window2", ["cxl_mem.2"], mode="pmem", size=256 * MIB) for _ in range(4)]
    with pytest.raises(TopologyError):
        topo.create_region("window2", ["cxl_mem.2"], mode="pmem", size=256 * MIB)
    with pytest.raises(TopologyError, match="is still committed"):
        topo.destroy_region(made[0])
    assert isinstance(topo.decode(made[0].base), Route)
    for region in reversed(made):
        topo.destroy_region(region)
    assert topo.devices["cxl_mem.2"].free("pmem") == GIB


def test_region_below_the_single_port_bridge(topo):
    region = topo.create_region("window4", ["cxl_mem.8", "cxl_mem.9"], mode="pmem", size=512 * MIB)
    assert [topo.decode(region.base + n * 4096).device for n in range(3)] == ["cxl_mem.8", "cxl_mem.9", "cxl_mem.8"]
    assert topo.check() == []


def test_region_on_the_old_host(topo):
    """The RCH has no decoders, its device does."""
    region = topo.create_region("window5", ["cxl_rcd.10"], size=256 * MIB)
    found = topo.decode(region.base)
    assert (found.device, [lv.decoder for lv in found.levels]) == ("cxl_rcd.10", [None, None, 0])


def test_the_window_is_chosen(topo):
    """By kind of memory, host bridges and room, in ascending order, as the tool does."""
    assert topo.create_region(devices=["cxl_mem.4", "cxl_mem.1"], mode="ram", size=512 * MIB).window.name == "window1"
    assert topo.create_region(devices=["cxl_mem.2"], mode="pmem", size=GIB).window.name == "window2"
    assert topo.create_region(devices=["cxl_mem.8"], mode="pmem").window.name == "window4"
    assert topo.create_region(mode="pmem").window.name == "window3"
    with pytest.raises(TopologyError, match=r"no window has room for 0x40000000 bytes of ram over cxl_mem\.9"):
        topo.create_region(devices=["cxl_mem.9"], size=GIB)


# -- xor-region ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window, devices", [
    ("window6", ["cxl_mem.0"]), ("window7", ["cxl_mem.0", "cxl_mem.1"]),
    ("window7", ["cxl_mem.0", "cxl_mem.1", "cxl_mem.2", "cxl_mem.3"]),
    ("window8", ["cxl_mem.0", "cxl_mem.1", "cxl_mem.8"]),
])
def test_xor_regions(window, devices):
    topo = cxl_test(xor=True)
    region = topo.create_region(window, devices, mode="pmem", size=len(devices) * 256 * MIB)
    seen = set()
    for chunk in range(64 * len(devices)):
        hpa = region.base + chunk * region.granularity
        found = topo.decode(hpa)
        assert found.dpa == GIB + stripes.dpa_offset(hpa - region.base, region.ways, region.granularity)
        assert topo.encode(found.device, found.dpa) == [hpa]
        seen.add((found.device, found.dpa))
    assert len(seen) == 64 * len(devices) and {d for d, _ in seen} == set(devices)
    assert topo.check() == []
    topo.destroy_region(region)
    assert isinstance(topo.decode(region.base), Miss)


def test_three_way_window_is_not_aligned_to_three():
    """Allocated at multiples of 256 MiB only: the root index does not begin with 0."""
    topo = cxl_test(xor=True)
    window = topo.window("window8")
    assert window.base % (3 * 256 * MIB) != 0
    region = topo.create_region(window, ["cxl_mem.0", "cxl_mem.1", "cxl_mem.8"], mode="pmem", size=768 * MIB)
    first = topo.decode(region.base).levels[0].index
    assert first == region.base // 512 % 3 and first != 0


# -- region-replay, elc, poison, translate ---------------------------------------------------------------


def test_regions_are_found_again(topo):
    """Unbind and bind: the decoders alone say what the regions are."""
    topo.create_region("window3", EIGHT[:2], size=512 * MIB, mode="pmem")
    same(Topology.from_cxl_list(topo.to_cxl_list(), topo.to_cedt()), topo)


def test_extended_linear_cache():
    topo = cxl_test(cache=True)
    region = topo.regions["region0"]
    assert (region.base, region.size) == (topo.windows[0].base, topo.windows[0].size)
    for name in ("cxl_mem.0", "cxl_mem.4"):
        s = topo.devices[name].registers.settings(0)
        assert (s.base, s.size) == (region.base + s.size, region.size // 2)


@pytest.mark.parametrize("offset", [0, 4096, 0x600, AUTO_REGION - 64])
def test_poison_by_region_offset(topo, offset):
    """An offset in a region names one device and DPA; the HPA of the event is base plus offset."""
    region = topo.regions["region0"]
    found = topo.locate(region, offset)
    assert topo.encode(found.device, found.dpa) == [region.base + offset]


def test_poison_offset_outside(topo):
    for region, offset in ((topo.regions["region0"], AUTO_REGION), (cxl_test(cache=True).regions["region0"], 0)):
        with pytest.raises(TopologyError, match="the offset must be in"):
            (topo if offset else cxl_test(cache=True)).locate(region.name, offset)


def test_poison_of_an_unaligned_three_way_region():
    """Clearing by device address and by region offset means the same byte."""
    topo = cxl_test(xor=True)
    region = topo.create_region("window8", ["cxl_mem.0", "cxl_mem.1", "cxl_mem.8"], mode="pmem", size=768 * MIB)
    for offset in (0, 512, 1024, 1536, 0x12345678):
        found = topo.locate(region, offset)
        assert topo.encode(found.device, found.dpa) == [region.base + offset]


def test_cedt_round_trip():
    for xor in (False, True):
        topo = cxl_test(xor=xor)
        back = Topology.from_cedt(topo.to_cedt())
        assert [(w.base, w.size, w.granularity, w.maps) for w in back.windows] == [
            (w.base, w.size, w.granularity, w.maps) for w in topo.windows]
        assert [b.restricted for b in back.bridges.values()] == [False, False, False, True]


def test_bytes_through_an_eight_way_region(topo):
    space = AddressSpace()
    topo.attach(space)
    region = topo.create_region("window3", EIGHT, size=8 * 256 * MIB, mode="pmem")
    data = bytes(n >> 12 & 0xFF for n in range(16 * 4096))
    space.write(region.base, data)
    for position in range(8):
        assert topo.devices[f"cxl_mem.{position}"].read(GIB, 1) == bytes([position])
    assert space.store(region.base + 4096 - 4, 8, 0) == MemTxResult.OK


def test_old_and_new_hosts_do_not_mix():
    plan = blueprint()
    assert plan.bridges[3].restricted
    topo = cxl_test()
    assert errno.ENXIO in {p.errno for p in topo.check(window="window5", devices=["cxl_mem.0"], size=256 * MIB)}
    with pytest.raises((TopologyError, CommitError), match="must be below host_bridge"):
        topo.create_region("window5", ["cxl_mem.0"], size=256 * MIB)
