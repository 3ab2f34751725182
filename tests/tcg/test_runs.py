"""Runs of a machine with an emulator: limits, ends, what is left over, and who may ask for what."""

import gc
import subprocess
import sys
import weakref

import pytest

from mmu.machine import Machine
from mmu.memory import Mmio
from mmu.tcg import EmulatorAbort, Switches
from tests.guest.machines import asm, machine, two_way
from tests.tcg.kernel import Kernel
from tests.tcg.machines import CODE, DATA, Bench, kinds

COUNT = "1: inc rbx; inc rcx; cmp rbx, 20; jne 1b; hlt"


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 17])
def test_a_limit_is_exact(limit):
    result = Bench(Switches()).load(COUNT).run(limit=limit)
    assert (result.stop.reason, result.counters.instructions) == ("limit", limit)
    assert (result.registers["rbx"], result.registers["rcx"]) == ((limit + 3) // 4, (limit + 2) // 4)
    assert result.stop.pc == CODE + (0, 3, 6, 10)[limit % 4]


def test_a_run_goes_on_where_the_last_one_stopped():
    b = Bench(Switches()).load(COUNT)
    assert [b.run(limit=7).counters.instructions for _ in range(3)] == [7, 7, 7]
    assert b.run().registers["rbx"] == 20


def test_a_run_without_end_is_stopped_by_the_clock():
    assert Bench(Switches()).load("1: jmp 1b").run(timeout=0.05).stop.reason == "timeout"


def test_so_many_exceptions_end_a_run():
    k = Kernel(Switches()).load("1: int 0x30; jmp 1b")
    result = k.run(exceptions=5)
    assert (result.stop.reason, result.counters.exceptions, len(result.delivered)) == ("limit", 5, 5)


def test_what_the_host_changed_is_seen_by_the_next_run():
    b = Bench(Switches()).load("mov eax, 5; hlt")
    assert b.run().registers["rax"] == 5
    b.machine.write(CODE + 1, b"\7")
    assert b.run(start=CODE).registers["rax"] == 7


def test_an_exception_of_a_device_comes_out():
    def read(offset, size):
        raise KeyError("mine")

    b = Bench(Switches())
    b.space.map(1 << 40, Mmio(4096, read, lambda *_: None, name="bad"))
    b.map(0x5000_0000_0000, 1 << 40)
    b.load("inc rbx; mov rax, [rsi]; inc rbx; hlt", rsi=0x5000_0000_0000)
    for _ in range(2):
        with pytest.raises(KeyError, match="mine"):
            b.machine.run()
        assert (b.machine.registers["rip"], b.machine.registers["rbx"]) == (CODE + 3, 1)


def test_after_an_abort_the_machine_stands_at_the_instruction():
    b = Bench(Switches(ptw_retaddr=True), (1,)).load("inc rbx; mov rax, [rdi]; hlt")
    with pytest.raises(EmulatorAbort) as caught:
        b.machine.run()
    assert caught.value.registers == b.machine.registers
    assert b.machine.registers["rip"] == CODE + 3
    assert caught.value.trace[-1][:2] == ("abort", "io_recompile")
    assert caught.value.counters.instructions == 1


def test_a_livelock_of_the_guest_is_none_of_the_emulator():
    """A handler whose first instruction cannot be fetched."""
    k = Kernel(Switches())
    k.put(k.entry(0x3000_0000_0000, 1), 0)
    assert k.load("int 0x30; hlt").run().stop.reason == "triple-fault"


@pytest.mark.parametrize("wrong", ["qemu-8.1", 8.2, True])
def test_machine_wrong_emulator(wrong):
    space, _, _ = two_way()
    with pytest.raises(ValueError, match="must be"):
        Machine(space, emulator=wrong)


def test_interrupt_wrong():
    b = Bench(Switches())
    for vector, after in ((256, 0), (-1, 0), (3, -1)):
        with pytest.raises(ValueError, match="vector must be"):
            b.machine.interrupt(vector, after)
    with machine() as plain, pytest.raises(ValueError, match="need a model"):
        plain.interrupt(3)


def test_traffic_of_devices_is_told_by_initiator():
    space, _, _ = two_way()
    from tests.guest.machines import places

    with Machine(space, emulator="10.0").setup(**places(code="ram", stack="ram")) as m:
        counters = m.load(asm("x86_64", "mov rax, [rdi]; hlt")).run().counters
    assert sum(t.reads for t in counters.data.values()) == counters.reads["data"] == 1
    assert sum(t.reads for t in counters.tables.values()) == counters.reads["ptw"]
    assert sum(t.writes for t in counters.tables.values()) == counters.writes["ptw"] > 0
    assert counters.code == {}


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_a_machine_goes_away_with_its_last_reference(arch):
    gc.disable()
    try:
        b = Bench(Switches(), arch=arch).load(b"\xf4" if arch == "x86_64" else b"\x7f\x20\x03\xd5")
        b.run()
        gone = weakref.ref(b.machine.cpu)
        del b
        assert gone() is None
    finally:
        gc.enable()


def test_the_plain_machine_loads_nothing_of_the_model():
    code = (
        "import sys; from mmu import AddressSpace, Machine, Ram; s = AddressSpace(); s.map(0, Ram(1 << 22));"
        "Machine(s).load(b'\\xf4').run(); assert not [m for m in sys.modules if m.startswith('mmu.tcg')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_events_are_the_same_each_time():
    traces = [kinds(Bench("8.2").load("mov [rdi], rax; hlt", rdi=DATA).run(), "tb", "bus") for _ in range(2)]
    assert traces[0] == traces[1] != []


def test_images_of_code_are_made_again_when_there_is_no_room(monkeypatch):
    """More blocks than images: the oldest make room, and nothing runs wrong."""
    monkeypatch.setattr("mmu.guest.stepper.IMAGES", 8)
    jumps = "".join(f"{n}: inc rbx; jmp {n + 1}f; " for n in range(1, 21))
    result = Bench(Switches()).load(f"mov ecx, 3; 0: {jumps}21: dec ecx; jnz 0b; hlt").run()
    assert (result.stop.reason, result.registers["rbx"], result.counters.blocks) == ("halt", 60, 23)


def test_pages_of_data_are_given_again(monkeypatch):
    """More pages than the engine is shown at a time."""
    monkeypatch.setattr("mmu.guest.stepper.DATA_PAGES", 72)
    b = Bench(Switches())
    for n in range(100):
        b.map(DATA + n * 4096, 0x80_0000 + n * 4096)
        b.put(0x80_0000 + n * 4096, n)
    source = "mov ecx, 300; 1: add rax, [rdi]; add qword ptr [rdi], 1; add rdi, 4096; cmp rdi, rsi; cmove rdi, rdx;"
    result = b.load(f"{source} dec ecx; jnz 1b; hlt", rdx=DATA, rsi=DATA + 100 * 4096).run()
    assert result.registers["rax"] == 3 * sum(range(100)) + 100 + 200
