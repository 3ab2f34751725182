"""A flag to be set while a CPU runs alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import Bug, Expected, Fix, Observation, Outcome
from cxl.bugs.rig import CODE, DATA, PAGE, Rig
from mmu.x86.format import Pte

if TYPE_CHECKING:
    from mmu.tcg import Switches

X86 = """
    f0 83 07 01                     lock add dword ptr [rdi], 1
    48 ff c3                        inc rbx
    f4                              hlt
"""


def x86(switches: Switches) -> Observation:
    """The word crosses into a page whose entry is in the window, with A and D to be set."""
    rig = Rig("x86_64", switches)
    rig.code(CODE, X86)
    low = rig.map(DATA, tables="rrw")
    high = rig.map(DATA + PAGE, clear=Pte.A.mask | Pte.D.mask)
    rig.fill(low + PAGE - 2, b"\xff\xff")
    rig.fill(high, b"\x01\x00")

    def wrong() -> str:
        seen = int.from_bytes(rig.space.read(low + PAGE - 2, 2) + rig.space.read(high, 2), "little")
        return "" if seen == 0x2_0000 else f"the word is {seen:#x}, not 0x20000"

    return rig.observe(registers={"rdi": DATA + PAGE - 2}, results={"rbx": 1}, wrong=wrong)


BUG = Bug(
    name="step-atomic-setl",
    title="an atomic whose walk must set a flag in CXL memory hangs",
    trigger="""
        x86. An atomic instruction that needs all other CPUs to stand still, such as one that crosses a page,
        runs alone in an exclusive section. If its walk has to set A or D in memory without a host address in
        that step, the walker leaves the running state, enters an exclusive section, and on its way back waits
        for the end of the exclusive section, which is its own.
    """,
    fix=Fix("latent"),
    references=("read in 7ba055b49b74 (the fix of setl-exclusive-hang) and cpu_exec_step_atomic; low confidence",),
    switches=("step_atomic_setl",),
    scenarios={"x86_64": x86},
    faulty=Expected(Outcome.HANG, "cpu_exec_start"),
    fixed=Expected(Outcome.OK, counts={"atomic_exits": 1}),
    elsewhere={
        r: (Expected(Outcome.ABORT, "could not find TB for pc=(nil)"), "ptw-retaddr") for r in ("8.2", "9.0")
    },
)
