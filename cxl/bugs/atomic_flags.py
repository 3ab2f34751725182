"""An atomic read-modify-write in MMIO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import Bug, Expected, Fix, Observation, Outcome
from cxl.bugs.rig import CODE, DATA, Rig

if TYPE_CHECKING:
    from mmu.tcg import Switches

OFFSET = 0x10
X86 = """
    f0 83 07 01                     lock add dword ptr [rdi], 1
    48 ff c3                        inc rbx
    f4                              hlt
"""
ARM64 = """
    03 00 21 b8                     ldadd w1, w3, [x0]
    42 04 00 91                     add x2, x2, #1
    7f 20 03 d5                     wfi
"""


def scenario(
    arch: str, code: str, registers: dict[str, int], results: dict[str, int], switches: Switches
) -> Observation:  # fmt: skip
    """An atomic addition to a word in the window that is 41."""
    rig = Rig(arch, switches)
    rig.code(CODE, code)
    word = rig.map(DATA, "w") + OFFSET
    rig.fill(word, (41).to_bytes(8, "little"))

    def wrong() -> str:
        return "" if rig.word(word) == 42 else f"the word is {rig.word(word)}, not 42"

    return rig.observe(registers=registers, results=results, wrong=wrong)


ONCE = {"ptw": 0, "data": 1, "fetch": 0}


def x86(switches: Switches) -> Observation:
    return scenario("x86_64", X86, {"rdi": DATA + OFFSET}, {"rbx": 1}, switches)


def arm64(switches: Switches) -> Observation:
    return scenario("aarch64", ARM64, {"x0": DATA + OFFSET, "x1": 1}, {"x2": 1, "x3": 41}, switches)


BUG = Bug(
    name="atomic-flags",
    title="an atomic instruction on CXL memory crashes the emulator",
    trigger="""
        x86 and arm64 (and RISC-V), more than one CPU possible. An atomic read-modify-write on memory without a
        host address. Such an access has to stop all other CPUs; whether it must is told by a flag of the TLB
        entry. When that flag moved to another word, the code for atomics went on to look for it in the old
        place, took the entry for one of RAM, and computed a host address from a host base of 0: the offset in
        the page. Linux in interleaved CXL memory crashed in its first atomic.
    """,
    fix=Fix("fixed", commit="319b0c8d0774, accel/tcg: Fix atomic_mmu_lookup vs TLB_FORCE_SLOW", release="10.1"),
    references=(
        "J. Cameron, lore.kernel.org 20250425183524.00000b28; A. Francis met it on RISC-V",
        "made by 24b5e0fdb543 of 2025-04; in no release",
    ),
    switches=("atomic_flags",),
    scenarios={"x86_64": x86, "aarch64": arm64},
    faulty=Expected(Outcome.CRASH, "segmentation fault at host address 0x10"),
    fixed=Expected(Outcome.OK, counts={"atomic_exits": 1, "bus_reads": ONCE, "bus_writes": ONCE}),
)
