"""Walks under a plugin that looks at memory accesses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import Bug, Expected, Fix, Observation, Outcome
from cxl.bugs.rig import CODE, DATA, X86_LOAD, Rig
from mmu.x86.format import Pte

if TYPE_CHECKING:
    from mmu.tcg import Switches


def x86(switches: Switches) -> Observation:
    """All tables are in RAM; A of the data is to be set."""
    rig = Rig("x86_64", switches)
    rig.code(CODE, X86_LOAD)
    rig.map(DATA, clear=Pte.A.mask)

    def wrong() -> str:
        return "" if rig.word(rig.entry(DATA)) & Pte.A.mask else "A of the data is not set"

    return rig.observe(registers={"rdi": DATA}, results={"rbx": 1}, wrong=wrong)


BUG = Bug(
    name="plugin-walk",
    title="with a memory plugin, walks through tables in plain RAM hang",
    trigger="""
        x86, with a plugin that has hooks on memory accesses. So that the hooks see every access, probes answer
        that no page has a host address. The walker asks by such a probe too: it takes entries in RAM for
        entries in a device, reads them by the slow path, and to set a flag stops all CPUs, itself among them
        (setl-exclusive-hang). No CXL memory is needed. Both mistakes are there in the faulty mode; with the
        hang alone fixed, each update of a flag stops all CPUs.
    """,
    fix=Fix("fixed", commit="115ade42d501, target/i386: Use probe_access_full_mmu in ptw_translate", release="9.2"),
    references=("issue 2566 of the QEMU project: Windows and a memory plugin hang",),
    switches=("plugin_walk", "setl_exclusive_hang"),
    needs={"plugins": True},
    scenarios={"x86_64": x86},
    faulty=Expected(Outcome.HANG, "start_exclusive"),
    fixed=Expected(Outcome.OK, counts={"bus_reads": {"ptw": 0, "data": 0, "fetch": 0}, "lock_depth": 0}),
)
