"""What Linux refuses, by errno and sentence; and what it takes."""

import errno
from dataclasses import replace

import pytest

from cxl import Backing, DevicePlan, PortPlan, Topology
from cxl import format as fmt
from tests.cxl.machines import BASE, MIB, add_device, blueprint, machine
from tests.cxl.test_routes import SHAPES

GIB = 1 << 30
HOST_AND_RAM = fmt.Restrictions.make(HOST_ONLY=1, VOLATILE=1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_commit_makes_linux_takes(shape):
    """Proposed and programmed; a warning at most where the root is mod-3 and splits again."""
    topo = machine(*shape)
    assert topo.check(window=0) == []
    topo.commit()
    assert topo.check() == []


def refusals(topo, **kwargs):
    return [(p.errno, p.message) for p in topo.check(window=0, **kwargs)]


def with_capability(name, capability):
    """One device that cannot do everything."""
    topo = machine(2, 1)
    registers = topo.devices[name].registers
    registers.capability = type(registers.capability).of(capability)
    return topo


def low_restrictions(restrictions):
    plan = blueprint(2, 1)
    plan.windows[0] = replace(plan.windows[0], restrictions=restrictions)
    return Topology(plan)


def ports(*numbers):
    """One bridge whose devices sit in these ports."""
    plan = blueprint(1, 1, size=4 * GIB)
    plan.devices.clear()
    plan.ports.clear()
    for n in numbers:
        plan.ports.append(PortPlan(f"rp{n}", "hb0", n))
        add_device(plan, f"rp{n}")
    return Topology(plan)


def rch_and_vh():
    plan = blueprint(2, 1)
    plan.bridges[1] = replace(plan.bridges[1], decoders=None, restricted=True)
    return Topology(plan)


RULES = {
    "no such ways": (lambda: ports(0, 1, 2, 3, 4), {"devices": ["m0", "m1", "m2", "m3", "m4"], "size": 5 * 256 * MIB},
                     errno.EINVAL, "ways, not 5"),
    "not a multiple of the root": (lambda: machine(2, 2), {"devices": ["m0", "m2", "m1"], "size": 768 * MIB},
                                   errno.EINVAL, "3 ways must be a power of two times the 2 ways of window window0"),
    "three times the root": (lambda: ports(0, 1, 2), {"devices": ["m0", "m1", "m2"], "size": 768 * MIB},
                             errno.EINVAL, "3 ways must be a power of two times the 1 ways"),
    "granularity": (lambda: machine(2, 1), {"granularity": 512}, errno.EINVAL, "must be the 256 bytes of window"),
    "no such granularity": (lambda: machine(1, 1), {"granularity": 300}, errno.EINVAL, "to 16384 bytes, not 300"),
    "size": (lambda: machine(2, 1), {"size": 256 * MIB}, errno.EINVAL, "multiple of 2 ways x 256 MiB (0x20000000)"),
    "size of nothing": (lambda: machine(2, 1), {"size": 0}, errno.EINVAL, "not 0x0"),
    "window too small": (lambda: machine(2, 1), {"size": 8 * GIB}, errno.ERANGE, "do not fit in the 0x20000000 bytes"),
    "no pmem window": (lambda: low_restrictions(HOST_AND_RAM),
                       {"mode": "pmem", "devices": ["m0", "m1"], "size": 512 * MIB}, errno.ENOENT,
                       "must allow persistent memory for a pmem region"),
    "not for type 3": (lambda: low_restrictions(fmt.Restrictions.make(VOLATILE=1)), {}, errno.ENXIO,
                       "host-only (type 3)"),
    "a device twice": (lambda: machine(1, 2), {"devices": ["m0", "m0"], "size": 512 * MIB}, errno.EBUSY,
                       "device m0 is at position 0 and cannot be at 1 as well"),
    "no room in a device": (lambda: machine(2, 1, size=4 * GIB), {"size": GIB}, errno.ENOSPC,
                            "m0 must have 0x20000000 free bytes of ram, it has 0x10000000"),
    "16K @ 4": (lambda: machine(4, 1, granularity=16384), {}, errno.ENXIO, "cannot on [15]"),
    "no bits 11:8": (lambda: with_capability("m1", fmt.HdmCapability.make(TARGET_COUNT=1, INTERLEAVE_14_12=1)), {},
                     errno.ENXIO, "device m1 must be able to interleave on address bits [8], it cannot on [8]"),
    "wrong bridge": (lambda: machine(2, 1), {"devices": ["m1", "m0"], "size": 512 * MIB}, errno.ENXIO,
                     "m1 at position 0 must be below hb0, target 0 of window window0, not hb1"),
    "hosts of two ages": (rch_and_vh, {}, errno.ENXIO, "CXL 1.1 host hb1 and hb0 cannot be in one region"),
    "three ports": (lambda: _three_of_four(), {"devices": ["m0", "m1", "m2", "m3"], "size": GIB}, errno.EINVAL,
                    "hb0 must use a power of two of its ports, not 3"),
    "16K above 2 bridges": (lambda: machine(2, 1, granularity=16384), {}, errno.EINVAL,
                            "hb0 would need a granularity of 32768 bytes"),
    "peers apart": (lambda: machine(1, 2, 2), {"devices": ["m0", "m1", "m2", "m3"], "size": GIB}, errno.ENXIO,
                    "m1 at position 1 must be below port 1 of hb0, whose ports must take turns [0, 1], not below"),
}  # fmt: skip


def _three_of_four():
    """Three root ports, one of them with a switch of two: four devices."""
    plan = blueprint(1, 3, 2, size=4 * GIB)
    keep = {"dp0.0.0": "m0", "dp0.1.0": "m1", "dp0.2.0": "m2", "dp0.0.1": "m3"}
    plan.devices[:] = [DevicePlan(name, port, Backing(name, 256 * MIB)) for port, name in keep.items()]
    return Topology(plan)


@pytest.mark.parametrize("make, kwargs, number, message", RULES.values(), ids=RULES)
def test_rule(make, kwargs, number, message):
    found = refusals(make(), **kwargs)
    assert any(n == number and message in m for n, m in found), found


def test_one_problem_is_one_problem():
    """A single mistake is not reported as several."""
    assert len(refusals(machine(2, 1), size=256 * MIB)) == 1
    assert len(refusals(machine(2, 1), devices=["m0", "m0"], size=512 * MIB)) == 1


def test_problem_reads_as_one_line():
    (problem,) = machine(2, 1).check(window=0, size=256 * MIB)
    assert str(problem) == (
        "EINVAL: region: the size must be a multiple of 2 ways x 256 MiB (0x20000000), not 0x10000000")


@pytest.mark.parametrize("shape", [(3, 2, 0), (3, 4, 0), (6, 2, 0)], ids=str)
def test_mod3_root_that_splits_again_is_warned_of(shape):
    topo = machine(*shape)
    topo.commit()
    (problem,) = topo.check()
    assert problem.errno == 0 and "translates DPA to HPA by position" in problem.message
    assert [p.errno for p in machine(shape[0], 1).check(window=0)] == []


# -- what is programmed ----------------------------------------------------------------------------------


def test_uncommitted_switch_is_noticed():
    topo = machine(1, 2, 2)
    topo.commit()
    topo.switches["sw0.1"].registers.uncommit(0)
    (problem,) = topo.check()
    assert problem.errno == errno.ENXIO and "positions 0..3, not [0, 2]" in problem.message


def test_missing_device_is_noticed():
    topo = machine(1, 4)
    topo.commit()
    topo.devices["m2"].registers.uncommit(0)
    assert "say 4 ways, but 3 devices" in str(topo.check()[0])


def test_devices_that_differ_are_noticed():
    topo = machine(2, 1)
    topo.commit()
    block = topo.devices["m1"].registers
    block.uncommit(0)
    block.program(0, BASE, 512 * MIB, 2, 512)
    assert any("all devices must have 2 ways at 256 bytes, but m1 has 2 at 512" in str(p) for p in topo.check())


def test_port_first_layout_is_refused_by_linux_only():
    """Legal hardware: every byte has its place, but the bridges' granularity is not what Linux expects."""
    topo = machine(2, 2, granularity=512)
    for device in topo.devices.values():
        device.registers.program(0, BASE, GIB, 4, 256)
    for node in topo.bridges.values():
        node.registers.program(0, BASE, GIB, 2, 256, (0, 1))
    found = topo.check()
    assert {p.errno for p in found} == {errno.EINVAL}
    assert "must be the 512 bytes of window window0, which interleaves, not 256" in found[0].message
    assert topo.check(for_linux=False) == []


def test_decoder_over_two_partitions():
    topo = machine(1, 1, persistent=256 * MIB)
    topo.devices["m0"].registers.program(0, BASE, 512 * MIB, 1, 256)
    topo.bridges["hb0"].registers.program(0, BASE, 512 * MIB, 1, 256, (0,))
    (problem,) = topo.check()
    assert problem.errno == errno.EINVAL
    assert "must stay in one partition, not reach from ram into pmem" in problem.message


def test_decoders_out_of_order_of_a_permissive_machine():
    topo = machine(1, 1, strict=False, capacity=GIB)
    block = topo.devices["m0"].registers
    block.program(0, BASE + 512 * MIB, 256 * MIB, 1, 256)
    block.program(1, BASE, 256 * MIB, 1, 256)
    for n, base in enumerate((BASE + 512 * MIB, BASE)):
        topo.bridges["hb0"].registers.program(n, base, 256 * MIB, 1, 256, (0,))
    assert errno.EBUSY in {p.errno for p in topo.check()}


def test_two_addresses_of_one_byte():
    """A 2-way window over devices that decode 1 way: each address reaches a byte, and each byte has two addresses."""
    topo = machine(1, 2)
    for device in topo.devices.values():
        device.registers.program(0, BASE, 256 * MIB, 1, 256)
    topo.bridges["hb0"].registers.program(0, BASE, 512 * MIB, 2, 256, (0, 0))
    topo.devices["m0"].registers.uncommit(0)
    topo.devices["m0"].registers.program(0, BASE, 512 * MIB, 2, 256)
    found = topo.check(for_linux=False)
    assert [str(p) for p in found] == ["warning: 0x1000000000 and 0x1000000100 both reach DPA 0x0 of m0"]


def test_normalized_windows_are_left_to_the_platform():
    plan = blueprint(1, 4)
    plan.windows[0] = replace(plan.windows[0], normalized=True)
    topo = Topology(plan)
    topo.commit()
    assert topo.check() == []
