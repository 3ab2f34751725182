"""Hardware updates of arm64 descriptors that are in MMIO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import Bug, Expected, Fix, Observation, Outcome
from cxl.bugs.rig import ARM64_LOAD, CODE, DATA, Rig
from mmu.arm64.format import Page4K, Tcr

if TYPE_CHECKING:
    from mmu.tcg import Switches


def arm64(switches: Switches) -> Observation:
    """The last table of the data is in the window; its access flag is clear, and the hardware is to set it."""
    rig = Rig("aarch64", switches)
    rig.code(CODE, ARM64_LOAD)
    rig.map(DATA, tables="rrw", clear=Page4K.AF.mask)
    control = rig.machine.registers["tcr_el1"] | Tcr.HA.mask

    def wrong() -> str:
        return "" if rig.word(rig.entry(DATA)) & Page4K.AF.mask else "AF of the data is not set"

    return rig.observe(registers={"x0": DATA, "tcr_el1": control}, results={"x2": 1}, wrong=wrong)


BUG = Bug(
    name="arm-hafdbs-mmio",
    title="a guest that lets arm64 hardware set access flags gets a fault it has no name for",
    trigger="""
        arm64. TCR_EL1.HA (or HD) is set, and a last-level descriptor without its access flag (or a
        writable-clean one that is stored to) is in memory without a host address. The update must be atomic,
        there is no host pointer to exchange through, and the walk ends in the fault for memory that does not
        support atomic updates (0x31). The guest has no handler for it: real memory supports them. With HA clear
        nothing differs.
    """,
    fix=Fix("fixed", commit="arm/ptw: Handle atomic updates of page tables entries in MMIO during PTW", release="9.0"),
    references=(
        "qemu-devel February 2024, target-arm pull",
        "measured on 7.2.22: ESR 0x920000b1",
    ),
    switches=("arm_hafdbs_mmio",),
    scenarios={"aarch64": arm64},
    faulty=Expected(Outcome.GUEST_FAULT, "fsc 0x31, ", {"bus_writes": {"ptw": 0, "data": 0, "fetch": 0}}),
    fixed=Expected(Outcome.OK, counts={
        "bus_reads": {"ptw": 2, "data": 0, "fetch": 0}, "bus_writes": {"ptw": 1, "data": 0, "fetch": 0}}),
)
