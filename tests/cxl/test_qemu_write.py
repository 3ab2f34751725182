"""Command lines that we write are read as the same machine."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxl import Backing, BridgePlan, DevicePlan, PortPlan, SwitchPlan, Topology, TopologyError, WindowPlan
from cxl.exchange.qemu import parse
from cxl.exchange.qemu_write import command_line
from tests.cxl.machines import MIB, blueprint
from tests.cxl.test_qemu import DEFAULT_QEMU_ARGS, SWITCHED, default_with


def same(a, b):
    """Two blueprints describe one machine; QEMU knows no names of windows, and gives persistent memory a label."""
    assert [replace(x, registers=None) for x in a.bridges] == [replace(x, registers=None) for x in b.bridges]
    assert sorted(a.ports, key=str) == sorted(b.ports, key=str)
    assert a.switches == b.switches
    assert [replace(d, label=None) for d in a.devices] == [replace(d, label=None) for d in b.devices]
    assert [replace(w, name="") for w in a.windows] == [replace(w, name="") for w in b.windows]


@pytest.mark.parametrize("text", [
    DEFAULT_QEMU_ARGS, SWITCHED.format("/tmp/a,b"), default_with(("512M,maxmem=4G,slots=4", "4G")),
    default_with(("q35,", "virt,"), ("512M,maxmem=4G,slots=4", "2G")),
    default_with(("volatile-memdev=m1", "volatile-dc-memdev=m1,num-dc-regions=1,sn=0x1234")),
], ids=["default", "switched", "4G", "virt", "dynamic"])
def test_round_trip_of_a_command_line(text):
    plan = parse(text)
    again = parse(command_line(plan))
    same(again, plan)
    assert (again.ram, [b.registers for b in again.bridges]) == (plan.ram, [b.registers for b in plan.bridges])


@st.composite
def machines(draw):
    """Anything that QEMU has: bridges, ports, one level of switches, devices of all kinds, windows back to back."""
    plan = blueprint(draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(0, 3)))
    for n, device in enumerate(plan.devices):
        size = 256 * MIB * draw(st.integers(1, 3))
        kinds = draw(st.sets(st.sampled_from(["volatile", "persistent", "dynamic"]), min_size=1))
        path = draw(st.sampled_from([None, f"/tmp/x y,{n}"]))
        backings = {k: Backing(f"{k}{n}", size, path, draw(st.booleans()) if path else True) for k in kinds}
        plan.devices[n] = DevicePlan(device.name, device.port, **backings, serial=draw(st.integers(0, (1 << 64) - 1)),
                                     dynamic_regions=1 if "dynamic" in kinds else 0)
    names = [b.name for b in plan.bridges]
    base = draw(st.integers(17, 4000)) * 256 * MIB
    plan.windows.clear()
    for n in range(draw(st.integers(0, 3))):
        targets = tuple(draw(st.lists(st.sampled_from(names), min_size=1, max_size=4)))
        size = draw(st.integers(1, 64)) * 256 * MIB
        plan.windows.append(WindowPlan(f"window{n}", base, size, 256 << draw(st.integers(0, 6)), targets))
        base += size
    return plan


@settings(max_examples=100, deadline=None)
@given(plan=machines())
def test_round_trip_of_any_machine(plan):
    try:
        text = command_line(plan)
    except TopologyError as error:
        assert "no window can begin at" in str(error)
        assert 0x110000000 < plan.windows[0].base < 0x170000000
        return
    same(parse(text), plan)


def xor(plan):
    plan.windows[0] = replace(plan.windows[0], maps=())


def deep(plan):
    plan.ports.append(PortPlan("d", "hb0", 7))
    plan.switches += [SwitchPlan("s", "d"), SwitchPlan("t", "e")]
    plan.ports.append(PortPlan("e", "s", 0))


def spread(plan):
    plan.windows.append(WindowPlan("w1", 1 << 45, 256 * MIB, 256, ("hb0",)))


def decoders(plan):
    plan.devices[0] = replace(plan.devices[0], decoders=8)


def uid(plan):
    plan.bridges[0] = BridgePlan("hb0", 300)


def restrictions(plan):
    plan.windows[0] = replace(plan.windows[0], restrictions=6)


def name(plan):
    plan.devices[0] = replace(plan.devices[0], name="0mem")


@pytest.mark.parametrize("change, message", [
    (xor, "window window0 uses XOR"), (deep, "switch t is below a switch, s"),
    (spread, "w1 at .* does not follow window0"),
    (decoders, "m0 has 8 decoders, not 4"), (uid, "hb0 has UID 300"), (restrictions, "restrictions 0x6 and QTG 0"),
    (name, "an id must begin with a letter"),
])
def test_what_qemu_cannot_be(change, message):
    plan = blueprint()
    change(plan)
    with pytest.raises(TopologyError, match=message):
        command_line(plan)


def test_topology_to_qemu():
    assert "volatile-memdev=m1" in Topology.default().to_qemu()
