"""What an x86-64 kernel keeps in memory: a GDT, an IDT, a TSS; for the tests of exception delivery.

The formats are spelled out here once more, in bytes, so that the tests do not lean on the tables that they test.
"""

import struct

from tests.guest.machines import CODE, DATA, MIB, PAGE, WINDOW, asm, machine

GDT, IDT, TSS, GDTR, IDTR = DATA, DATA + 0x1000, DATA + 0x2000, DATA + 0x2800, DATA + 0x2810
RSP0, IST1 = DATA + 0x9000, DATA + 0xB000
KERNEL_CODE, KERNEL_DATA, USER_DATA, USER_CODE, TASK, CODE32 = 0x08, 0x10, 0x1B, 0x23, 0x28, 0x38
ABSENT_CODE = 0x40
USER = 0x5000_0000  # a page of user code, and after it one of user stack
USER_STACK = USER + 2 * PAGE
HANDLER = CODE + 0x4000  # handlers, a quarter of a page each
ENTER = "lgdt [rdi+0x2800]; lidt [rdi+0x2810]; mov eax, 0x28; ltr ax"
TO_USER = f"; push 0x1b; mov rax, {USER_STACK}; push rax; push 0x202; push 0x23; mov rax, {USER}; push rax; iretq"


def segment(access, flags, base=0, limit=0xFFFFF):
    upper = flags << 4 | limit >> 16
    return struct.pack(
        "<HHBBBB", limit & 0xFFFF, base & 0xFFFF, base >> 16 & 0xFF, access, upper, base >> 24 & 0xFF)


def gate(offset, selector=KERNEL_CODE, kind=14, dpl=0, ist=0, present=1):
    low, middle, high = offset & 0xFFFF, offset >> 16 & 0xFFFF, offset >> 32
    return struct.pack("<HHBBHII", low, selector, ist, kind | dpl << 5 | present << 7, middle, high, 0)


class Kernel:
    """A machine whose kernel starts user or kernel code, with handlers as the test installs them."""

    def __init__(self, idt_limit=0xFFF, tss_limit=0x67, user=WINDOW + 8 * MIB, **where):
        self.machine = m = machine(**where)
        m.load(b"\xf4")
        m.tables.map(USER, user, 2 * PAGE, page_size=PAGE, user=1, executable=1)
        tss = segment(0x89, 0, TSS & 0xFFFF_FFFF, tss_limit) + struct.pack("<Q", TSS >> 32)
        gdt = bytes(8) + segment(0x9A, 0xA) + segment(0x92, 0xC) + segment(0xF2, 0xC) + segment(0xFA, 0xA) + tss
        gdt += segment(0x9A, 0xC) + segment(0x1A, 0xA)  # 32-bit code, 64-bit code that is not present
        m.write(GDT, gdt)
        m.write(GDTR, struct.pack("<HQ", len(gdt) - 1, GDT))
        m.write(IDTR, struct.pack("<HQ", idt_limit, IDT))
        m.write(TSS, struct.pack("<I3Q", 0, RSP0, 0, 0) + bytes(8) + struct.pack("<Q", IST1))
        self.handlers = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.machine.close()

    def handle(self, vector, source, **options):
        """Install a handler; returns its address."""
        at = HANDLER + 0x400 * self.handlers
        self.handlers += 1
        self.machine.write(at, asm("x86_64", source))
        self.machine.write(IDT + 16 * vector, gate(at, **options))
        return at

    def run(self, source, user=None, timeout=5, **registers):
        """Kernel *source* after the tables are loaded; with *user* code, the kernel enters that at the end."""
        m = self.machine
        m.write(CODE, asm("x86_64", f"{ENTER}; {source}" + (TO_USER if user else "; hlt")))
        if user:
            m.write(USER, asm("x86_64", user))
        m.set(rip=CODE, rdi=DATA, **registers)
        return m.run(timeout=timeout)

    def words(self, va, count):
        return struct.unpack(f"<{count}Q", self.machine.read(va, 8 * count))
