"""A store that takes memory away, and a load from there in the same block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import Bug, Expected, Fix, Mode, Observation, Outcome
from cxl.bugs.busside import several
from cxl.bugs.rig import CODE, DATA, PAGE, Rig
from cxl.format import CONTROL

if TYPE_CHECKING:
    from mmu.tcg import Switches

VALUE = 0x1122_3344_5566_7788
REGISTERS = 0x2000_0000_0000
X86 = """
    48 8b 07                        mov rax, qword ptr [rdi]
    c7 06 00 00 00 00               mov dword ptr [rsi], 0
    48 8b 1f                        mov rbx, qword ptr [rdi]
    f4                              hlt
"""


ARM64 = """
    01 00 40 f9                     ldr x1, [x0]
    7f 00 00 b9                     str wzr, [x3]
    02 00 40 f9                     ldr x2, [x0]
    7f 20 03 d5                     wfi
"""


def scenario(
    arch: str, code: str, registers: tuple[str, str], results: dict[str, int], switches: Switches
) -> Observation:  # fmt: skip
    """The guest loads a word, uncommits the decoder of the host bridge that leads to it, and loads it again."""
    topology = several(2)
    rig = Rig(arch, switches, topology=topology, devices=["mem0"])
    rig.code(CODE, code)
    rig.fill(rig.map(DATA, "w"), VALUE.to_bytes(8, "little"))
    bridge = topology.bridges["cxl.0"]
    assert bridge.base is not None and bridge.registers is not None
    control = bridge.base + bridge.registers.offset(0, CONTROL)
    rig.map(REGISTERS, control & -PAGE)
    word, device = registers
    return rig.observe(registers={word: DATA, device: REGISTERS + control % PAGE}, results=results)


def x86(switches: Switches) -> Observation:
    return scenario("x86_64", X86, ("rdi", "rsi"), {"rax": VALUE, "rbx": 0}, switches)


def arm64(switches: Switches) -> Observation:
    """What the bus refuses is an external abort here."""
    return scenario("aarch64", ARM64, ("x0", "x3"), {"x1": VALUE, "x2": 0}, switches)


BUG = Bug(
    name="io-must-be-last",
    title="memory that a guest has just taken away can still be read",
    trigger="""
        A store to a device changes the memory map: a BAR moves, a decoder is uncommitted, a region is disabled.
        Another access to that range follows in the same block. Maps are changed between blocks, when the TLB is
        flushed too; until then the block goes on with the old translation. I/O must be the last thing in a
        block, so it was made to be: from then on each access to a device cuts its block, which is what made
        ptw-retaddr and lookup-tb-can-do-io show.
    """,
    fix=Fix("fixed", commit="18a536f1f8d6, accel/tcg: Always require can_do_io", release="8.1.2"),
    references=(
        "issues 1866 and 1884 of the QEMU project",
        "made by 0d58c660689f, softmmu: Use async_run_on_cpu in tcg_commit (8.1.1)",
    ),
    switches=("io_must_be_last",),
    scenarios={"x86_64": x86, "aarch64": arm64},
    faulty=Expected(Outcome.WRONG_DATA, "rbx is 0x1122334455667788, not 0x0"),
    fixed=Expected(Outcome.OK),
    special={
        (Mode.FAULTY, "aarch64"): Expected(Outcome.WRONG_DATA, "x2 is 0x1122334455667788, not 0x0"),
        (Mode.FIXED, "aarch64"): Expected(Outcome.GUEST_FAULT, "fsc 0x10, "),
    },
)
