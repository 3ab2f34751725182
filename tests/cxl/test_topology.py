"""The way from a topology to bytes in devices, and regions."""

import pytest

from cxl import CommitError, Miss, Route, Topology, TopologyError
from mmu import AddressSpace, MemTxResult, Ram
from mmu.errors import AddressRangeError, RegionOverlapError
from tests.cxl.machines import BASE, MIB, machine


@pytest.fixture
def default():
    topo = Topology.default()
    space = AddressSpace()
    topo.attach(space)
    return topo, space


def test_default_topology_interleaves_two_devices(default):
    topo, space = default
    (region,) = topo.commit()
    base = topo.windows[0].base
    assert (base, region.size, region.ways) == (0x2F0000000, 512 * MIB, 2)

    assert space.store(base + 0xFC, 8, 0x1122334455667788) == MemTxResult.OK

    assert topo.devices["mem0"].read(0xFC, 8) == bytes.fromhex("8877665500000000")
    assert topo.devices["mem1"].read(0, 4) == bytes.fromhex("44332211")
    assert space.load(base + 0xFC, 8) == (0x1122334455667788, MemTxResult.OK)


def test_a_device_byte_is_seen_at_its_hpa(default):
    topo, space = default
    topo.commit()
    topo.devices["mem1"].write(0x140, b"\xa5")
    (hpa,) = topo.encode("mem1", 0x140)
    assert hpa == topo.windows[0].base + 0x340
    assert space.load(hpa, 1) == (0xA5, MemTxResult.OK)
    place = space.place(hpa)
    assert (place.device, place.dpa) == ("mem1", 0x140)


def test_uncommitted_window_drops_writes_and_refuses_reads(default):
    topo, space = default
    base = topo.windows[0].base
    assert space.store(base, 8, 1) == MemTxResult.OK
    assert space.load(base, 8) == (0, MemTxResult.ERROR)
    assert topo.devices["mem0"].read(0, 8) == bytes(8)


def test_device_refusal_errs_on_writes_too():
    """The bridges route, the device's decoder is gone: a write errs (it reached a device)."""
    topo = machine(1, 2)
    space = AddressSpace()
    topo.attach(space)
    topo.commit()
    topo.devices["m0"].registers.uncommit(0)

    assert space.store(BASE, 8, 1) == MemTxResult.ERROR
    assert space.load(BASE, 8) == (0, MemTxResult.ERROR)
    assert space.store(BASE + 256, 8, 1) == MemTxResult.OK
    miss = topo.decode(BASE)
    assert isinstance(miss, Miss) and miss.at_device and miss.level == "device m0"


def test_commit_and_uncommit_show_at_once(default):
    topo, space = default
    (region,) = topo.commit()
    assert space.load(region.base, 8)[1] == MemTxResult.OK
    topo.destroy_region(region)
    assert space.load(region.base, 8)[1] == MemTxResult.ERROR
    assert topo.regions == {}
    topo.commit()
    assert space.load(region.base, 8)[1] == MemTxResult.OK


def test_commit_again_finds_nothing_to_do(default):
    topo, _ = default
    topo.commit()
    assert topo.commit() == []
    with pytest.raises(TopologyError, match="window window0: nothing below it is left to commit"):
        topo.commit("window0")


def test_decode_explains_every_level():
    topo = machine(2, 2, 2, granularity=4096)
    topo.commit()
    found = topo.decode(BASE + 5 * 4096 + 7)
    assert isinstance(found, Route)
    assert [(lv.kind, lv.name, lv.ways, lv.granularity, lv.index) for lv in found.levels] == [
        ("window", "window0", 2, 4096, 1),
        ("host bridge", "hb1", 2, 8192, 0),
        ("switch", "sw1.0", 2, 16384, 1),
        ("device", "m5", 8, 4096, 5),
    ]
    assert (found.device, found.dpa) == ("m5", 7)
    assert str(found.levels[1]) == "host bridge hb1: decoder 0, 2 ways @ 8192, index 0 -> rp1.0"


def test_decode_outside_every_window():
    assert machine().decode(0x1000) == Miss("platform", "0x1000 is in no window")
    with pytest.raises(AddressRangeError):
        machine().decode(1 << 64)


def test_commit_uses_what_a_first_region_left():
    """Three devices under one bridge: two share a region, the third has one of its own; then persistent memory."""
    topo = machine(1, 3, persistent=512 * MIB, size=8 << 30)
    regions = topo.commit()
    assert [(r.mode, [d.name for d in r.devices], r.size) for r in regions] == [
        ("ram", ["m0", "m1"], 512 * MIB),
        ("ram", ["m2"], 256 * MIB),
        ("pmem", ["m0", "m1"], 1024 * MIB),
        ("pmem", ["m2"], 512 * MIB),
    ]
    assert topo.devices["m2"].partition(topo.decode(regions[3].base).dpa) == "pmem"


def test_persistent_region_skips_free_volatile_memory():
    topo = machine(1, 1, persistent=256 * MIB)
    region = topo.create_region(0, ["m0"], mode="pmem")
    assert topo.decode(region.base).dpa == 256 * MIB
    assert topo.devices["m0"].registers.settings(0).skip == 256 * MIB
    with pytest.raises(TopologyError):  # DPA is given out upwards only
        topo.create_region(0, ["m0"], mode="ram")


def test_a_region_is_programmed_bottom_up_and_taken_down_top_down():
    """No address is routed to a device that does not decode it yet, or no longer."""
    topo = machine(1, 2, 2)
    order = []
    blocks = [n.registers for n in (*topo.devices.values(), *topo.switches.values(), *topo.bridges.values())]
    for block in blocks:
        block.changed = lambda block=block: order.append((block.name, bool(block.committed)))
    region = topo.create_region(0)
    assert [n for n, done in dict.fromkeys(order) if done] == ["m0", "m2", "m1", "m3", "sw0.0", "sw0.1", "hb0"]
    order.clear()
    topo.destroy_region(region)
    assert [n for n, _ in order] == ["hb0", "sw0.1", "sw0.0", "m3", "m1", "m2", "m0"]


def test_region_that_fails_leaves_nothing_programmed():
    """The bridge has used its decoders, so the devices' decoders are undone."""
    topo = machine(1, 2, decoders=2, capacity=1024 * MIB)
    for _ in range(2):
        topo.create_region(0, ["m0"], size=256 * MIB)
    before = {d.name: dict(d.registers.committed) for d in topo.devices.values()}
    route = topo.route(0)
    with pytest.raises(CommitError, match=r"hb0 has no free decoder, all 2 are used"):
        topo.create_region(0, ["m1"], size=256 * MIB)
    assert {d.name: d.registers.committed for d in topo.devices.values()} == before
    assert topo.route(0) == route
    assert list(topo.regions) == ["region0", "region1"]


@pytest.mark.parametrize("devices, message", [
    (["m0", "m0"], "two positions"),
    (["m9"], "there is no device m9"),
    (["m0", "m1", "m2"], "m1 at position 1 must be below port 0 of sw0.0, not below port 1"),
    (["m0", "m2", "m1"], r"hb0 must have equally many devices below each port, not \{0: 2, 1: 1\}"),
])
def test_create_region_wrong_devices(devices, message):
    topo = machine(1, 2, 2)
    with pytest.raises(TopologyError, match=message):
        topo.create_region(0, devices)


def test_create_region_wrong_bridge():
    with pytest.raises(TopologyError, match=r"m1 at position 0 must be below hb0 \(root target 0\), not below hb1"):
        machine(2, 1).create_region(0, ["m1", "m0"])


def test_create_region_wrong_numbers():
    topo = machine(2, 1)
    for kwargs, message in [
        ({"size": 256 * MIB}, "multiple of 2 ways"), ({"size": 1 << 40}, "leave window"),
        ({"granularity": 512}, "interleaves at 256"), ({"mode": "dram"}, "mode must be"),
    ]:
        with pytest.raises(TopologyError, match=message):
            topo.create_region(0, **kwargs)
    with pytest.raises(TopologyError, match="there is no window 7"):
        topo.create_region(7)


def test_regions_are_destroyed_highest_first():
    topo = machine(1, 1, capacity=512 * MIB)
    topo.create_region(0, size=256 * MIB)
    topo.create_region(0, size=256 * MIB)
    with pytest.raises(TopologyError, match="decoder 1 above decoder 0 is still committed"):
        topo.destroy_region("region0")
    topo.destroy_region("region1")
    topo.destroy_region("region0")


def test_attach_undoes_itself_when_something_is_in_the_way():
    topo = machine()
    space = AddressSpace()
    space.map(BASE, Ram(4096))
    with pytest.raises(RegionOverlapError):
        topo.attach(space)
    assert [r.region.name for r in space.view.ranges] == ["ram"]


def test_passthrough_bridge_needs_no_decoder():
    topo = machine(2, 1, passthrough=True)
    topo.commit()
    level = topo.decode(BASE + 256).levels[1]
    assert (level.decoder, level.target) == (None, "rp1.0")


def test_device_access_outside():
    device = machine().devices["m0"]
    with pytest.raises(TopologyError, match=r"0x8 bytes at DPA 0xffffffc leave its 0x10000000 bytes"):
        device.read(256 * MIB - 4, 8)
