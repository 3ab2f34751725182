"""A table that the bus refuses to read, x86."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import Bug, Expected, Fix, Observation, Outcome
from cxl.bugs.rig import CODE, DATA, X86_LOAD, Rig

if TYPE_CHECKING:
    from mmu.tcg import Switches


def x86(switches: Switches) -> Observation:
    """The last table of the data is in a part of the window that no decoder covers."""
    rig = Rig("x86_64", switches)
    rig.code(CODE, X86_LOAD)
    rig.map(DATA, tables="rrh")
    return rig.observe(registers={"rdi": DATA}, results={"rbx": 1})


REFUSED = Expected(Outcome.GUEST_FAULT, "error code 0x0, ", {"bus_reads": {"ptw": 1, "data": 0, "fetch": 0}})


BUG = Bug(
    name="bus-error-x86",
    title="x86 guests take a table behind a decoder that is not committed for an empty one",
    trigger="""
        x86. A read, of a table entry or of data, that no device answers or whose decoder refuses it. The bus
        reports an error, and the x86 targets have no hook for it: the read gives 0. An entry of 0 is a page
        that is not present, so that the guest gets a page fault with error code 0 (but for write, user and
        fetch), and looks for the mistake in its own tables; data reads as 0 without any sign. Real machines
        may report a machine check.
    """,
    fix=Fix("by design"),
    references=(
        "target/i386: no do_transaction_failed",
        "measured on 7.2.22 and 10.0.13: #PF with error code 0, CR2 = the address",
    ),
    switches=(),
    scenarios={"x86_64": x86},
    faulty=REFUSED,
    fixed=REFUSED,
    elsewhere={
        r: (Expected(Outcome.ABORT, "could not find TB for pc=(nil)"), "ptw-retaddr") for r in ("8.2", "9.0")
    },
)
