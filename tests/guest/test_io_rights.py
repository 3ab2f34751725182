"""IN and OUT at a CPL above IOPL: the I/O permission bit map of the TSS decides. The engine permits them all."""

import struct

import pytest

from mmu import Mmio
from mmu.guest.stop import Interrupt
from mmu.machine import Machine
from mmu.tcg import Switches
from mmu.x86 import PageFault
from tests.guest.kernel import DATA, GDT, RSP0, TASK, USER, USER_STACK, Kernel, segment
from tests.guest.machines import MIB, PAGE, WINDOW, asm, code, machine

UD, GP, PF = 6, 13, 14
DENIED = Interrupt(GP, 0)
MAP, PORT = 0x68, 0x510
LIMIT = MAP + 0x2000  # a map of all ports, and the byte of ones behind it
TSS = DATA + 0x10000
TARGET = USER + PAGE  # the user's code reads and writes there


IN_RAM = {"user": 32 * MIB, **dict.fromkeys(("tables", "code", "data", "stack"), "ram")}


def user_flags(iopl):
    return 0x202 | iopl << 12


class Ports(Kernel):
    """A kernel with a TSS of *limit* and a device of 16 ports at PORT that notes what reaches it."""

    def __init__(self, denied=(), limit=LIMIT, base=MAP, deliver="native"):
        """*deliver* "model": in the model of an emulator, all in RAM."""
        model = deliver == "model"
        with pytest.MonkeyPatch.context() as patch:
            arch, dispatch, emulator, _ = Machine.__init__.__defaults__
            chosen = (Switches(), "native") if model else (emulator, deliver)
            patch.setattr(Machine.__init__, "__defaults__", (arch, dispatch, *chosen))
            super().__init__(**(IN_RAM if model else {}))
        self.seen = []
        self.machine.io.map(PORT, Mmio(16, self._read, lambda *what: self.seen.append(what)))
        bits = bytearray(0x2000) + b"\xff"
        for port in denied:
            bits[port // 8] |= 1 << port % 8
        descriptor = segment(0x89, 0, TSS & 0xFFFF_FFFF, limit) + struct.pack("<Q", TSS >> 32)
        self.machine.write(GDT + TASK, descriptor)
        self.machine.write(TSS + 4, struct.pack("<Q", RSP0))
        self.machine.write(TSS + 0x66, struct.pack("<H", base))
        self.machine.write(TSS + MAP, bytes(bits))
        for vector in (GP, PF):
            self.handle(vector, "hlt")

    def _read(self, *what):
        self.seen.append(what)
        return 0x5A

    def enter(self, source, iopl=0, **registers):
        """Run *source* at CPL 3."""
        m = self.machine
        m.write(USER, asm("x86_64", source))
        start = f"push 0x1b; mov rax, {USER_STACK}; push rax; push {user_flags(iopl)}; push 0x23; mov rax, {USER}"
        return self.run(f"{start}; push rax; mov rax, 0x5a5a5a5a; iretq", **registers)


def only(result):
    (delivered,) = result.delivered
    return delivered


@pytest.mark.parametrize("source", [
    "in al, dx", "in ax, dx", "in eax, dx", "out dx, al", "out dx, ax", "out dx, eax", "insb", "insw", "insd",
    "outsb", "outsd", "rep insb", "rep outsw", "rep insd",
])  # fmt: skip
@pytest.mark.parametrize("deliver", ["native", "reference", "model"])
def test_a_user_without_the_right_gets_gp_and_nothing_happens(source, deliver):
    """The instruction stands in a block with others, whose effects must not be seen either."""
    with Ports(range(PORT, PORT + 4), deliver=deliver) as k:
        k.machine.write(TARGET, b"before!!")
        after = f"cmp ecx, 4; {source}; mov [rsi], eax; mov [rdi], ecx; out 0x80, al; inc r15"
        r = k.enter(f"mov edi, {TARGET}; mov esi, {TARGET}; mov ecx, 3; mov edx, {PORT}; {after}; ud2")
        first = only(r)
        assert (first.exception, first.pc) == (DENIED, USER + 23)
        assert (k.seen, k.machine.read(TARGET, 8)) == ([], b"before!!")
        if deliver != "model":
            assert (r.counters.port_reads, r.counters.port_writes) == (0, 0)
        got = [r.registers[name] for name in ("rax", "rcx", "rsi", "rdi", "r15")]
        assert got == [0x5A5A5A5A, 3, TARGET, TARGET, 0]
        _, pc, cs, flags, rsp, ss = k.words(r.registers["rsp"], 6)
        assert (pc, cs, rsp, ss) == (USER + 23, 0x23, USER_STACK, 0x1B)
        assert flags & 0x8D5 == 0x95  # of 3 - 4: CF, AF, SF, and PF


@pytest.mark.parametrize("source, seen", [
    ("in al, dx", [(0, 1)]), ("out dx, eax", [(0, 4, 0x5A5A5A5A)]), ("in al, 0x7f", []),
    ("insb", [(0, 1)]), ("rep insw", [(0, 2)] * 3), ("outsb", [(0, 1, ord("b"))]), ("outsd", [(0, 4, 0x6F666562)]),
    ("rep outsb", [(0, 1, b) for b in b"bef"]),
])  # fmt: skip
@pytest.mark.parametrize("iopl", [0, 3])
@pytest.mark.parametrize("deliver", ["native", "model"])
def test_a_user_with_the_right_reaches_the_device(source, seen, iopl, deliver):
    """By its IOPL, or by the bits of just these ports."""
    size = max([s[1] for s in seen], default=1)
    others = [*range(PORT - 16, PORT), *range(PORT + size, PORT + 32)]
    with Ports(others if iopl == 0 else range(65536), deliver=deliver) as k:
        k.machine.write(TARGET, b"before!!")
        r = k.enter(f"mov edi, {TARGET}; mov esi, edi; mov ecx, 3; mov edx, {PORT}; {source}; hlt", iopl)
        assert (only(r).exception, k.seen) == (DENIED, seen)  # HLT
        assert only(r).pc > USER + 17


@pytest.mark.parametrize("size, word", [(1, "al"), (2, "ax"), (4, "eax")])
def test_every_port_of_an_access_must_be_permitted(size, word):
    for denied in range(PORT + 5, PORT + 12):
        with Ports([denied]) as k:
            r = k.enter(f"mov edx, {PORT + 7}; out dx, {word}; hlt")
            inside = PORT + 7 <= denied < PORT + 7 + size
            assert (bool(k.seen), only(r).pc == USER + 5) == (not inside, inside)


@pytest.mark.parametrize("limit, base, port, permitted", [
    (LIMIT, MAP, 0xFFFF, True), (LIMIT - 1, MAP, 0xFFFF, False), (LIMIT - 1, MAP, 0xFFF0, True),
    (MAP + 3, MAP, 16, True), (MAP + 2, MAP, 16, False), (MAP, MAP, 0, False), (MAP + 1, MAP, 0, True),
    (MAP - 1, 0x40, 0, True), (MAP - 2, 0x40, 0, False), (0x65, 0x20, 0, False), (LIMIT, 0xFFFF, 0, False),
    (LIMIT, LIMIT, 0, False), (0xFFFFF, 0xFFFF, 0x100, True),
])  # fmt: skip
@pytest.mark.parametrize("deliver", ["native", "model"])
def test_the_map_ends_with_the_tss(limit, base, port, permitted, deliver):
    """Two bytes are read, and both must be inside; an offset of the map behind the end means that there is none."""
    with Ports(limit=limit, base=base, deliver=deliver) as k:
        r = k.enter(f"mov edx, {port}; in al, dx; hlt", r15=0)
        assert (only(r).exception, only(r).pc) == (DENIED, USER + (6 if permitted else 5))
        if deliver == "native":
            assert r.counters.port_reads == permitted


def test_the_map_is_read_as_the_supervisor_that_the_cpu_is():
    """From pages that the user cannot see; the second byte may be on another one."""
    with Ports(base=PAGE - 1 - PORT // 8) as k:
        k.enter(f"mov edx, {PORT}; in al, dx; hlt")
        assert k.seen == [(0, 1)]


@pytest.mark.parametrize("deliver", ["native", "reference", "model"])
def test_a_map_that_is_not_there_is_a_page_fault_of_the_supervisor(deliver):
    """At the IN, with CR2 in the map and no user bit. The instruction can go on when the page has come."""
    with Ports(base=0x0F00, deliver=deliver) as k:
        at = TSS + 0x0F00 + 0x3FF0 // 8
        k.machine.tables.unmap(at & -PAGE, PAGE)
        r = k.enter("mov edx, 0x3ff0; cmp edx, edx; in al, dx; hlt")
        assert (only(r).exception, only(r).pc) == (PageFault(0, at), USER + 7)
        assert r.registers["cr2"] == at
        assert k.words(r.registers["rsp"], 4)[3] & 0x40  # ZF


@pytest.mark.parametrize("deliver", ["native", "model"])
def test_a_map_that_is_not_there_stops_string_input_before_its_store(deliver):
    with Ports(base=0x0F00, deliver=deliver) as k:
        at = TSS + 0x0F00 + 0x3FF0 // 8
        k.machine.tables.unmap(at & -PAGE, PAGE)
        k.machine.write(TARGET, b"before!!")
        r = k.enter(f"mov edx, 0x3ff0; mov edi, {TARGET}; mov ecx, 4; rep insb; hlt")
        assert (only(r).exception, only(r).pc) == (PageFault(0, at), USER + 15)
        assert k.machine.read(TARGET, 8) == b"before!!"


def test_without_a_task_register_a_user_has_no_ports():
    with machine() as m:
        m.tables.map(USER, WINDOW + 8 * MIB, PAGE, user=1, executable=True)
        m.load(b"\xf4")
        m.write(USER, code("x86_64", "in al, 0x60"))
        stop = m.set(cs=0x23, ss=0x1B, rip=USER).run().stop
        assert (stop.reason, stop.exception, stop.pc) == ("fault", DENIED, USER)
        assert m.set(rflags=user_flags(3)).run().stop.pc == USER + 2  # HLT


def test_a_tss_of_16_bits_has_no_map():
    """Nor has a register that was never loaded, which is of type 0."""
    with Ports() as k:
        m = k.machine
        k.run("nop")
        table = m.cpu._number("tr"), "<H6xQII"
        selector, base, limit, flags = m.cpu.structure(*table)
        m.cpu.set_structure(*table, selector, base, limit, flags & ~0xF00 | 3 << 8)
        m.write(USER, asm("x86_64", "in al, 0x60; hlt"))
        assert m.set(cs=0x23, ss=0x1B, rip=USER, rsp=USER_STACK).run().delivered[0].pc == USER


@pytest.mark.parametrize("deliver", ["native", "model"])
def test_string_input_of_nothing_needs_no_right(deliver):
    with Ports(range(65536), deliver=deliver) as k:
        r = k.enter(f"mov edx, {PORT}; xor ecx, ecx; rep insb; hlt")
        assert (only(r).pc, k.seen) == (USER + 9, [])


def test_a_kernel_that_permits_ports_lets_its_program_go_on():
    """The handler of #GP clears the bits and returns to the same instruction."""
    with Ports(range(65536)) as k:
        k.handle(GP, f"mov r11d, {TSS + MAP + PORT // 8}; mov word ptr [r11], 0; add rsp, 8; iretq")
        k.handle(UD, "hlt")
        k.machine.write(TARGET, b"before!!")
        r = k.enter(f"mov edx, {PORT}; mov edi, {TARGET}; mov ecx, 2; rep insb; ud2")
        assert [d.exception for d in r.delivered] == [DENIED, Interrupt(UD)]
        assert (k.seen, k.machine.read(TARGET, 8)) == ([(0, 1)] * 2, b"\x5a\x5afore!!")
        assert r.registers["rcx"] == 0


def test_a_device_that_holds_the_map_and_raises_is_heard():
    class Broken(Exception):
        pass

    def broken(*_):
        raise Broken

    with Ports(base=0x0F00) as k:
        at = TSS + 0x0F00 + 0x3FF0 // 8
        k.machine.space.map(0xF000_0000, Mmio(PAGE, broken))
        k.machine.tables.unmap(at & -PAGE, PAGE)
        k.machine.tables.map(at & -PAGE, 0xF000_0000, PAGE, executable=False)
        with pytest.raises(Broken):
            k.enter("mov edx, 0x3ff0; in al, dx; hlt")
        assert k.machine.registers["rip"] == USER + 5


# -- who may change IOPL and IF -------------------------------------------------------------------


@pytest.mark.parametrize("source", ["push 0x3202; popfq", "pushfq; or word ptr [rsp], 0x3000; popfw"])
def test_a_user_cannot_raise_its_iopl(source):
    with Ports(range(65536)) as k:
        r = k.enter(f"{source}; pushfq; pop r14; out 0x60, al")
        assert (r.registers["r14"] & 0x3200, only(r).exception, r.counters.port_writes) == (0x200, DENIED, 0)


def test_a_user_cannot_raise_its_iopl_by_iretq():
    with Ports(range(65536)) as k:
        frame = (f"push 0x1b; mov rax, {USER_STACK}; push rax; push 0x3002; push 0x23; lea rax, next[rip]; push rax;"
                 " iretq")  # fmt: skip
        r = k.enter(f"{frame}; next: pushfq; pop r14; in al, 0x60")
        assert (r.registers["r14"] & 0x3200, only(r).exception) == (0x200, DENIED)  # nor clear IF


@pytest.mark.parametrize("iopl", [0, 1, 2, 3])
@pytest.mark.parametrize("source, cleared", [("cli", True), ("sti", False)])
def test_cli_and_sti_need_iopl(source, cleared, iopl):
    with Ports() as k:
        r = k.enter(f"nop; {source}; pushfq; pop r14; hlt", iopl)
        assert (only(r).exception, only(r).pc == USER + 1) == (DENIED, iopl < 3)
        if iopl == 3:
            assert bool(r.registers["r14"] & 0x200) is not cleared


def test_popf_leaves_if_alone_above_iopl_and_changes_it_below():
    for iopl, value in ((0, 0x200), (3, 0)):
        with Ports() as k:
            r = k.enter("push 2; popfq; pushfq; pop r14; hlt", iopl)
            assert r.registers["r14"] & 0x200 == value


# -- kernels ----------------------------------------------------------------------------------------


def test_a_kernel_needs_no_right_and_no_map():
    with Ports(range(65536)) as k:
        r = k.run(f"mov edx, {PORT}; in al, dx; mov ecx, 2; rep insb")
        assert (r.stop.reason, r.delivered, len(k.seen)) == ("halt", (), 3)


def test_the_page_of_a_kernel_is_looked_at_again_when_a_user_runs_it():
    """Code that both may run: no hook is on INS while the kernel runs it."""
    with Ports(range(65536)) as k:
        m = k.machine
        m.write(TARGET, b"before!!")
        m.write(USER + 0x100, asm("x86_64", "insb; ret"))
        m.write(USER, asm("x86_64", f"mov edi, {TARGET + 4}; mov edx, {PORT}; mov eax, {USER + 0x100}; call rax"))
        start = f"push 0x1b; mov rax, {USER_STACK}; push rax; push 0x202; push 0x23; mov rax, {USER}; push rax; iretq"
        r = k.run(f"mov edi, {TARGET}; mov edx, {PORT}; mov eax, {USER + 0x100}; call rax; {start}")
        assert (only(r).exception, only(r).pc, k.seen) == (DENIED, USER + 0x100, [(0, 1)])
        assert m.read(TARGET, 8) == b"\x5aefore!!"


@pytest.mark.parametrize("string", ["outsb", "insb"])
@pytest.mark.parametrize("iopl", [0, 3])
def test_repeated_port_strings_of_a_user_program_leave_the_flags(string, iopl):
    with Ports() as ports:
        ports.handle(6, "hlt")
        ports.enter(f"mov ecx, 3; mov eax, 0x49; mov rdi, rsi; add al, 0xff; rep {string}; pushfq; pop r12; ud2", iopl,
                    rsi=TARGET, rdx=PORT)
        assert (ports.machine.registers["rcx"], ports.machine.registers["r12"] & 0x8D5) == (0, 0x15)
