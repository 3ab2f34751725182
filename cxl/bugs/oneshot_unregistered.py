"""Counted instructions from MMIO that do I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import Bug, Expected, Fix, Observation, Outcome
from cxl.bugs.rig import ARM64_LOAD, CODE, DATA, X86_LOAD, Rig

if TYPE_CHECKING:
    from mmu.tcg import Switches

VALUE = 0x1122_3344_5566_7788


def scenario(arch: str, code: str, address: str, results: dict[str, int], switches: Switches) -> Observation:
    """Code and data in the window."""
    rig = Rig(arch, switches)
    rig.code(CODE, code, "w")
    rig.fill(rig.map(DATA, "w"), VALUE.to_bytes(8, "little"))
    return rig.observe(registers={address: DATA}, results=results)


def x86(switches: Switches) -> Observation:
    return scenario("x86_64", X86_LOAD, "rdi", {"rax": VALUE, "rbx": 1}, switches)


def arm64(switches: Switches) -> Observation:
    return scenario("aarch64", ARM64_LOAD, "x0", {"x1": VALUE, "x2": 1}, switches)


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
    scenarios={"x86_64": x86, "aarch64": arm64},
    faulty=Expected(Outcome.ABORT, "could not find TB for pc="),
    fixed=Expected(Outcome.OK),
)
