"""What no decoder interleaves can be plain RAM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import Bug, Expected, Fix, Observation, Outcome
from cxl.bugs.busside import several
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
    """One device, nothing interleaves; all tables and the data are in the window."""
    rig = Rig("x86_64", switches, root="w", topology=several(1))
    rig.code(CODE, X86, tables="www")
    rig.fill(rig.map(DATA, "w", "www"), VALUE.to_bytes(8, "little"))
    return rig.observe(registers={"rdi": DATA}, results={"rax": VALUE, "rbx": 1})


NONE = {"ptw": 0, "data": 0, "fetch": 0}

BUG = Bug(
    name="alias-path",
    title="memory that nothing interleaves is served access by access",
    trigger="""
        A window with one target, and no decoder on the way to a device interleaves. Every access took the way
        through the decoders, as if it were one to a device: tables, code, atomics and DMA buffers there met
        everything in this atlas. Releases with the direct path show such a range as plain RAM while its
        decoders are committed. No bug of this atlas can show there; interleaved ranges are as before.
    """,
    fix=Fix("fixed", commit="the direct path, the PCI tree of 2026-06", release="11.1"),
    references=("RFC of the direct path, qemu-devel October 2025",),
    switches=("alias_path",),
    scenarios={"x86_64": x86},
    faulty=Expected(Outcome.OK, counts={"bus_reads": {"ptw": 8, "data": 1, "fetch": 0}}),
    fixed=Expected(Outcome.OK, counts={"bus_reads": NONE, "recompiles": 0, "lock_depth": 0}),
    elsewhere={
        "7.2": (Expected(Outcome.OK), "I/O is allowed anywhere in a block (P0)"),
        "8.2": (Expected(Outcome.ABORT, "could not find TB"), "ptw-retaddr"),
        "9.0": (Expected(Outcome.ABORT, "could not find TB"), "ptw-retaddr"),
    },
)
