"""`cxl-mmu run`: the main job from the command line, and what lands in the device files."""

import json
import os
import re
import shutil

import pytest

from cxl import DEFAULT_QEMU_ARGS, Topology
from cxl.cli.main import main
from cxl.job import Job
from mmu.stripes import dpa_offset, position

MIB = 1 << 20
DATA = 2 * MIB  # offset of the data area in the region
PATTERN = bytes((13 * i + (i >> 8)) & 255 for i in range(1 << 14))


def checksum(data):
    """What the example computes: rotate left by 7, exclusive-or the next 8 bytes."""
    h = 0
    for i in range(0, len(data), 8):
        h = ((h << 7 | h >> 57) & (1 << 64) - 1) ^ int.from_bytes(data[i : i + 8], "little")
    return h


CHECKSUM = checksum(PATTERN)
ROOTS = {"x86_64": "cr3", "aarch64": "ttbr0_el1"}
ARCHS = pytest.mark.parametrize("arch", ROOTS)


def files(folder, size="256M"):
    """The default machine with its devices in files of *folder*."""
    args = DEFAULT_QEMU_ARGS
    for name in ("m0", "m1"):
        old = f"memory-backend-ram,id={name},share=on,size=256M"
        assert old in args
        args = args.replace(old, f"memory-backend-file,id={name},share=on,mem-path={folder / name},size={size}")
    return args


def run(capsys, *arguments):
    status = main(["run", *arguments, "--json"])
    out = capsys.readouterr()
    return status, json.loads(out.out) if out.out else None, out.err



def test_a_device_file_that_is_cut_short_is_named_once_for_the_guest_and_once_for_the_file(
    tmp_path, capsys, monkeypatch
):
    load = Job.run

    def cut(job, *arguments):
        os.truncate(tmp_path / "m0", 0)
        return load(job, *arguments)

    monkeypatch.setattr(Job, "run", cut)
    in_ram = [word for area in ("tables", "code", "stack") for word in (f"--{area}", "ram")]
    status, _, err = run(capsys, "checksum", "--qemu-args", files(tmp_path), *in_ram)
    lost = rf"byte 0x[0-9a-f]+ of {tmp_path}/m0 is lost: {256 * MIB} bytes were mapped; the file has 0 bytes now"
    guest, written_back = err.splitlines()
    assert re.fullmatch(rf"cxl-mmu: warning: .*: {lost}", guest)
    assert (status, bool(re.fullmatch(rf"cxl-mmu: not all could be written back: {lost}", written_back))) == (2, True)


@ARCHS
def test_the_pattern_lies_in_the_device_files_where_the_interleave_says(arch, tmp_path, capsys):
    status, record, _ = run(capsys, "checksum", "--arch", arch, "--qemu-args", files(tmp_path))
    assert (status, record["stop"]["reason"], record["result"]) == (0, "halt", CHECKSUM)
    contents = [(tmp_path / name).read_bytes() for name in ("m0", "m1")]
    assert [len(c) for c in contents] == [256 * MIB] * 2
    found = bytes(contents[position(DATA + i, 2, 256)][dpa_offset(DATA + i, 2, 256)] for i in range(len(PATTERN)))
    assert found == PATTERN


@ARCHS
def test_tables_in_ram_and_in_the_window_give_equal_registers_and_memory(arch, tmp_path, capsys):
    seen = []
    for side in ("window", "ram"):
        folder = tmp_path / side
        folder.mkdir()
        _, record, _ = run(capsys, "checksum", "--arch", arch, "--tables", side, "--qemu-args", files(folder))
        registers = record["registers"]
        assert registers.pop(ROOTS[arch]) == record["areas"]["tables"]["base"]
        data = [(folder / n).read_bytes()[DATA // 2 : DATA // 2 + MIB // 2] for n in ("m0", "m1")]
        seen.append((registers, record["result"], data))
        assert bool(record["counters"]["tables"]) == (side == "window")
    assert seen[0] == seen[1]


@ARCHS
@pytest.mark.parametrize("side", ["window", "ram"])
def test_everything_on_one_side_gives_the_same_result(arch, side, capsys):
    words = [word for part in ("tables", "code", "data") for word in (f"--{part}", side)]
    status, record, _ = run(capsys, "checksum", "--arch", arch, *words)
    assert (status, record["result"]) == (0, CHECKSUM)
    assert bool(record["counters"]["data"]) == (side == "window")


@ARCHS
def test_tables_of_one_level_in_the_window(arch, capsys):
    names = {"x86_64": ("PML4", "PDPT", "PD", "PT"), "aarch64": ("L0", "L1", "L2", "L3")}[arch]
    for depth, name in enumerate(names):
        status, record, _ = run(capsys, "checksum", "--arch", arch, "--tables", f"ram,{name}=window")
        assert (status, record["result"]) == (0, CHECKSUM)
        devices = [step["place"]["device"] for step in record["walk"]["steps"]]
        assert [i for i, device in enumerate(devices) if device is not None] == [depth]
        assert set(record["areas"]) == {"rest tables", f"{name} tables", "code", "data", "stack"}


@ARCHS
def test_the_walk_names_the_device_and_dpa_of_each_entry(arch, capsys):
    _, record, _ = run(capsys, "checksum", "--arch", arch)
    steps = record["walk"]["steps"]
    assert [s["place"]["device"] for s in steps] == ["mem1", "mem0", "mem1", "mem0"]
    for step in steps:
        offset = step["address"] - record["regions"][0]["base"]
        assert step["place"]["device"] == f"mem{position(offset, 2, 256)}"
        assert step["place"]["dpa"] == dpa_offset(offset, 2, 256)
    assert record["walk"]["pa"] == record["areas"]["data"]["base"]


def test_traffic_by_device_adds_up(capsys):
    _, record, _ = run(capsys, "checksum")
    counters = record["counters"]
    data = counters["data"].values()
    assert sum(t["reads"] + t["writes"] for t in data) == counters["bus_reads"] + counters["bus_writes"]
    assert counters["bus_errors"] == 0
    assert counters["fills"] >= counters["walks"] > 0
    assert sum(t["read_bytes"] for t in counters["code"].values()) == 4096


@pytest.mark.parametrize(
    "arch, source, expected",
    [
        ("x86_64", ".intel_syntax noprefix\nmov rbx,0xdead0003\nmov [rbx],rax\nhlt\n",
         {"type": "PageFault", "vector": 14, "error_code": 2, "cr2": 0xDEAD0003}),
        ("x86_64", ".intel_syntax noprefix\nmov rbx,0x8000000000000000\nmov rax,[rbx]\nhlt\n",
         {"type": "GeneralProtection", "vector": 13, "error_code": 0}),
        ("aarch64", "mov x1,#0x4321\nldr x0,[x1]\nwfi\n",
         {"type": "Abort", "kind": "data", "esr": 0x96000006, "far": 0x4321, "level": 2, "wnr": False}),
    ],
)  # fmt: skip
def test_a_fault_without_a_handler_ends_the_run_with_the_architectural_fault(arch, source, expected, tmp_path, capsys):
    assembler = "as" if arch == "x86_64" else "aarch64-linux-gnu-as"
    if not any(shutil.which(n) for n in (assembler, f"{arch}-linux-gnu-as")):
        pytest.skip(f"{assembler} is not installed")
    program = tmp_path / "fault.s"
    program.write_text(source)
    status, record, _ = run(capsys, str(program), "--arch", arch)
    assert status == 1
    assert record["stop"]["reason"] == "fault"
    assert expected.items() <= record["stop"]["exception"].items()


@ARCHS
@pytest.mark.parametrize("dispatch", ["exact", "auto"])
def test_a_run_goes_on_from_a_snapshot(arch, dispatch, tmp_path, capsys):
    path = str(tmp_path / "half")
    _, whole, _ = run(capsys, "checksum", "--arch", arch)
    status, half, _ = run(capsys, "checksum", "--arch", arch, "--limit", "5000", "--snapshot", path)
    assert (status, half["stop"]["reason"]) == (1, "limit")
    for _ in range(2):  # the file stays as it is
        status, rest, _ = run(capsys, "--resume", path, "--dispatch", dispatch)
        assert (status, rest["arch"], rest["result"], rest["areas"]) == (0, arch, CHECKSUM, whole["areas"])
        assert rest["registers"] == whole["registers"]


def test_a_snapshot_goes_on_as_in_a_release(tmp_path, capsys):
    path = str(tmp_path / "half")
    assert run(capsys, "handler", "--limit", "5", "--snapshot", path)[0] == 1
    status, record, _ = run(capsys, "--resume", path, "--release", "10.0")
    assert (status, record["release"], record["result"]) == (0, "10.0", 6)


def test_raw_binary(tmp_path, capsys):
    program = tmp_path / "answer.bin"
    program.write_bytes(bytes.fromhex("48c7c02a000000f4"))  # mov rax, 42; hlt
    assert run(capsys, str(program))[1]["result"] == 42


def test_text_names_what_an_expert_looks_for(capsys):
    assert main(["run", "checksum"]) == 0
    text = capsys.readouterr().out
    for part in ("stop: halt", f"result: rax = {CHECKSUM:#x}", "PML4E", "mem1 DPA", "page walks", "10 fills"):
        assert part in text


def test_a_guest_that_never_halts_is_stopped(tmp_path, capsys):
    program = tmp_path / "loop.bin"
    program.write_bytes(b"\xeb\xfe")
    status, record, _ = run(capsys, str(program), "--timeout", "0.2")
    assert (status, record["stop"]["reason"]) == (1, "timeout")
    status, record, _ = run(capsys, str(program), "--limit", "1000")
    assert (status, record["stop"]["reason"]) == (1, "limit")


D = DEFAULT_QEMU_ARGS
MISUSE = {
    "not a device": (D + " -device cxl-typo,bus=rp0", "cxl-typo"),
    "not an option": (D.replace("volatile-memdev=m0", "volatile-memdev=m0,colour=red"), "colour"),
    "missing bus": (D.replace("bus=cxl.0,id=rp0", "bus=cxl.9,id=rp0"), "cxl.9"),
    "two devices on one port": (D.replace("bus=rp1,vol", "bus=rp0,vol"), "rp0"),
    "granularity 300": (D.replace("granularity=256", "granularity=300"), "300"),
    "granularity 128": (D.replace("granularity=256", "granularity=128"), "128"),
    "granularity 32k": (D.replace("granularity=256", "granularity=32k"), "32"),
    "window of 100 MiB": (D.replace("size=4G,cxl", "size=100M,cxl"), "256M"),
    "no such target": (D.replace("targets.0=cxl.0", "targets.0=cxl.7"), "cxl.7"),
    "unbalanced quote": (D + " 'x", "quot"),
}


@pytest.mark.parametrize("wrong", MISUSE)
def test_misuse_is_one_line_and_no_file(wrong, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args, names = MISUSE[wrong]
    args = args.replace("memory-backend-ram,id=m0", "memory-backend-file,mem-path=m0,id=m0")
    status, record, err = run(capsys, "checksum", "--qemu-args", args)
    assert (status, record) == (2, None)
    assert err.count("\n") == 1
    assert err.startswith("cxl-mmu: ")
    assert names in err
    assert list(tmp_path.iterdir()) == []


def test_a_backing_file_that_is_too_small_is_named_and_left_alone(tmp_path, capsys):
    (tmp_path / "m0").write_bytes(b"x" * 4096)
    status, record, err = run(capsys, "checksum", "--qemu-args", files(tmp_path))
    assert (status, record, err.count("\n")) == (2, None, 1)
    assert "m0" in err and "0x1000 " in err.replace("4096", "0x1000 ")
    assert (tmp_path / "m0").read_bytes() == b"x" * 4096
    assert [p.name for p in tmp_path.iterdir()] == ["m0"]


@pytest.mark.parametrize(
    "arguments, names",
    [
        (["run", "nothing-here"], "nothing-here"),
        (["run"], "give PROGRAM or --resume FILE"),
        (["run", "checksum", "--resume", "x"], "not both"),
        (["run", "--resume", "x", "--tables", "ram"], "--tables goes with a program: x has its own"),
        (["run", "--resume", "x", "--qemu-args", "-M q35"], "--qemu-args goes with a program"),
        (["run", "--resume", "x", "--release", "8.2", "--flags", "clear"], "--flags goes with a program"),
        (["run", "--resume", "nothing-here"], "nothing-here"),
        (["run", "checksum", "--tables", "disk"], "disk"),
        (["run", "checksum", "--tables", "ram,PT=disk"], "ram,PT=window"),
        (["run", "checksum", "--tables", "ram,window"], "ram,PT=window"),
        (["run", "checksum", "--tables", "ram,L3=window"], "no level 'L3'"),
        (["run", "checksum", "--tables", "PT=window"], "no place for PML4, PDPT, PD"),
        (["run", "checksum", "--arch", "vax"], "vax"),
        (["run", "checksum", "--bogus"], "--bogus"),
        (["run", "checksum", "--explain", "-1"], "-1"),
        (["bogus"], "bogus"),
        (["decode"], "HPA"),
        (["decode", "zz"], "zz"),
        (["decode", "--dpa", "mem0"], "mem0"),
        (["decode", "--dpa", "mem9:0"], "mem9"),
    ],
)
def test_misuse_of_the_command_line_is_one_line(arguments, names, capsys):
    assert main(arguments) == 2
    out = capsys.readouterr()
    assert (out.out, out.err.count("\n")) == ("", 1)
    assert names in out.err


def test_decode_and_back(capsys):
    assert main(["decode", "0x2f0000140", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["device"], record["dpa"], [v["kind"] for v in record["levels"]]) == (
        "mem1", 0x40, ["window", "host bridge", "device"],
    )  # fmt: skip
    assert main(["decode", "--dpa", "mem1:0x40", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["hpas"] == [0x2F0000140]


def test_decode_of_an_address_without_an_answer_is_status_1(capsys):
    assert main(["decode", "0x1000"]) == 1
    assert "in no window" in capsys.readouterr().out


def test_a_machine_that_is_already_programmed_runs_as_it_is(tmp_path, capsys):
    path = tmp_path / "machine.toml"
    region = '[[region]]\nwindow = "window0"\ndevices = ["mem1", "mem0"]\ngranularity = 1024\n'
    path.write_text(f"{Topology.default().to_toml()}\n{region}")
    status, record, _ = run(capsys, "checksum", "-t", str(path))
    assert (status, record["result"]) == (0, CHECKSUM)
    (region,) = record["regions"]
    assert (region["devices"], region["granularity"]) == (["mem1", "mem0"], 1024)
    assert record["walk"]["steps"][0]["place"]["device"] == "mem1"
