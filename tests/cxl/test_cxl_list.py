"""`cxl list`: machines that were printed come back as they were."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxl import CommitError, Topology, TopologyError
from tests.cxl.machines import MIB, blueprint, machine
from tests.cxl.test_routes import by_levels

DATA = Path(__file__).parent.parent / "data"
GIB = 1 << 30


def regions(topo):
    return [(r.name, r.base, r.size, r.granularity, r.mode, [d.name for d in r.devices]) for r in topo.regions.values()]


def same(a, b):
    """Same windows, same devices, same regions; every sampled address goes to the same byte."""
    assert [(w.base, w.size, w.ways, w.cache, [t.uid for t in w.targets]) for w in a.windows] == [
        (w.base, w.size, w.ways, w.cache, [t.uid for t in w.targets]) for w in b.windows]
    assert {(d.name, d.sizes, d.serial) for d in a.devices.values()} == {
        (d.name, d.sizes, d.serial) for d in b.devices.values()}
    assert regions(a) == regions(b)
    rng = random.Random(4)
    for w in a.windows:
        for _ in range(60):
            hpa = w.base + rng.randrange(w.size)
            assert by_levels(a, hpa) == by_levels(b, hpa)


def persistent():
    topo = machine(2, 2, persistent=512 * MIB, size=16 * GIB)
    topo.commit()
    return topo


def cached():
    plan = blueprint(1, 2, granularity=4096, size=GIB)
    plan.windows[0] = replace(plan.windows[0], cache=512 * MIB)
    topo = Topology(plan)
    topo.commit()
    return topo


def committed(*args, **kwargs):
    topo = machine(*args, **kwargs)
    topo.commit()
    return topo


def old_host():
    plan = blueprint(2, 1)
    plan.bridges[1] = replace(plan.bridges[1], decoders=None, restricted=True)
    plan.windows[0] = replace(plan.windows[0], targets=("hb1",), size=256 * MIB)
    topo = Topology(plan)
    topo.commit()
    return topo


MACHINES = {
    "idle": lambda: machine(2, 2), "4 ways": lambda: committed(2, 2), "switches": lambda: committed(2, 2, 2),
    "3 ways": lambda: committed(3, 1), "pass-through": lambda: committed(2, 1, passthrough=True),
    "persistent": persistent, "cached": cached, "old host": old_host, "big": lambda: committed(4, 4, capacity=1 << 40),
}  # fmt: skip


@pytest.mark.parametrize("make", MACHINES.values(), ids=MACHINES)
def test_round_trip(make):
    topo = make()
    same(Topology.from_cxl_list(topo.to_cxl_list()), topo)


def human(value, key=""):
    """As -u prints it: sizes with units, the rest in hexadecimal, single elements unwrapped."""
    if isinstance(value, dict):
        return {k: human(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [human(v) for v in value]
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if key in ("size", "ram_size", "pmem_size", "dpa_size", "max_available_extent", "extended_linear_cache_size"):
        unit, letter = (1 << 30, "G") if value >= 1 << 30 else (1 << 20, "M")
        return f"{value / unit:.2f} {letter}iB ({value / 10**9:.2f} GB)"
    return hex(value) if key in ("resource", "dpa_resource", "serial") else value


@pytest.mark.parametrize("make", MACHINES.values(), ids=MACHINES)
def test_human_units(make):
    topo = make()
    text = json.dumps(human(json.loads(topo.to_cxl_list()))[0])
    same(Topology.from_cxl_list(text), topo)


@pytest.mark.parametrize("make", MACHINES.values(), ids=MACHINES)
def test_flat_listing(make):
    """Kinds side by side without nesting, as `cxl list -BPEMDRT` of some versions has them."""
    topo = make()
    kinds = {"buses": [], "ports": [], "endpoints": [], "memdevs": [], "decoders": [], "regions": []}
    keys = dict(zip(kinds, ("bus", "port", "endpoint", "memdev", "decoder", "region")))

    def take(item):
        kind = next(k for k, key in keys.items() if isinstance(item.get(key), str))
        kinds[kind].append(item)
        for key in [k for k in item if k.split(":")[0] in kinds and ":" in k]:
            for child in item.pop(key):
                take(child)
        if kind == "endpoints":
            kinds["memdevs"].append(item.pop("memdev"))

    take(json.loads(topo.to_cxl_list())[0])
    text = json.dumps([{kind: items} for kind, items in kinds.items() if items])
    if "old host" in MACHINES and make is old_host:
        with pytest.raises(TopologyError):  # nothing but the nesting says what is right below the bus
            Topology.from_cxl_list(text)
        return
    same(Topology.from_cxl_list(text), topo)


def server(*, positions=(0, 1), ids=(0, 2)):
    """A listing in the form of a real server's: 4 host bridges, two in use with two 128 GiB devices each."""
    hosts = {"pci0000:d2": 5, "pci0000:a8": 4, "pci0000:00": 0, "pci0000:2a": 1}
    used, size = list(hosts)[:2], 512 * GIB

    def decoder(name, ways, granularity, **more):
        out = {"decoder": name, "resource": 0xC050000000, "size": size, "interleave_ways": ways,
               "interleave_granularity": granularity, "region": "region0"}
        return out | more

    def port(n, host):
        roots = [f"{host[3:]}:01.{i}" for i in (1, 3)]
        endpoints = [{
            "endpoint": f"endpoint{5 + 2 * n + i}", "host": f"mem{2 * n + i}", "parent_dport": root, "depth": 2,
            "memdev": {"memdev": f"mem{2 * n + i}", "ram_size": 128 * GIB, "serial": 0, "host": "0000:d3:00.0"},
            f"decoders:endpoint{5 + 2 * n + i}": [decoder(f"decoder{5 + 2 * n + i}.0", 4, 256, dpa_resource=0,
                                                         dpa_size=128 * GIB, mode="ram")],
        } for i, root in enumerate(roots)]
        where = [positions[0] * 1 if positions == (0, 1) else n, positions[1] if positions == (0, 1) else n + 2]
        targets = [{"target": r, "alias": f"device:0{i}", "position": where[i], "id": 0} for i, r in enumerate(roots)]
        return {
            "port": f"port{1 + 2 * n}", "host": host, "depth": 1, "nr_dports": 2,
            "dports": [{"dport": r, "alias": f"device:0{i}", "id": i_} for i, (r, i_) in enumerate(zip(roots, ids))],
            f"endpoints:port{1 + 2 * n}": endpoints,
            f"decoders:port{1 + 2 * n}": [decoder(f"decoder{1 + 2 * n}.0", 2, 512, nr_targets=2, targets=targets)],
        }

    root = decoder("decoder0.0", 2, 256, max_available_extent=0, volatile_capable=True, nr_targets=2, targets=[
        {"target": used[1], "position": 1, "id": 4}, {"target": used[0], "position": 0, "id": 5}])
    del root["region"]
    root["regions:decoder0.0"] = [{
        "region": "region0", "resource": 0xC050000000, "size": size, "type": "ram", "interleave_ways": 4,
        "interleave_granularity": 256, "decode_state": "commit",
        "mappings": [{"position": p, "memdev": f"mem{m}", "decoder": f"decoder{5 + m}.0"}
                     for p, m in ((3, 3), (2, 1), (1, 2), (0, 0))]}]
    return [{
        "bus": "root0", "provider": "ACPI.CXL", "nr_dports": 4,
        "dports": [{"dport": h, "alias": f"ACPI0016:0{i}", "id": n} for i, (h, n) in enumerate(hosts.items())],
        "ports:root0": [port(n, h) for n, h in enumerate(used)], "decoders:root0": [root],
    }]


@pytest.mark.parametrize("positions", [(0, 1), "region"], ids=["positions", "region positions"])
def test_listing_of_a_server(positions):
    """2 host bridges x 2 ports at 256 and 512; target ids that are all 0, positions that are the region's."""
    topo = Topology.from_cxl_list(json.dumps(server(positions=positions)))
    base = 0xC050000000
    assert [topo.decode(base + n * 256 + 3).device for n in range(5)] == ["mem0", "mem2", "mem1", "mem3", "mem0"]
    assert topo.decode(base + 4 * 256).dpa == 256
    assert [d.name for d in topo.regions["region0"].devices] == ["mem0", "mem2", "mem1", "mem3"]
    assert {b.uid for b in topo.bridges.values()} == {0, 1, 4, 5}
    assert topo.check() == []
    topo.destroy_region("region0")


def test_region_that_is_not_committed():
    data = server()
    data[0]["decoders:root0"][0]["regions:decoder0.0"][0]["decode_state"] = "reset"
    topo = Topology.from_cxl_list(json.dumps(data))
    assert topo.regions == {} and topo.devices["mem0"].registers.committed == {}


def test_skip_follows_from_where_dpa_begins():
    topo = persistent()
    back = Topology.from_cxl_list(topo.to_cxl_list())
    name = topo.regions["region0"].name
    topo.destroy_region("region1")
    topo.destroy_region(name)
    back.destroy_region("region1")
    back.destroy_region("region0")
    for t in (topo, back):
        t.create_region(0, mode="pmem", size=4 * 256 * MIB)
    again = Topology.from_cxl_list(topo.to_cxl_list())
    assert again.devices["m0"].registers.settings(0).skip == 256 * MIB
    same(again, topo)


def test_cedt_adds_what_the_listing_lacks():
    """XOR maps and register addresses come from the table; both must describe the same windows."""
    plan = blueprint(2, 1, maps=(0x404100, 0x808200))
    for n, bridge in enumerate(plan.bridges):
        plan.bridges[n] = replace(bridge, registers=(1 << 40) + n * 0x10000)
    topo = Topology(plan)
    topo.commit()
    plain = Topology.from_cxl_list(topo.to_cxl_list())
    assert plain.windows[0].maps is None
    both = Topology.from_cxl_list(topo.to_cxl_list(), topo.to_cedt())
    assert both.windows[0].maps == (0x404100,)
    assert [b.base for b in both.bridges.values()] == [1 << 40, (1 << 40) + 0x10000]
    same(both, topo)
    with pytest.raises(TopologyError, match=r"decoder0\.0 at 0x1000000000 x2 is not in the CEDT, which has \['0x11"):
        Topology.from_cxl_list(topo.to_cxl_list(), (DATA / "qemu_cedt.dat").read_bytes())


def broken(change):
    data = server()
    change(data[0])
    return json.dumps(data)


BROKEN = {
    "missing comma": (json.dumps(server(), indent=1).replace('"ACPI.CXL",', '"ACPI.CXL"'),
                      r"bad JSON at line 5, column 3: Expecting ',' delimiter, between '\"provider"),
    "missing quote": (json.dumps(server(), indent=1).replace('"root0",', '"root0,'), "bad JSON at line 3"),
    "trailing comma": ('[{"bus": "root0",}]', "bad JSON at line 1, column 18"),
    "empty": ("", "bad JSON at line 1, column 1: Expecting value"),
    "a number": ("[7]", "expected an object or an array, not 7"),
    "deep": ("[" * 100_000, "nested too deeply"),
    "no text": (b"\xff\xfe\x00", "bad JSON|no text"),
    "same dport": (broken(lambda b: b["ports:root0"][0]["dports"][0].update(dport="0000:a8:01.1")), "is listed below"),
    "same id": (broken(lambda b: b["ports:root0"][0]["dports"][1].update(id=0)), "both have port number 0"),
    "same uid": (broken(lambda b: b["dports"][0].update(id=4)), "both have UID 4"),
    "unknown target": (broken(lambda b: b["decoders:root0"][0]["targets"][0].update(target="pci0000:ff")),
                       "decoder0.0 has target pci0000:ff, which is no dport of the bus"),
    "too few targets": (broken(lambda b: b["decoders:root0"][0]["targets"].pop()), "has 2 ways, but 1 targets"),
    "no memdev": (broken(lambda b: b["ports:root0"][0]["endpoints:port1"][0].pop("memdev")),
                  "endpoint5 is mem0 memdev, which is not listed"),
    "no size": (broken(lambda b: b["ports:root0"][0]["endpoints:port1"][0]["memdev"].pop("ram_size")),
                "memdev mem0 has neither ram_size nor pmem_size"),
    "size in words": (broken(lambda b: b["decoders:root0"][0].update(size="lots")), "must be a number, not 'lots'"),
    "negative": (broken(lambda b: b["decoders:root0"][0].update(resource=-1)), "resource must be a number, not -1"),
    "3 ways at 300": (broken(lambda b: b["ports:root0"][0]["endpoints:port1"][0]["decoders:endpoint5"][0].update(
        interleave_granularity=300)), "no encoding exists for 4 ways at 300 bytes"),
    "unaligned window": (broken(lambda b: b["decoders:root0"][0].update(resource=0xC050000100)), "must be a multiple"),
    "decoder name": (broken(lambda b: b["decoders:root0"][0].update(decoder="root")), "must be called decoder<port>"),
    "unlisted region device": (broken(lambda b: b["decoders:root0"][0]["regions:decoder0.0"][0]["mappings"][0].update(
        memdev="mem9")), "region0 maps mem9, which is not listed"),
    "two names": (json.dumps([*server(), {"memdev": "mem0", "ram_size": 5}]), "mem0 is listed twice, with ram_size"),
}  # fmt: skip


@pytest.mark.parametrize("text, message", BROKEN.values(), ids=BROKEN)
def test_broken_listing(text, message):
    with pytest.raises(TopologyError, match=message):
        Topology.from_cxl_list(text)


def test_hardware_that_would_refuse():
    """A decoder that does not fit its device: the reason is the hardware's."""
    text = broken(lambda b: b["ports:root0"][0]["endpoints:port1"][0]["memdev"].update(ram_size=64 * GIB))
    with pytest.raises(CommitError, match=r"decoder 0 of mem0: decoder 0 ends at DPA .* beyond the capacity"):
        Topology.from_cxl_list(text)


def nodes(value, path=()):
    """Every place in a JSON value."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from nodes(child, (*path, key))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_mutated_listing_is_a_machine_or_one_error(data):
    """Fields dropped, or replaced by anything: a Topology or a TopologyError, nothing else."""
    listing = server()
    for _ in range(data.draw(st.integers(1, 3))):
        places = [p for p in nodes(listing) if p]
        if not places:
            break
        *path, last = data.draw(st.sampled_from(places))
        owner = listing
        for key in path:
            owner = owner[key]
        if data.draw(st.booleans()):
            del owner[last]
        else:
            owner[last] = data.draw(st.one_of(
                st.none(), st.booleans(), st.integers(-1, 1 << 66), st.text(max_size=5), st.just([]), st.just({}),
                st.sampled_from(["0x100000000", "1.00 GiB (1.07 GB)", "mem0", "port1", "pci0000:d2", "decoder1.0"])))
    try:
        Topology.from_cxl_list(json.dumps(listing))
    except TopologyError as error:
        assert str(error)


def test_no_bus_at_all():
    topo = Topology.from_cxl_list("[]")
    assert (topo.windows, topo.devices) == ((), {})
