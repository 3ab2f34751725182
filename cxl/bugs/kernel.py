"""The least that an x86 guest needs to take an interrupt: a GDT, an IDT, a handler and a stack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.rig import CODE, STACK, Rig
from mmu.guest.format import GateLow, Segment

if TYPE_CHECKING:
    from cxl.bugs.bug import Observation
    from mmu.tcg import Switches

IDT, TABLES = 0x2000_0000_0000, 0x3000_0000_0000
PAGE = 4096
CODE_SELECTOR, DATA_SELECTOR, VECTOR = 0x08, 0x10, 0x20
GDT, IDTR = TABLES + 0x100, TABLES + 16  # the operand of LGDT is at TABLES
BEFORE = 4  # instructions until the interrupt comes, the first after STI
INTERRUPT_GATE = 14
FLAT_CODE = Segment.make(TYPE=11, S=1, P=1, L=1, G=1, LIMIT_LOW=0xFFFF, LIMIT_HIGH=15)
FLAT_DATA = Segment.make(TYPE=3, S=1, P=1, DB=1, G=1, LIMIT_LOW=0xFFFF, LIMIT_HIGH=15)

MAIN = """
    0f 01 16                        lgdt [rsi]
    0f 01 5e 10                     lidt [rsi + 0x10]
    fb                              sti
    48 ff c3                        inc rbx
    48 ff c3                        inc rbx
    48 ff c3                        inc rbx
    48 ff c3                        inc rbx
    f4                              hlt
"""
HANDLER = """
    48 ff c1                        inc rcx
    f4                              hlt
"""


class Kernel:
    """Everything in RAM, but for the IDT, its tables (`Rig.map`) and the stack, which are where the caller says."""

    def __init__(
        self, switches: Switches, idt_tables: str = "rrr", idt_clear: int = 0, idt: str = "r", stack: str = "r"
    ) -> None:
        self.rig = rig = Rig("x86_64", switches)
        rig.code(CODE, MAIN)
        handler = CODE + PAGE
        rig.code(handler, HANDLER)
        rig.map(STACK, stack)
        gdt = b"".join(word.to_bytes(8, "little") for word in (0, FLAT_CODE, FLAT_DATA))
        gate = GateLow.make(
            OFFSET_LOW=handler & 0xFFFF, OFFSET_MID=handler >> 16, SELECTOR=CODE_SELECTOR, TYPE=INTERRUPT_GATE, P=1)
        rig.fill(rig.map(IDT, idt, tables=idt_tables, clear=idt_clear) + VECTOR * 16, gate.to_bytes(8, "little"))
        page = rig.map(TABLES)
        rig.fill(page, _pointer(GDT, len(gdt)))
        rig.fill(page + IDTR - TABLES, _pointer(IDT, PAGE))
        rig.fill(page + GDT - TABLES, gdt)

    def interrupted(self) -> Observation:
        """Run, and be interrupted: the handler must have run, once."""
        self.rig.machine.interrupt(VECTOR, BEFORE)
        return self.rig.observe(registers={"rsi": TABLES, "rsp": STACK + PAGE}, results={"rcx": 1})


def _pointer(base: int, size: int) -> bytes:
    """The operand of LGDT and LIDT."""
    return (size - 1).to_bytes(2, "little") + base.to_bytes(8, "little")
