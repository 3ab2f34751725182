"""Machines written by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxl import Topology, TopologyError
from cxl.exchange import toml
from cxl.exchange.qemu import parse
from tests.cxl.machines import MIB, machine
from tests.cxl.test_cxl_list import MACHINES, same
from tests.cxl.test_qemu import DEFAULT_QEMU_ARGS
from tests.cxl.test_qemu_write import machines

DATA = Path(__file__).parent.parent / "data"

EXAMPLE = """
[[bridge]]
name = "hb0"
uid = 0
[[bridge]]
name = "hb1"
uid = 1
decoders = "none"

[[port]]
name = "rp0"
parent = "hb0"
number = 0
[[port]]
name = "rp1"
parent = "hb1"
number = 0

[[device]]
name = "mem0"
port = "rp0"
volatile = "256M"
persistent = {size = "256M"}
serial = "0x1234"
[[device]]
name = "mem1"
port = "rp1"
volatile = 268435456

[[window]]
name = "w"
base = "0x1000000000"
size = "1G"
granularity = "4k"
targets = ["hb0", "hb1"]
maps = ["0x3041000"]

[[region]]
window = "w"
devices = ["mem0", "mem1"]
size = "512M"
"""


def test_example():
    topo = Topology.from_toml(EXAMPLE)
    assert topo.devices["mem0"].sizes == (256 * MIB, 256 * MIB, 0) and topo.devices["mem0"].serial == 0x1234
    assert topo.bridges["hb1"].registers is None
    assert topo.windows[0].maps == (0x3041000,)
    assert topo.regions["region0"].granularity == 4096
    assert topo.decode(0x1000001000).device == "mem1"


@pytest.mark.parametrize("make", MACHINES.values(), ids=MACHINES)
def test_round_trip(make):
    topo = make()
    back = Topology.from_toml(topo.to_toml())
    same(back, topo)
    assert (back.plan.bridges, back.plan.ports, back.plan.switches, back.plan.devices, back.plan.windows) == (
        topo.plan.bridges, topo.plan.ports, topo.plan.switches, topo.plan.devices, topo.plan.windows)


@settings(max_examples=100, deadline=None)
@given(plan=machines(), maps=st.lists(st.integers(1, 1 << 40).map(lambda m: m << 8), max_size=4))
def test_round_trip_of_any_plan(plan, maps):
    plan.windows = [replace(w, maps=tuple(maps)) for w in plan.windows]
    back, regions = toml.read(toml.write(plan))
    assert (back, regions) == (plan, [])


BROKEN = {
    "syntax": ("[[bridge]\n", r"TOML: .*line 1, column"),
    "table": ("[[bridges]]\n", "there is no table bridges, only bridge, port"),
    "no array": ("[bridge]\nname='x'\n", r"bridge must be an array of tables, \[\[bridge\]\]"),
    "key": ("[[bridge]]\nname='x'\nuid=1\nuidd=2\n", r"\[\[bridge\]\] number 0 \(x\): no key uidd, only name, uid"),
    "missing": ("[[bridge]]\nname='x'\n", "uid is missing"),
    "number": ("[[bridge]]\nname='x'\nuid=1.5\n", "uid must be a number, not 1.5"),
    "negative": ("[[bridge]]\nname='x'\nuid=-1\n", "uid must be a number, not -1"),
    "size": ("[[ram]]\nbase=0\nsize='1 GB'\n", "must be a size such as 256M or 4G, not '1 GB'"),
    "text": ("[[bridge]]\nname=1\nuid=1\n", "name must be text, not 1"),
    "bool": ("[[bridge]]\nname='x'\nuid=1\nrestricted='yes'\n", "restricted must be true or false, not 'yes'"),
    "list": (EXAMPLE.replace('targets = ["hb0", "hb1"]', "targets = 'hb0'"), "targets must be an array of text"),
    "maps": (EXAMPLE.replace('maps = ["0x3041000"]', "maps = 5"), "maps must be an array of numbers"),
    "memory": (EXAMPLE.replace('{size = "256M"}', '{sise = "256M"}'), "persistent: no key sise"),
    "target": (EXAMPLE.replace('targets = ["hb0", "hb1"]', 'targets = ["hb0", "hb7"]'), "hb7 is no host bridge"),
    "region": (EXAMPLE.replace('devices = ["mem0", "mem1"]', 'devices = ["mem0", "mem7"]'), "there is no device mem7"),
}  # fmt: skip


@pytest.mark.parametrize("text, message", BROKEN.values(), ids=BROKEN)
def test_broken(text, message):
    with pytest.raises(TopologyError, match=message):
        Topology.from_toml(text)


def test_schema_lists_what_is_read():
    schema = toml.schema()
    assert json.loads(json.dumps(schema)) == schema
    window = schema["properties"]["window"]["items"]
    assert window["required"] == ["name", "base", "size", "granularity", "targets"]
    assert set(window["properties"]) >= {"maps", "cache", "normalized", "restrictions"}
    assert set(schema["properties"]) == set(toml.PARTS)


@pytest.mark.parametrize("content, windows", [
    (EXAMPLE, 1), ("# a comment\n" + EXAMPLE, 1), (DEFAULT_QEMU_ARGS, 1), ("# mine\nqemu-system-x86_64 \\\n" +
     DEFAULT_QEMU_ARGS.replace(" -device", " \\\n -device"), 1), ((DATA / "cedt_base.dat").read_bytes(), 2),
    (machine(2, 1).to_cxl_list(), 1), ("  [ ]", 0),
], ids=["toml", "toml with a comment", "qemu", "qemu on lines", "cedt", "cxl list", "empty list"])
def test_files_are_told_apart(content, windows, tmp_path):
    path = tmp_path / "machine"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert len(Topology.from_file(path).windows) == windows


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xfe", b"CEDX"])
def test_unknown_file(content, tmp_path):
    path = tmp_path / "machine"
    path.write_bytes(content)
    with pytest.raises(TopologyError, match=f"{path}: neither"):
        Topology.from_file(path)
    with pytest.raises(FileNotFoundError):
        Topology.from_file(tmp_path / "nothing")


def test_error_names_the_file(tmp_path):
    (tmp_path / "m.toml").write_text("[[bridge]]\n")
    with pytest.raises(TopologyError, match=r"m\.toml: TOML: \[\[bridge\]\] number 0: name is missing"):
        Topology.from_file(tmp_path / "m.toml")


def test_plan_of_a_command_line_is_written():
    plan = parse(DEFAULT_QEMU_ARGS)
    back, _ = toml.read(toml.write(plan))
    assert back == replace(plan, machine="")
