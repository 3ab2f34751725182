"""Batches against single translations."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxl import Miss, Topology, WindowPlan
from tests.cxl.machines import BASE, MIB, blueprint, machine
from tests.cxl.test_routes import CHUNK, SHAPES, XOR_MAPS, programmed

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


@settings(max_examples=100, deadline=None)
@given(topo=programmed, seed=st.integers(0, 1 << 30))
def test_any_registers(topo, seed):
    rng = random.Random(seed)
    hpas = [BASE + rng.randrange(-1, 9) * CHUNK + rng.randrange(CHUNK) for _ in range(40)]
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
