"""A device's callback raises at any piece of an access: the guest stands at the instruction, as if it had not begun.

Run again, with a device that does not raise any more, it comes to what it would have come to.
"""

import struct

import pytest

from mmu import Mmio, Ram
from mmu.machine import Machine
from mmu.memory import AddressSpace
from tests.guest.kernel import gate
from tests.guest.machines import CODE, DATA, END, MIB, PAGE, STACK, asm

DEVICE, AT = 0x5000_0000, 1 << 36
PC = {"x86_64": "rip", "aarch64": "pc"}
CS, SS = 8, 16  # of a machine that was just loaded
FRAME, GDT = 0x100, 0x300
OPTIONS = ({}, {"limit": 100_000}, {"whole": True})
WAYS = ({}, {"touched": True}, {"touched": True, "limit": 100_000}, {"touched": True, "whole": True})


class Raised(Exception):
    pass


class Device(Mmio):
    """A page of bytes; piece number `fuse` of all that come raises, once."""

    CONTENTS = {0: b"\x7f\x03", 24: b"\x80\x1f\0\0"}  # a control word of the x87, MXCSR

    def __init__(self, fuse=None, size=PAGE):
        self.bytes = bytearray((i * 37 + 11) & 0xFF for i in range(size))
        for at, contents in self.CONTENTS.items():
            self.bytes[at : at + len(contents)] = contents
        self.pieces, self.fuse = 0, fuse
        super().__init__(size, self.load, self.store)

    def count(self):
        self.pieces += 1
        if self.fuse is not None and self.pieces > self.fuse:
            self.fuse = None
            raise Raised

    def load(self, offset, size):
        self.count()
        return int.from_bytes(self.bytes[offset : offset + size], "little")

    def store(self, offset, size, value):
        self.count()
        self.bytes[offset : offset + size] = value.to_bytes(size, "little")


def with_device(arch, code, fuse=None, deliver="native", **registers):
    space = AddressSpace()
    space.map(0, Ram(64 * MIB))
    space.map(AT, device := Device(fuse))
    m = Machine(space, arch, deliver=deliver)
    m.load(code).set(**registers)
    m.tables.map(DEVICE, AT, PAGE, page_size=PAGE, executable=False)
    m.tables.map(DATA, 32 * MIB, PAGE, page_size=PAGE, executable=False)
    m.write(DATA + GDT, struct.pack("<HQ6x3Q", 23, DATA + GDT + 16, 0, 0xAF9B000000FFFF, 0xCF93000000FFFF))
    return m, device


def with_another_machine(*given, **registers):
    """Atomic instructions are run alone then."""
    m, device = with_device(*given, **registers)
    m.other = Machine(m.space, m.arch)
    return m, device


def outcome(m, device):
    return dict(m.registers), bytes(device.bytes), m.read(DATA, 1024)


def check(arch, lead, instruction, tail, options, with_device=with_device, **registers):
    """How many pieces *instruction* makes; at some the device raises once, in a run of *lead*, it and *tail*."""
    code = asm(arch, f"{lead}; {instruction}; {tail}")
    pc = CODE + len(asm(arch, lead))
    m, device = with_device(arch, asm(arch, f"{lead}; {END[arch]}"), **registers)
    with m:
        before = dict(m.run(**options).registers) | {PC[arch]: pc}
        first = device.pieces
    m, device = with_device(arch, code, **registers)
    with m:
        assert m.run(**options).stop.reason == "halt"
        expected, pieces = outcome(m, device), device.pieces
    for fuse in sorted({*range(first, pieces)[:2], (first + pieces) // 2, *range(first, pieces)[-3:]}):
        m, device = with_device(arch, code, fuse, **registers)
        with m:
            with pytest.raises(Raised):
                m.run(**options)
            assert dict(m.registers) == before, fuse
            assert m.run(**options).stop.reason == "halt"
            assert outcome(m, device) == expected, fuse
    return pieces - first


X86_LEAD = "mov ecx, 5; fld1; fldpi; pcmpeqb xmm1, xmm1; nop; add al, 3"
X86_SEE = ("inc r14; mov rdx, rbx; fnstsw ax; mov r13, rax; movq r12, xmm1; fxsave [r15]; mov r8, [r15+32];"
           " mov r9, [r15+48]; mov r10, [r15]; hlt")  # fmt: skip
ONE_CALL = (
    "fxsave [rbx]", "fxrstor [rbx]", "fxsave64 [rbx]", "fstp tbyte ptr [rbx]", "fld tbyte ptr [rbx+32]", "fbstp [rbx]",
    "fbld [rbx]", "fnstenv [rbx]", "fldenv [rbx]", "fnsave [rbx]", "frstor [rbx]", "maskmovdqu xmm1, xmm1",
    "cmpxchg16b [rbx]", "lock cmpxchg8b [rbx]", "cmpxchg8b [rbx]",
)  # fmt: skip
X86 = (
    "fst qword ptr [rbx]", "fisttp qword ptr [rbx]", "movups xmm1, [rbx+3]", "movups [rbx+3], xmm1",
    "movaps [rbx], xmm1", "push qword ptr [rbx]", "ldmxcsr [rbx+24]", "mov rbx, [rbx]", "mov rbx, [rbx+3]",
    "mov [rbx+3], rax", "movsq", "add [rbx], rax", "xchg [rbx], rax", "lock xadd [rbx], rax", "rcl qword ptr [rbx], 3",
    "shld [rbx], rax, 3", "cmpsq", "paddb xmm1, [rbx]", "sete [rbx]",
)  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("instruction", X86 + ONE_CALL)
def test_x86_stands_at_the_instruction_and_can_go_on(instruction, way):
    options = dict(way)
    lead = X86_LEAD + ("; mov dl, [rbx]; add al, 3" if options.pop("touched", False) else "")
    registers = {"rbx": DEVICE, "rax": 7, "rdi": DEVICE, "rsi": DEVICE + 0x800, "r15": DATA}
    assert check("x86_64", lead, instruction, X86_SEE, options, **registers) >= 1


ARM64_LEAD = "mov x7, #5; cmp x7, x2; fmov v0.2d, #1.0; fmov v1.2d, #2.0"
ARM64_SEE = "mov x9, x0; mov x11, x1; add x12, x12, #1; str q0, [x10]; str q3, [x10, #16]; wfi"
ARM64 = (
    "ldr x0, [x0]", "ldr x0, [x0, #3]", "ldrsb x0, [x0]", "ldp x0, x1, [x0]", "ldp x1, x0, [x0]", "ldpsw x0, x1, [x0]",
    "ldp x2, x3, [x0], #16", "ldp x2, x3, [x0, #16]!", "stp x2, x3, [x0], #16", "ldr x2, [x0], #8",
    "str x2, [x0, #8]!", "ldr q0, [x0]", "stp q0, q1, [x0]", "ld1 {v0.16b-v3.16b}, [x0], #64", "ldar x0, [x0]",
    "st3 {v0.8h-v2.8h}, [x0]", "ldxr x0, [x0]", "ldxp x0, x1, [x0]", "cas x2, x3, [x0]", "casp x2, x3, x4, x5, [x0]",
    "dc zva, x0", "stlr x2, [x0]", "ldadd x2, x0, [x0]", "swp x2, x0, [x0]",
)  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("instruction", ARM64)
def test_arm64_stands_at_the_instruction_and_can_go_on(instruction, way):
    options = dict(way)
    lead = ARM64_LEAD + ("; ldrb w20, [x0]; cmp x7, #9" if options.pop("touched", False) else "")
    registers = {"x0": DEVICE, "x1": DEVICE + 0x40, "x2": 7, "x3": 9, "x10": DATA}
    assert check("aarch64", lead, instruction, ARM64_SEE, options, **registers) >= 1


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("instruction", ["iretq", "retfq"])
def test_x86_returns_from_a_stack_that_raises(instruction, options, monkeypatch):
    lead = "lgdt [r15+0x300]"
    rip = CODE + len(asm("x86_64", f"{lead}; {instruction}"))
    frame = struct.pack("<5Q", rip, CS, 0x8D7, DATA + 0x800, SS)
    monkeypatch.setitem(Device.CONTENTS, FRAME, frame)
    assert check("x86_64", lead, instruction, "inc r14; hlt", options, rsp=DEVICE + FRAME, r15=DATA) >= 2


def places(arch, code, **registers):
    """Where the guest stands at each piece that raises: how often it has yet to go round, and the PC. It can go on."""
    m, device = with_device(arch, code, **registers)
    with m:
        assert m.run().stop.reason == "halt"
        pieces = device.pieces
    seen = []
    for fuse in range(pieces):
        m, device = with_device(arch, code, fuse, **registers)
        with m:
            with pytest.raises(Raised):
                m.run()
            seen.append((m.registers["rcx" if arch == "x86_64" else "x20"], m.registers[PC[arch]]))
            assert m.run().stop.reason == "halt"
    return seen


@pytest.mark.parametrize("again", ["fxsave [rbx]", "fstp tbyte ptr [rbx]", "mov [rbx], rax", "mov rax, [rbx+4]"])
@pytest.mark.parametrize("first", ["fxsave [rbx]", "fstp tbyte ptr [rbx]", "mov [rbx], rax"])
def test_it_is_the_instruction_that_raised_of_two_to_one_place(first, again):
    """In one block, in the next, behind the end of a page, and in the second round of a loop."""
    for between in ("nop", "jmp 1f; 1: nop", ".balign 4096, 0x90; nop"):
        code = asm("x86_64", f"fld1; fld1; fld1; fld1; 2: {first}; {between}; {again}; dec ecx; jnz 2b; hlt")
        seen = places("x86_64", code, rbx=DEVICE, rcx=2, rax=7)
        at = [CODE + 8, CODE + code.index(asm("x86_64", again), 8 + len(asm("x86_64", first)))]
        assert sorted(set(seen)) == sorted((left, pc) for left in (1, 2) for pc in at)
        assert seen == sorted(seen, key=lambda place: (-place[0], place[1]))


def test_arm64_stands_at_the_load_behind_a_store_of_a_pair():
    source = "2: ldxp x2, x3, [x0]; stxp w4, x2, x3, [x0]; ldp x5, x6, [x0]; sub x20, x20, #1; cbnz x20, 2b; wfi"
    code = asm("aarch64", source)
    seen = places("aarch64", code, x0=DEVICE, x20=2)
    assert seen == [(left, CODE + at) for left in (2, 1) for at, n in ((0, 2), (4, 4), (8, 2)) for _ in range(n)]


@pytest.mark.parametrize("instruction", ["iretq", "retfq"])
def test_x86_stands_behind_a_return_that_has_been_made(instruction, monkeypatch):
    lead = "lgdt [r15+0x300]"
    rip = CODE + len(asm("x86_64", f"{lead}; {instruction}; nop"))
    monkeypatch.setitem(Device.CONTENTS, FRAME, struct.pack("<5Q", rip, CS, 2, DATA + 0x800, SS))
    code = asm("x86_64", f"{lead}; {instruction}; nop; mov dl, [rbx]; mov rax, [rbx]; hlt")
    seen = places("x86_64", code, rsp=DEVICE + FRAME, r15=DATA, rbx=DEVICE)
    assert seen[-3:] == [(0, CODE + len(asm("x86_64", lead))), (0, rip), (0, rip + 2)]


@pytest.mark.parametrize("deliver", ["native", "reference"])
def test_x86_has_entered_the_kernel_when_the_trap_behind_it_raises(deliver):
    """It stood at the SYSENTER, in the kernel."""
    code = asm("x86_64", "lgdt [r15+0x300]; lidt [r15+0x340]; push 0x102; popfq; sysenter")
    m, device = with_device("x86_64", code, deliver=deliver, r15=DATA)
    with m:
        for number, value in ((0x174, CS), (0x175, DATA + 0x800), (0x176, CODE)):
            m.cpu.set_msr(number, value)
        m.write(DATA + 0x340, struct.pack("<HQ", 0x3FF, DEVICE))
        device.fuse = 0
        with pytest.raises(Raised):
            m.run()
        assert (m.registers["rip"], m.registers["rsp"]) == (CODE, DATA + 0x800)


GATE_AND_FRAME = 2 + 5  # pieces


@pytest.mark.parametrize("deliver", ["native", "reference"])
@pytest.mark.parametrize("vector, instruction", [
    (0x30, "int 0x30"), (3, "int3"), (1, "int1"), (6, "syscall"), (6, "ud2"), (0, "div esi")])  # fmt: skip
def test_x86_does_not_lose_an_interrupt_whose_gate_or_stack_raises(vector, instruction, deliver):
    """INT n was passed over, and so was SYSCALL where it is undefined."""
    lead, over = "lgdt [r15+0x300]; lidt [r15+0x340]", "" if vector in (0x30, 3, 1) else "add qword ptr [rsp], 2; "
    at = CODE + len(asm("x86_64", lead))
    code = asm("x86_64", f"{lead}; {instruction}; hlt")

    def machine(fuse=None):
        m, device = with_device(
            "x86_64", code + asm("x86_64", f"inc r14; {over}iretq"), fuse, deliver, rsp=DEVICE + 0xF00, rsi=0, r15=DATA)
        m.set(efer=m.registers["efer"] & ~1)  # no SYSCALL
        m.write(DATA + 0x340, struct.pack("<HQ", 0x3FF, DEVICE))
        device.bytes[16 * vector : 16 * vector + 16] = gate(CODE + len(code), CS)
        return m, device

    m, device = machine()
    with m:
        assert (m.run().stop.reason, m.registers["r14"]) == ("halt", 1)
        expected = outcome(m, device)
    for fuse in range(GATE_AND_FRAME):
        m, device = machine(fuse)
        with m:
            with pytest.raises(Raised):
                m.run()
            assert m.registers["rip"] == at
            assert m.run().stop.reason == "halt"
            assert outcome(m, device) == expected, fuse


@pytest.mark.parametrize("instruction", ["fxsave [rbx]", "fstp tbyte ptr [rbx]", "fld tbyte ptr [rbx]", "frstor [rbx]"])
def test_x86_stores_nothing_that_stands_behind(instruction):
    code = asm("x86_64", f"fld1; {instruction}; mov [r15], r14; hlt")
    registers = {"rbx": DEVICE, "r14": 5, "r15": DATA}
    m, device = with_device("x86_64", code, **registers)
    with m:
        m.run()
        assert (device.fuse, m.read(DATA, 1)) == (None, b"\5")
    m, device = with_device("x86_64", code, device.pieces - 1, **registers)
    with m:
        with pytest.raises(Raised):
            m.run()
        assert m.read(DATA, 1) == b"\0"


@pytest.mark.parametrize("arch, instruction", [
    *(("x86_64", name) for name in ("lock cmpxchg16b [rbx]", "lock cmpxchg8b [rbx]", "lock add [rbx], rax",
                                    "lock xadd [rbx], rax", "xchg [rbx], rax")),
    *(("aarch64", name) for name in ("casp x2, x3, x4, x5, [x0]", "cas x2, x3, [x0]", "ldadd x2, x0, [x0]")),
])  # fmt: skip
def test_an_atomic_instruction_that_is_run_alone(arch, instruction):
    registers = ({"rbx": DEVICE, "rax": 7, "r15": DATA} if arch == "x86_64" else
                 {"x0": DEVICE, "x2": 7, "x3": 9, "x10": DATA})
    lead, see = (X86_LEAD, X86_SEE) if arch == "x86_64" else (ARM64_LEAD, ARM64_SEE)
    assert check(arch, lead, instruction, see, {}, with_another_machine, **registers) >= 1


def with_tables_in_a_device(deliver, code, handler, fuse=None):
    space = AddressSpace()
    space.map(0, Ram(64 * MIB))
    space.map(AT, device := Device(size=256 << 10))
    device.bytes[:] = bytes(256 << 10)
    m = Machine(space, deliver=deliver).setup(
        tables=(AT, 256 << 10), code=(8 * MIB, MIB, CODE), data=(16 * MIB, MIB, DATA), stack=(32 * MIB, MIB, STACK))
    m.load(code + handler).set(r15=DATA, rbx=0x3000_0000)
    m.write(DATA + GDT, struct.pack("<HQ6x3Q", 23, DATA + GDT + 16, 0, 0xAF9B000000FFFF, 0xCF93000000FFFF))
    m.write(DATA + 0x340, struct.pack("<HQ", 0x3FF, DATA + 0x1000))
    m.write(DATA + 0x1000 + 16 * 14, gate(CODE + len(code), CS))
    device.pieces, device.fuse = 0, fuse
    return m, device


@pytest.mark.parametrize("deliver", ["native", "reference"])
@pytest.mark.parametrize("instruction", ["inc qword ptr [rbx+3]", "mov [rbx+3], rax", "push qword ptr [rbx+9]"])
def test_x86_is_told_of_a_fault_exactly_or_not_at_all_when_the_tables_raise(instruction, deliver):
    """The address was that of its page, and what reads and writes was told as a read: nobody heard the device."""
    code = asm("x86_64", f"lgdt [r15+0x300]; lidt [r15+0x340]; {instruction}; hlt")
    handler = asm("x86_64", "mov r12, [rsp]; mov r13, cr2; hlt")
    m, device = with_tables_in_a_device(deliver, code, handler)
    with m:
        first = m.run()
        expected, pieces = (first.stop, m.registers), device.pieces
        assert [d.exception.vector for d in first.delivered] == [14]
    heard = 0
    for fuse in range(pieces):
        m, device = with_tables_in_a_device(deliver, code, handler, fuse)
        with m:
            try:
                found = m.run()
            except Raised:
                found, heard = m.run(), heard + 1
            assert (found.stop, m.registers) == expected, fuse
    assert heard > pieces // 2
