"""Sparse files of devices on a disk that has no room for what is stored to them: errors, not the end of the process."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys, warnings
from mmu import AddressSpace, HostMemory, Machine, Ram, Striped, Target
from mmu.errors import BusError, FileWarning
from mmu.stripes import Route, Slot, Span

MIB, PAGE, WINDOW, VA = 1 << 20, 4096, 1 << 32, 0x5000_0000
dispatch, granularity, by = sys.argv[2], int(sys.argv[3]), sys.argv[4]
memories = [HostMemory(MIB) for _ in range(2)]
for n, memory in enumerate(memories):
    with open(f"{sys.argv[1]}/mem{n}", "w+b") as file:
        file.truncate(MIB)
        memory.map_file(0, MIB, file.fileno())
slots = tuple(Slot(n, WINDOW, 0, 2, granularity) for n in range(2))
window = Striped(2 * MIB, WINDOW, [Target(f"mem{n}", m) for n, m in enumerate(memories)])
window.set_route(Route((Span(WINDOW, WINDOW + 2 * MIB - 1, granularity.bit_length() - 1, 1, granularity, slots),)))
space = AddressSpace()
space.map(0, Ram(16 * MIB))
space.map(WINDOW, window)
refused = []
if by == "host":
    for at in range(0, 2 * MIB, PAGE):
        try:
            space.write(WINDOW + at, bytes([at >> 12 & 0xFF]) * PAGE)
        except BusError as error:
            refused.append(str(error))
else:
    with Machine(space, "x86_64", dispatch) as machine, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        machine.setup(tables=(8 * MIB, MIB), code=(10 * MIB, 65536), data=(11 * MIB, 65536), stack=(12 * MIB, 65536))
        machine.tables.map(VA, WINDOW, 2 * MIB)
        # again: mov [rdi], rax; add rdi, 0x1000; dec rcx; jnz again; hlt
        machine.load(bytes.fromhex("488907" "4881c700100000" "48ffc9" "75f1" "f4"))
        machine.set(rdi=VA, rcx=512, rax=7)
        result = machine.run()
    assert result.stop.reason == "halt" and result.counters.bus_errors, result
    assert all(w.category is FileWarning for w in said)
    refused = [str(w.message) for w in said]
assert refused and "is lost: 1048576 bytes were mapped; the file has 1048576 bytes now, and yet" in refused[0], refused
kept = [n for n, m in enumerate(memories) if m.failure(0, MIB) is None]
for n, memory in enumerate(memories):
    try:
        memory.sync()
        assert n in kept
    except BusError as error:
        assert n not in kept and "not all could be written back" in str(error)
print("alive")
"""


def full_disk(folder, *arguments):
    """Runs the program where *folder* is a file system of 64 KiB, which takes a name space of mounts of its own."""
    unshare = shutil.which("unshare")
    command = ["sh", "-c", 'mount -t tmpfs -o size=64k none "$0" || exit 77; exec "$@"', str(folder)]
    if unshare is None:
        pytest.skip("no unshare, so no disk of our own")
    program = [sys.executable, "-c", PROGRAM, str(folder), *arguments]
    done = subprocess.run(
        [unshare, "-Urm", *command, *program], capture_output=True, text=True, timeout=120, check=False,
        env={"PYTHONPATH": str(Path(__file__).parents[2])})
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("this user may not mount anything")
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


def test_what_the_host_stores_to_a_full_disk_is_an_error(tmp_path):
    full_disk(tmp_path, "auto", "256", "host")


@pytest.mark.parametrize("dispatch, granularity", [("exact", 256), ("mirror", 256), ("mirror", 4096), ("direct", 4096)])
def test_what_a_guest_stores_to_a_full_disk_is_an_error(tmp_path, dispatch, granularity):
    full_disk(tmp_path, dispatch, str(granularity), "guest")
