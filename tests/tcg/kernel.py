"""Descriptor tables, so that exceptions and interrupts reach handlers."""

from mmu.guest.format import Segment
from tests.tcg.machines import CODE, STACK, Bench

IDT, GDT, HANDLER = 0x3000_0000_0000, 0x4000_0000_0000, CODE + 0x800  # IDT and GDT through tables of their own
IDT_PA, GDT_PA = 0x60_0000, 0x61_0000
FLAT = Segment.make(TYPE=11, S=1, P=1, L=1, G=1, LIMIT_LOW=0xFFFF, LIMIT_HIGH=15)
DATA_SEGMENT = Segment.make(TYPE=3, S=1, P=1, DB=1, G=1, LIMIT_LOW=0xFFFF, LIMIT_HIGH=15)
HANDLE = bytes.fromhex("41ffc0" "48cf")  # inc r8d; iretq


class Kernel(Bench):
    """Every vector leads to HANDLER, which counts in r8 and returns. *idt_window*: levels of the IDT's own tables in
    the window; *idt_pa*: where the IDT itself is."""

    def __init__(self, emulator, idt_window=(), idt_pa=IDT_PA, gdt_pa=GDT_PA, handler=HANDLE, **options):
        super().__init__(emulator, **options)
        self.map(IDT, idt_pa, idt_window)
        self.map(GDT, gdt_pa)
        self.space.write(gdt_pa + 8, FLAT.to_bytes(8, "little"))
        self.space.write(gdt_pa + 16, DATA_SEGMENT.to_bytes(8, "little"))
        for vector in range(64):
            low = HANDLER & 0xFFFF | 8 << 16 | 0x8E << 40 | (HANDLER >> 16 & 0xFFFF) << 48
            self.space.write(idt_pa + 16 * vector, low.to_bytes(8, "little") + (HANDLER >> 32).to_bytes(8, "little"))
        self.machine.write(HANDLER, handler)
        cpu = self.machine.cpu
        for name, base in (("idtr", IDT), ("gdtr", GDT)):
            cpu.set_structure(cpu._number(name), "<H6xQII", 0, base, 0xFFF, 0)
        self.machine.set(rflags=0x202)

    def load(self, source, **registers):
        super().load(source, **registers)
        self.machine.set(rsp=STACK + 0x800)
        return self
