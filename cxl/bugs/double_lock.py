"""An interrupt whose descriptor table is mapped by a table in MMIO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import Bug, Expected, Fix, Observation, Outcome
from cxl.bugs.kernel import Kernel

if TYPE_CHECKING:
    from mmu.tcg import Switches


def x86(switches: Switches) -> Observation:
    """The last table of the IDT's page is in the window; the IDT itself, code and stack are in RAM."""
    return Kernel(switches, idt_tables="rrw").interrupted()


BUG = Bug(
    name="double-lock",
    title="delivering an interrupt aborts the emulator when a table of the IDT's page is in CXL memory",
    trigger="""
        x86. The main loop holds the big lock while it delivers an interrupt or an exception. Delivery reads the
        IDT and the GDT and writes the stack; if one of these, or an entry of the walk to it, is in memory
        without a host address, the helper for device accesses takes the big lock, without asking whether its
        thread holds it. The lock asserts that it is not held, and the emulator aborts. Plain loads and stores
        never meet it.
    """,
    fix=Fix("fixed", commit="tcg: Avoid double lock if page tables happen to be in mmio memory", release="9.0"),
    references=(
        "J. Cameron, qemu-devel February 2024",
        "measured on 10.0.13 with the fix undone: bql_lock_impl: assertion failed",
    ),
    switches=("double_lock",),
    scenarios={"x86_64": x86},
    faulty=Expected(Outcome.ABORT, "bql_lock_impl: assertion failed: (!bql_locked())", {"lock_depth": 2}),
    fixed=Expected(Outcome.OK, counts={"lock_depth": 1}),
)
