"""An instruction that begins in RAM and ends in MMIO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import Bug, Expected, Fix, Observation, Outcome
from cxl.bugs.rig import CODE, PAGE, Rig, listing

if TYPE_CHECKING:
    from mmu.tcg import Switches

START = CODE + PAGE - 1
X86 = """
    b8 78 56 34 12                  mov eax, 0x12345678
    f4                              hlt
"""


def straddling(rig: Rig, text: str) -> None:
    """Two pages of code, RAM then window; the listing *text* begins with the last byte of the first."""
    code = listing(text)
    rig.fill(rig.map(CODE) + PAGE - 1, code[:1])
    rig.fill(rig.map(CODE + PAGE, "w"), code[1:])


def x86(switches: Switches) -> Observation:
    """One byte of an instruction is in RAM, the other four and what follows are in the window; tables are in RAM."""
    rig = Rig("x86_64", switches)
    straddling(rig, X86)
    return rig.observe(START, results={"rax": 0x12345678})


BUG = Bug(
    name="second-page-mmio",
    title="an instruction from a RAM page into a CXL page aborts the emulator",
    trigger="""
        x86, whose instructions cross pages. An instruction begins in RAM and ends in memory without a host
        address. Blocks from such memory are made of one instruction and are not kept, which is decided by the
        first page; the translator then asserts that a second page has a host address. The other way round, from
        CXL memory to RAM, always worked.
    """,
    fix=Fix("fixed", commit="accel/tcg: Allow the second page of an instruction to be MMIO", release="8.0"),
    references=(
        "reported by J. Hansen (code in CXL memory) and S. Manning",
        "measured on 7.2.22: translator_access: Assertion failed",
    ),
    switches=("second_page_mmio",),
    scenarios={"x86_64": x86},
    faulty=Expected(Outcome.ABORT, "translator_access: Assertion `phys_page != -1' failed"),
    fixed=Expected(Outcome.OK),
)
