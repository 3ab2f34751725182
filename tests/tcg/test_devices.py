"""Ports and devices that end a run, in the model."""

import pytest

from mmu import Mmio
from mmu.guest.devices import DebugExit, Serial16550
from mmu.tcg import Switches, release
from mmu.types import MemTxResult
from tests.tcg.machines import DATA, WINDOW, Bench, bus, kinds

EXIT, COM1 = 0xF4, 0x3F8


def test_ports_reach_a_device_under_the_lock():
    b = Bench(Switches())
    seen = []
    b.machine.io.map(0x60, Mmio(4, lambda o, n: 0x11223344, lambda o, n, v: seen.append((o, n, v)), name="kbd"))
    result = b.load("in eax, 0x60; mov ebx, eax; out 0x60, ax; hlt").run()
    assert (result.registers["rbx"], seen) == (0x11223344, [(0, 2, 0x3344)])
    assert [e[1:7] for e in kinds(result, "bus")] == [
        ("r", "kbd", 0, 4, 0x11223344, "OK"), ("w", "kbd", 0, 2, 0x3344, "OK")]
    assert kinds(result, "lock") == [("lock", "+"), ("lock", "-")] * 2


@pytest.mark.parametrize("source, value", [
    ("in al, 0x61", 0xFF), ("in ax, 0x61", 0xFFFF), ("in eax, 0x60", 0xFFFFFFFF)])
def test_a_port_of_nobody_or_that_refuses_reads_ones(source, value):
    b = Bench(Switches())
    b.machine.io.map(0x60, Mmio(1, lambda o, n: MemTxResult.ERROR))
    assert b.load(f"xor eax, eax; {source}; hlt").run().registers["rax"] == value


def test_an_exception_of_a_port_comes_out():
    def read(offset, size):
        raise KeyError("mine")

    b = Bench(Switches())
    b.machine.io.map(0x60, Mmio(1, read))
    with pytest.raises(KeyError, match="mine"):
        b.load("inc rbx; in al, 0x60; inc rbx; hlt").machine.run()
    assert b.machine.registers["rbx"] == 1


@pytest.mark.parametrize("emulator", ["7.2", "8.2", "11.1"])
def test_a_guest_ends_its_run_and_goes_on(emulator):
    b = Bench(release(emulator))
    b.machine.io.map(EXIT, DebugExit(b.machine))
    result = b.load("mov eax, 7; out 0xf4, eax; jmp 1f; 1: inc rbx; mov eax, 9; out 0xf4, al; jmp 2f; 2: hlt").run()
    assert (result.stop.reason, result.stop.code, result.registers["rbx"]) == ("exit", 7, 0)
    result = b.run()
    assert (result.stop.reason, result.stop.code, result.registers["rbx"]) == ("exit", 9, 1)
    assert b.run().stop.reason == "halt"


@pytest.mark.parametrize("arch, source", [
    ("x86_64", "mov [rdi], eax; jmp 1f; 1: hlt"), ("aarch64", "mov w1, #5; str w1, [x0]; b 1f; 1: wfi")])
def test_a_register_in_memory_ends_a_run(arch, source):
    b = Bench(Switches(), arch=arch, data_pa=1 << 40)
    b.space.map(1 << 40, DebugExit(b.machine))
    stop = b.load(source, **({"rax": 5} if arch == "x86_64" else {})).run().stop
    assert (stop.reason, stop.code) == ("exit", 5)


def test_a_guest_prints():
    b = Bench(Switches())
    serial = Serial16550()
    b.machine.io.map(COM1, serial)
    b.space.write(0x20_0000, b"hello")
    source = "mov edx, 0x3f8; mov rsi, rdi; lodsb; 1: out dx, al; lodsb; test al, al; jnz 1b; hlt"
    result = b.load(source).run()
    assert serial.output == b"hello"
    assert [e[0] for e in bus(result)] == ["w"] * 5


def test_a_port_that_changes_the_memory_map():
    """By the policies that let I/O be in mid-block, too."""
    for policy in "P0", "P1", "P2":
        b = Bench(Switches(can_do_io=policy), data_pa=WINDOW)
        b.put(WINDOW, 0x55)
        region = Mmio(4, lambda o, n: 0, lambda o, n, v, b=b: b.space.unmap(b.window))
        b.machine.io.map(0x60, region)
        result = b.load("out 0x60, al; mov rbx, [rdi]; hlt", rdi=DATA, rbx=1).run()
        assert result.registers["rbx"] == 0
