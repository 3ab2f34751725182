"""Ports of x86, serial ports, and a register that ends the run: all without Python while the guest runs."""

import sys

import pytest

from mmu import Mmio
from mmu.guest.devices import DebugExit, Pl011, Serial16550
from mmu.types import MemTxResult
from tests.guest.machines import CODE, asm, code, machine

COM1, EXIT = 0x3F8, 0xF4
PRINT = "mov edx, 0x3f8; lodsb; 1: out dx, al; lodsb; test al, al; jnz 1b"
UART, UART_VA = 0x0900_0000, 0x2400_0000


@pytest.fixture
def m():
    with machine() as m:
        yield m


@pytest.fixture
def arm():
    with machine("aarch64") as m:
        yield m


# -- ports ----------------------------------------------------------------------------------------


def test_ports_reach_a_device_with_the_width_of_the_instruction(m):
    seen = []

    def read(offset, size):
        seen.append((offset, size))
        return 0x11223344 >> 8 * (4 - size)

    device = Mmio(16, read, lambda offset, size, value: seen.append((offset, size, value)))
    m.io.map(0x500, device)
    source = ("mov edx, 0x500; in al, dx; mov bl, al; add edx, 2; in ax, dx; mov cx, ax; add edx, 2; in eax, dx;"
              " mov esi, eax; out dx, eax; out dx, ax; out dx, al")  # fmt: skip
    r = m.load(code("x86_64", source)).run().registers
    assert seen == [(0, 1), (2, 2), (4, 4), (4, 4, 0x11223344), (4, 2, 0x3344), (4, 1, 0x44)]
    assert (r["rbx"] & 0xFF, r["rcx"] & 0xFFFF, r["rsi"]) == (0x11, 0x1122, 0x11223344)


def test_a_port_of_nobody_reads_ones_and_drops_writes(m):
    r = m.load(code("x86_64", "xor eax, eax; in ax, 0x60; out 0x61, al; in al, 0x62")).run()
    assert (r.registers["rax"], r.counters.port_reads, r.counters.port_writes) == (0xFFFF, 2, 1)


def test_a_port_that_refuses_reads_ones(m):
    m.io.map(0x60, Mmio(1, lambda o, n: MemTxResult.ERROR))
    assert m.load(code("x86_64", "xor eax, eax; in al, 0x60")).run().registers["rax"] == 0xFF


@pytest.mark.parametrize("source", ["in al, 0x60", "out 0x60, al"])
def test_an_exception_in_a_port_comes_out_unchanged(m, source):
    class Broken(Exception):
        pass

    def broken(*_):
        raise Broken

    m.io.map(0x60, Mmio(1, broken, broken))
    m.load(code("x86_64", f"{source}; jmp 1f; 1: inc rbx"))
    for _ in range(2):  # it stands at that instruction
        with pytest.raises(Broken):
            m.run()
        assert m.registers["rbx"] == 0
    assert m.run(start=m.registers["rip"] + 2).registers["rbx"] == 1


def test_string_output(m):
    m.io.map(COM1, serial := Serial16550())
    m.load(code("x86_64", "mov edx, 0x3f8; mov rsi, rdi; mov ecx, 5; rep outsb"))
    m.write(m.registers["rdi"], b"hello")
    m.run()
    assert serial.output == b"hello"


def test_arm64_has_no_ports(arm):
    with pytest.raises(ValueError, match="aarch64 has no IN and OUT"):
        _ = arm.io


# -- 16550 ----------------------------------------------------------------------------------------


def test_a_guest_prints_without_python(m):
    m.io.map(COM1, serial := Serial16550())
    m.load(code("x86_64", "mov rsi, rdi; " + PRINT))
    m.write(m.registers["rdi"], b"Hello, port!\n\0")
    seen = []
    sys.setprofile(lambda frame, event, arg: seen.append((event, getattr(arg, "__name__", frame.f_code.co_name))))
    try:
        m.run(timeout=None)
    finally:
        sys.setprofile(None)
    assert serial.output == b"Hello, port!\n"
    assert sum(name == "mmu_guest_run" for _, name in seen) <= 2  # called once, and back


def test_a_guest_receives_what_it_is_fed(m):
    m.io.map(COM1, serial := Serial16550())
    assert serial.feed(b"abc") == 3
    source = ("mov ecx, 4; 2: mov edx, 0x3fd; in al, dx; test al, 1; jz 3f; mov edx, 0x3f8; in al, dx; stosb; dec ecx;"
              " jnz 2b; 3: nop")  # fmt: skip
    r = m.load(code("x86_64", source)).run().registers
    assert r["rcx"] == 1
    assert m.read(r["rdi"] - 3, 3) == b"abc"


def test_what_there_is_no_room_for_is_lost_and_said(m):
    m.io.map(COM1, serial := Serial16550(capacity=4))
    assert serial.feed(b"abcdef") == 4
    m.load(code("x86_64", "mov rsi, rdi; " + PRINT))
    m.write(m.registers["rdi"], b"123456\0")
    m.run()
    assert (serial.output, serial.lost) == (b"1234", 2)
    assert m.io.load(COM1, 1)[0] == ord("a")
    serial.clear()
    assert (serial.output, serial.lost) == (b"", 0)
    with pytest.raises(ValueError, match="capacity must be"):
        Serial16550(capacity=0)


@pytest.mark.parametrize(
    "writes, register, value",
    [
        ([], 5, 0x60), ([], 6, 0xB0), ([(4, 0x1A)], 6, 0x90), ([(4, 0x15)], 6, 0x60), ([(7, 0x5A)], 7, 0x5A),
        ([(3, 0x83), (0, 0x12), (1, 0x34)], 0, 0x12), ([(3, 0x83), (1, 0x34)], 1, 0x34),
        ([(3, 0x83), (1, 0x34), (3, 3)], 1, 0),
        ([(1, 0xFF)], 1, 0x0F), ([(4, 0xFF)], 4, 0x1F), ([], 2, 0x01), ([(1, 2)], 2, 0x02), ([(2, 1)], 2, 0xC1),
        ([(4, 0x10), (0, 0x77)], 5, 0x61), ([(4, 0x10), (0, 0x77)], 0, 0x77),
        ([(4, 0x10), (0, 0x77), (2, 2)], 5, 0x60),
        ([(4, 0x10), (0, 0x77), (1, 3)], 2, 0x04), ([(5, 0xFF)], 5, 0x60), ([(6, 0)], 6, 0xB0), ([(0, 0x77)], 0, 0),
    ],
)  # fmt: skip
def test_the_registers_of_a_16550(m, writes, register, value):
    """LSR and MSR of a line that is always ready, the divisor behind DLAB, the loop that drivers probe with, IIR."""
    m.io.map(COM1, Serial16550())
    for offset, byte in writes:
        m.io.store(COM1 + offset, 1, byte)
    assert m.io.load(COM1 + register, 1)[0] == value


# -- PL011 ----------------------------------------------------------------------------------------


def test_an_arm64_guest_talks_to_its_pl011(arm):
    arm.space.map(UART, serial := Pl011())
    arm.tables.map(UART_VA, UART, 4096, executable=False)
    serial.feed(b"xy")
    source = ("1: ldr w9, [x8, #0x18]; tbnz w9, #4, 2f; ldr w9, [x8]; add w9, w9, #1; strb w9, [x8]; b 1b; "
              "2: mov w9, #10; str w9, [x8]; ldr w10, [x8, #0x18]; ldr w11, [x8, #0xfe0]; "
              "ldr w12, [x8, #0x3c]")  # fmt: skip
    r = arm.load(code("aarch64", source)).set(x8=UART_VA).run().registers
    assert serial.output == b"yz\n"
    assert (r["x10"], r["x11"], r["x12"]) == (0x90, 0x11, 0x20)


@pytest.mark.parametrize(
    "writes, register, value",
    [
        ([], 0x30, 0x300), ([(0x30, 0x301)], 0x30, 0x301), ([(0x38, 0x7FF)], 0x40, 0x20), ([], 0x40, 0),
        ([(0x18, 0)], 0x18, 0x90), ([(0x24, 13)], 0x24, 13), ([(0x44, 0x7FF)], 0x44, 0), ([], 0xFFC, 0xB1),
        ([], 0xFE8, 0x34),
        ([], 0x800, 0),
    ],
)  # fmt: skip
def test_the_registers_of_a_pl011(arm, writes, register, value):
    arm.space.map(UART, Pl011())
    for offset, word in writes:
        arm.space.store(UART + offset, 4, word)
    assert arm.space.load(UART + register, 4) == (value, MemTxResult.OK)


# -- the end ---------------------------------------------------------------------------------------


def test_a_guest_reports_its_result_and_goes_on(m):
    m.io.map(EXIT, DebugExit(m))
    m.load(code("x86_64", "mov eax, 33; out 0xf4, eax; jmp 1f; 1: inc rbx"))
    result = m.run()
    assert (result.stop.reason, result.stop.code, result.registers["rbx"]) == ("exit", 33, 0)
    result = m.run()
    assert (result.stop.reason, result.stop.code, result.registers["rbx"]) == ("halt", None, 1)


def test_an_exit_in_memory(arm):
    arm.space.map(UART, DebugExit(arm, size=4096))
    arm.tables.map(UART_VA, UART, 4096, executable=False)
    arm.load(code("aarch64", "mov w9, #7; str w9, [x8, #16]; b 1f; 1: mov w10, #3")).set(x8=UART_VA)
    result = arm.run()
    assert (result.stop.reason, result.stop.code, result.registers["x10"]) == ("exit", 7, 0)
    result = arm.run()
    assert (result.stop.reason, result.stop.code, result.registers["x10"]) == ("halt", None, 3)


def test_an_exit_before_a_fault(arm):
    """The program was over: the fault behind it is not told."""
    arm.space.map(UART, DebugExit(arm, size=4096))
    arm.tables.map(UART_VA, UART, 4096, executable=False)
    arm.load(asm("aarch64", "mov w9, #7; str w9, [x8, #16]; str w9, [xzr]; wfi".replace("[xzr]", "[x10]")))
    result = arm.set(x8=UART_VA, x10=0x6660_0000).run()
    assert (result.stop.reason, result.stop.code, result.stop.pc) == ("exit", 7, CODE + 8)
    assert arm.run().stop.reason == "fault"


def test_the_exit_of_another_machine():
    """One device in two spaces: the run of its own machine ends."""
    import threading

    with machine() as one, machine() as two:
        exit_one = DebugExit(one)
        two.io.map(EXIT, exit_one)
        one.load(asm("x86_64", "1: jmp 1b"))
        two.load(code("x86_64", "mov eax, 5; out 0xf4, eax"))
        results = []
        thread = threading.Thread(target=lambda: results.append(one.run(timeout=10)))
        thread.start()
        while thread.is_alive():
            assert two.run(start=CODE).stop.reason == "halt"
            thread.join(0.01)
        assert (results[0].stop.reason, results[0].stop.code) == ("exit", 5)
