"""`cxl-mmu groom` from the command line: status, text, JSON, snapshots, misuse."""

import json

import pytest

from cxl.cli.main import main
from tests.groom.machines import DATA, REGION
from tests.guest.machines import ARCHS

IN_RAM = ["--tables", "ram", "--code", "ram", "--data", "ram"]


def run(capsys, *arguments):
    status = main(["groom", *arguments, "--json"])
    out = capsys.readouterr()
    return status, json.loads(out.out) if out.out else None, out.err


@pytest.mark.parametrize("arch", ARCHS)
def test_a_report_is_status_1_when_something_is_in_a_window(arch, capsys):
    status, record, _ = run(capsys, "checksum", "--arch", arch, "--dma", f"{DATA:#x}:512")
    assert (status, record["left"], record["after"], record["moves"]) == (1, 75, None, [])
    before = record["before"]
    assert before["stop"]["reason"] == "halt"
    assert [len(before[kind]) for kind in ("tables", "code", "dma")] == [10, 64, 1]
    assert before["tables"][0]["shares"] == {"mem0": 2048, "mem1": 2048}
    assert before["dma"][0]["accesses"]["data"]["writes"] > 0
    assert sum(before["dispatches_per_walk"].values()) == pytest.approx(
        sum(t["dispatches_per_walk"] for t in before["tables"]))


def test_a_report_is_status_0_when_nothing_is(capsys):
    status, record, _ = run(capsys, "checksum", *IN_RAM)
    assert (status, record["left"]) == (0, 0)
    status, record, _ = run(capsys, "checksum", "--tables", "ram", "--only", "tables")
    assert (status, record["left"]) == (0, 0)
    assert "code" not in record["before"]


@pytest.mark.parametrize("arch", ARCHS)
def test_apply_shows_before_and_after(arch, capsys):
    status, record, _ = run(capsys, "checksum", "--arch", arch, "--apply")
    assert (status, record["same"], record["differences"], record["left"]) == (0, True, [], 0)
    before, after = record["before"], record["after"]
    assert before["counters"]["tables"] and not after["counters"]["tables"]
    assert not any(t["in_window"] for t in after["tables"])
    assert len(record["moves"]) == 2 and record["changed"] == 10 + 64
    assert main(["groom", "checksum", "--arch", arch, "--apply"]) == 0
    text = capsys.readouterr().out
    for part in ("before", "40 KiB of 40 KiB in windows", "2 KiB on mem0, 2 KiB on mem1", "a walk", "(64 pages)",
                 "dispatched for page walks: mem0 ", "moved", "74 entries and registers changed", "no dispatch",
                 "nothing of 40 KiB in windows", "same registers and memory"):  # fmt: skip
        assert part in text


def test_a_program_that_computes_something_else_afterwards_is_status_1(tmp_path, capsys):
    program = tmp_path / "cr3.bin"
    program.write_bytes(bytes.fromhex("0f20d8f4"))  # mov rax, cr3; hlt
    assert main(["groom", str(program), "--apply"]) == 1
    assert "differences\n  rax: 0x2f0000000 before" in capsys.readouterr().out


@pytest.mark.parametrize("arch", ARCHS)
def test_a_snapshot_goes_on_from_the_middle(arch, tmp_path, capsys):
    path = str(tmp_path / "half")
    assert main(["run", "checksum", "--arch", arch, "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert main(["run", "checksum", "--arch", arch, "--limit", "5000", "--snapshot", path]) == 1
    capsys.readouterr()
    status, record, _ = run(capsys, "--snapshot", path, "--apply", "--only", "tables", "--to", "0x100000:0x10000")
    assert (status, record["arch"], record["same"]) == (0, arch, True)
    assert all(0x100000 <= t["base"] < 0x110000 for t in record["after"]["tables"])
    assert record["before"]["registers"] == whole["registers"]


def test_grooming_saves_a_program_from_its_emulator(capsys):
    """8.2 aborts at the first store whose walk reads the window in the middle of a block."""
    status, record, _ = run(capsys, "handler", "--release", "8.2", "--data", "ram", "--apply")
    assert (status, record["differences"]) == (0, [])
    before, after = record["before"]["stop"], record["after"]["stop"]
    assert (before["reason"], after["reason"]) == ("abort", "halt")
    assert "could not find TB for pc=(nil)" in before["detail"]
    assert main(["groom", "handler", "--release", "8.2", "--data", "ram", "--apply"]) == 0
    assert "the emulator does not end any more" in capsys.readouterr().out


def test_what_grooming_cannot_save_is_said(capsys):
    """The handler's stack and IDT are data, and stay in the window."""
    status, record, _ = run(capsys, "handler", "--release", "8.2", "--apply")
    assert (status, record["left"]) == (1, 0)
    (line,) = record["differences"]
    assert line.startswith("the emulator ends all the same: ERROR:../system/cpus.c")


@pytest.mark.parametrize("arch", ARCHS)
def test_fetches_count_page_by_page_under_a_release(arch, capsys):
    status, record, _ = run(capsys, "handler", "--release", "10.0", "--arch", arch, "--data", "ram", "--code",
                            "window", "--apply")  # fmt: skip
    assert (status, record["same"]) == (0, True)
    pages = record["before"]["code"]
    assert pages[0]["accesses"]["code"]["reads"] == sum(
        t["reads"] for t in record["before"]["counters"]["code"].values()) > 0
    assert not any(page["accesses"] for page in pages[1:])


def test_a_snapshot_goes_on_under_a_release(tmp_path, capsys):
    path = str(tmp_path / "half")
    assert main(["run", "handler", "--data", "ram", "--limit", "30", "--snapshot", path]) == 1
    capsys.readouterr()
    status, record, _ = run(capsys, "--snapshot", path, "--release", "8.2", "--apply")
    assert status == 0
    assert (record["before"]["stop"]["reason"], record["after"]["stop"]["reason"]) == ("abort", "halt")


def test_runs_that_the_clock_ended_are_not_compared(tmp_path, capsys):
    program = tmp_path / "loop.bin"
    program.write_bytes(b"\xeb\xfe")
    status, record, _ = run(capsys, str(program), "--timeout", "0.1", "--apply")
    assert (status, record["differences"]) == (
        1, ["nothing can be compared: the time was up before the guest ended"])


@pytest.mark.parametrize(
    "arguments, names",
    [
        ([], "give PROGRAM or --snapshot FILE"),
        (["checksum", "--snapshot", "x"], "not both"),
        (["checksum", "--release", "6.0"], "release must be one of"),
        (["checksum", "--to", "0:4096"], "--to goes with --apply"),
        (["checksum", "--dma", "0x1000"], "write START:SIZE"),
        (["checksum", "--dma", "x:1"], "'x' is not a number"),
        (["checksum", "--dma", "0x10000000000:4096"], "no memory at the DMA buffer 0x10000000000:0x1000"),
        (["checksum", "--only", "stack"], "stack"),
        (["checksum", "--apply", "--to", f"{REGION:#x}:0x100000"], "not RAM outside of windows"),
        (["checksum", "--apply", "--to", "0x100000:0x1000"], "must go to RAM"),
        (["--snapshot", "nothing-here"], "nothing-here"),
        (["--snapshot", "x", "--arch", "aarch64"], "--arch goes with a program: x has its own"),
        (["--snapshot", __file__], "this is not a snapshot"),
    ],
)
def test_misuse_is_one_line(arguments, names, capsys):
    assert main(["groom", *arguments]) == 2
    out = capsys.readouterr()
    assert (out.out, out.err.count("\n")) == ("", 1)
    assert names in out.err
