"""A load whose page table is in MMIO, in the middle of a block: what the whole atlas began with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import Bug, Expected, Fix, Mode, Observation, Outcome
from cxl.bugs.rig import ARM64_LOAD, CODE, DATA, X86_LOAD, Rig

if TYPE_CHECKING:
    from mmu.tcg import Switches

VALUE = 0x1122_3344_5566_7788


def scenario(arch: str, code: str, address: str, results: dict[str, int], switches: Switches) -> Observation:
    """Everything in RAM but the last table of the data; all flags are set, so that a walk writes nothing."""
    rig = Rig(arch, switches)
    rig.code(CODE, code)
    rig.fill(rig.map(DATA, tables="rrw"), VALUE.to_bytes(8, "little"))
    return rig.observe(registers={address: DATA}, results=results)


def x86(switches: Switches) -> Observation:
    return scenario("x86_64", X86_LOAD, "rdi", {"rax": VALUE, "rbx": 1}, switches)


def arm64(switches: Switches) -> Observation:
    return scenario("aarch64", ARM64_LOAD, "x0", {"x1": VALUE, "x2": 1}, switches)


READ_ONCE = {"recompiles": 0, "bus_reads": {"ptw": 1, "data": 0, "fetch": 0}, "lock_depth": 1}


BUG = Bug(
    name="ptw-retaddr",
    title="a load aborts the emulator when a table of its page is in CXL memory",
    trigger="""
        x86. A load or store from translated code that is not the last instruction of its block misses the TLB,
        and an entry of the walk is in memory without a host address. The walker reads that entry by a load of
        its own, which is I/O in the middle of a block: the block must be cut there and the instruction run
        again alone. For that the load needs the host address it came from, to find block and instruction; the
        walker gave it 0. No block is found for that address, which is taken for a fault in the emulator itself,
        and it aborts. Nothing was read, and the guest sees no exception. The arm64 walker reads descriptors by
        another path, which never asks where it is in a block.
    """,
    fix=Fix("fixed", commit="9dab7bbb01, target/i386/tcg: Enable page walking from MMIO memory", release="9.1"),
    references=(
        "J. Cameron, qemu-devel February 2024: fixes for page tables in MMIO",
        "S. Rao, January 2024: could not find TB for pc=(nil), with memory bound to a CXL node",
    ),
    switches=("ptw_retaddr",),
    policy={"can_do_io": "P1"},
    scenarios={"x86_64": x86, "aarch64": arm64},
    faulty=Expected(
        Outcome.ABORT, "could not find TB for pc=(nil)",
        {"recompiles": 0, "bus_reads": {"ptw": 0, "data": 0, "fetch": 0}}),
    fixed=Expected(
        Outcome.OK, counts={"recompiles": 1, "bus_reads": {"ptw": 1, "data": 0, "fetch": 0}, "lock_depth": 1}),
    special={
        (Mode.FAULTY, "aarch64"): Expected(Outcome.OK, counts=READ_ONCE),
        (Mode.FIXED, "aarch64"): Expected(Outcome.OK, counts=READ_ONCE),
    },
    elsewhere={"7.2": (Expected(Outcome.OK, counts=READ_ONCE), "I/O is allowed anywhere in a block (P0)")},
)
