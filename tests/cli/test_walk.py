"""`cxl-mmu walk`: every step of one walk, from the bits of the address to the device."""

import json

import pytest

from cxl.cli.main import main
from mmu.stripes import dpa_offset, position
from tests.guest.machines import ARCHS

VA = 0x1000_0400_0000  # the first byte of the data area
REGION = 0x2F0000000
MIB = 1 << 20


def run(capsys, *arguments):
    status = main(["walk", *arguments, "--json"])
    out = capsys.readouterr()
    return status, json.loads(out.out) if out.out else None, out.err


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize("arch", ARCHS)
def test_each_step_is_explained_down_to_the_device(arch, engine, capsys):
    status, record, _ = run(capsys, f"{VA + 0x123:#x}", "--arch", arch, "--engine", engine)
    assert (status, record["pa"]) == (0, REGION + 2 * MIB + 0x123)
    assert [(s["index"], s["bits"]) for s in record["steps"]] == [
        (32, [47, 39]), (0, [38, 30]), (32, [29, 21]), (0, [20, 12])]  # fmt: skip
    for step in record["steps"]:
        assert step["address"] == step["table"] + 8 * step["index"]
        offset = step["address"] - REGION
        window, bridge, device = step["levels"]
        which = position(offset, 2, 256)
        assert (window["kind"], bridge["index"], device["name"]) == ("window", which, f"mem{which}")
        assert device["target"] == dpa_offset(offset, 2, 256)
    assert [s["table"] for s in record["steps"][1:]] == [s["value"] & 0xFFFF_FFFF_F000 for s in record["steps"][:-1]]


def test_the_text_says_it_in_words(capsys):
    assert main(["walk", hex(VA + 0x123), "--program", "checksum"]) == 0
    text = capsys.readouterr().out
    for part in (
        "walk of 0x100004000123 for read", "entry 32 (bits 47..39) of the table at 0x2f0000000",
        "host bridge cxl.0: decoder 0, 2 ways @ 256, index 1 -> rp1", "-> 0x2f0200123, mem1 DPA 0x100023: 4 KiB page",
        "device mem1: decoder 0, 2 ways @ 256, index 1 -> DPA 0x100023",
    ):  # fmt: skip
        assert part in text


def test_a_walk_sets_no_flag(capsys):
    for _ in range(2):
        _, record, _ = run(capsys, hex(VA), "--access", "write")
        assert not any(step["flags"].get("A") or step["flags"].get("D") for step in record["steps"])


FAULTS = [
    ("x86_64", [hex(VA), "--access", "fetch"], "permission at level 1", {"type": "PageFault", "error_code": 0x11}),
    ("x86_64", [hex(VA), "--user"], "permission", {"type": "PageFault", "error_code": 5}),
    ("x86_64", ["0x8000000000000000"], "non canonical", {"type": "GeneralProtection", "vector": 13}),
    ("x86_64", ["0xffff800000000000"], "not present at level 4", {"cr2": 0xFFFF800000000000}),
    ("aarch64", [hex(VA), "--access", "fetch"], "permission at level 3", {"kind": "instruction", "fsc": 0xF}),
    ("aarch64", [hex(VA), "--user"], "permission at level 3", {"fsc": 0xF, "esr": 0x9200000F}),
    ("aarch64", ["0xffff800000000000"], "not present at level 0", {"fsc": 4}),
]


@pytest.mark.parametrize("arch, arguments, text, exception", FAULTS)
def test_a_fault_is_status_1_with_what_the_guest_would_see(arch, arguments, text, exception, capsys):
    status, record, _ = run(capsys, *arguments, "--arch", arch)
    assert status == 1
    assert exception.items() <= record["exception"].items()
    assert main(["walk", *arguments, "--arch", arch]) == 1
    assert f"-> fault: {text}" in capsys.readouterr().out


def test_tables_in_ram_have_no_way_to_a_device(capsys):
    _, record, _ = run(capsys, hex(VA), "--tables", "ram")
    assert all(step["levels"] == [] and step["place"]["region"] == "ram0" for step in record["steps"])


@pytest.mark.parametrize("arch", ARCHS)
def test_a_snapshot_is_walked_as_it_is(arch, tmp_path, capsys):
    path = str(tmp_path / "s")
    assert main(["run", "checksum", "--arch", arch, "--snapshot", path]) == 0
    capsys.readouterr()
    status, record, _ = run(capsys, hex(VA), "--snapshot", path)
    assert (status, record["pa"]) == (0, REGION + 2 * MIB)
    assert record["steps"][-1]["flags"]["A" if arch == "x86_64" else "AF"] == 1


@pytest.mark.parametrize(
    "arguments, names",
    [
        ([], "VA"),
        (["zz"], "'zz' is not a number"),
        (["0", "--program", "checksum", "--snapshot", "x"], "not both"),
        (["0", "--access", "execute"], "execute"),
        (["0", "--snapshot", "nothing-here"], "nothing-here"),
        (["0", "--snapshot", "x", "--data", "ram"], "--data goes with a program: x has its own"),
        (["0", "--program", "nothing-here"], "neither a file nor an example"),
    ],
)
def test_misuse_is_one_line(arguments, names, capsys):
    assert main(["walk", *arguments]) == 2
    out = capsys.readouterr()
    assert (out.out, out.err.count("\n")) == ("", 1)
    assert names in out.err
