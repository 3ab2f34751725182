"""A file behind what a guest uses is cut short: before the run, or by a device while it runs."""

import warnings

import pytest

from mmu.arm64 import Abort
from mmu.errors import BusError, FileWarning
from mmu.machine import Machine
from mmu.memory import Mmio, Ram
from mmu.types import MemTxResult
from tests.guest.machines import ARCHS, CODE, DATA, MIB, STACK, code
from tests.memory.lossy import PAGE, SIZE, WINDOW, Files

HIGH, KNIFE = 1 << 30, 0x3000_0000  # RAM; a device, a write of n to which cuts the first file to n bytes
LOST = 8 * PAGE
LOAD = {"x86_64": "mov {1}, [{0}]", "aarch64": "ldr {1}, [{0}]"}
STORE = {"x86_64": "mov [{0}], {1}", "aarch64": "str {1}, [{0}]"}
NAMES = {"x86_64": ("rbx", "rcx", "r8", "r9", "rdx", "rsi"), "aarch64": ("x1", "x2", "x8", "x9", "x3", "x4")}


def machine(folder, arch, where, granularity=256):
    """Data in RAM over the first file, or in the window over both files; everything else in other RAM."""
    files = Files(folder, granularity, ram=where == "ram")
    files.space.map(HIGH, Ram(16 * MIB))
    files.space.map(1 << 31, Mmio(PAGE, write=lambda offset, size, value: files.cut(0, value)))
    m = Machine(files.space, arch)
    data = (0, SIZE) if where == "ram" else (WINDOW, SIZE)
    m.setup(tables=(HIGH, MIB), code=(HIGH + MIB, 64 << 10, CODE), data=(*data, DATA),
            stack=(HIGH + 2 * MIB, 64 << 10, STACK))
    m.tables.map(KNIFE, 1 << 31, PAGE, page_size=PAGE, executable=False)
    return files, m


def source(arch, *lines):
    """Instructions: l or s, the register with the address, and that with the value, by number."""
    names = NAMES[arch]
    return code(arch, "; ".join(
        (LOAD if kind == "l" else STORE)[arch].format(names[a], names[v]) for kind, a, v in lines))


def registers(arch, *values):
    return dict(zip(NAMES[arch], values))


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("where, granularity", [("ram", 256), ("window", 256), ("window", 4096)])
def test_a_file_cut_before_the_run_is_a_bus_error_at_the_instruction(tmp_path, arch, where, granularity):
    files, m = machine(tmp_path, arch, where, granularity)
    files.cut(0, PAGE)
    at = files.hpa(0, LOST) - WINDOW if where == "window" else LOST
    m.load(source(arch, ("l", 0, 2), ("l", 1, 3)))
    m.set(**registers(arch, DATA + 8, DATA + at, 7, 7))
    with m, pytest.warns(FileWarning, match=r"mem0\.bin is lost: 262144 bytes were mapped; the file has 4096 bytes"):
        result = m.run()
    first, second = (result.registers[n] for n in NAMES[arch][2:4])
    assert first == 8
    assert result.counters.bus_errors
    if arch == "x86_64":
        assert (result.stop.reason, second) == ("halt", 0)
    else:
        assert isinstance(result.stop.exception, Abort)
        assert (result.stop.pc, result.stop.exception.far, second) == (CODE + 4, DATA + at, 7)
        assert result.stop.exception.ea
    assert result.counters.first_bus_error.result == MemTxResult.ERROR


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("where, granularity", [("ram", 256), ("window", 256), ("window", 4096)])
def test_a_file_cut_under_a_guest_does_not_end_the_process(tmp_path, dispatch, arch, where, granularity):
    """Pages that the guest has as RAM read as 0 until it asks for a translation; the next page is an error."""
    files, m = machine(tmp_path, arch, where, granularity)
    at = [files.hpa(0, LOST + n * 8 * PAGE) - WINDOW if where == "window" else LOST + n * 8 * PAGE for n in range(2)]
    m.load(source(arch, ("l", 0, 4), ("s", 5, 3), ("l", 0, 2), ("s", 0, 3), ("l", 1, 3)))
    m.set(**registers(arch, DATA + at[0], DATA + at[1], 7, PAGE, 7, KNIFE))
    with m, pytest.warns(FileWarning, match=r"mem0\.bin is lost"):
        result = m.run()
    before, after, next_page = (result.registers[NAMES[arch][n]] for n in (4, 2, 3))
    assert before == LOST
    mirrored = dispatch == "auto" and where == "window" and granularity == 256
    plain = dispatch == "auto" or where == "ram"  # RAM is the engine's own however windows are served
    if arch == "x86_64":
        assert after == (LOST if mirrored else 0)
        assert (result.stop.reason, next_page) == ("halt", 0)
    else:
        assert after == (LOST if mirrored else 0 if plain else 7)
        assert result.stop.pc == CODE + (16 if plain else 8)
        assert result.stop.exception.far == DATA + at[1 if plain else 0]
    assert result.counters.bus_errors


@pytest.mark.parametrize("kind", ["l", "s"])
def test_a_block_that_the_guest_accessed_before_is_an_error_at_once_in_exact_service(tmp_path, kind):
    files, m = machine(tmp_path, "x86_64", "window")
    at = files.hpa(0, LOST) - WINDOW
    m.load(source("x86_64", (kind, 0, 3), (kind, 0, 3), ("s", 5, 4), (kind, 0, 3)))
    m.set(**registers("x86_64", DATA + at, 0, 0, 0, PAGE, KNIFE))
    m.dispatch = "exact"
    with m, pytest.warns(FileWarning):
        result = m.run()
    assert result.counters.bus_errors == 2  # an access of 8 bytes is two of 4
    assert result.counters.first_bus_error.address == WINDOW + at


def test_a_guest_that_comes_back_to_a_lost_page_meets_the_error(tmp_path, dispatch):
    """Code in another page is a translation that the guest asks for."""
    files, m = machine(tmp_path, "x86_64", "window", 4096)
    at = files.hpa(0, LOST) - WINDOW
    m.load(code(
        "x86_64", "mov rdx, [rbx]; mov [rsi], r9; mov r8, [rbx]; mov [rbx], r9; mov rdi, [rdi]; mov r10, [rbx]"))
    m.set(**registers("x86_64", DATA + at, 0, 7, PAGE, 7, KNIFE), rdi=STACK, r10=7)
    with m, pytest.warns(FileWarning, match=r"mem0\.bin is lost"):
        result = m.run()
    assert (result.registers["r8"], result.registers["r10"]) == (0, 0)
    assert result.counters.first_bus_error.address == WINDOW + at


@pytest.mark.parametrize("arch", ARCHS)
def test_page_tables_in_a_lost_file_are_a_fault_of_the_guest(tmp_path, arch):
    files = Files(tmp_path)
    files.space.map(HIGH, Ram(16 * MIB))
    m = Machine(files.space, arch).setup(
        tables=(WINDOW, 2 * SIZE), code=(HIGH, 64 << 10, CODE), data=(HIGH + MIB, MIB, DATA),
        stack=(HIGH + 4 * MIB, 64 << 10, STACK))
    m.load(code(arch, "nop"))
    files.cut(0, 0)
    files.cut(1, 0)
    with m, pytest.warns(FileWarning, match=r"byte 0x0 of .*mem\d\.bin is lost"):
        result = m.run()
    assert result.stop.reason == "fault"
    assert result.counters.faults
    if arch == "aarch64":
        assert result.stop.exception.fsc in range(0x14, 0x18)  # external abort on a table walk


def test_each_loss_is_told_once_for_a_machine(tmp_path):
    files, m = machine(tmp_path, "x86_64", "window")
    files.cut(0, PAGE)
    m.load(source("x86_64", ("l", 0, 2)))
    with m:
        for expected in 1, 0:
            m.set(rip=CODE, **registers("x86_64", DATA + files.hpa(0, LOST) - WINDOW))
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                m.run()
            assert [w.category for w in seen] == [FileWarning] * expected


def test_a_machine_whose_file_was_cut_is_not_restored_in_part(tmp_path):
    """Registers and what came before the loss were those of the snapshot, the rest was not."""
    files, m = machine(tmp_path, "x86_64", "window")
    with m.load(code("x86_64", "nop")):
        before = m.snapshot()
        m.set(rbx=5)
        m.write(DATA, b"later")
        files.cut(1, PAGE)
        with pytest.raises(BusError, match=r"mem1\.bin is lost"):
            m.restore(before)
        assert (m.registers["rbx"], m.read(DATA, 5)) == (5, b"later")
