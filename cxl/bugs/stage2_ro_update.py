"""A table that a hypervisor keeps its guest from writing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import Bug, Expected, Fix, Observation, Outcome
from cxl.bugs.rig import ARM64_LOAD, CODE, DATA, PAGE, Rig
from mmu import arm64
from mmu.arm64.format import Page4K, Tcr

if TYPE_CHECKING:
    from mmu.tcg import Switches


def scenario(switches: Switches) -> Observation:
    """Stage 2 maps everything to itself; the last table of the data is in the window, and may be read only."""
    rig = Rig("aarch64", switches)
    rig.code(CODE, ARM64_LOAD)
    rig.map(DATA, tables="rrw", clear=Page4K.AF.mask)
    nested = arm64.Stage2Tables(rig.space, lambda: rig.take("r"), start_level=1)
    for base, size in *rig.topology.ram, (rig.region.base, rig.region.size):
        nested.map(base, base, size)
    nested.protect(rig.entry(DATA) & -PAGE, PAGE, writable=0)
    control = rig.machine.registers["tcr_el1"] | Tcr.HA.mask

    def wrong() -> str:
        return "AF was set in a table that is read only" if rig.word(rig.entry(DATA)) & Page4K.AF.mask else ""

    return rig.observe(
        registers={"x0": DATA, "tcr_el1": control, "vtcr_el2": nested.vtcr(), "vttbr_el2": nested.vttbr()},
        results={"x2": 1}, wrong=wrong)


BUG = Bug(
    name="stage2-ro-update",
    title="a guest's walk writes a table in CXL memory that its hypervisor made read-only",
    trigger="""
        arm64 under a hypervisor, with TCR_EL1.HA. A stage-1 table is in memory without a host address, and stage 2
        maps it for reading only, so that the hypervisor is told of updates. Whether stage 2 lets a descriptor be
        written is asked where it is exchanged through a host pointer; the other branch, for devices, was added
        before that question. The flag is set, and the hypervisor is told nothing. It should get a permission fault
        on a stage-1 walk.
    """,
    fix=Fix("latent"),
    references=("read in target/arm/ptw.c of 2025: arm_casq_ptw",),
    switches=("stage2_ro_update",),
    scenarios={"aarch64": scenario},
    faulty=Expected(Outcome.WRONG_DATA, "AF was set in a table that is read only"),
    fixed=Expected(Outcome.GUEST_FAULT, "s1ptw yes", {"bus_writes": {"ptw": 0, "data": 0, "fetch": 0}}),
    elsewhere={r: (Expected(Outcome.GUEST_FAULT, "fsc 0x31, "), "arm-hafdbs-mmio") for r in ("7.2", "8.2")},
)
