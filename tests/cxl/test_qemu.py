"""QEMU command lines: grammar, placement, refusals."""

import json
import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxl import DEFAULT_QEMU_ARGS, Route, Topology, TopologyError
from cxl.exchange.options import comma_list, integer, size, words
from tests.cxl.machines import MIB

SWITCHED = """
qemu-system-aarch64 -machine virt,gic-version=3,cxl=on -m 4g,maxmem=8g,slots=4 -cpu max -smp 4 -nographic \\
 -kernel Image -append "console=ttyAMA0 -v root=/dev/vda" -drive if=none,file=disk.qcow2,id=hd \\
 -device virtio-blk-pci,drive=hd -device pcie-root-port,id=root_port13,chassis=0,slot=9 \\
 -object memory-backend-file,id=cxl-mem0,share=on,mem-path={0}/mem0.raw,size=256M \\
 -object memory-backend-file,id=cxl-mem1,share=on,mem-path={0}/mem1.raw,size=256M \\
 -object memory-backend-ram,id=cxl-mem2,size=256M -object memory-backend-memfd,id=cxl-mem3,size=0x10000000 \\
 -object memory-backend-ram,id=cxl-lsa0,size=1M -object memory-backend-ram,id=cxl-lsa1,size=1M \\
 -device pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.1 -device pxb-cxl,bus_nr=222,bus=pcie.0,id=cxl.2,hdm_for_passthrough=on \\
 -device cxl-rp,port=0,bus=cxl.1,id=root_port0,chassis=0,slot=0 \\
 -device cxl-rp,port=1,bus=cxl.1,id=root_port1,chassis=0,slot=1 \\
 -device cxl-rp,port=0,bus=cxl.2,id=rp2,chassis=0,slot=2 \\
 -device cxl-upstream,bus=root_port0,id=us0,addr=0.0,multifunction=on \\
 -device cxl-switch-mailbox-cci,bus=root_port0,addr=0.1,target=us0 \\
 -device cxl-downstream,port=0,bus=us0,id=swport0,chassis=0,slot=4 \\
 -device cxl-downstream,port=1,bus=us0,id=swport1,chassis=0,slot=5 \\
 -device cxl-type3,bus=swport0,volatile-memdev=cxl-mem0,id=cxl-vmem0,sn=0x99 \\
 -device cxl-type3,bus=swport1,persistent-memdev=cxl-mem1,lsa=cxl-lsa0,id=cxl-pmem1 \\
 -device cxl-type3,bus=root_port1,memdev=cxl-mem2,lsa=cxl-lsa1,id=cxl-pmem2 \\
 -device '{{"driver":"cxl-type3","bus":"rp2","volatile-memdev":"cxl-mem3","id":"cxl-vmem3"}}' \\
 -M cxl-fmw.0.targets.0=cxl.1,cxl-fmw.0.size=4G,cxl-fmw.0.interleave-granularity=8k \\
 -M cxl-fmw.1.targets.0=cxl.1,cxl-fmw.1.targets.1=cxl.2,cxl-fmw.1.size=4G,cxl-fmw.1.interleave-granularity=8k
"""


def default_with(*changes):
    text = DEFAULT_QEMU_ARGS
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text


def test_full_command_line(tmp_path):
    topo = Topology.from_qemu(SWITCHED.format(tmp_path))
    assert [(w.name, w.base, w.size, w.granularity, [t.name for t in w.targets]) for w in topo.windows] == [
        ("window0", 1 << 40, 4 << 30, 8192, ["cxl.1"]),
        ("window1", (1 << 40) + (4 << 30), 4 << 30, 8192, ["cxl.1", "cxl.2"]),
    ]
    assert {n: (d.volatile_size, d.persistent_size, d.serial) for n, d in topo.devices.items()} == {
        "cxl-vmem0": (256 * MIB, 0, 0x99), "cxl-pmem1": (0, 256 * MIB, 0), "cxl-pmem2": (0, 256 * MIB, 0),
        "cxl-vmem3": (256 * MIB, 0, 0),
    }
    assert topo.bridges["cxl.2"].registers is not None  # hdm_for_passthrough=on keeps its decoders
    assert topo.bridges["cxl.1"].uid == 12
    assert os.stat(tmp_path / "mem0.raw").st_size == 256 * MIB
    topo.create_region("window1", ["cxl-vmem0", "cxl-vmem3"])
    assert topo.decode(topo.windows[1].base + 8192).device == "cxl-vmem3"


def test_words_in_a_list_and_in_any_order():
    args = words(DEFAULT_QEMU_ARGS)
    backwards = [w for option, value in reversed(args) for w in (f"-{option}", value)]
    backwards += ["-M", "q35,cxl=on"]
    assert Topology.from_qemu(backwards).windows[0].base == 0x2F0000000


@pytest.mark.parametrize("memory, registers, window", [
    ("512M,maxmem=4G,slots=4", 0x2E0000000, 0x2F0000000),  # measured, 7.2 and 10.0
    ("1G", 0x100000000, 0x110000000),  # measured, 11.1
    ("4G", 0x180000000, 0x190000000),  # 2 GiB of RAM are above 4 GiB
    ("size=3G,maxmem=3G", 0x140000000, 0x150000000),
])
def test_q35_placement(memory, registers, window):
    topo = Topology.from_qemu(default_with(("512M,maxmem=4G,slots=4", memory)))
    assert (topo.bridges["cxl.0"].base, topo.windows[0].base) == (registers, window)


def test_virt_placement():
    topo = Topology.from_qemu(default_with(("q35,", "virt,"), ("512M,maxmem=4G,slots=4", "4G")))
    assert (topo.bridges["cxl.0"].base, topo.windows[0].base) == (256 << 30 | 64 << 20, 1 << 40)


def test_register_blocks_are_hooked_up_newest_first():
    """As in a CEDT that QEMU wrote: the later of two host bridges has the lower address."""
    topo = Topology.from_qemu(default_with(
        ("-device cxl-rp,port=1,bus=cxl.0", "-device pxb-cxl,id=cxl.9,bus_nr=48 -device cxl-rp,port=1,bus=cxl.9")))
    assert [b.base for b in topo.bridges.values()] == [0x2E0010000, 0x2E0000000]
    assert topo.bridges["cxl.0"].registers is None  # one root port: pass-through


def test_one_way_from_the_issue_tracker():
    topo = Topology.from_qemu(default_with(
        ("-device cxl-rp,port=1,bus=cxl.0,id=rp1,chassis=0,slot=3 ", ""),
        (" -device cxl-type3,bus=rp1,volatile-memdev=m1,id=mem1", "")))
    topo.commit()
    assert topo.decode(0x2F0000000 + 0x1234) == Route("mem0", 0x1234, topo.decode(0x2F0000000 + 0x1234).levels)


BAD = {
    "no CXL": (("q35,cxl=on", "q35"), "CXL needs -machine q35,cxl=on or virt,cxl=on, not q35, cxl=off"),
    "pc": (("q35,cxl=on", "pc,cxl=on"), "not pc, cxl=on"),
    "bare word": (("q35,cxl=on", "q35,cxl"), "expected '=' after 'cxl'"),
    "bool": (("cxl=on", "cxl=maybe"), "must be on or off, not 'maybe'"),
    "fmw key": (("cxl-fmw.0.size", "cxl-fmw.0.sise"), "cxl-fmw.0.sise: must be"),
    "restrictions": (("cxl-fmw.0.size", "cxl-fmw.0.restrictions=15,cxl-fmw.0.size"), "cxl-fmw.0.restrictions: must be"),
    "window gap": (("-M cxl-fmw.0.targets.0=cxl.0", "-M cxl-fmw.2.targets.0=cxl.0"), "fmw.1 is missing"),
    "target gap": (("targets.0=", "targets.1="), "targets.1 is given, but targets.0 is missing"),
    "no target": (("cxl-fmw.0.targets.0=cxl.0,", "type=q35,"), "number of targets must be one of .*, not 0"),
    "5 targets": (("targets.0=cxl.0", ",".join(f"cxl-fmw.0.targets.{i}=cxl.0" for i in range(5))[10:]), "not 5"),
    "unknown target": (("targets.0=cxl.0", "targets.0=cxl.7"), "target cxl.7 is no host bridge; there is only cxl.0"),
    "size": (("size=4G", "size=100M"), r"multiple of 256M \(0x10000000\), not 0x6400000"),
    "no size": (("cxl-fmw.0.size=4G,", ""), "size is missing"),
    "size text": (("size=4G", "size=4Q"), "must be a size such as 256M or 4G, not '4Q'"),
    "granularity": (("granularity=256", "granularity=300"), "power of two from 256 to 16384 bytes, not 300"),
    "granularity 32k": (("granularity=256", "granularity=32k"), "power of two from 256 to 16384 bytes, not 32k"),
    "driver": (("cxl-type3,bus=rp1", "cxl-type4,bus=rp1"), "no such CXL device, only .*cxl-type3"),
    "option": (("volatile-memdev=m1", "volatile-memdv=m1"), "no option volatile-memdv, only"),
    "bus": (("cxl-rp,port=1,bus=cxl.0", "cxl-rp,port=1,bus=cxl.3"), "bus cxl.3 is no pxb-cxl; there is cxl.0"),
    "no bus": (("cxl-rp,port=1,bus=cxl.0", "cxl-rp,port=1"), "cxl-rp rp1: bus= is missing"),
    "wrong bus": (("bus=rp1,", "bus=cxl.0,"), "cxl-type3 mem1: bus cxl.0 is no cxl-rp or cxl-downstream"),
    "pxb bus": (("bus=pcie.0", "bus=pcie.1"), "bus must be pcie.0, not pcie.1"),
    "two in a port": (("bus=rp1,vol", "bus=rp0,vol"), "port rp0 cannot hold both mem0 and mem1"),
    "other in a port": (("-device pxb-cxl", "-device nvme,serial=1,bus=rp1 -device pxb-cxl"),
                        "port rp1 cannot hold both cxl-type3 mem1 and nvme"),
    "same port number": (("port=1,", "port=0,"), "ports rp0 and rp1 of cxl.0 both have port number 0"),
    "port number": (("port=1,", "port=256,"), r"cxl-rp rp1 port: must be in 0..255, not 256"),
    "same slot": (("slot=3", "slot=2"), "cxl-rp rp0 and cxl-rp rp1 both have chassis=0,slot=2"),
    "same id": (("id=mem1", "id=mem0"), "id mem0 is already that of a cxl-type3"),
    "same object": (("id=m1", "id=m0"), "id m0 is already that of a memory-backend-ram"),
    "bad id": (("id=mem1", "id=1mem"), "an id must begin with a letter"),
    "same memdev": (("memdev=m1", "memdev=m0"), "volatile-memdev=m0 is already used by cxl-type3 mem0"),
    "memdev of RAM": (("-M q35,", "-M q35,memory-backend=m1,"), "m1 is already used by the machine's RAM"),
    "memdev of dimm": (("-device pxb", "-device pc-dimm,memdev=m1,id=dimm -device pxb"), "used by pc-dimm dimm"),
    "no memdev": (("volatile-memdev=m1,", ""), "one of volatile-memdev, .*, volatile-dc-memdev is needed"),
    "unknown memdev": (("memdev=m1", "memdev=m7"), "m7 is no memory-backend; there is m0, m1"),
    "no lsa": (("volatile-memdev=m1", "persistent-memdev=m1"), "persistent-memdev=m1 needs lsa="),
    "both memdevs": (("volatile-memdev=m1", "memdev=m1,persistent-memdev=m0"), "exclude each other"),
    "dc": (("volatile-memdev=m1", "volatile-dc-memdev=m1"), r"mem1: dynamic capacity must have 1\.\.8 regions, not 0"),
    "dc of 2": (("volatile-memdev=m1", "volatile-dc-memdev=m1,num-dc-regions=2"), "each of 2 dynamic regions must"),
    "no backend size": (("id=m1,share=on,size=256M", "id=m1,share=on"), "-object m1: size= is missing"),
    "maxmem": (("maxmem=4G", "maxmem=256M"), "maxmem must be at least the size 0x20000000, not 0x10000000"),
    "no argument": (("-M cxl-fmw", "-device -M cxl-fmw"), "-device requires an argument"),
    "quote": (("id=mem1", "id='mem1"), "cannot be split into words"),
    "json": (("-device cxl-type3,bus=rp1,volatile-memdev=m1,id=mem1", """-device '{"driver": "cxl-type3" "bus"}'"""),
             "bad JSON at character 23, Expecting ',' delimiter"),
    "readonly": (("memory-backend-ram,id=m1", "memory-backend-file,mem-path=/tmp/x,readonly=on,id=m1"),
                 "readonly=on is not supported"),
    "no path": (("memory-backend-ram,id=m1", "memory-backend-file,id=m1"), "mem-path= is missing"),
}  # fmt: skip


@pytest.mark.parametrize("change, message", BAD.values(), ids=BAD)
def test_bad_command_line(change, message):
    with pytest.raises(TopologyError, match=message):
        Topology.from_qemu(default_with(change))


@pytest.mark.parametrize("change", [c for c, _ in BAD.values()], ids=BAD)
def test_bad_command_line_creates_no_file(change, tmp_path):
    text = default_with(change).replace(
        "memory-backend-ram,id=m0,", f"memory-backend-file,mem-path={tmp_path}/m0,id=m0,")
    with pytest.raises(TopologyError):
        Topology.from_qemu(text)
    assert list(tmp_path.iterdir()) == []


def file_args(path, options="share=on"):
    return default_with(*[
        (f"memory-backend-ram,id={m},share=on", f"memory-backend-file,mem-path={path}/{m},id={m},{options}")
        for m in ("m0", "m1")])


def test_files_are_created_sparse_and_shared(tmp_path):
    topo = Topology.from_qemu(file_args(tmp_path))
    topo.devices["mem1"].write(0x1000, b"hello")
    topo.devices["mem1"].sync()
    assert os.stat(tmp_path / "m1").st_size == 256 * MIB
    assert os.stat(tmp_path / "m1").st_blocks * 512 < MIB
    with open(tmp_path / "m1", "r+b") as f:
        f.seek(0x1000)
        assert f.read(5) == b"hello"
        f.seek(0x2000)
        f.write(b"world")
    assert topo.devices["mem1"].read(0x2000, 5) == b"world"


def test_small_backing_file_is_refused_untouched(tmp_path):
    """Nothing is created either: m0 would have been made first."""
    (tmp_path / "m1").write_bytes(b"x" * 1000)
    with pytest.raises(TopologyError, match=r"m1 has 1000 bytes, but size is 268435456"):
        Topology.from_qemu(file_args(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m1"]
    assert (tmp_path / "m1").read_bytes() == b"x" * 1000


def test_private_file_is_not_written(tmp_path):
    with open(tmp_path / "m0", "wb") as f:
        f.truncate(256 * MIB)
        f.seek(100 * MIB)
        f.write(b"old")
    topo = Topology.from_qemu(file_args(tmp_path, "share=off"))
    device = topo.devices["mem0"]
    assert device.read(100 * MIB, 3) == b"old"
    device.write(100 * MIB, b"new")
    with open(tmp_path / "m0", "rb") as f:
        f.seek(100 * MIB)
        assert f.read(3) == b"old"


def test_directory_and_missing_folder_are_refused(tmp_path):
    (tmp_path / "m0").mkdir()
    with pytest.raises(TopologyError, match="must be a regular file"):
        Topology.from_qemu(file_args(tmp_path))
    with pytest.raises(TopologyError, match="cannot be created in"):
        Topology.from_qemu(file_args(tmp_path / "nowhere"))


def test_devices_without_ids_get_names():
    topo = Topology.from_qemu(default_with((",id=mem0", ""), (",id=mem1", "")))
    assert list(topo.devices) == ["cxl-type3.0", "cxl-type3.1"]


def test_json_devices_equal_comma_lists():
    lines = words(DEFAULT_QEMU_ARGS)
    args = []
    for option, value in lines:
        if option in ("device", "object"):
            value = json.dumps(comma_list(value, "driver" if option == "device" else "qom-type", ""))
        args += [f"-{option}", value]
    a, b = Topology.from_qemu(args), Topology.default()
    assert [repr(x) for x in (*a.windows, *a.bridges.values(), *a.devices.values())] == [
        repr(x) for x in (*b.windows, *b.bridges.values(), *b.devices.values())]


def test_no_cxl_at_all():
    topo = Topology.from_qemu("-M q35 -m 1G -device nvme,serial=1")
    assert (topo.windows, topo.devices, topo.ram) == ((), {}, ((0, 1 << 30),))


@pytest.mark.parametrize("text, value", [
    ("256M", 256 << 20), ("4G", 4 << 30), ("0x100", 256), ("0x10k", 16384), ("1.5G", 3 << 29), ("16k", 16384),
    ("12", 12), ("2t", 2 << 40),
])
def test_sizes(text, value):
    assert size(text, "x") == value


def test_comma_lists():
    assert comma_list("a,b=c,,d,e=,nof,g", "type", "x") == {"type": "a", "b": "c,d", "e": "", "f": "off", "g": "on"}
    assert integer("017", "x", 8) == 15
    for bad in ("1x", "", "-1", "256"):
        with pytest.raises(TopologyError):
            integer(bad, "x", 8)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_mutated_command_line_is_a_machine_or_one_error(data):
    """Words dropped, doubled, swapped or cut: a Topology or a TopologyError, nothing else."""
    parts = re.split(r"(?<=[ ,=])", DEFAULT_QEMU_ARGS)
    for _ in range(data.draw(st.integers(1, 4))):
        i, j = data.draw(st.integers(0, len(parts) - 1)), data.draw(st.integers(0, len(parts) - 1))
        how = data.draw(st.sampled_from(["drop", "double", "swap", "cut", "odd"]))
        if how == "drop":
            parts[i] = ""
        elif how == "double":
            parts[i] *= 2
        elif how == "swap":
            parts[i], parts[j] = parts[j], parts[i]
        elif how == "cut":
            parts[i] = parts[i][: len(parts[i]) // 2]
        else:
            odd = ["0", "-1", "=", ",", "{}", "[]", "1e9", "0x", "on", " ", "9" * 30, "'"]
            parts[i] = data.draw(st.sampled_from(odd))
    try:
        Topology.from_qemu("".join(parts))
    except TopologyError as error:
        assert str(error)
