"""Batches against single translations."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxl import Backing, DevicePlan, Miss, Topology, WindowPlan
from tests.cxl.machines import BASE, MIB, blueprint, machine
from tests.cxl.test_routes import CHUNK, MOD3_SHAPES, SHAPES, XOR_MAPS, programmed

OUTSIDE, NO_DEVICE, REFUSED = 1, 2, 3


def one(topo, hpa):
    """What `decode` says, as a row of `decode_many`."""
    found = topo.decode(hpa)
    if isinstance(found, Miss):
        return (0, 0, OUTSIDE if found.level == "platform" else REFUSED if found.at_device else NO_DEVICE)
    return (found.dpa, topo.devices[found.device].number, 0)


def check(topo, hpas):
    """Both directions; in an order that keeps neighbours together and in one that does not."""
    for order in (hpas, sorted(hpas)):
        rows = topo.decode_many(np.array(order, np.uint64))
        assert [tuple(r) for r in rows.tolist()] == [one(topo, h) for h in order]
    names = list(topo.devices)
    here = [(row["device"], row["dpa"]) for row in rows if row["status"] == 0]
    back = topo.encode_many(np.array([d for d, _ in here], np.uint32), np.array([a for _, a in here], np.uint64))
    for (device, dpa), row in zip(here, back):
        hpas = topo.encode(names[device], int(dpa))
        assert (row["hpa"], row["count"]) == (hpas[0], len(hpas))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("maps", [None, XOR_MAPS], ids=["modulo", "xor"])
def test_every_shape(shape, maps):
    topo = machine(*shape, granularity=512, maps=maps)
    topo.commit()
    rng = random.Random(5)
    size = topo.windows[0].size
    check(topo, [BASE + rng.randrange(-4096, size + 4096) for _ in range(300)])


@settings(max_examples=30, deadline=None)
@given(topo=programmed, seed=st.integers(0, 1 << 30))
def test_any_registers(topo, seed):
    rng = random.Random(seed)
    hpas = [BASE + rng.randrange(-1, 9) * CHUNK + rng.randrange(CHUNK) for _ in range(20)]
    hpas += [s.first + d for s in topo.route(0).spans for d in (-1, 0)]
    check(topo, [*hpas, 0, (1 << 64) - 1, topo.windows[0].last, topo.windows[0].last + 1])


def test_windows_apart():
    """64 windows, a terabyte from one another; addresses between them are outside."""
    plan = blueprint(2, 1, decoders=32, capacity=32 * 256 * MIB)
    plan.windows[:] = [
        WindowPlan(f"w{n}", (n + 1) << 40, 512 * MIB, 256, (("hb0", "hb1"), ("hb1", "hb0"))[n % 2]) for n in range(64)]
    topo = Topology(plan)
    for n in range(32):
        topo.create_region(n, size=512 * MIB)
    rng = random.Random(9)
    hpas = [((rng.randrange(66)) << 40) + rng.choice([-1, 0, rng.randrange(600 * MIB)]) for _ in range(600)]
    check(topo, [h for h in hpas if h >= 0])


def test_a_commit_is_seen_by_the_next_batch():
    topo = machine(1, 2)
    hpas = np.array([BASE], np.uint64)
    assert topo.decode_many(hpas)["status"][0] == NO_DEVICE
    topo.commit()
    assert topo.decode_many(hpas)["status"][0] == 0
    topo.destroy_region("region0")
    assert topo.decode_many(hpas)["status"][0] == NO_DEVICE
    assert topo.encode_many("m0", np.array([0], np.uint64))["count"][0] == 0


def test_answers_into_an_array():
    topo = machine(1, 2)
    topo.commit()
    hpas = np.arange(BASE, BASE + 4096, 64, dtype=np.uint64)
    out = np.zeros(64, topo.decode_many(hpas).dtype)
    assert topo.decode_many(hpas, out) is out
    assert out["dpa"][5] == 64 and out["device"][5] == 1


@pytest.mark.parametrize("hpas, message", [
    (np.array([-1]), "not negative, not int64"), (np.array([1.5]), "not float64"),
    (np.zeros((2, 2), np.uint64), r"not of shape \(2, 2\)"),
])
def test_decode_many_wrong_addresses(hpas, message):
    with pytest.raises(ValueError, match=message):
        machine().decode_many(hpas)


def test_decode_many_wrong_out():
    with pytest.raises(ValueError, match="out must be 3 contiguous rows"):
        machine().decode_many(np.zeros(3, np.uint64), np.zeros(3, np.uint64))


def test_no_windows_at_all():
    topo = Topology.from_qemu("-M q35")
    assert topo.decode_many(np.array([0, 5], np.uint64))["status"].tolist() == [1, 1]
    assert len(topo.decode_many(np.array([], np.uint64))) == 0


def test_unknown_devices_and_dpas_are_found_nowhere():
    topo = machine(1, 2)
    topo.commit()
    rows = topo.encode_many(np.array([0, 7, 0], np.uint32), np.array([0, 0, 1 << 40], np.uint64))
    assert rows["count"].tolist() == [1, 0, 0]


@pytest.mark.parametrize("shape", SHAPES + MOD3_SHAPES, ids=str)
@pytest.mark.parametrize("granularity", [4096, 16384])
@pytest.mark.parametrize("base", [BASE, 48 << 30], ids=["any base", "aligned base"])
def test_whole_window_is_a_bijection(shape, granularity, base):
    """Every granule of the window, exhaustively: each device's DPAs are 0, 1, 2, ... granules, none twice."""
    topo = machine(*shape, granularity=granularity, base=base)
    for region in topo.commit():
        rows = topo.decode_many(np.arange(region.base, region.last + 1, granularity, dtype=np.uint64))
        assert not rows["status"].any()
        for device in region.devices:
            dpas = np.sort(rows["dpa"][rows["device"] == device.number])
            assert np.array_equal(dpas, np.arange(0, region.share, granularity, dtype=np.uint64))


@pytest.mark.parametrize("shape", [(4, 4, 0), (3, 4, 0), (2, 2, 2), (12, 1, 0)], ids=str)
def test_terabytes_are_the_inverse_of_themselves(shape):
    """A hundred thousand random addresses of a window of terabytes there and back."""
    topo = machine(*shape, capacity=1 << 40, base=1 << 44, size=shape[0] * shape[1] * max(1, shape[2]) << 40)
    (region,) = topo.commit()
    rng = np.random.default_rng(2)
    hpas = rng.integers(0, region.size, 1 << 17).astype(np.uint64) + np.uint64(region.base)
    rows = topo.decode_many(hpas)
    assert not rows["status"].any()
    back = topo.encode_many(rows["device"].copy(), rows["dpa"].copy())
    assert np.array_equal(back["hpa"], hpas) and (back["count"] == 1).all()


def test_port_first_layouts_are_bijections():
    """Bridges split on lower bits than the window: legal hardware, for every power of two."""
    for bridges, ports in ((2, 2), (2, 4), (4, 2), (4, 4)):
        topo = machine(bridges, ports, granularity=256 * ports * 16)
        ways = bridges * ports
        size = ways * 256 * MIB
        for device in topo.devices.values():
            assert device.registers.program(0, BASE, size, ways, 4096) == ""
        for node in topo.bridges.values():
            assert node.registers.program(0, BASE, size, ports, 4096, tuple(range(ports))) == ""
        rows = topo.decode_many(np.arange(BASE, BASE + size, 4096, dtype=np.uint64))
        assert not rows["status"].any()
        assert len(np.unique(rows["dpa"] | rows["device"].astype(np.uint64) << np.uint64(48))) == size // 4096


def test_a_span_that_begins_inside_a_region():
    """Dynamic capacity from one extent on: the route's span is cut, the DPA still counts from the region."""
    plan = blueprint(1, 2, size=2048 * MIB)
    plan.devices[:] = [
        DevicePlan(f"m{n}", f"rp0.{n}", dynamic=Backing(f"d{n}", 1024 * MIB), dynamic_regions=1) for n in range(2)]
    topo = Topology(plan)
    topo.create_region(0, mode="dc")
    for device in topo.devices.values():
        device.accept(6 * MIB, 2 * MIB)
    check(topo, [BASE + n * 100_003 for n in range(300)])
    assert topo.decode_many(np.array([BASE + 12 * MIB + 256], np.uint64)).tolist() == [(6 * MIB, 1, 0)]


def test_a_device_that_ends_within_a_granule():
    topo = machine(1, 2, strict=False, capacity=256 * MIB + 4096, size=1024 * MIB, granularity=16384)
    for device in topo.devices.values():
        device.registers.program(0, BASE, 1024 * MIB, 2, 16384)
    topo.bridges["hb0"].registers.program(0, BASE, 1024 * MIB, 2, 16384, (0, 1))
    check(topo, [BASE + 512 * MIB + n * 1024 for n in range(-64, 64)])
