"""A flag to be set while the big lock is held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import Bug, Expected, Fix, Observation, Outcome
from cxl.bugs.kernel import Kernel
from mmu.x86.format import Pte

if TYPE_CHECKING:
    from mmu.tcg import Switches


def x86(switches: Switches) -> Observation:
    """The last table of the IDT's page is in the window, with A to be set; another CPU waits for the big lock."""
    return Kernel(switches, idt_tables="rrw", idt_clear=Pte.A.mask).interrupted()


BUG = Bug(
    name="excl-bql-deadlock",
    title="two CPUs wait for each other when delivering an interrupt has to set a flag in CXL memory",
    trigger="""
        x86, two CPUs. The first delivers an interrupt, for which it holds the big lock, and the walk to the IDT
        has to set A in memory without a host address: it waits until no other CPU is inside a block. The second
        is inside a block and waits for the big lock, for an access to a device. Neither goes on.
    """,
    fix=Fix("latent"),
    references=("read in 7ba055b49b74; a patch of 2019 proposed to assert that the lock is not held there",),
    switches=("excl_bql_deadlock",),
    needs={"peer_waits_for_lock": True},
    scenarios={"x86_64": x86},
    faulty=Expected(Outcome.HANG, "holds the big lock"),
    fixed=Expected(Outcome.OK),
    elsewhere={
        "8.2": (Expected(Outcome.ABORT, "bql_lock_impl"), "double-lock"),
        **{r: (Expected(Outcome.HANG, "waits for itself"), "setl-exclusive-hang") for r in ("7.2", "9.0", "9.1")},
    },
)
