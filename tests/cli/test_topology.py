"""`cxl-mmu topology` and streams of addresses."""

import io
import json
import random
import tomllib
import xml.etree.ElementTree as ET

import pytest

from cxl import DEFAULT_QEMU_ARGS, Miss, Topology
from cxl.cli.main import main
from cxl.cli.stream import stream
from cxl.mock import cxl_test


@pytest.fixture
def committed():
    topo = Topology.default()
    topo.commit()
    return topo


def test_show_names_every_part(capsys):
    assert main(["topology", "show", "--topology", "cxl_test"]) == 0
    text = capsys.readouterr().out
    topo = cxl_test()
    for name in (*topo.devices, *topo.bridges, *topo.switches, *topo.ports, "region0", "window5"):
        assert f" {name}" in text
    assert "2 ways at 4 KiB" in text


def test_show_is_a_drawing_that_parses(tmp_path, capsys):
    assert main(["topology", "show", "--commit", "--svg", str(tmp_path / "t.svg")]) == 0
    texts = [e.text for e in ET.parse(tmp_path / "t.svg").iter() if e.tag.endswith("text")]
    assert len(texts) == 7
    assert any(t.startswith("device mem1: 256 MiB ram, decoder 0") for t in texts)


def test_check_is_status_1_with_errno_when_linux_would_refuse(tmp_path, capsys):
    assert main(["topology", "check", "--commit"]) == 0
    assert capsys.readouterr().out == "nothing is wrong\n"
    four = DEFAULT_QEMU_ARGS.replace("granularity=256", "granularity=1k")
    path = tmp_path / "machine.toml"
    topo = Topology.from_qemu(four)
    region = '[[region]]\nwindow = "window0"\ndevices = ["mem1", "mem0"]\ngranularity = 512\n'
    path.write_text(f"{topo.to_toml()}\n{region}")
    status = main(["topology", "check", "-t", str(path), "--json"])
    problems = json.loads(capsys.readouterr().out)
    expected = Topology.from_file(path).check()
    assert status == int(bool(expected))
    assert [p["message"] for p in problems] == [p.message for p in expected]


@pytest.mark.parametrize("form", ["qemu", "cedt", "cxl-list", "toml"])
def test_convert_gives_the_same_machine(form, tmp_path, capsysbinary, monkeypatch):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text(DEFAULT_QEMU_ARGS)
    assert main(["topology", "convert", str(source), "--to", form, "-o", str(target)]) == 0
    again, first = Topology.from_file(target), Topology.default()
    assert [(w.base, w.size, w.ways, w.granularity) for w in again.windows] == [
        (w.base, w.size, w.ways, w.granularity) for w in first.windows]
    assert main(["topology", "convert", str(target), "--from", form, "--to", form]) == 0
    out = capsysbinary.readouterr().out
    assert main(["topology", "convert", str(target), "--to", form]) == 0
    assert capsysbinary.readouterr().out == out


def test_schema_is_json_and_names_what_a_file_may_hold(capsys, committed):
    assert main(["topology", "schema"]) == 0
    known = json.loads(capsys.readouterr().out)["properties"]
    assert set(tomllib.loads(committed.to_toml())) <= set(known)


@pytest.mark.parametrize(
    "arguments, names",
    [
        (["topology", "show", "-t", "/nowhere"], "/nowhere"),
        (["topology", "show", "-t", "x", "--qemu-args", "y"], "not both"),
        (["topology", "show", "--cedt", "x"], "--topology"),
        (["topology", "convert", "x"], "--to"),
        (["topology", "convert", "/nowhere", "--to", "toml"], "/nowhere"),
        (["topology", "bogus"], "bogus"),
    ],
)
def test_misuse_is_one_line(arguments, names, capsys):
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert names in err


def test_a_damaged_file_is_one_line_with_its_name(tmp_path, capsys):
    path = tmp_path / "machine.json"
    path.write_text('[{"bus": "root0" "provider": "ACPI.CXL"}]')
    assert main(["topology", "show", "-t", str(path)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert str(path) in err and "line 1" in err


def test_a_stream_says_what_decode_says(committed):
    rng = random.Random(1)
    window = committed.windows[0]
    hpas = [rng.randrange(window.base - 4096, window.base + (1 << 30)) for _ in range(500)]
    sink = io.StringIO()
    words = [f"{hpa:#x}" if hpa % 2 else str(hpa) for hpa in hpas]
    status = stream(committed, io.StringIO("\n".join(words)), sink)
    expected = []
    for word, hpa in zip(words, hpas):
        found = committed.decode(hpa)
        expected.append(f"{word} - -" if isinstance(found, Miss) else f"{word} {found.device} {found.dpa:#x}")
    assert sink.getvalue().splitlines() == expected
    assert status == int(any(line.endswith("- -") for line in expected)) == 1


def test_a_stream_longer_than_a_block_loses_no_line(committed, monkeypatch):
    monkeypatch.setattr("cxl.cli.stream.BLOCK", 7)
    base = committed.windows[0].base
    sink = io.StringIO()
    assert stream(committed, io.StringIO("\n".join(hex(base + i) for i in range(50))), sink) == 0
    assert [line.split()[0] for line in sink.getvalue().splitlines()] == [hex(base + i) for i in range(50)]


@pytest.mark.parametrize("wrong", ["zz", "-1", hex(1 << 64)])
def test_a_line_that_is_no_address_is_named(committed, wrong):
    sink = io.StringIO()
    base = committed.windows[0].base
    with pytest.raises(Exception, match=f"line 3: '{wrong}' is not an HPA"):
        stream(committed, io.StringIO(f"{base}\n{base}\n{wrong}\n{base}\n"), sink)
    assert len(sink.getvalue().splitlines()) == 2
