"""An instruction that begins in RAM and ends in MMIO, run twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import Bug, Expected, Fix, Observation, Outcome
from cxl.bugs.rig import Rig
from cxl.bugs.second_page_mmio import START, straddling

if TYPE_CHECKING:
    from mmu.tcg import Switches

X86 = """
    b8 11 11 11 11                  mov eax, 0x11111111
    48 ff c9                        dec rcx
    74 0c                           je 0x401015
    c7 05 ed ff ff ff 22 22 22 22   mov dword ptr [rip - 0x13], 0x22222222
    eb ea                           jmp 0x400fff
    f4                              hlt
"""


def x86(switches: Switches) -> Observation:
    """A loop whose first instruction straddles; its first round changes the constant, which is in the window."""
    rig = Rig("x86_64", switches)
    straddling(rig, X86)
    return rig.observe(START, registers={"rcx": 2}, results={"rax": 0x22222222, "rcx": 0})


BUG = Bug(
    name="straddle-jump-cache",
    title="an instruction from a RAM page into a CXL page is run again as it was before",
    trigger="""
        x86. An instruction begins in RAM and ends in memory without a host address; it has run, then its bytes
        there are written, and it is run again without a TLB flush in between. Its block must not be kept, and
        is in fact not found by physical address. But every new block goes into the cache of virtual addresses,
        where blocks of one instruction are told apart by their flags, which this one lacks; and blocks whose
        second page counts as none can be chained. The old block runs.
    """,
    fix=Fix("latent"),
    references=("read in accel/tcg/cpu-exec.c of 2025: cpu_exec_loop, the store into the jump cache",),
    switches=("straddle_jump_cache",),
    scenarios={"x86_64": x86},
    faulty=Expected(Outcome.WRONG_DATA, "rax is 0x11111111, not 0x22222222"),
    fixed=Expected(Outcome.OK),
    elsewhere={"7.2": (Expected(Outcome.ABORT, "phys_page != -1"), "second-page-mmio")},
)
