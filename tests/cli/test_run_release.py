"""`cxl-mmu run --release`: a program of the user's under a release of QEMU."""

import json

import pytest

from cxl.cli.main import main
from mmu.guest.plan import CODE_VA

ADD = "480307f4"  # add rax, [rdi]; hlt


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "add.bin"
    path.write_bytes(bytes.fromhex(ADD))
    return str(path)


def run(capsys, *words):
    status = main(["run", *words, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_the_abort_names_pc_level_and_device(program, capsys):
    status, record = run(capsys, program, "--release", "8.2")
    stop = record["stop"]
    assert (status, record["release"]) == (1, "8.2")
    assert (stop["reason"], stop["kind"], stop["pc"]) == ("abort", "io_recompile", CODE_VA)
    assert "could not find TB for pc=(nil)" in stop["detail"]
    assert stop["level"] == 4
    assert (stop["place"]["device"], stop["place"]["region"]) == ("mem1", "window0")


def test_the_text_is_one_report(program, capsys):
    assert main(["run", program, "--release", "8.2"]) == 1
    out = capsys.readouterr()
    (line,) = [line for line in out.out.splitlines() if line.startswith("stop: ")]
    assert line == (
        "stop: abort at 0x400000: qemu: fatal: cpu_io_recompile: could not find TB for pc=(nil); guest PC 0x400000; "
        "walk level 4; table in mem1 DPA 0x0")
    assert out.err == ""


@pytest.mark.parametrize("release, code", [
    *((release, "ram") for release in ("7.2", "9.1", "9.2", "10.0", "11.1")),
    ("8.2", "window"), ("10.0", "window"),  # alone in its block, a load may do I/O
])  # fmt: skip
def test_where_it_works_it_ends_as_the_plain_machine_does(release, code, program, capsys):
    _, plain = run(capsys, program)
    status, record = run(capsys, program, "--release", release, "--code", code)
    assert (status, record["stop"]["reason"]) == (0, "halt")
    assert (record["result"], record["stop"]["pc"]) == (plain["result"], plain["stop"]["pc"])


@pytest.mark.parametrize("release, reason", [("7.2", "hang"), ("9.1", "hang"), ("9.2", "halt")])
def test_tables_that_nobody_walked_before(release, reason, program, capsys):
    status, record = run(capsys, program, "--release", release, "--flags", "clear")
    assert (status, record["stop"]["reason"]) == (int(reason != "halt"), reason)


def test_everything_in_ram_is_no_question(program, capsys):
    words = [f"--{what}=ram" for what in ("tables", "code", "data", "stack")]
    status, record = run(capsys, program, "--release", "8.2", "--flags", "clear", *words)
    assert (status, record["counters"]["reads"], record["counters"]["recompiles"]) == (0, {}, 0)


def test_an_unknown_release_is_misuse(program, capsys):
    assert main(["run", program, "--release", "5.0"]) == 2
    assert "release must be one of 7.2" in capsys.readouterr().err


@pytest.mark.parametrize("words, message", [
    (["--flags", "clear"], "--flags goes with --release"),
    (["--release", "9.0", "--dispatch", "mirror"], "not --dispatch mirror"),
])  # fmt: skip
def test_options_that_do_not_go_together(words, message, program, capsys):
    assert main(["run", program, *words]) == 2
    assert message in capsys.readouterr().err


def test_arm64_programs_run_too(tmp_path, capsys):
    path = tmp_path / "add.bin"
    path.write_bytes(bytes.fromhex("010040f9 2000018b 7f2003d5"))  # ldr x1, [x0]; add x0, x1, x1; wfi
    status, record = run(capsys, str(path), "--arch", "aarch64", "--release", "8.2")
    assert (status, record["stop"]["reason"], record["result"]) == (0, "halt", 0)


def test_a_snapshot_can_be_written_after_it(program, tmp_path, capsys):
    assert main(["run", program, "--release", "10.0", "--snapshot", str(tmp_path / "s")]) == 0
    assert (tmp_path / "s").exists()
