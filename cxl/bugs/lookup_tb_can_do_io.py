"""An indirect jump to a page whose table is in MMIO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import Bug, Expected, Fix, Mode, Observation, Outcome
from cxl.bugs.rig import CODE, DATA, Rig

if TYPE_CHECKING:
    from mmu.tcg import Switches

X86 = """
    ff e7                           jmp rdi
"""
X86_THERE = """
    48 ff c3                        inc rbx
    f4                              hlt
"""
ARM64 = """
    00 00 1f d6                     br x0
"""
ARM64_THERE = """
    42 04 00 91                     add x2, x2, #1
    7f 20 03 d5                     wfi
"""


def scenario(arch: str, here: str, there: str, address: str, result: str, switches: Switches) -> Observation:
    """The last table of the page that is jumped to is in the window; both pages are in RAM."""
    rig = Rig(arch, switches)
    rig.code(CODE, here)
    rig.code(DATA, there, tables="rrw")
    return rig.observe(registers={address: DATA}, results={result: 1})


def x86(switches: Switches) -> Observation:
    return scenario("x86_64", X86, X86_THERE, "rdi", "rbx", switches)


def arm64(switches: Switches) -> Observation:
    return scenario("aarch64", ARM64, ARM64_THERE, "x0", "x2", switches)


FOUND = {"recompiles": 0, "bus_reads": {"ptw": 1, "data": 0, "fetch": 0}}


BUG = Bug(
    name="lookup-tb-can-do-io",
    title="an indirect jump aborts the emulator when a table of its target is in CXL memory",
    trigger="""
        x86. A block ends in an indirect jump, call or return, or in a jump to another page. A helper called
        from translated code looks for the next block; its page misses the fetch TLB, and an entry of the walk
        is in memory without a host address. The flag that says whether I/O may happen still has the value that
        the last block left, which is no wherever the flag is set for counted blocks only. The read of the entry
        is refused as I/O in the middle of a block, and there is no instruction to go back to: the address that
        it came from is rightly 0. The emulator aborts, as for ptw-retaddr. The fix of either does not help with
        the other.
    """,
    fix=Fix("fixed", commit="accel/tcg: Set can_do_io at at start of lookup_tb_ptr helper", release="9.0"),
    references=(
        "J. Cameron, qemu-devel February 2024: with this patch alone a very similar backtrace, from a store",
        "measured on 10.0.13 with this fix and the later bookkeeping undone: the first indirect call",
    ),
    switches=("lookup_tb_can_do_io",),
    policy={"can_do_io": "P1"},
    scenarios={"x86_64": x86, "aarch64": arm64},
    faulty=Expected(
        Outcome.ABORT, "could not find TB for pc=(nil)",
        {"recompiles": 0, "bus_reads": {"ptw": 0, "data": 0, "fetch": 0}}),
    fixed=Expected(Outcome.OK, counts=FOUND),
    special={(Mode.FAULTY, "aarch64"): Expected(Outcome.OK, counts=FOUND)},
    elsewhere={"7.2": (Expected(Outcome.OK, counts=FOUND), "I/O is allowed anywhere in a block (P0)")},
)
