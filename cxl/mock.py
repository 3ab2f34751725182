"""The machine that Linux' cxl_test module mocks: the one that ndctl's tests run on.

Two host bridges of two root ports with a switch of two in each (devices cxl_mem.0 .. 7), one of a single root port with
a switch of two (8, 9), and a CXL 1.1 host (cxl_rcd.10). Devices have 1 GiB volatile and 1 GiB persistent memory.
Source: Linux 7.2, tools/testing/cxl/test/cxl.c; addresses are ours.
"""

from __future__ import annotations

from cxl.blueprint import GIB, MIB, Backing, Blueprint, BridgePlan, DevicePlan, PortPlan, SwitchPlan, WindowPlan
from cxl.exchange.cedt import Cedt, Cxims
from cxl.format import COMPONENT_BLOCK_SIZE, Restrictions
from cxl.topology import Topology

REGISTERS = 0xF0_0000_0000
WINDOWS = 0xF0_1000_0000
AUTO_REGION = 512 * MIB
QTG = 42
XOR_MAPS = (0x404100, 0x808200)
DECODERS = 8

_RAM = Restrictions.make(HOST_ONLY=1, VOLATILE=1)
_PMEM = Restrictions.make(HOST_ONLY=1, PERSISTENT=1)
# (number, ways' targets, granularity, bytes, restrictions); windows 6 to 8 use XOR arithmetic
_MODULO = (
    (0, (0,), 4096, 2 * AUTO_REGION, _RAM), (1, (0, 1), 4096, 2 * GIB, _RAM), (2, (0,), 4096, GIB, _PMEM),
    (3, (0, 1), 4096, 2 * GIB, _PMEM), (4, (2,), 4096, GIB, _PMEM), (5, (3,), 4096, 256 * MIB, _RAM),
)  # fmt: skip
_XOR = ((6, (0,), 4096, 2 * GIB, _PMEM), (7, (0, 1), 256, 2 * GIB, _PMEM), (8, (0, 1, 2), 512, 3 * GIB, _PMEM))


def blueprint(xor: bool = False, cache: bool = False) -> Blueprint:
    """*xor*: the module's interleave_arithmetic=1. *cache*: its extended_linear_cache."""
    plan = Blueprint()
    plan.bridges += [
        BridgePlan(f"host_bridge.{uid}", uid, None if uid == 3 else DECODERS, REGISTERS + uid * COMPONENT_BLOCK_SIZE,
                   restricted=uid == 3)
        for uid in range(4)
    ]  # fmt: skip
    for n in range(4):
        _switch(plan, f"root_port.{n}", f"host_bridge.{n % 2}", n, f"switch.{n}", [n, n + 4])
    _switch(plan, "root_single.0", "host_bridge.2", 0, "switch_single.0", [8, 9])
    plan.ports.append(PortPlan("rch_port.0", "host_bridge.3", 0))
    plan.devices.append(_device("cxl_rcd.10", "rch_port.0"))
    plan.devices.sort(key=lambda d: int(d.name.partition(".")[2]))
    base = WINDOWS
    for number, targets, granularity, size, restrictions in (*_MODULO, *_XOR):
        if (number >= 6) == xor:
            maps = (XOR_MAPS if granularity == 256 else ()) if xor else None
            plan.windows.append(WindowPlan(
                f"window{number}", base, size, granularity, tuple(f"host_bridge.{t}" for t in targets), maps,
                restrictions, QTG, AUTO_REGION if cache and number == 0 else 0))
        base += size
    if xor:
        plan.cedt = Cedt(records=(Cxims(256, XOR_MAPS),))
    return plan


def _switch(plan: Blueprint, root_port: str, bridge: str, number: int, name: str, members: list[int]) -> None:
    """A root port with a switch, and a device in each of its ports; port numbers as the module gives them."""
    plan.ports.append(PortPlan(root_port, bridge, number))
    plan.switches.append(SwitchPlan(name, root_port, DECODERS))
    for n in members:
        plan.ports.append(PortPlan(f"switch_dport.{n}", name, n))
        plan.devices.append(_device(f"cxl_mem.{n}", f"switch_dport.{n}"))


def _device(name: str, port: str) -> DevicePlan:
    return DevicePlan(name, port, Backing(f"{name}-ram", GIB), Backing(f"{name}-pmem", GIB),
                      Backing(f"{name}-lsa", 128 << 10), decoders=DECODERS)


def cxl_test(xor: bool = False, cache: bool = False) -> Topology:
    """The machine as the module leaves it: with its automatic region, where window 0 is there."""
    topo = Topology(blueprint(xor, cache))
    if not xor:
        size = AUTO_REGION * (2 if cache else 1)
        topo.create_region("window0", ["cxl_mem.0", "cxl_mem.4"], size=size, name="region0")
    return topo
