"""Eight ways: the second half of a target list was never read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import BUS, Bug, Expected, Fix, Observation, Outcome
from cxl.bugs.busside import looking, several

if TYPE_CHECKING:
    from mmu.tcg import Switches

WAYS, GRANULE = 8, 256


def scenario(switches: Switches) -> Observation:
    """Each device gets its own number, by an address that is its turn."""
    topology = several(WAYS)
    with looking(topology, switches) as look:
        (region,) = topology.commit()
        for i in range(WAYS):
            look.store(region.base + i * GRANULE, 0x1111_1111_1111_1111 * (i + 1))
        for i, device in enumerate(region.devices):
            seen = int.from_bytes(device.read(0, 8), "little")
            look.same(f"{device.name} DPA 0x0", seen, 0x1111_1111_1111_1111 * (i + 1))
    return look.observation()


BUG = Bug(
    name="hdm-target-list",
    title="an 8-way host bridge or switch sends its upper four targets to the lower four",
    trigger="""
        A host bridge or switch decoder with 8 ways. The target list is two 32-bit words of four port numbers.
        The test which of them to use was the wrong way round, and both ways used the lower word: indices above
        4 shifted it by 32 bits and more, the others by a negative count; C leaves both undefined. On x86 hosts
        shift counts are taken modulo 32, so that indices 0 to 3 happened to work and 4 to 7 named the targets
        of 0 to 3: two addresses share a byte of one device, and half of the devices are never reached. It was
        gone before the first release of those that are listed here.
    """,
    fix=Fix("fixed", release="7.1"),
    references=("hw/cxl/cxl-host.c of 2022; found by static analysis",),
    switches=("hdm_target_list",),
    scenarios={BUS: scenario},
    faulty=Expected(Outcome.WRONG_DATA, "mem0 DPA 0x0 holds 0x5555555555555555, not 0x1111111111111111"),
    fixed=Expected(Outcome.OK),
)
