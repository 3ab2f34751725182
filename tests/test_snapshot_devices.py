"""Snapshots take the devices along, and the clock: the run after a restore is that which the original goes on with."""

import dataclasses

import pytest

from mmu import Mmio
from mmu.errors import SnapshotError
from mmu.guest.devices import DebugExit, Pl011, Serial16550
from mmu.guest.devices.saved import build
from mmu.machine import Machine
from mmu.snapshot import FORMAT, Snapshot
from tests.guest.machines import PAGE, code, machine, places, two_way

COM1, COM2, EXIT = 0x3F8, 0x2F8, 0xF4
UART, UART_VA = 0x0900_0000, 0x2400_0000
BASES = {"x86_64": COM1, "aarch64": UART}
INPUT = b"some input that is longer than what was read of it when the snapshot was taken"

# Sends each byte that it receives, changed by the clock; it also keeps a count in a register of the port.
ECHO = {
    "x86_64": "mov edx, 0x3fb; mov al, 3; out dx, al; mov edx, 0x3fc; mov al, 0x0b; out dx, al; 1: mov edx, 0x3fd;"
    " in al, dx; test al, 1; jz 2f; mov edx, 0x3f8; in al, dx; mov bl, al; rdtsc; mov edx, 0x3f8; shr eax, 3;"
    " xor al, bl; out dx, al; mov edx, 0x3ff; in al, dx; inc al; out dx, al; stosb; jmp 1b; 2: mov eax, 7;"
    " out 0xf4, eax; jmp 3f; 3: mov edx, 0x3fc; in al, dx",
    "aarch64": "mov w9, #0x301; str w9, [x8, #0x30]; 1: ldr w9, [x8, #0x18]; tbnz w9, #4, 2f; ldr w9, [x8];"
    " mrs x10, cntvct_el0; eor w9, w9, w10, lsr #3; str w9, [x8]; ldr w11, [x8, #0x24]; add w11, w11, #1;"
    " str w11, [x8, #0x24]; strb w11, [x0], #1; b 1b; 2: ldr w12, [x8, #0x30]",
}  # fmt: skip
ARCHS = tuple(ECHO)


def furnish(m, capacity=64):
    """The devices of one machine: (machine, serial port)."""
    serial = (Serial16550 if m.arch == "x86_64" else Pl011)(capacity=capacity)
    (m.io if m.arch == "x86_64" else m.space).map(BASES[m.arch], serial)
    if m.arch == "x86_64":
        m.io.map(EXIT, DebugExit(m))
    return serial


def echo(m):
    """The program, ready to run."""
    if m.arch == "aarch64":
        m.tables.map(UART_VA, UART, PAGE, executable=False)
    m.load(code(m.arch, ECHO[m.arch]))
    return m.set(**({} if m.arch == "x86_64" else {"x8": UART_VA}))


def go_on(m, serial):
    """Everything there is to see of the rest of a run."""
    first, second = m.run(trace=100_000), m.run()
    seen = [(r.stop, r.registers) for r in (first, second)]
    return seen, first.trace, serial.output, serial.lost, serial.take_state(), m.snapshot()


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("steps", [3, 50, 300, 700])
def test_a_machine_goes_on_with_its_devices_from_a_snapshot(arch, steps, tmp_path):
    with machine(arch) as m:
        serial = furnish(m)
        serial.feed(INPUT[:64])
        echo(m)
        assert m.run(limit=steps).stop.reason == "limit"
        m.snapshot().save(tmp_path / "half")
        before = serial.output
        expected = go_on(m, serial)
    assert len(expected[2]) == 64 > len(before)
    with Machine(two_way()[0], arch) as other:
        again = furnish(other)
        again.feed(b"what is there before")
        other.restore(Snapshot.load(tmp_path / "half"))
        assert again.output == before
        assert go_on(other, again) == expected


@pytest.mark.parametrize("arch", ARCHS)
def test_a_machine_goes_back_to_its_own_snapshot(arch):
    """Also one that has lost output, and has input that came later."""
    with machine(arch) as m:
        serial = furnish(m, capacity=16)
        serial.feed(INPUT[:16])
        echo(m).run()
        serial.feed(INPUT[16:32])
        m.set(**{m.cpu.PC: m.plan.code.va})
        m.run(limit=100)
        assert serial.lost > 0
        snapshot = m.snapshot()
        first = go_on(m, serial)
        assert m.restore(snapshot).snapshot() == snapshot
        assert go_on(m, serial) == first


@pytest.mark.parametrize("arch", ARCHS)
def test_the_clock_goes_on(arch):
    source = {"x86_64": "rdtsc", "aarch64": "mrs x0, cntvct_el0"}[arch]
    with machine(arch) as m, machine(arch) as other:
        for each in (m, other):
            each.load(code(arch, source))
        start = m.plan.code.va
        results = [m.run(start=start).registers["rax" if arch == "x86_64" else "x0"] for _ in range(3)]
        assert results == [1000, 2000, 3000]
        other.restore(m.snapshot())
        assert other.run(start=start).registers["rax" if arch == "x86_64" else "x0"] == 4000


def test_a_device_that_is_seen_twice_is_taken_once():
    with machine() as m:
        m.io.map(COM1, serial := Serial16550())
        m.space.map(UART, serial)
        (image,) = m.snapshot().devices
        assert (image.where, image.address, image.kind) == ("memory", UART, "Serial16550")


@pytest.mark.parametrize("put, message", [
    (lambda m: None, "and the machine none"),
    (lambda m: m.io.map(COM2, Serial16550()), r"the machine serial \(Serial16550, ports 0x2f8\)"),
    (lambda m: m.io.map(COM1, Serial16550("other")), r"the machine other \(Serial16550, ports 0x3f8\)"),
    (lambda m: m.io.map(COM1, Pl011("serial")), r"the machine serial \(Pl011, ports 0x3f8\)"),
    (lambda m: (m.io.map(COM1, Serial16550()), m.io.map(EXIT, DebugExit(m))), "the machine debug-exit .*, serial "),
    (lambda m: m.io.map(COM1, Serial16550(capacity=9)), "room for 1048576 bytes, and has room for 9"),
])  # fmt: skip
def test_a_machine_with_other_devices_is_refused_and_nothing_changes(put, message):
    with machine() as m:
        m.io.map(COM1, Serial16550())
        m.load(code("x86_64", "rdtsc"))
        m.run()
        snapshot = m.snapshot()
    with machine() as other:
        put(other)
        before = other.snapshot()
        with pytest.raises(SnapshotError, match=message) as caught:
            other.restore(snapshot)
        assert "\n" not in str(caught.value)
        assert other.snapshot() == before


def changed(snapshot, **state):
    """With another state of the last device; None: without it."""
    *others, last = snapshot.devices
    mine = {name: value for name, value in {**last.state, **state}.items() if value is not None}
    return dataclasses.replace(snapshot, devices=(*others, dataclasses.replace(last, state=mine)))


@pytest.mark.parametrize("state, message", [
    ({"sent": 1}, "1 bytes were sent, 2 are there"), ({"input": "00" * 65}, "65 to be received"),
    ({"output": "zz"}, "ValueError"), ({"fifo": 256}, "OverflowError"), ({"scratch": [0] * 9}, "IndexError|list"),
    ({"stored": None}, "KeyError: 'stored'"), ({"sent": "2"}, "TypeError"),
])  # fmt: skip
def test_a_damaged_device_is_refused_and_nothing_changes(state, message):
    with machine() as m:
        m.io.map(EXIT, DebugExit(m))
        m.io.map(COM1, serial := Serial16550(capacity=64))
        m.load(code("x86_64", "mov edx, 0x3f8; out dx, al; out dx, al"))
        m.run()
        snapshot = m.snapshot()
        serial.clear()
        before = m.snapshot()
        with pytest.raises(SnapshotError, match=rf"device serial \(Serial16550, ports 0x3f8\): .*({message})"):
            m.restore(changed(snapshot, **state))
        assert m.snapshot() == before


def test_a_device_of_the_users_own_is_taken_when_it_says_its_state():
    class Counter(Mmio):
        def __init__(self):
            super().__init__(4, self.look, name="counter")
            self.count = 0

        def look(self, offset, size):
            self.count += 1
            return self.count

        def take_state(self):
            return {"count": self.count}

        def give_state(self, state):
            self.count = state["count"]

    with machine() as m:
        m.io.map(0x60, Counter())
        m.io.map(0x70, Mmio(4, lambda *_: 9, name="silent"))
        m.load(code("x86_64", "in al, 0x60; in al, 0x70; in al, 0x60"))
        snapshot = m.snapshot()
        assert [d.kind for d in snapshot.devices] == ["Counter"]
        assert [m.restore(snapshot).run().registers["rax"] for _ in range(2)] == [2, 2]
        with pytest.raises(SnapshotError, match=r"counter .Counter, ports 0x60.: only the program that has"):
            build(m, snapshot.devices)


def test_devices_can_be_made_anew_from_a_snapshot():
    with machine() as m:
        serial = furnish(m)
        serial.feed(INPUT[:64])
        echo(m).run(limit=100)
        snapshot = m.snapshot()
        expected = go_on(m, serial)
    with Machine(two_way()[0]) as other:
        build(other, snapshot.devices)
        other.restore(snapshot)
        (again,) = (r.region for r in other.io.view.ranges if r.first == COM1)
        assert go_on(other, again) == expected


def test_devices_of_ports_are_none_of_arm64():
    with machine() as m:
        m.io.map(COM1, Serial16550())
        images = m.snapshot().devices
    with machine("aarch64") as arm, pytest.raises(SnapshotError, match="aarch64 has no such place"):
        build(arm, images)


def test_a_snapshot_of_another_format_is_refused(tmp_path):
    path = tmp_path / "old"
    path.write_bytes(FORMAT + b"1\n" + bytes(20))
    with pytest.raises(SnapshotError, match=f"{path}: this is a snapshot of format 1, and only format 2 is read"):
        Snapshot.load(path)


def test_a_damaged_record_of_a_device_is_refused(tmp_path):
    with machine() as m:
        m.io.map(COM1, Serial16550())
        m.snapshot().save(tmp_path / "s")
    data = (tmp_path / "s").read_bytes()
    (tmp_path / "s").write_bytes(data.replace(b'"address": 1016', b'"address": -016'.replace(b"016", b"116")))
    with pytest.raises(SnapshotError, match="header is damaged: ValueError"):
        Snapshot.load(tmp_path / "s")


def test_what_places_of_a_machine_a_snapshot_needs_is_said_of_memory_first():
    with machine() as m:
        m.io.map(COM1, Serial16550())
        snapshot = m.snapshot()
    with Machine(two_way()[0], "aarch64").setup(**places()) as arm, pytest.raises(SnapshotError, match="of an x86_64"):
        arm.restore(snapshot)
