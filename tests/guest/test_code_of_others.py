"""Code that a device or the host writes over while the guest runs it: seen after the access that made them act."""

import threading
import time

import pytest

from mmu import Access, SoftMmu, arm64, x86
from mmu.memory import Mmio, Ram
from tests.guest.kernel import ENTER, Kernel
from tests.guest.machines import ARCHS, CODE, DATA, MIB, PAGE, WINDOW, asm
from tests.guest.programs import DEVICE, FUNCTION
from tests.guest.world import ALIAS_WINDOW, World

SERVICES = ("exact", "mirror", "direct")
WAYS = ("dpa", "block", "store", "exchange", "softmmu")
VALUE = 0x55


def patched(arch, code, value=VALUE):
    """The function, so that it returns *value*."""
    if arch == "x86_64":  # mov eax, imm32
        return code[:1] + value.to_bytes(4, "little")
    return (int.from_bytes(code[:4], "little") & ~(0xFFFF << 5) | value << 5).to_bytes(4, "little")


class Others:
    """What is not this guest writes to the guest's function."""

    def __init__(self, world, arch):
        walker = x86 if arch == "x86_64" else arm64
        self.world, self.arch, self.regs = world, arch, world.machine.walk_registers()
        self.pa = walker.walk(world.space, self.regs, FUNCTION, Access.FETCH).pa
        self.data = patched(arch, world.machine.read(FUNCTION, 8))

    def dpa(self):
        at = self.world.window.place(self.pa - WINDOW)
        self.world.memories[int(at.device[3:])].write(at.dpa, self.data)

    def block(self):
        self.world.space.write(self.pa, self.data)

    def store(self):
        for n, byte in enumerate(self.data):
            self.world.space.store(self.pa + n, 1, byte)

    def exchange(self):
        old, _ = self.world.space.load(self.pa, 8)
        new = int.from_bytes(self.data, "little") | old >> 8 * len(self.data) << 8 * len(self.data)
        assert self.world.space.exchange(self.pa, 8, old, new)[0] == old

    def softmmu(self):
        # By the guest's tables, but as data: through a map of the page that may be written.
        tlb = SoftMmu(self.world.space, self.regs, 64)
        tlb.write(FUNCTION, self.data)



def calls(world, result):
    """The values of two calls: the accumulator is rotated by 7 in between."""
    total = result.registers[world.isa.RESULT]
    return total >> 7, total & 0x7F




@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ways", [1, 2])
def test_code_in_a_window(arch, service, way, ways):
    with World(arch, service, ways) as world:
        world.patch = getattr(Others(world, arch), way)
        world.actions = [("patch",)]
        assert calls(world, world.run(("call",), ("device", 0), ("call",))) == (1, VALUE)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("way", ["block", "store", "exchange", "softmmu"])
def test_code_in_ram(arch, way):
    with World(arch, "auto", code="ram") as world:
        world.patch = getattr(Others(world, arch), way)
        world.actions = [("patch",)]
        assert calls(world, world.run(("call",), ("device", 0), ("call",))) == (1, VALUE)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("way", ["dpa", "block"])
def test_code_that_a_device_writes_again_and_again_is_seen_after_each_access(arch, service, way):
    """Only the first of several writes in a row calls the machine."""
    with World(arch, service) as world:
        others, values = Others(world, arch), [0x11, 0x22, 0x33, 0x44]
        code = world.machine.read(FUNCTION, 8)

        def patch():
            others.data = patched(arch, code, values[len(seen)])
            seen.append(getattr(others, way)())

        seen, world.patch, world.actions = [], patch, [("patch",)]
        # A load from the code: the engine then has the page as data, and must look it up to forget the code.
        world.isa.peek = lambda: bytes.fromhex("418a01" if arch == "x86_64" else "25014039")
        total = world.run(*[("call",), ("peek",), ("device", 0)] * 4, ("call",)).registers[world.isa.RESULT]
        assert [total >> 7 * n & 0x7F for n in (4, 3, 2, 1, 0)] == [1, *values]


@pytest.mark.parametrize("service", SERVICES)
def test_a_read_of_a_device_that_writes_code(service):
    with World("x86_64", service) as world:
        others = Others(world, "x86_64")
        world.space.map(0xF000_1000, Mmio(PAGE, read=lambda *_: others.dpa() or 0))
        world.machine.tables.map(DEVICE + PAGE, 0xF000_1000, PAGE)
        world.isa.look = lambda: bytes.fromhex("8b8300100000")  # mov eax, [rbx + 4096]
        assert calls(world, world.run(("call",), ("look",), ("call",))) == (1, VALUE)


@pytest.mark.parametrize("service", SERVICES)
def test_code_that_another_thread_writes_over_is_seen_at_an_access_to_a_device(service):
    with World("x86_64", service) as world:
        others, called = Others(world, "x86_64"), threading.Event()
        world.act = lambda *_: called.set()
        world.space.map(0xF000_1000, Mmio(PAGE, write=lambda *_: called.set()))
        world.machine.tables.map(DEVICE + PAGE, 0xF000_1000, PAGE)
        # 1: call r9; mov [rbx + 4096], eax; cmp eax, VALUE; jne 1b
        world.isa.spin = lambda: bytes.fromhex("41ffd1 898300100000 83f855 75f2")
        writer = threading.Thread(target=lambda: called.wait(10) and others.dpa())
        writer.start()
        world.load(("spin",))
        stop = world.machine.run(start=CODE, timeout=10).stop
        writer.join()
        assert stop.reason == "halt"


# R9 / X9: a loop of nearly no end, which was run once with 1. Then it is said at [RDI], [X0], and it runs again.
LOOPS = {
    "x86_64": ("1: dec rcx; jnz 1b; ret", 4, b"\0", "mov ecx, 1; call r9; mov dword ptr [rdi], {n}; xor ecx, ecx;"
               " call r9; add r9, 64; mov ecx, 600000; 2: dec ecx; jnz 2b"),
    "aarch64": ("1: subs x1, x1, #1; b.ne 1b; ret", 4, bytes.fromhex("1f2003d5"), "mov x1, #1; blr x9; mov w2, #{n};"
                " str w2, [x0]; mov x1, xzr; blr x9; add x9, x9, #64; mov w1, #0x90000; 2: subs w1, w1, #1;"
                " b.ne 2b"),
}  # fmt: skip


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("where, way", [("ram", "block"), *((s, way) for s in SERVICES for way in WAYS[:2])])
def test_a_loop_ends_that_another_thread_writes_over(arch, where, way):
    """It asks no device and has no TLB miss. And the same again, when nothing was written for long."""
    source, offset, data, runs = LOOPS[arch]
    with World(arch, "auto", code="ram") if where == "ram" else World(arch, where) as world:
        loop, others = asm(arch, source), Others(world, arch)
        for n in range(2):
            world.machine.write(FUNCTION + 64 * n, loop)

        def write():
            flag, end = WINDOW + 2 * MIB, time.monotonic() + 10
            for n in range(2):
                while world.space.load(flag, 4)[0] != n + 1 and time.monotonic() < end:
                    pass
                others.pa, others.data = pa + 64 * n + offset, data
                getattr(others, way)()

        pa = others.pa
        world.isa.loops = lambda: asm(arch, "; ".join(runs.format(n=n + 1) for n in range(2)))
        world.load(("loops",))
        writer = threading.Thread(target=write)
        writer.start()
        stop = world.machine.run(start=CODE, timeout=10).stop
        writer.join()
        assert stop.reason == "halt"


def test_code_that_another_thread_writes_over_is_seen_after_an_exception():
    with Kernel(tables="ram", data="ram", stack="ram") as k:
        space = k.machine.space
        k.handle(3, "iretq")
        k.machine.write(FUNCTION, bytes.fromhex("b801000000c3"))
        pa = x86.walk(space, k.machine.walk_registers(), FUNCTION, Access.FETCH).pa
        writer = threading.Timer(0.02, space.write, (pa + 1, bytes([VALUE])))
        writer.start()
        # 1: call r9; int3; cmp eax, VALUE; jne 1b
        source = asm("x86_64", ENTER) + bytes.fromhex("41ffd1 cc 83f855 75f7 f4")
        k.machine.write(CODE, source)
        stop = k.machine.set(rdi=DATA, r9=FUNCTION).run(start=CODE, timeout=10).stop
        writer.join()
        assert stop.reason == "halt"


def test_code_that_ran_at_two_addresses():
    with World("x86_64", "exact") as world:
        others = Others(world, "x86_64")
        second = FUNCTION + (64 << 20)
        world.machine.tables.map(second & -PAGE, others.pa & -PAGE, PAGE, writable=False)
        world.patch = others.dpa
        world.actions = [("patch",)]
        world.isa.there = lambda: b"\x48\xb9" + second.to_bytes(8, "little") + b"\xff\xd1" + world.isa.MIX
        result = world.run(("call",), ("there",), ("device", 0), ("call",), ("there",))
        total = result.registers[world.isa.RESULT]
        assert [total >> 7 * n & 0x7F for n in (3, 2, 1, 0)] == [1, 1, VALUE, VALUE]


@pytest.mark.parametrize("service", SERVICES)
def test_writes_beside_code_cost_no_code(service):
    with World("x86_64", service) as world:
        world.space.map(48 * MIB, Ram(MIB))
        world.patch = lambda: world.space.write(48 * MIB, b"data")
        world.actions = [("patch",)]
        program = [("call",), ("device", 0)] * 4
        counters = world.run(*program).counters
        alone = world.run(("call",)).counters
        assert counters.shadows == alone.shadows
        assert counters.fills <= alone.fills + 2 * len(program)


# -- this guest, at a second place of the same device memory -------------------------------------------

SECOND, AS_RAM = 0x3800_0000, 1 << 35  # virtual; physical
# The address in RCX, X4.
STORE = {
    "x86_64": "mov byte ptr [rcx+1], 0x55",
    "aarch64": "mov w5, #0xaa0; movk w5, #0xd280, lsl #16; str w5, [x4]",
}  # fmt: skip
LOAD = {"x86_64": "mov al, [rcx]", "aarch64": "ldrb w5, [x4]"}


class TwoWays:
    """The function is at `run`, and what `touch` and `through` access at `store`: one of them at the second place."""

    def __init__(self, world, arch, swapped, base):
        self.world, self.arch = world, arch
        at = world.window.place(Others(world, arch).pa - WINDOW)
        assert at.device == "mem0"
        tables, second = world.machine.tables, SECOND + at.dpa % PAGE
        tables.map(SECOND, (base + at.dpa) & -PAGE, PAGE, page_size=PAGE, executable=swapped)
        tables.protect(FUNCTION, PAGE, writable=swapped)
        self.run, self.store = (second, FUNCTION) if swapped else (FUNCTION, second)
        for name in ("point", "touch", "through"):
            setattr(world.isa, name, getattr(self, name))

    def address(self, register, value):
        if self.arch == "aarch64":
            return self.world.isa._constant(register, value)
        return {9: b"\x49\xb9", 4: b"\x48\xb9"}[register] + value.to_bytes(8, "little")

    def point(self):
        return self.address(9, self.run)

    def touch(self):
        return self.address(4, self.store) + asm(self.arch, LOAD[self.arch])

    def through(self):
        return self.address(4, self.store) + asm(self.arch, STORE[self.arch])


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("ways", [1, 2])
@pytest.mark.parametrize("touched", [0, 1, 2])
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("second", ["window", "ram"])
def test_code_that_this_guest_stores_at_a_second_place(arch, service, ways, touched, swapped, second):
    """*touched*: loaded from before the code runs, or after. Where a page cannot be RAM at both places, the first one
    that is touched makes it so."""
    with World(arch, service, ways) as world:
        if second == "ram":
            world.space.map(AS_RAM, Ram(8 * MIB, memory=world.memories[0]))
        TwoWays(world, arch, swapped, AS_RAM if second == "ram" else ALIAS_WINDOW)
        program = [("point",), ("call",), ("through",), ("call",)]
        if touched:
            program.insert(touched, ("touch",))
        assert calls(world, world.run(*program)) == (1, VALUE)
