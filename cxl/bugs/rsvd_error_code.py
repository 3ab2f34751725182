"""The error code of a reserved bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import Bug, Expected, Fix, Observation, Outcome
from cxl.bugs.rig import CODE, DATA, X86_LOAD, Rig
from mmu.x86.format import Pde2M

if TYPE_CHECKING:
    from mmu.tcg import Switches


def x86(switches: Switches) -> Observation:
    """The root's entry for the data has bit 7 set, which is reserved there."""
    rig = Rig("x86_64", switches)
    rig.code(CODE, X86_LOAD)
    rig.map(DATA)
    top = rig.entry(DATA, depth=0)
    rig.fill(top, (rig.word(top) | Pde2M.PS.mask).to_bytes(8, "little"))
    return rig.observe(registers={"rdi": DATA})


BUG = Bug(
    name="rsvd-error-code",
    title="the page fault for a reserved bit says that the page is not present",
    trigger="""
        x86. An entry that is present has a reserved bit set. The page fault has RSVD set in its error code and,
        in the emulator since the walker was rewritten in 2022, P clear; processors set both, since the entry
        was present. A kernel that looks at P first takes it for a page to be brought in.
    """,
    fix=Fix("latent"),
    references=(
        "Intel SDM vol. 3A, 'Page-Fault Exceptions'",
        "target/i386/tcg/system/excp_helper.c of 2025",
    ),
    switches=("rsvd_error_code",),
    scenarios={"x86_64": x86},
    faulty=Expected(Outcome.GUEST_FAULT, "error code 0x8, "),
    fixed=Expected(Outcome.GUEST_FAULT, "error code 0x9, "),
)
