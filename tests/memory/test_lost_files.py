"""A file behind memory is cut short while it is in use: an error for who needs its bytes, and nothing else."""

import os
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from mmu import Frames, HostMemory, Ram, SoftMmu, arm64, x86
from mmu.core import ffi
from mmu.errors import BusError, RegionOverlapError
from mmu.types import Access, Fault, FaultKind, MemTxResult, Translation
from tests.memory.lossy import PAGE, SIZE, WINDOW, Files

OK, ERROR = MemTxResult.OK, MemTxResult.ERROR
GONE, KEPT = 3 * PAGE + 0x118, 0x118  # offsets in a file that is cut to one page


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


@pytest.fixture(params=["ram", "window"])
def address(request, files):
    """Where a byte of the first file is on the bus."""
    return (lambda dpa: dpa) if request.param == "ram" else (lambda dpa: files.hpa(0, dpa))


# ---- single accesses ----


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_load_of_lost_bytes_ends_with_an_error_and_0_each_time(files, address, size):
    files.cut()
    for _ in range(2):
        assert files.space.load(address(GONE), size) == (0, ERROR)
        assert files.space.load(address(KEPT), size) == (KEPT & (1 << 8 * size) - 1, OK)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_store_to_lost_bytes_ends_with_an_error_and_is_not_read_back(files, address, size):
    files.cut()
    for _ in range(2):
        assert files.space.store(address(GONE), size, 0x55) == ERROR
        assert files.space.store(address(KEPT), size, 0x66) == OK
    assert files.space.load(address(GONE), size) == (0, ERROR)
    assert files.space.load(address(KEPT), size) == (0x66, OK)
    assert files.paths[0].read_bytes()[KEPT] == 0x66


def test_an_exchange_of_lost_bytes_does_not_take_place(files, address):
    files.cut()
    for _ in range(2):
        assert files.space.exchange(address(GONE), 8, 0, 5) == (0, ERROR)
    assert files.space.exchange(address(KEPT), 8, KEPT, 5) == (KEPT, OK)


def test_a_traced_access_and_one_that_is_askew_err_too(files, address):
    files.cut()
    with files.space.trace() as entries:
        assert files.space.load(address(GONE), 4) == (0, ERROR)
        assert files.space.store(address(GONE + 1), 4, 1) == ERROR
    assert [e.result for e in entries] == [ERROR] * 2
    assert files.space.load(PAGE - 4, 8) == (0, ERROR)  # in RAM; the first half is there, and is 0
    assert files.space.load(address(GONE + 1), 4) == (0, ERROR)


def test_the_other_device_and_its_traffic_are_as_before(files):
    files.cut(0)
    assert files.space.load(files.hpa(0, GONE), 8) == (0, ERROR)
    assert files.space.load(files.hpa(1, GONE), 8) == (1 << 32 | GONE, OK)
    assert files.space.store(files.hpa(0, GONE), 8, 1) == ERROR
    traffic = files.space.traffic()
    assert list(traffic) == ["mem1"]
    assert (traffic["mem1"].reads, traffic["mem1"].writes) == (1, 0)


def test_what_failed_stays_failed_when_the_file_grows_again(files, address):
    files.cut()
    assert files.space.load(address(GONE), 8) == (0, ERROR)
    os.truncate(files.paths[0], SIZE)
    assert files.space.load(address(GONE), 8) == (0, ERROR)
    assert files.space.load(address(GONE + PAGE), 8) == (0, OK)  # was not asked for meanwhile


# ---- blocks, and what the user reads ----


def test_a_block_has_what_is_left_and_zeroes(files, address):
    files.cut()
    expected = b"".join(at.to_bytes(8, "little") for at in range(PAGE - 128, PAGE, 8)) + bytes(128)
    for _ in range(2):
        assert files.space.access(address(PAGE - 128), 128) == (expected[:128], OK)
        if address(PAGE) == PAGE:
            assert files.space.access(PAGE - 128, 256) == (expected, ERROR)
        assert files.space.access(address(PAGE), 128) == (bytes(128), ERROR)
        assert files.space.access(address(PAGE), data=b"x" * 128) == ERROR


def test_a_block_over_the_window_lacks_only_the_granules_of_the_lost_file(files):
    files.cut()
    data, result = files.space.access(files.hpa(0, 2 * PAGE), 2 * PAGE)
    assert result == ERROR
    words = np.frombuffer(data, np.uint64).reshape(-1, 2, 32)
    assert not words[:, 0].any()
    assert (words[:, 1].ravel() == np.arange(2 * PAGE, 3 * PAGE, 8, dtype=np.uint64) + np.uint64(1 << 32)).all()


def test_one_line_names_the_file_its_size_and_what_was_expected(files, address):
    files.cut()
    with pytest.raises(BusError) as info:
        files.space.read(address(GONE), 8)
    assert str(info.value) == (
        f"read of 8 bytes at {address(GONE):#x} ended with ERROR: byte {GONE:#x} of {files.paths[0]} is lost: "
        f"{SIZE} bytes were mapped; the file has {PAGE} bytes now")
    with pytest.raises(BusError, match=f"write of 3 bytes .* byte {GONE:#x} of .*mem0.bin is lost"):
        files.space.write(address(GONE), b"abc")


def test_an_error_of_another_cause_does_not_blame_a_file(files):
    files.cut()
    assert files.space.load(files.hpa(0, GONE), 8)[1] == ERROR
    route = files.window.route
    files.window.set_route(type(route)())
    with pytest.raises(BusError, match=r"ended with ERROR$"):
        files.space.read(files.hpa(0, GONE), 8)


def test_the_line_names_the_file_of_the_device_that_answers(files):
    files.cut(0)
    files.cut(1)
    for n in (0, 1):
        with pytest.raises(BusError, match=rf"byte {GONE:#x} of .*mem{n}\.bin is lost"):
            files.space.read(files.hpa(n, GONE), 8)


def test_the_line_tells_a_file_that_went_or_was_replaced(files):
    files.cut()
    memory = files.memories[0]
    with pytest.raises(BusError):
        memory.read(GONE, 1)
    os.rename(files.paths[0], files.paths[0].with_name("old"))
    assert "cannot be looked at (No such file" in memory.failure(0, SIZE)
    files.paths[0].write_bytes(bytes(SIZE))
    assert "the file is another file now" in memory.failure(0, SIZE)


def test_the_line_tells_a_file_that_is_as_large_as_it_was(files):
    files.cut()
    with pytest.raises(BusError):
        files.memories[0].read(GONE, 1)
    os.truncate(files.paths[0], SIZE)
    assert files.memories[0].failure(0, SIZE).endswith(
        f"the file has {SIZE} bytes now, and yet the system could not read or store it "
        "(is the disk full, or broken?)")


@pytest.mark.parametrize("behind_a_window", [False, True])
def test_the_host_s_own_accesses_raise(tmp_path, behind_a_window):
    files = Files(tmp_path)
    memory = files.memories[0]
    if behind_a_window:
        assert memory.places
    files.cut()
    for _ in range(2):
        with pytest.raises(BusError, match=f"byte {GONE:#x} of"):
            memory.read(GONE, 8)
        with pytest.raises(BusError, match=r"mem0\.bin is lost"):
            memory.write(GONE, b"12345678")
    assert memory.read(KEPT, 8) == KEPT.to_bytes(8, "little")
    assert memory.failure(0, GONE // PAGE * PAGE) is None
    assert f"byte {GONE // PAGE * PAGE:#x} of" in memory.failure(0, SIZE)


def test_sync_says_that_stores_were_lost(files):
    files.memories[0].sync()
    files.cut()
    files.space.store(GONE, 8, 1)
    with pytest.raises(OSError, match=r"^not all could be written back: byte .*mem0\.bin is lost"):
        files.memories[0].sync()
    files.memories[1].sync()


def test_a_second_file_cannot_be_laid_over_the_first(files):
    with files.paths[1].open("r+b") as file, pytest.raises(RegionOverlapError, match="that no file has yet"):
        files.memories[0].map_file(SIZE - PAGE, PAGE, file.fileno())


def test_memory_that_comes_after_is_not_to_blame(tmp_path):
    files = Files(tmp_path)
    address = int(ffi.cast("uintptr_t", files.memories[0].address))
    files.cut()
    assert files.space.load(GONE, 8)[1] == ERROR
    del files
    for _ in range(8):  # one of them where the memory was, most likely
        memory = HostMemory(SIZE)
        memory.write(GONE, b"new")
        assert memory.read(GONE, 3) == b"new"
        assert memory.failure(0, SIZE) is None
        if int(ffi.cast("uintptr_t", memory.address)) == address:
            break


# ---- walkers ----

CR0, PAE, EFER = 0x8001_0001, 1 << 5, 0xD00
VA = 0x40_0000


def x86_walks(files, engine, base=WINDOW, size=2 * SIZE):
    tables = x86.PageTables(files.space, Frames(base, base + size - 1))
    tables.map(VA, 0x5000, 16 * PAGE)
    regs = x86.Registers(cr0=CR0, cr3=tables.root, cr4=PAE, efer=EFER, bus_error="machine-check")
    return lambda va: x86.walk(files.space, regs, va, Access.READ, engine=engine), regs, x86


def arm64_walks(files, engine, base=WINDOW, size=2 * SIZE):
    tables = arm64.PageTables(files.space, Frames(base, base + size - 1))
    tables.map(VA, 0x5000, 16 * PAGE)
    regs = arm64.Registers(
        sctlr_el1=1, tcr_el1=16 | 16 << 16 | 2 << 30 | 5 << 32, ttbr0_el1=tables.root, ttbr1_el1=0)
    return lambda va: arm64.walk(files.space, regs, va, Access.READ, engine=engine), regs, arm64


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize("walks", [x86_walks, arm64_walks])
def test_a_walk_through_a_lost_table_is_a_bus_fault(files, walks, engine):
    walk, _, _ = walks(files, engine)
    assert isinstance(walk(VA), Translation)
    last = walk(VA).steps[-1]
    files.cut(0, last.place.dpa // PAGE * PAGE if last.place.device == "mem0" else 0)
    files.cut(1, last.place.dpa // PAGE * PAGE if last.place.device == "mem1" else 0)
    found = walk(VA)
    assert isinstance(found, Fault)
    assert found.kind == FaultKind.BUS


@pytest.mark.parametrize("walks", [x86_walks, arm64_walks])
def test_a_batch_of_walks_says_the_same_as_single_ones(files, walks):
    walk, regs, arch = walks(files, "native")
    vas = np.array([VA + n * PAGE for n in range(16)] * 32, np.uint64)
    before = arch.walk_many(files.space, regs, vas, Access.READ)
    assert not before["status"].any()
    for cut in (0, 1):
        files.cut(cut, 0)
        for _ in range(2):
            after = arch.walk_many(files.space, regs, vas, Access.READ)
            assert (after["status"] == FaultKind.BUS).all()
    assert walk(VA).kind == FaultKind.BUS


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize("walks", [x86_walks, arm64_walks])
def test_a_walk_through_lost_tables_in_ram_is_a_bus_fault(files, walks, engine):
    """The largest run of RAM is read without the port."""
    walk, _, _ = walks(files, engine, 0, SIZE)
    assert isinstance(walk(VA), Translation)
    files.cut(0, 0)
    assert walk(VA).kind == FaultKind.BUS


@pytest.mark.parametrize("base, size", [(0, SIZE), (WINDOW, 2 * SIZE)])
@pytest.mark.parametrize("walks", [x86_walks, arm64_walks])
def test_a_batch_of_walks_does_not_use_what_was_stored_to_a_lost_page(files, walks, base, size):
    """The page that stands in takes stores; a table made of them is none."""
    walk, regs, arch = walks(files, "native", base, size)
    walk(VA)  # marks the entries as used
    entries = [(s.address, s.value) for s in walk(VA).steps]
    vas = np.array([VA] * 512, np.uint64)
    for n in (0, 1):
        files.cut(n, 0)
    for address, value in entries:
        assert files.space.store(address, 8, value) == ERROR
    assert (arch.walk_many(files.space, regs, vas, Access.READ)["status"] == FaultKind.BUS).all()


# ---- the softmmu TLB ----


def softmmu(files, base, **options):
    ram = Ram(1 << 20)
    files.space.map(1 << 30, ram)
    tables = x86.PageTables(files.space, Frames((1 << 30), (1 << 30) + (1 << 20) - 1))
    tables.map(VA, base, SIZE, page_size=PAGE, dirty=1, accessed=1)
    regs = x86.Registers(cr0=CR0, cr3=tables.root, cr4=PAE, efer=EFER)
    return SoftMmu(files.space, regs, **options)


@pytest.mark.parametrize("base", [0, WINDOW])
@pytest.mark.parametrize("size", [4, 8])
def test_a_batch_finds_out_in_its_midst(files, base, size):
    """The first batch fills the TLB; the file is cut; the second meets the loss on its fast way, the third knows."""
    tlb = softmmu(files, base)
    offsets = np.random.default_rng(1).permutation(SIZE // size).astype(np.uint64) * np.uint64(size)
    vas = np.uint64(VA) + offsets
    whole = tlb.load_many(vas, size).copy()
    assert (whole == np.array([int.from_bytes(files.space.read(base + int(o), size), "little") for o in offsets])).all()
    files.cut(0)
    if base:
        lost = ((offsets >> np.uint64(8)) % 2 == 0) & ((offsets >> np.uint64(9)) >= PAGE // 256)
    else:
        lost = offsets >= PAGE
    for _ in range(2):
        errors = tlb.stats.bus_errors
        assert (tlb.load_many(vas, size) == np.where(lost, 0, whole)).all()
        assert tlb.stats.bus_errors - errors == lost.sum()


@pytest.mark.parametrize("base", [0, WINDOW])
def test_a_batch_of_stores_finds_out_in_its_midst(files, base):
    tlb = softmmu(files, base)
    vas = np.arange(VA, VA + SIZE, 8, dtype=np.uint64)
    values = np.arange(len(vas), dtype=np.uint64) + np.uint64(7)
    tlb.store_many(vas, values)
    files.cut(0)
    for _ in range(2):
        errors = tlb.stats.bus_errors
        tlb.store_many(vas, values)
        lost = SIZE - PAGE if base == 0 else (SIZE - 2 * PAGE) // 2
        assert tlb.stats.bus_errors - errors == lost // 8
    assert files.space.load(base + 8, 8) == (8, OK)


def test_traffic_of_a_batch_counts_what_reached_a_device(files):
    tlb = softmmu(files, WINDOW)
    vas = np.arange(VA, VA + SIZE, 8, dtype=np.uint64)
    tlb.load_many(vas, 8)
    files.cut(0)
    before = files.space.traffic()
    tlb.load_many(vas, 8)
    after = files.space.traffic()
    half = SIZE // 2 // 8
    assert after["mem1"].reads - before["mem1"].reads == half
    assert after["mem0"].reads - before["mem0"].reads == PAGE // 8


def test_a_single_read_through_the_tlb_finds_out(files):
    tlb = softmmu(files, 0)
    assert tlb.read(VA + GONE, 8) == GONE.to_bytes(8, "little")
    files.cut()
    for _ in range(2):
        errors = tlb.stats.bus_errors
        assert tlb.read(VA + GONE, 8) == bytes(8)
        tlb.write(VA + GONE, b"12345678")
        assert tlb.stats.bus_errors == errors + 2


# ---- threads ----


def test_readers_of_several_threads_see_the_bytes_or_the_error(files):
    files.cut(0, SIZE)
    wrong, rounds, started = [], 300, threading.Barrier(3)

    def read(n):
        started.wait()
        for i in range(rounds):
            at = (i * 7 + n) % (SIZE // 8) * 8
            value, result = files.space.load(files.hpa(0, at), 8)
            if (value, result) not in ((at, OK), (0, ERROR)) or (at < PAGE and result):
                wrong.append((at, value, result))

    threads = [threading.Thread(target=read, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    started.wait()
    for pages in range(SIZE // PAGE - 1, 0, -1):
        files.cut(0, pages * PAGE)
    for thread in threads:
        thread.join()
    assert not wrong
    assert files.space.load(files.hpa(0, SIZE - 8), 8) == (0, ERROR)


# ---- the handler and others ----

OTHERS = """
import ctypes, faulthandler, mmap, os, sys, tempfile
{before}
from mmu import HostMemory
with tempfile.TemporaryFile() as file:
    os.ftruncate(file.fileno(), 8192)
    ours = HostMemory(8192)
    ours.map_file(0, 8192, file.fileno())
    theirs = mmap.mmap(file.fileno(), 8192)
    os.ftruncate(file.fileno(), 0)
    try:
        ours.read(0, 1)
    except OSError as error:
        print("ours:", error, flush=True)
    {then}
    print("survived", flush=True)
"""


def child(then, before=""):
    source = OTHERS.format(before=before, then=textwrap.dedent(then))
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("then", ["theirs[0]", "os.kill(os.getpid(), 7)"])
def test_the_bus_error_of_somebody_else_ends_the_process_as_ever(then):
    done = child(then)
    assert "ours: byte 0x0 of" in done.stdout
    assert "survived" not in done.stdout
    assert done.returncode == -signal.SIGBUS


def test_a_handler_that_was_there_before_is_called():
    done = child("theirs[0]", "faulthandler.enable()")
    assert "ours: byte 0x0 of" in done.stdout
    assert done.returncode == -signal.SIGBUS
    assert "Fatal Python error: Bus error" in done.stderr


def test_a_signal_that_was_ignored_stays_ignored_but_a_fault_does_not():
    ignore = "import signal; signal.signal(7, signal.SIG_IGN)"
    assert "survived" in child("os.kill(os.getpid(), 7)", ignore).stdout
    done = child("theirs[0]", ignore)
    assert done.returncode == -signal.SIGBUS


def test_a_python_handler_is_called():
    count = "import signal; seen = []; signal.signal(7, lambda *a: seen.append(a))"
    assert "survived" in child("os.kill(os.getpid(), 7); assert len(seen) == 1", count).stdout
