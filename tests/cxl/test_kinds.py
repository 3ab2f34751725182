"""Windows that are more than a plain interleave, partitions, and deep or wide machines."""

import random
from dataclasses import replace

import pytest

from cxl import Backing, CommitError, DevicePlan, Miss, PortPlan, Route, SwitchPlan, Topology, TopologyError
from mmu import AddressSpace, MemTxResult
from tests.cxl.machines import BASE, MIB, add_device, blueprint, machine
from tests.cxl.test_routes import by_levels, flattened, samples

GIB = 1 << 30


def with_window(plan, **changes):
    plan.windows[0] = replace(plan.windows[0], **changes)
    return plan


def agree(topo, count=200):
    for hpa in samples(topo.windows[0], 4096, count):
        assert flattened(topo, hpa) == by_levels(topo, hpa)


# -- extended linear cache -------------------------------------------------------------------------------


def elc():
    return Topology(with_window(blueprint(1, 2, granularity=4096, size=GIB), cache=512 * MIB))


def test_extended_linear_cache_region_covers_dram_and_cxl():
    """The region is the whole window, every decoder its upper half; a DPA is at base + cache + offset."""
    topo = elc()
    (region,) = topo.commit()
    assert (region.base, region.size, region.share) == (BASE, GIB, 256 * MIB)
    for block in [d.registers for d in topo.devices.values()] + [topo.bridges["hb0"].registers]:
        assert (block.settings(0).base, block.settings(0).size) == (BASE + 512 * MIB, 512 * MIB)
    assert topo.encode("m1", 0x10) == [BASE + 512 * MIB + 4096 + 0x10]
    assert topo.decode(BASE + 5) == Miss("platform", "0x1000000005 is in the DRAM that caches window window0")


def test_extended_linear_cache_dram_answers_on_the_bus():
    topo = elc()
    space = AddressSpace()
    topo.attach(space)
    topo.commit()
    assert space.store(BASE, 8, 7) == MemTxResult.OK
    assert space.load(BASE, 8) == (7, MemTxResult.OK)
    assert topo.devices["m0"].read(0, 8) == bytes(8)
    space.store(BASE + 512 * MIB, 8, 9)
    assert topo.devices["m0"].read(0, 1) == b"\x09"


def test_region_offset_inside_the_cache_is_refused():
    topo = elc()
    (region,) = topo.commit()
    with pytest.raises(TopologyError, match=r"offset must be in 0x20000000..0x3fffffff, not 0x600"):
        topo.locate(region, 0x600)
    found = topo.locate(region, 512 * MIB + 4096)
    assert (found.device, found.dpa) == ("m1", 0)
    with pytest.raises(TopologyError, match="not 0x40000000"):
        topo.locate(region, GIB)


def test_extended_linear_cache_wrong():
    with pytest.raises(TopologyError, match="only a cache of half the window is supported, not 0x10000000 of 0x4"):
        Topology(with_window(blueprint(1, 2, size=GIB), cache=256 * MIB))
    topo = elc()
    with pytest.raises(TopologyError, match="it takes one region of 0x40000000 bytes, not 0x30000000"):
        topo.create_region(0, size=768 * MIB)
    topo.commit()
    with pytest.raises(TopologyError, match="nothing below it is left"):
        topo.commit(0)


# -- low-memory hole -------------------------------------------------------------------------------------


def test_low_memory_hole():
    """A 12-way window of 2 GiB from 0 with decoders of 3 GiB: what is above the window cannot be reached."""
    topo = machine(12, 1, base=0, size=2 * GIB)
    space = AddressSpace()
    topo.attach(space)
    (region,) = topo.commit()
    assert (region.base, region.size, region.ways) == (0, 3 * GIB, 12)
    assert isinstance(topo.decode(2 * GIB - 1), Route)
    assert topo.decode(2 * GIB) == Miss("platform", "0x80000000 is in no window")
    assert space.load(2 * GIB - 8, 8)[1] == MemTxResult.OK
    assert topo.encode("m3", 2 * GIB // 12 + 256 * 12) == []
    agree(topo)


def test_a_window_elsewhere_has_no_hole():
    with pytest.raises(TopologyError, match="leave window"):
        machine(12, 1, size=2 * GIB).create_region(0, size=3 * GIB)


# -- normalized addresses --------------------------------------------------------------------------------


def normalized(ports=4, capacity=GIB):
    return Topology(with_window(blueprint(1, ports, capacity=capacity), normalized=True))


def test_normalized_addresses():
    """Devices decode 1 way from 0; the host bridge interleaves and takes that out. The same bytes, other registers."""
    topo, plain = normalized(), machine(1, 4, capacity=GIB)
    (region,) = topo.commit()
    plain.commit()
    s = topo.devices["m2"].registers.settings(0)
    assert (s.base, s.size, s.ways) == (0, GIB, 1)
    assert topo.bridges["hb0"].registers.settings(0).base == BASE
    for hpa in samples(topo.windows[0], 256, 100):
        assert by_levels(topo, hpa) == by_levels(plain, hpa)
        assert flattened(topo, hpa) == by_levels(topo, hpa)
        found = topo.decode(hpa)
        assert topo.encode(found.device, found.dpa) == [hpa]
    assert region.ways == 4


def test_normalized_with_several_device_decoders():
    """Edges of device decoders stand at multiples of the bridge's ways in HPAs."""
    topo = normalized(2, 2 * GIB)
    assert topo.bridges["hb0"].registers.program(0, BASE, 4 * GIB, 2, 512, (0, 1)) == ""
    for device in topo.devices.values():
        assert device.registers.program(0, 0, 256 * MIB, 1, 256, skip=256 * MIB) == ""
        assert device.registers.program(1, 512 * MIB, GIB, 1, 256) == ""
    assert by_levels(topo, BASE) == ("m0", 256 * MIB)
    assert by_levels(topo, BASE + 512 * MIB) == ("miss", True)
    assert by_levels(topo, BASE + GIB + 512) == ("m1", 512 * MIB)
    agree(topo, 400)


def test_normalized_device_that_interleaves_is_refused():
    topo = normalized(2)
    topo.bridges["hb0"].registers.program(0, BASE, 2 * GIB, 2, 512, (0, 1))
    topo.devices["m0"].registers.program(0, 0, 2 * GIB, 2, 256)
    assert "interleaves below a host bridge that normalizes" in topo.decode(BASE).reason
    agree(topo)


def test_normalized_wrong():
    with pytest.raises(TopologyError, match="need one target"):
        Topology(with_window(blueprint(2, 1), normalized=True))
    with pytest.raises(TopologyError, match="no switches"):
        Topology(with_window(blueprint(1, 1, 2), normalized=True))
    topo = normalized()
    topo.create_region(0, size=GIB)
    with pytest.raises(CommitError, match="m0 refused: decoder 1 begins at 0x0, below the end"):
        topo.create_region(0, size=GIB)


# -- partitions ------------------------------------------------------------------------------------------


def dynamic():
    plan = blueprint(1, 1, size=4 * GIB)
    plan.devices[0] = DevicePlan("m0", "rp0.0", Backing("v", 256 * MIB), Backing("p", 256 * MIB),
                                 dynamic=Backing("d", GIB), dynamic_regions=2)
    return Topology(plan)


def test_dynamic_capacity_answers_where_an_extent_is_accepted():
    topo = dynamic()
    space = AddressSpace()
    topo.attach(space)
    device = topo.devices["m0"]
    region = topo.create_region(0, mode="dc", size=GIB)
    assert device.registers.settings(0).skip == 512 * MIB
    assert space.store(region.base, 8, 1) == MemTxResult.ERROR
    assert "dynamic capacity of which no extent is accepted" in topo.decode(region.base).reason

    device.accept(512 * MIB + 4 * MIB, 2 * MIB)
    assert space.store(region.base + 4 * MIB, 8, 1) == MemTxResult.OK
    assert space.store(region.base + 6 * MIB - 4, 8, 1) == MemTxResult.ERROR
    assert topo.decode(region.base + 4 * MIB).dpa == 516 * MIB
    assert device.partition(516 * MIB) == "dc"
    agree(topo)

    device.release(512 * MIB + 4 * MIB, 2 * MIB)
    assert space.load(region.base + 4 * MIB, 8) == (0, MemTxResult.ERROR)


def test_extents_wrong():
    device = dynamic().devices["m0"]
    device.accept(512 * MIB, 4 * MIB)
    for dpa, size, message in [
        (0, 2 * MIB, r"whole blocks of 2 MiB in 0x20000000..0x60000000, not 0x0\+0x200000"),
        (513 * MIB, 2 * MIB, "whole blocks"), (1024 * MIB + 510 * MIB, 4 * MIB, "whole blocks"),
        (514 * MIB, 2 * MIB, "overlaps 0x20000000..0x203fffff"),
    ]:
        with pytest.raises(TopologyError, match=message):
            device.accept(dpa, size)
    with pytest.raises(TopologyError, match="is no accepted extent"):
        device.release(512 * MIB, 2 * MIB)


def test_regions_in_partition_order():
    """ram, then pmem, then dc; each skips what it leaves free below."""
    topo = dynamic()
    for mode, size in (("ram", 256 * MIB), ("pmem", 256 * MIB), ("dc", 512 * MIB)):
        topo.create_region(0, mode=mode, size=size)
    assert [s.dpa for s in topo.devices["m0"].registers.ranges()] == [0, 256 * MIB, 512 * MIB]
    with pytest.raises(TopologyError):
        topo.create_region(0, mode="ram", size=256 * MIB)


# -- deep and wide ---------------------------------------------------------------------------------------


def test_three_levels_of_switches():
    plan = blueprint(1, 1, 2, size=2 * GIB)
    plan.devices.clear()
    for a in range(2):
        plan.switches.append(SwitchPlan(f"t{a}", f"dp0.0.{a}"))
        for b in range(2):
            plan.ports.append(PortPlan(f"tp{a}.{b}", f"t{a}", b))
            plan.switches.append(SwitchPlan(f"u{a}{b}", f"tp{a}.{b}"))
            for c in range(2):
                plan.ports.append(PortPlan(f"up{a}.{b}.{c}", f"u{a}{b}", c))
                add_device(plan, f"up{a}.{b}.{c}")
    topo = Topology(plan)
    (region,) = topo.commit()
    assert region.ways == 8
    found = topo.decode(BASE + 6 * 256)
    assert [lv.name for lv in found.levels] == ["window0", "hb0", "sw0.0", "t0", "u01", "m3"]
    assert (found.device, found.dpa) == ("m3", 0)
    agree(topo)


def test_32_regions_of_one_device():
    topo = machine(1, 1, decoders=32, capacity=32 * 256 * MIB, size=32 * 256 * MIB)
    for _ in range(32):
        topo.create_region(0, size=256 * MIB)
    rng = random.Random(7)
    for _ in range(100):
        hpa = BASE + rng.randrange(32 * 256 * MIB)
        assert by_levels(topo, hpa) == ("m0", hpa - BASE) == flattened(topo, hpa)
    assert len(topo.route(0).spans) == 32


def test_terabytes():
    topo = machine(4, 4, capacity=1 << 40, base=1 << 44, size=16 << 40)
    (region,) = topo.commit()
    assert region.size == 16 << 40
    rng = random.Random(3)
    for _ in range(200):
        hpa = region.base + rng.randrange(region.size)
        found = topo.decode(hpa)
        assert topo.encode(found.device, found.dpa) == [hpa]
        assert flattened(topo, hpa) == (found.device, found.dpa)


def test_cyclic_and_dangling_switches():
    plan = blueprint(1, 1, 1)
    plan.switches.append(SwitchPlan("x", "xp"))
    plan.ports.append(PortPlan("yp", "x", 0))
    plan.switches.append(SwitchPlan("y", "yp"))
    plan.ports.append(PortPlan("xp", "y", 0))
    with pytest.raises(TopologyError, match="switches form a cycle: x -> y -> x"):
        Topology(plan)
    plan = blueprint()
    plan.switches.append(SwitchPlan("x", "nowhere"))
    with pytest.raises(TopologyError, match=r"x is in port nowhere, but there is only rp0\.0"):
        Topology(plan)


def test_poison_on_decode_error_is_reported():
    topo = machine(1, 2)
    block = topo.bridges["hb0"].registers
    block.write32(0x112C, 3)
    assert not topo.decode(BASE).poison  # the capability is not there
    topo = Topology(blueprint(1, 2), strict=False)
    topo.bridges["hb0"].registers.write32(0x112C, 1)
    assert topo.decode(BASE).poison
