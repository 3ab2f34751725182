"""The ACPI table: real ones byte for byte, broken ones refused with the place."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cxl import Topology, TopologyError
from cxl.exchange.cedt import Cedt, Cfmws, Chbs, Csds, Cxims, Rdpas
from tests.cxl.machines import machine
from tests.cxl.test_qemu import default_with

DATA = Path(__file__).parent.parent / "data"
TABLES = sorted(DATA.glob("*cedt*.dat"))


def sealed(data):
    """*data* with its length and checksum made right."""
    out = bytearray(data)
    out[4:8] = struct.pack("<I", len(out))
    out[9] = 0
    out[9] = -sum(out) & 0xFF
    return bytes(out)


def with_bytes(name, at, new):
    data = bytearray((DATA / name).read_bytes())
    data[at : at + len(new)] = new
    return sealed(data)


def test_the_tables_are_there():
    assert len(TABLES) == 5


@pytest.mark.parametrize("path", TABLES, ids=lambda p: p.stem)
def test_round_trip_is_exact(path):
    """Through the records, and through a Topology. QEMU left the checksum of its table to the firmware."""
    data = path.read_bytes()
    assert (data == sealed(data)) == (path.stem != "qemu_cedt")
    assert Cedt.parse(data).to_bytes() == sealed(data)
    assert Topology.from_cedt(data).to_cedt() == sealed(data)


def test_base_table():
    table = Cedt.parse((DATA / "cedt_base.dat").read_bytes())
    assert table.records == (
        Chbs(7, 1, 0x10370400000, 0x10000), Chbs(6, 1, 0x10380800000, 0x10000), Chbs(5, 0, 0x10390000000, 0x2000),
        Cfmws(0x1000000000, 0x200000000, 256, 0, 6, 1, (7, 6)),
        Cfmws(0x2000000000, 0x300000000, 512, 1, 0x1A, 2, (7, 6, 5)),
        Cxims(256, (0x404100, 0x808200)),
    )  # fmt: skip
    topo = Topology.from_cedt((DATA / "cedt_base.dat").read_bytes())
    assert [t.uid for t in topo.windows[0].targets] == [7, 6]
    assert topo.bridges["hb5"].registers is None  # CXL 1.1


def test_records_of_every_type():
    assert Cedt.parse((DATA / "cedt_rdpas.dat").read_bytes()).records[-1] == Rdpas(0, 0x5A08, 1, 0x10395000000)
    assert Cedt.parse((DATA / "cedt_csds.dat").read_bytes()).records[-1] == Csds(3)


def test_both_layouts_of_rdpas():
    """17 bytes as the specification and Linux have it, 20 as ACPICA has it since 2026; we write 17."""
    want = Rdpas(1, 0x5A08, 1, 0x1039500000)
    short = Cedt(records=(want,)).to_bytes()
    assert len(short) == 36 + 17 and Cedt.parse(short).records == (want,)
    long = sealed(short[:36] + struct.pack("<BBHHHQB3x", 3, 0, 20, 1, 0x5A08, 0x1039500000, 1))
    assert Cedt.parse(long).records == (want,)


def test_qemu_describes_the_same_machine():
    """A table that QEMU 11.1 wrote, and the command line of that machine: the same records."""
    topo = Topology.from_qemu(default_with(
        ("-m 512M,maxmem=4G,slots=4", "-m 1G"), ("bus_nr=12", "bus_nr=32"),
        ("-device cxl-rp,port=1,bus=cxl.0", "-device pxb-cxl,id=cxl.1,bus_nr=48 -device cxl-rp,port=1,bus=cxl.1"),
        ("-M cxl-fmw.0.targets.0=cxl.0", "-M cxl-fmw.0.targets.0=cxl.0,cxl-fmw.0.targets.1=cxl.1")))
    written = Cedt.parse((DATA / "qemu_cedt.dat").read_bytes())
    assert Cedt.parse(topo.to_cedt()).records == written.records


def test_twelve_way_xor_window_decodes():
    topo = Topology.from_cedt((DATA / "cedt_12way.dat").read_bytes())
    window = topo.windows[0]
    assert (window.ways, window.maps) == (12, (0x2020900, 0x4041200))  # of the three maps in the table
    seen = {window.index(window.base + n * window.granularity) for n in range(48)}
    assert seen == set(range(12))


BROKEN = {
    "empty": (b"", "at least 36 bytes, not 0"),
    "signature": (sealed(b"DSDT" + (DATA / "cedt_base.dat").read_bytes()[4:]), "must be b'CEDT', not b'DSDT'"),
    "checksum": ((DATA / "cedt_base.dat").read_bytes()[:-1] + b"\1", r"to 0x1 \(bad checksum\)"),
    "record length 0": (with_bytes("cedt_base.dat", 0x26, b"\0\0"), r"at 0x24: its length must be in 4..212, not 0"),
    "record too long": (with_bytes("cedt_base.dat", 0x26, b"\xff\0"), "record at 0x24: .* not 255"),
    "record cut": (sealed((DATA / "cedt_base.dat").read_bytes() + b"\0\0"), "record at 0xf8: 2 bytes are left"),
    "short chbs": (with_bytes("cedt_base.dat", 0x26, b"\x10\0"), "at 0x24: its length must be at least 32, not 16"),
    "ways": (with_bytes("cedt_base.dat", 0x9C, b"\5"), "record at 0x84: the ways encoding must be one of .*, not 5"),
    "arithmetic": (with_bytes("cedt_base.dat", 0x9D, b"\2"), "arithmetic must be 0 .modulo. or 1 .XOR., not 2"),
    "granularity": (with_bytes("cedt_base.dat", 0xA0, b"\7"), "granularity encoding must be in 0..6, not 7"),
    "targets cut": (with_bytes("cedt_base.dat", 0x9C, b"\4"), "with 16 targets: its length must be at least 100, not"),
    "size": (with_bytes("cedt_base.dat", 0x94, b"\1"), "size must be a multiple of 256 MiB"),
    "base": (with_bytes("cedt_base.dat", 0x8C, b"\1"), "base must be a multiple of 256 MiB"),
    "unknown uid": (with_bytes("cedt_base.dat", 0xA8, b"\x09"), "target hb9 is no host bridge; there is only hb5, hb6"),
    "same uid": (with_bytes("cedt_base.dat", 0x48, b"\7"), "hb7: the name is already that of a host bridge"),
    "chbs version": (with_bytes("cedt_base.dat", 0x2C, b"\2"), "CHBS of UID 7: version and length must be"),
    "overlap": (with_bytes("cedt_base.dat", 0xB8, struct.pack("<Q", 0x1100000000)), "window0 .* overlaps"),
    "maps cut": (with_bytes("cedt_base.dat", 0xE7, b"\7"), "with 7 maps: its length must be at least 64, not 24"),
}  # fmt: skip


@pytest.mark.parametrize("data, message", BROKEN.values(), ids=BROKEN)
def test_broken_table(data, message):
    with pytest.raises(TopologyError, match=message):
        Topology.from_cedt(data)


def test_xor_maps_are_those_of_the_window_s_granularity():
    bridges = [Chbs(n, 1, (1 << 40) + n * 0x10000, 0x10000) for n in range(2)]
    window = Cfmws(1 << 36, 1 << 30, 512, 1, 6, 0, (0, 1))
    both = Cedt(records=(*bridges, window, Cxims(256, (0x404100,)), Cxims(512, (0x804200,))))
    assert Topology.from_cedt(both.to_bytes()).windows[0].maps == (0x804200,)
    other = Cedt(records=(*bridges, window, Cxims(256, (0x404100,))))
    with pytest.raises(TopologyError, match="0x1000000000 uses XOR at 512 bytes, but no CXIMS has that granularity"):
        Topology.from_cedt(other.to_bytes())


@pytest.mark.parametrize("path", TABLES, ids=lambda p: p.stem)
def test_every_truncation_is_refused(path):
    data = path.read_bytes()
    for n in range(len(data)):
        with pytest.raises(TopologyError):
            Topology.from_cedt(data[:n])
        if n not in _whole_records(data):
            with pytest.raises(TopologyError):
                Cedt.parse(sealed(data[:n].ljust(36, b"\0")) if n >= 36 else data[:n])


def _whole_records(data):
    """Lengths at which a table ends between two records."""
    at, out = 36, {36}
    while at < len(data):
        at += struct.unpack_from("<H", data, at + 2)[0]
        out.add(at)
    return out


@settings(max_examples=400, deadline=None)
@given(
    path=st.sampled_from(TABLES), flips=st.lists(st.integers(0, 536 * 8), min_size=1, max_size=4), seal=st.booleans())
@example(path=TABLES[0], flips=[0x28 * 8], seal=True)
def test_flipped_bits_are_refused_or_make_another_valid_table(path, flips, seal):
    """Never anything but a Topology or one TopologyError; a table that is accepted is written as it was read."""
    data = bytearray(path.read_bytes())
    for bit in flips:
        data[bit // 8 % len(data)] ^= 1 << bit % 8
    data = sealed(data) if seal else bytes(data)
    try:
        topo = Topology.from_cedt(data)
    except TopologyError as error:
        assert str(error)
        return
    again = Topology.from_cedt(topo.to_cedt())
    assert [(w.base, w.size, w.granularity, w.maps, [t.uid for t in w.targets]) for w in again.windows] == [
        (w.base, w.size, w.granularity, w.maps, [t.uid for t in w.targets]) for w in topo.windows]


def test_a_table_from_a_described_machine():
    topo = Topology.from_qemu(default_with(("targets.0=cxl.0", "targets.0=cxl.0")))
    back = Topology.from_cedt(topo.to_cedt())
    (window,) = back.windows
    assert (window.base, window.size, window.restrictions) == (0x2F0000000, 4 << 30, 0x2F)
    assert back.bridges["hb12"].base == 0x2E0000000


def test_a_bridge_without_an_address_has_no_table():
    with pytest.raises(TopologyError, match="hb0: a CHBS needs the address of its registers"):
        machine().to_cedt()


def test_bridges_of_a_table_have_no_ports():
    topo = Topology.from_cedt((DATA / "cedt_base.dat").read_bytes())
    miss = topo.decode(topo.windows[0].base)
    assert (miss.level, miss.at_device) == ("host bridge hb7", False)


def test_iasl_reads_our_tables(tmp_path):
    """Where an iasl is installed that knows the table (not 20200925)."""
    iasl = shutil.which("iasl")
    if iasl is None:
        pytest.skip("iasl is not installed")
    topo = Topology.from_qemu(default_with())
    (tmp_path / "cedt.dat").write_bytes(topo.to_cedt())
    done = subprocess.run([iasl, "-d", "cedt.dat"], cwd=tmp_path, capture_output=True, text=True, check=False)
    if "Unknown ACPI table signature" in done.stdout + done.stderr:
        pytest.skip("this iasl does not know the CEDT")
    text = (tmp_path / "cedt.dsl").read_text()
    assert "00000002F0000000" in text and "CXL Fixed Memory Window Structure" in text
