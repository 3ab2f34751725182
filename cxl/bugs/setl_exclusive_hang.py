"""Setting an accessed or dirty flag in an entry that is in MMIO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import Bug, Expected, Fix, Observation, Outcome
from cxl.bugs.rig import CODE, DATA, Rig
from mmu.x86.format import Pte

if TYPE_CHECKING:
    from mmu.tcg import Switches

X86 = """
    48 89 1f                        mov qword ptr [rdi], rbx
    48 ff c3                        inc rbx
    f4                              hlt
"""


def x86(switches: Switches) -> Observation:
    """The last tables of code and data are in the window; A of the code and A and D of the data are to be set."""
    rig = Rig("x86_64", switches)
    rig.code(CODE, X86, tables="rrw", clear=Pte.A.mask)
    rig.map(DATA, tables="rrw", clear=Pte.A.mask | Pte.D.mask)

    def wrong() -> str:
        for va, flags in (CODE, Pte.A.mask), (DATA, Pte.A.mask | Pte.D.mask):
            if (value := rig.word(rig.entry(va))) & flags != flags:
                return f"the entry of {va:#x} is {value:#x}: flags {flags:#x} are not set"
        return ""

    return rig.observe(registers={"rdi": DATA}, results={"rbx": 1}, wrong=wrong)


BUG = Bug(
    name="setl-exclusive-hang",
    title="a walk that has to set an accessed or dirty flag in CXL memory hangs for ever",
    trigger="""
        x86. A walk has to set A or D in an entry in memory without a host address. To do that atomically the
        walker stops all CPUs, but it is called from a CPU that counts as running: it waits for itself. One CPU
        is enough, and the emulator can then only be killed. Linux sets these flags in advance, so that for two
        years nobody met it with CXL memory; Windows under a plugin did (plugin-walk).
    """,
    fix=Fix("fixed", commit="7ba055b49b74, target/i386: fix hang when using slow path for ptw_setl", release="9.2"),
    references=(
        "issue 2566 of the QEMU project",
        "measured on 7.2.22: asleep in start_exclusive, called from the walker",
    ),
    switches=("setl_exclusive_hang",),
    scenarios={"x86_64": x86},
    faulty=Expected(Outcome.HANG, "start_exclusive", {"bus_writes": {"ptw": 0, "data": 0, "fetch": 0}}),
    fixed=Expected(Outcome.OK, counts={"bus_writes": {"ptw": 2, "data": 0, "fetch": 0}}),
)
