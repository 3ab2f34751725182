"""Registers on the bus: a program that finds and commits decoders as a guest would."""

import pytest

from cxl import Topology
from cxl import format as fmt
from mmu import AddressSpace, MemTxResult
from tests.cxl.machines import machine
from tests.cxl.test_qemu import default_with


@pytest.fixture
def guest():
    topo = Topology.default()
    space = AddressSpace()
    topo.attach(space, registers=True)
    return topo, space, topo.bridges["cxl.0"].base


def find_decoders(space, base):
    """As firmware does it: through the capability array."""
    header = space.load(base + 0x1000, 4)[0]
    for n in range(header >> 24):
        entry = space.load(base + 0x1004 + 4 * n, 4)[0]
        if entry & 0xFFFF == 5:
            return base + 0x1000 + (entry >> 20)
    return None


def test_a_guest_commits_a_host_bridge(guest):
    topo, space, base = guest
    for device in topo.devices.values():
        device.registers.program(0, 0x2F0000000, 512 << 20, 2, 256)
    hdm = find_decoders(space, base)
    assert space.load(hdm, 4)[0] == 0x382
    writes = {0x10: 0xF0000000, 0x14: 0x2, 0x18: 512 << 20, 0x24: 0x0100, 4: 2, 0x20: 0x1210}
    for offset, value in writes.items():
        assert space.store(hdm + offset, 4, value) == MemTxResult.OK
    assert space.load(hdm + 0x20, 4)[0] == 0x1610  # as QEMU 10.0 reads it back
    assert space.store(0x2F0000100, 8, 7) == MemTxResult.OK
    assert topo.devices["mem1"].read(0, 1) == b"\x07"


def test_widths(guest):
    """8 bytes are two registers; 1 and 2 bytes are refused."""
    topo, space, base = guest
    assert space.store(base + 0x1138, 8, 0x2_F0000000) == MemTxResult.OK
    assert topo.bridges["cxl.0"].registers.settings(0).base == 0x2F0000000
    assert space.load(base + 0x1138, 8) == (0x2_F0000000, MemTxResult.OK)
    for size in (1, 2):
        assert space.load(base + 0x1138, size) == (0, MemTxResult.DECODE_ERROR)
        assert space.store(base + 0x1138, size, 1) == MemTxResult.DECODE_ERROR


def test_permissive_drops_eight_bytes_quirk():
    topo = Topology.from_qemu(default_with(), strict=False)
    space = AddressSpace()
    topo.attach(space, registers=True)
    base = topo.bridges["cxl.0"].base
    assert space.store(base + 0x1138, 8, 0x2_F0000000) == MemTxResult.OK
    assert space.load(base + 0x1138, 8) == (0, MemTxResult.OK)
    assert space.load(base + 0x1138, 4) == (0, MemTxResult.OK)


def test_pass_through_lists_no_capability():
    topo = Topology.from_qemu(default_with(
        ("-device cxl-rp,port=1,bus=cxl.0", "-device pxb-cxl,id=cxl.9,bus_nr=48 -device cxl-rp,port=1,bus=cxl.9")))
    space = AddressSpace()
    topo.attach(space, registers=True)
    assert find_decoders(space, topo.bridges["cxl.9"].base) is None
    assert fmt.CapabilityHeader.ID.get(space.load(topo.bridges["cxl.9"].base + 0x1000, 4)[0]) == 1


def test_without_an_address_only_windows_are_mapped():
    topo = machine(1, 2)
    space = AddressSpace()
    topo.attach(space, registers=True)
    assert [r.region.name for r in space.view.ranges] == ["window0"]
