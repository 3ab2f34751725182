"""A table that the bus refuses to read, arm64."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import Bug, Expected, Fix, Observation, Outcome
from cxl.bugs.rig import ARM64_LOAD, CODE, DATA, Rig

if TYPE_CHECKING:
    from mmu.tcg import Switches


def arm64(switches: Switches) -> Observation:
    """The last table of the data is in a part of the window that no decoder covers."""
    rig = Rig("aarch64", switches)
    rig.code(CODE, ARM64_LOAD)
    rig.map(DATA, tables="rrh")
    return rig.observe(registers={"x0": DATA}, results={"x2": 1})


REFUSED = Expected(Outcome.GUEST_FAULT, "fsc 0x17, ", {"bus_reads": {"ptw": 1, "data": 0, "fetch": 0}})


BUG = Bug(
    name="bus-error-arm",
    title="arm64 guests get an external abort for a table behind a decoder that is not committed",
    trigger="""
        arm64. The same as bus-error-x86, where the architecture has a name for it: a synchronous external abort
        on a table walk (0x14 plus the level) for an entry, a plain one (0x10) for data. The bit EA of the
        syndrome tells a device that refused from an address where nothing is.
    """,
    fix=Fix("by design"),
    references=(
        "target/arm: arm_cpu_do_transaction_failed",
        "measured on 7.2.22 and 10.0.13: ESR 0x96000017 for the last table",
    ),
    switches=(),
    scenarios={"aarch64": arm64},
    faulty=REFUSED,
    fixed=REFUSED,
)
