"""What no decoder interleaves can be plain RAM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import Bug, Expected, Fix, Observation, Outcome
from cxl.bugs.busside import several
from cxl.bugs.rig import ARM64_LOAD, CODE, DATA, PAGE, X86_LOAD, Rig

if TYPE_CHECKING:
    from mmu.tcg import Switches

VALUE = 0x1122_3344_5566_7788
WORD = DATA + PAGE  # not in the slot of the TLB that CODE is in, from which entries of device memory never come back


def scenario(arch: str, code: str, address: str, results: dict[str, int], switches: Switches) -> Observation:
    """One device, nothing interleaves; all tables and the data are in the window."""
    rig = Rig(arch, switches, root="w", topology=several(1))
    rig.code(CODE, code, tables="www")
    rig.fill(rig.map(WORD, "w", "www"), VALUE.to_bytes(8, "little"))
    return rig.observe(registers={address: WORD}, results=results)


def x86(switches: Switches) -> Observation:
    return scenario("x86_64", X86_LOAD, "rdi", {"rax": VALUE, "rbx": 1}, switches)


def arm64(switches: Switches) -> Observation:
    return scenario("aarch64", ARM64_LOAD, "x0", {"x1": VALUE, "x2": 1}, switches)


NONE = {"ptw": 0, "data": 0, "fetch": 0}


BUG = Bug(
    name="alias-path",
    title="memory that nothing interleaves is served access by access",
    trigger="""
        A window with one target, and no decoder on the way to a device interleaves. Every access took the way
        through the decoders, as if it were one to a device: tables, code, atomics and DMA buffers there met
        what is in this atlas. Releases with the direct path show such a range as plain RAM while its
        decoders are committed. No bug of this atlas can show there; interleaved ranges are as before.
    """,
    fix=Fix("fixed", commit="the direct path, the PCI tree of 2026-06", release="11.1"),
    references=("RFC of the direct path, qemu-devel October 2025",),
    switches=("alias_path",),
    scenarios={"x86_64": x86, "aarch64": arm64},
    faulty=Expected(Outcome.OK, counts={"bus_reads": {"ptw": 8, "data": 1, "fetch": 0}}),
    fixed=Expected(Outcome.OK, counts={"bus_reads": NONE, "recompiles": 0, "lock_depth": 0}),
    elsewhere={
        "7.2": (Expected(Outcome.OK), "I/O is allowed anywhere in a block (P0)"),
        "8.2": (Expected(Outcome.ABORT, "could not find TB"), "ptw-retaddr"),
        "9.0": (Expected(Outcome.ABORT, "could not find TB"), "ptw-retaddr"),
    },
)
