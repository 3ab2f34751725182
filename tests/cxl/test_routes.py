"""Compiled routes against the registers, level by level, and against plain integers."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxl import Miss, Route, Topology
from cxl import format as fmt
from mmu import AddressSpace, MemTxResult, stripes
from mmu.stripes import GRANULARITIES
from tests.cxl.machines import BASE, MIB, blueprint, machine

# (bridges, root ports, devices below each switch; 0: no switch)
SHAPES = [
    (1, 1, 0), (1, 2, 0), (2, 1, 0), (3, 1, 0), (4, 1, 0), (2, 2, 0), (1, 4, 0), (6, 1, 0), (8, 1, 0), (2, 4, 0),
    (1, 8, 0), (12, 1, 0), (16, 1, 0), (4, 4, 0), (1, 1, 2), (2, 2, 2), (1, 2, 8), (4, 2, 2), (2, 8, 0),
]  # fmt: skip
MOD3_SHAPES = [(3, 1, 0), (6, 1, 0), (12, 1, 0), (3, 2, 0), (3, 4, 0), (6, 2, 0), (3, 2, 2)]
XOR_MAPS = (0x404100, 0x808200, 0x1010400, 0x2020800)


def flattened(topo, hpa):
    """What the bus would do, in the words of `decode`: (device, DPA), or the side effects of a miss."""
    found = topo.route(0).locate(hpa)
    if isinstance(found, stripes.Miss):
        return ("miss", found.at_device)
    device = list(topo.devices.values())[found[0]]
    return (device.name, found[1]) if found[1] < device.capacity else ("miss", True)


def by_levels(topo, hpa):
    found = topo.decode(hpa)
    return ("miss", found.at_device) if isinstance(found, Miss) else (found.device, found.dpa)


def samples(window, granularity, count=60):
    rng = random.Random(granularity)
    edges = [window.base, window.last, window.base + granularity - 1, window.base + granularity]
    return edges + [rng.randrange(window.base, window.last + 1) for _ in range(count)]


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape_and_granularity(shape, granularity):
    """Identity both ways; the flattened route equals the levels; the DPA is the plain-integer one."""
    topo = machine(*shape, granularity=granularity, base=48 << 30)  # a multiple of 12 x 256 MiB: position is index
    (region, *_) = topo.commit()
    ways, base = region.ways, region.base
    for hpa in (h for h in samples(topo.windows[0], granularity) if h <= region.last):
        found = topo.decode(hpa)
        assert isinstance(found, Route)
        assert found.dpa == stripes.dpa_offset(hpa - base, ways, granularity)
        assert found.device == region.devices[stripes.position(hpa - base, ways, granularity)].name
        assert topo.encode(found.device, found.dpa) == [hpa]
        assert flattened(topo, hpa) == (found.device, found.dpa)


@pytest.mark.parametrize("shape", MOD3_SHAPES, ids=str)
@pytest.mark.parametrize("at", [0, 1, 2, 5])
def test_mod3_window_at_any_base(shape, at):
    """The root index follows the absolute HPA, so it turns with the base; every byte still has one place."""
    topo = machine(*shape, base=at * 256 * MIB)
    (region,) = topo.commit()
    seen = {}
    for chunk in range(4 * region.ways):
        hpa = region.base + chunk * 256 + 5
        found = topo.decode(hpa)
        assert found.levels[0].index == hpa // 256 % shape[0]
        assert topo.encode(found.device, found.dpa) == [hpa]
        assert flattened(topo, hpa) == (found.device, found.dpa)
        seen[found.device, found.dpa] = hpa
    assert seen.keys() == {(d.name, n * 256 + 5) for d in region.devices for n in range(4)}


@pytest.mark.parametrize("bridges", [1, 2, 3, 4, 6, 8, 12, 16])
def test_xor_window(bridges):
    """Each index bit is the parity of the HPA under its map; the device still strips the same bits."""
    topo = machine(bridges, 1, maps=XOR_MAPS)
    (region,) = topo.commit()
    seen = set()
    for hpa in samples(topo.windows[0], 256, 200):
        found = topo.decode(hpa)
        # Linux' form: undo the XOR in the address, then modulo.
        power = topo.windows[0].power
        assert found.levels[0].index == stripes.xor_address(hpa, XOR_MAPS[:power]) // 256 % bridges
        assert found.dpa == stripes.dpa_offset(hpa - region.base, bridges, 256)
        assert topo.encode(found.device, found.dpa) == [hpa]
        assert flattened(topo, hpa) == (found.device, found.dpa)
        seen.add(found.device)
    assert len(seen) == bridges


def test_xor_differs_from_modulo():
    """The test above could pass with maps that do nothing; these do something."""
    xor, plain = machine(2, 1, maps=XOR_MAPS), machine(2, 1)
    for topo in (xor, plain):
        topo.commit()
    assert xor.decode(BASE + 0x4000).device == "m1"
    assert plain.decode(BASE + 0x4000).device == "m0"


@pytest.mark.parametrize("shape, granularity, maps", [
    ((2, 2, 0), 8192, None), ((3, 1, 0), 16384, None), ((2, 2, 0), 4096, (0x3041000,)), ((1, 2, 2), 8192, None),
], ids=str)
def test_exhaustive_bijection(shape, granularity, maps):
    """Every granule of a window lands on one granule of one device, and all of them are hit."""
    topo = machine(*shape, granularity=granularity, maps=maps)
    (region,) = topo.commit()
    locate = topo.route(0).locate
    hit = {locate(hpa) for hpa in range(region.base, region.last + 1, granularity)}
    assert hit == {(d.number, dpa) for d in region.devices for dpa in range(0, 256 * MIB, granularity)}


def test_port_first_layout_by_registers():
    """Window 512, bridges 256, devices 4 ways @ 256: position = bridge * 2 + port. Legal, and Linux never does it."""
    topo = machine(2, 2, granularity=512)
    size = 1024 * MIB
    for device in topo.devices.values():
        assert device.registers.program(0, BASE, size, 4, 256) == ""
    for node in topo.bridges.values():
        assert node.registers.program(0, BASE, size, 2, 256, (0, 1)) == ""
    for chunk in range(16):
        found = topo.decode(BASE + chunk * 256)
        assert (found.device, found.dpa) == (f"m{chunk % 4}", chunk // 4 * 256)
        assert flattened(topo, BASE + chunk * 256) == (found.device, found.dpa)


def test_bridges_with_different_port_counts():
    """One bridge has two devices at 512, the other one device: 3 devices, a 2-way window, two device encodings."""
    plan = blueprint(2, 2, granularity=256)
    plan.devices.pop()
    topo = Topology(plan)
    size = 512 * MIB
    topo.devices["m0"].registers.program(0, BASE, 1024 * MIB, 4, 256)
    topo.devices["m1"].registers.program(0, BASE, 1024 * MIB, 4, 256)
    topo.devices["m2"].registers.program(0, BASE, size, 2, 256)
    topo.bridges["hb0"].registers.program(0, BASE, 1024 * MIB, 2, 512, (0, 1))
    topo.bridges["hb1"].registers.program(0, BASE, size, 1, 256, (0,))
    assert [by_levels(topo, BASE + n * 256) for n in range(6)] == [
        ("m0", 0), ("m2", 0), ("m1", 0), ("m2", 256), ("m0", 256), ("m2", 512)]
    assert len(topo.route(0).spans) == 2  # hb1's half ends earlier
    for hpa in samples(topo.windows[0], 256, 300):
        assert flattened(topo, hpa) == by_levels(topo, hpa)


def test_store_over_a_granule_edge_lands_in_two_devices():
    for shape in ((1, 2, 0), (2, 1, 0), (3, 1, 0), (2, 2, 2)):
        topo = machine(*shape)
        space = AddressSpace()
        topo.attach(space)
        (region,) = topo.commit()
        for start in range(249, 257):
            data = bytes(range(start, start + 8)) if start < 248 else bytes((start + i) & 255 for i in range(8))
            hpa = region.base + start
            assert space.store(hpa, 8, int.from_bytes(data, "little")) == MemTxResult.OK
            for i, byte in enumerate(data):
                found = topo.decode(hpa + i)
                assert topo.devices[found.device].read(found.dpa, 1)[0] == byte


def test_block_through_the_bus_equals_bytes_by_decode():
    topo = machine(3, 2, granularity=512, base=256 * MIB)
    space = AddressSpace()
    topo.attach(space)
    (region,) = topo.commit()
    data = random.Random(1).randbytes(20_000)
    space.write(region.base + 77, data)
    for i in range(0, len(data), 7):
        found = topo.decode(region.base + 77 + i)
        assert topo.devices[found.device].read(found.dpa, 1)[0] == data[i]


# -- any registers whatever ------------------------------------------------------------------------------

CHUNK = 256 * MIB


@st.composite
def machines(draw, strict):
    maps = draw(st.sampled_from([None, (0x404100, 0x808200), (0x1000, 0x2000)]))
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(0, 2))
    return machine(*shape, granularity=draw(st.sampled_from(GRANULARITIES)), maps=maps, size=8 * CHUNK, strict=strict,
                   capacity=draw(st.sampled_from([CHUNK, 3 * CHUNK, CHUNK + 4096, 32 * CHUNK])))


def blocks(topo):
    return [n.registers for n in (*topo.bridges.values(), *topo.switches.values(), *topo.devices.values())]


@st.composite
def orderly(draw):
    """Decoders that the specification accepts, but of sizes and interleave that need not fit one another."""
    topo = draw(machines(strict=True))
    for block in blocks(topo):
        base = BASE
        for n in range(draw(st.integers(1, 3))):
            base += draw(st.sampled_from([0, 0, 0, 1])) * CHUNK
            ways = draw(st.sampled_from([1, 2, 3, 4, 6, 16] if block.device else [1, 2, 4, 8]))
            size = ways * CHUNK * draw(st.integers(1, 3))
            targets = tuple(draw(st.lists(st.integers(0, 3), min_size=ways, max_size=ways)))
            skip = draw(st.sampled_from([0, 0, 1])) * CHUNK
            block.program(n, base, size, ways, draw(st.sampled_from(GRANULARITIES)), targets, skip)
            base += size
    return topo


@st.composite
def anything(draw):
    """Registers of a permissive machine that hold anything, committed or not."""
    topo = draw(machines(strict=False))
    for block in blocks(topo):
        for n in range(draw(st.integers(1, 3))):
            base = BASE + draw(st.sampled_from([0, 0, 0, 0, 1, 3])) * CHUNK
            values = {
                fmt.BASE_LOW: base & 0xFFFF_FFFF, fmt.BASE_HIGH: base >> 32,
                fmt.SIZE_LOW: draw(st.integers(0, 12)) * CHUNK & 0xFFFF_FFFF,
                fmt.TARGETS_LOW: draw(st.sampled_from([0, 0x0100, 0x03020100, 0x01000100, 0x10000000])),
                fmt.TARGETS_HIGH: 0 if block.device else draw(st.sampled_from([0, 0x01000100])),
            }
            for field, value in values.items():
                block.write32(block.offset(n, field), value)
            ig, iw = draw(st.integers(0, 7)), draw(st.sampled_from([0, 0, 1, 1, 2, 3, 4, 5, 8, 9]))
            commit = draw(st.integers(0, 9)) > 0
            block.write32(block.offset(n, fmt.CONTROL), fmt.DecoderControl.make(IG=ig, IW=iw, COMMIT=commit))
    return topo


programmed = st.one_of(orderly(), anything())


@settings(max_examples=150, deadline=None)
@given(topo=programmed, seed=st.integers(0, 1 << 30))
def test_flattened_equals_level_by_level(topo, seed):
    rng = random.Random(seed)
    window = topo.windows[0]
    edges = [s.first + d for s in topo.route(0).spans for d in (-1, 0)] + [window.base, window.last]
    points = edges + [rng.randrange(window.base, window.last + 1) for _ in range(60)]
    points += [window.base + rng.randrange(8) * CHUNK + rng.randrange(40) * 256 for _ in range(40)]
    for hpa in (p for p in points if window.base <= p <= window.last):
        assert flattened(topo, hpa) == by_levels(topo, hpa)


@settings(max_examples=40, deadline=None)
@given(topo=programmed, seed=st.integers(0, 1 << 30))
def test_bus_agrees_with_level_by_level(topo, seed):
    """Through C: a store's result and the byte that it changes are what `decode` says of each byte."""
    rng = random.Random(seed)
    space = AddressSpace()
    topo.attach(space)
    window = topo.windows[0]
    for _ in range(30):
        edge = rng.randrange(1, 64) * 256 - rng.randrange(8)
        hpa = window.base + rng.randrange(8) * CHUNK + rng.choice([edge, rng.randrange(CHUNK - 8)])
        value = rng.randbytes(8)
        result = space.store(hpa, 8, int.from_bytes(value, "little"))
        ends = [topo.decode(hpa + i) for i in range(8)]
        refused = any(isinstance(e, Miss) and e.at_device for e in ends)
        assert result == (MemTxResult.ERROR if refused else MemTxResult.OK)
        last = {(e.device, e.dpa): i for i, e in enumerate(ends) if isinstance(e, Route)}
        for (device, dpa), i in last.items():
            assert topo.devices[device].read(dpa, 1)[0] == value[i]


@settings(max_examples=100, deadline=None)
@given(topo=programmed)
def test_granule_lies_in_one_place(topo):
    """A whole granule goes to one device, at neighbouring DPAs, and none of a span's slots leaves its device."""
    devices = list(topo.devices.values())
    for span in topo.route(0).spans:
        step = min(span.granule, CHUNK)
        for start in range(span.first, min(span.last, span.first + 20 * step), step):
            end = min(start + step - 1, span.last)
            first = span.locate(start)
            for inside in {min(start + n * 256, end) for n in range(64)} | {end}:
                found = span.locate(inside)
                if isinstance(first, stripes.Miss):
                    assert found is first
                else:
                    assert (found[0], found[1] - first[1]) == (first[0], inside - start)
        for slot in span.slots:
            if isinstance(slot, stripes.Slot):
                groups = (span.last + 1 - slot.base) // (slot.ways * slot.granularity)
                assert slot.dpa + (groups - 1) * slot.granularity < devices[slot.target].capacity


@settings(max_examples=40, deadline=None)
@given(topo=programmed, seed=st.integers(0, 1 << 30))
def test_encode_is_the_inverse_of_decode(topo, seed):
    """encode(decode(hpa)) holds hpa, and everything that it holds decodes to the same byte."""
    rng = random.Random(seed)
    for _ in range(20):
        hpa = BASE + rng.randrange(8) * CHUNK + rng.randrange(CHUNK)
        found = topo.decode(hpa)
        if isinstance(found, Route):
            back = topo.encode(found.device, found.dpa)
            assert hpa in back
            assert all(by_levels(topo, h) == (found.device, found.dpa) for h in back)
