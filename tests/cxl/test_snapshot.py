"""Snapshots of a machine with its topology: decoders come back as software left them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxl import DEFAULT_QEMU_ARGS, Backing, Topology
from cxl import format as fmt
from cxl.job import Job, space_of
from cxl.snapshot import blocks, load, save
from mmu import Machine
from mmu.errors import SnapshotError
from mmu.guest.devices import DebugExit, Serial16550
from mmu.snapshot import MAGIC, Snapshot
from tests.cxl.machines import MIB, blueprint, machine


def registers(topology):
    """Everything that software can read of each block."""
    return {
        name: [block.read32(at) for at in range(0, fmt.COMPONENT_BLOCK_SIZE, 4)]
        for name, block in blocks(topology).items()
    }


def through(topology, path, arch="x86_64"):
    with Machine(space_of(topology), arch) as m:
        save(path, m, topology)
    job = load(path)
    job.close()
    return job.topology


def partial():
    """A region over two of four devices."""
    topology = machine(1, 4)
    topology.create_region(0, ["m2", "m1"], granularity=1024, name="mine")
    return topology


def destroyed():
    """Two regions, of which the upper one is gone."""
    topology = machine(1, 2, capacity=512 * MIB)
    topology.create_region(0, ["m0"], size=256 * MIB)
    topology.create_region(0, ["m1"], size=256 * MIB)
    topology.destroy_region("region1")
    return topology


def rewritten():
    """A committed decoder whose registers were written since: it works with what it was committed with."""
    topology = machine(1, 2)
    topology.commit()
    block = topology.devices["m0"].registers
    block.write32(block.offset(0, fmt.BASE_LOW), 0x5000_0000)
    return topology


def refused():
    """A decoder that has answered ERROR-NOT-COMMITTED."""
    topology = machine(1, 2)
    block = topology.devices["m1"].registers
    block.write32(block.offset(0, fmt.SIZE_LOW), 0x1000_0000)
    block.write32(block.offset(0, fmt.CONTROL), fmt.DecoderControl.make(COMMIT=1, IW=15))
    assert fmt.DecoderControl.ERROR_NOT_COMMITTED.get(block.read32(block.offset(0, fmt.CONTROL)))
    return topology


def permissive():
    topology = machine(1, 2, strict=False)
    block = topology.devices["m0"].registers
    for field, value in ((fmt.BASE_HIGH, 0x10), (fmt.SIZE_LOW, 0x1000_0000), (fmt.CONTROL, 0x200)):
        block.write32(block.offset(2, field), value)
    return topology


def locked():
    topology = machine(1, 2)
    topology.commit()
    block = topology.bridges["hb0"].registers
    at = block.offset(0, fmt.CONTROL)
    block.write32(at, block.read32(at) | fmt.DecoderControl.LOCK_ON_COMMIT.mask)
    assert block.is_locked(0)
    return topology


def dynamic():
    plan = blueprint(1, 1)
    device = plan.devices[0]
    plan.devices[0] = type(device)(
        "m0", device.port, device.volatile, dynamic=Backing("dc", 256 * MIB), dynamic_regions=1)
    topology = Topology(plan)
    topology.devices["m0"].accept(256 * MIB, 4 * MIB)
    return topology


MACHINES = {
    f.__name__: f for f in (machine, partial, destroyed, rewritten, refused, permissive, locked, dynamic)
} | {"default": Topology.default, "switches": lambda: (t := machine(2, 2, 2), t.commit())[0]}


@pytest.mark.parametrize("kind", MACHINES)
def test_a_topology_comes_back_as_it_was_programmed(kind, tmp_path):
    topology = MACHINES[kind]()
    again = through(topology, tmp_path / "s")
    assert registers(again) == registers(topology)
    assert {n: b.committed for n, b in blocks(again).items()} == {n: b.committed for n, b in blocks(topology).items()}
    assert again.strict == topology.strict
    assert again.plan.windows == topology.plan.windows
    assert {n: (r.base, r.size, r.granularity, [d.name for d in r.devices]) for n, r in again.regions.items()} == {
        n: (r.base, r.size, r.granularity, [d.name for d in r.devices]) for n, r in topology.regions.items()}
    assert {n: d.extents for n, d in again.devices.items()} == {n: d.extents for n, d in topology.devices.items()}
    for window, other in zip(topology.windows, again.windows):
        assert topology.route(window) == again.route(other)


def test_what_is_in_the_devices_comes_back_and_their_files_stay_as_they_are(tmp_path):
    file = tmp_path / "m0"
    args = DEFAULT_QEMU_ARGS.replace(
        "memory-backend-ram,id=m0,share=on", f"memory-backend-file,id=m0,share=on,mem-path={file}")
    topology = Topology.from_qemu(args)
    topology.commit()
    topology.devices["mem0"].write(0x1234, b"in the device")
    topology.devices["mem0"].sync()
    with Machine(space_of(topology), "aarch64") as m:
        save(tmp_path / "s", m, topology)
    topology.devices["mem0"].write(0x1234, b"later........")
    topology.devices["mem0"].sync()
    job = load(tmp_path / "s")
    again = job.topology
    with job.machine as m:
        assert (m.arch, m.dispatch) == ("aarch64", "exact")
        assert again.devices["mem0"].read(0x1234, 13) == b"in the device"
        again.devices["mem0"].write(0x1234, b"nobody's file")
    topology.devices["mem0"].sync()
    assert file.read_bytes()[0x1234:][:13] == b"later........"


def test_devices_of_the_machine_come_back(tmp_path):
    topology = machine(1, 2)
    with Machine(space_of(topology)) as m:
        m.io.map(0x3F8, serial := Serial16550(capacity=100))
        m.io.map(0xF4, DebugExit(m))
        serial.feed(b"waits")
        m.io.store(0x3F8, 1, ord("x"))
        save(tmp_path / "s", m, topology)
        images = m.snapshot().devices
    job = load(tmp_path / "s")
    with job.machine as again:
        assert again.snapshot().devices == images
        assert again.io.load(0x3F8, 1)[0] == ord("w")


def test_a_file_that_names_others_opens_none_of_them(tmp_path):
    topology = machine(1, 2)
    with Machine(space_of(topology)) as m:
        save(tmp_path / "s", m, topology)
    found = Snapshot.load(tmp_path / "s")
    text = found.extra["topology"]
    named = text.replace('name = "ram0"', f'name = "ram0", path = "{tmp_path / "victim"}"')
    assert named != text
    Snapshot(found.arch, found.cpu, found.plan, found.memories, found.program, {**found.extra, "topology": named}).save(
        tmp_path / "s")
    load(tmp_path / "s").close()
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"topology": "[[nothing]]\n"}, "the topology is damaged: TOML: there is no table nothing"),
        ({"topology": None}, "the topology is damaged"),
        ({"decoders": {}}, "the topology is damaged: 'hb0'"),
        ({"decoders": {"hb0": [[0x1014, 2], [0x1024, 0x600]], "m0": [], "m1": []},
          "latched": {"hb0": {}, "m0": {}, "m1": {}}}, "the decoders of hb0 refuse"),
        ({"extents": {"m7": [[0, 4096]]}}, "there is no device m7"),
    ],
)
def test_a_damaged_topology_is_refused(change, message, tmp_path):
    topology = machine(1, 2)
    with Machine(space_of(topology)) as m:
        save(tmp_path / "s", m, topology)
    found = Snapshot.load(tmp_path / "s")
    Snapshot(found.arch, found.cpu, found.plan, found.memories, found.program, {**found.extra, **change}).save(
        tmp_path / "s")
    with pytest.raises(SnapshotError, match=message) as caught:
        load(tmp_path / "s")
    assert "\n" not in str(caught.value)


def test_a_snapshot_without_a_topology_is_refused(tmp_path):
    with Machine(space_of(machine())) as m:
        m.snapshot().save(tmp_path / "s")
    with pytest.raises(SnapshotError, match="topology is damaged: 'topology'"):
        load(tmp_path / "s")


def places(value, path=()):
    """Every place in a JSON value."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(value[key], (*path, key))


class Written:
    """A good file in its parts; not a tuple, because hypothesis shows what it is given."""

    def __init__(self, path, header, contents):
        self.path, self.header, self.contents = path, header, contents


@pytest.fixture(scope="module", params=["x86_64", "aarch64"])
def written(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("snapshots") / "s"
    job = Job(Topology.default(), request.param)
    save(path, job.machine, job.topology)
    job.close()
    data = path.read_bytes()
    start = len(MAGIC) + 8
    end = start + int.from_bytes(data[len(MAGIC) : start], "little")
    return Written(path, json.loads(data[start:end]), data[end:])


JUNK = st.sampled_from([None, -1, 1 << 70, "x", [], {}, 1.5, True, 1 << 63, 3])


@given(data=st.data())
def test_any_damage_is_refused_or_makes_another_machine(written, data):
    header = json.loads(json.dumps(written.header))
    *above, last = data.draw(st.sampled_from(list(places(header))))
    at = header
    for key in above:
        at = at[key]
    at[last] = data.draw(JUNK)
    text = json.dumps(header).encode()
    bad = written.path.with_name("bad")
    bad.write_bytes(MAGIC + len(text).to_bytes(8, "little") + text + written.contents)
    try:
        load(bad).close()
    except SnapshotError as error:
        assert "\n" not in str(error)


def test_a_machine_whose_tables_cannot_be_read_is_restored(tmp_path):
    """The guest, or somebody, took the decoders away below its tables."""
    job = Job(Topology.default())
    job.machine.load(b"\xf4")
    job.topology.destroy_region("region0")
    save(tmp_path / "s", job.machine, job.topology)
    job.close()
    again = load(tmp_path / "s")
    assert again.machine.tables is None
    assert again.go().stop.reason == "fault"
    again.close()
