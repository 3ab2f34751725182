"""Tables in ROM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import Bug, Expected, Fix, Observation, Outcome
from cxl.bugs.rig import CODE, DATA, X86_LOAD, Rig
from mmu.x86.format import Pte

if TYPE_CHECKING:
    from mmu.tcg import Switches


def x86(switches: Switches) -> Observation:
    """The last table of the data is in ROM, and A is to be set there."""
    rig = Rig("x86_64", switches)
    rig.code(CODE, X86_LOAD)
    rig.map(DATA, tables="rro", clear=Pte.A.mask)

    def wrong() -> str:
        return "A was set in ROM" if rig.word(rig.entry(DATA)) & Pte.A.mask else ""

    return rig.observe(registers={"rdi": DATA}, results={"rbx": 1}, wrong=wrong)


DROPPED = Expected(Outcome.OK)


BUG = Bug(
    name="ptw-rom",
    title="tables in ROM take the path of tables in devices, and their flags stay clear",
    trigger="""
        x86. A table is in read-only memory and has A clear. The walker probes entries for writing; ROM has no
        host address for that, so the entry is read and written by the slow path. The store is dropped, the
        comparison before it held, and the walk goes on as if A were set. There is no loop and no fault, and A
        stays clear. The update hangs where setl-exclusive-hang is not fixed.
    """,
    fix=Fix("by design"),
    references=("target/i386/tcg/system/excp_helper.c: ptw_setl_slow",),
    switches=(),
    scenarios={"x86_64": x86},
    faulty=DROPPED,
    fixed=DROPPED,
    elsewhere={
        r: (Expected(Outcome.HANG, "start_exclusive"), "setl-exclusive-hang") for r in ("7.2", "8.2", "9.0", "9.1")
    },
)
