"""Counted instructions from MMIO that do I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import Bug, Expected, Fix, Observation, Outcome
from cxl.bugs.rig import CODE, DATA, Rig

if TYPE_CHECKING:
    from mmu.tcg import Switches

VALUE = 0x1122_3344_5566_7788
X86 = """
    48 8b 07                        mov rax, qword ptr [rdi]
    48 ff c3                        inc rbx
    f4                              hlt
"""


def x86(switches: Switches) -> Observation:
    """Code and data in the window."""
    rig = Rig("x86_64", switches)
    rig.code(CODE, X86, "w")
    rig.fill(rig.map(DATA, "w"), VALUE.to_bytes(8, "little"))
    return rig.observe(registers={"rdi": DATA}, results={"rax": VALUE, "rbx": 1})

BUG = Bug(
    name="oneshot-unregistered",
    title="with -icount, a load from CXL memory by code in CXL memory aborts the emulator",
    trigger="""
        Instructions are counted (-icount). Blocks of code from memory without a host address have one
        instruction and were not registered with the others. If that instruction does I/O, which its block did
        not allow, the block has to be cut, and is not found.
    """,
    fix=Fix("fixed", release="6.0"),
    references=("qemu-devel 2021: one-shot blocks get CF_LAST_IO; later they were registered as well",),
    switches=("oneshot_unregistered",),
    needs={"icount": True},
    scenarios={"x86_64": x86},
    faulty=Expected(Outcome.ABORT, "could not find TB for pc="),
    fixed=Expected(Outcome.OK),
)
