"""What follows an instruction that begins in RAM and ends in MMIO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import Bug, Expected, Fix, Observation, Outcome
from cxl.bugs.rig import Rig
from cxl.bugs.second_page_mmio import START, straddling

if TYPE_CHECKING:
    from mmu.tcg import Switches

X86 = """
    b8 78 56 34 12                  mov eax, 0x12345678
    c6 05 01 00 00 00 22            mov byte ptr [rip + 1], 0x22
    bb 11 00 00 00                  mov ebx, 0x11
    f4                              hlt
"""


def x86(switches: Switches) -> Observation:
    """The second instruction changes the third, both in the window."""
    rig = Rig("x86_64", switches)
    straddling(rig, X86)
    return rig.observe(START, results={"rax": 0x12345678, "rbx": 0x22})


BUG = Bug(
    name="straddle-final-insn",
    title="code in CXL memory after an instruction that came from a RAM page is read too early",
    trigger="""
        x86. An instruction begins in RAM and ends in memory without a host address, and is followed by others
        there. Only after the bytes were read did the block turn out to be one from such memory, of which it may
        have one instruction; it went on to the end. Stores to device memory do not invalidate blocks, so that
        what the guest writes into its own code there, which must be read anew for each instruction, is not seen
        until the block ends. Where I/O ends a block anyway (8.1.2 and later) only the reading is too early.
    """,
    fix=Fix("fixed", commit="accel/tcg: Cap the translation block when we encounter mmio", release="9.1"),
    references=("qemu-devel April 2024, with an assertion for debug builds",),
    switches=("straddle_final_insn",),
    policy={"can_do_io": "P0"},
    scenarios={"x86_64": x86},
    faulty=Expected(Outcome.WRONG_DATA, "rbx is 0x11, not 0x22"),
    fixed=Expected(Outcome.OK),
    elsewhere={
        "7.2": (Expected(Outcome.ABORT, "phys_page != -1"), "second-page-mmio"),
        "8.2": (Expected(Outcome.OK), "the store is I/O, which ends the block (P1)"),
        "9.0": (Expected(Outcome.OK), "the store is I/O, which ends the block (P1)"),
    },
)
