"""Huge pages of the host: asked for where RAM is likely to be used as a whole, never where it is sparse."""

import gc
from pathlib import Path

import pytest

from mmu import AddressSpace, HostMemory, Ram
from mmu.core import ffi

SMAPS = Path("/proc/self/smaps")
MIB, GIB = 1 << 20, 1 << 30


def flags(memory):
    """What the kernel says of the mapping that holds the memory's first byte (proc(5), VmFlags)."""
    address, here = int(ffi.cast("uintptr_t", memory.address)), False
    for line in SMAPS.read_text().splitlines():
        first, dash, _ = line.split(" ")[0].partition("-")
        if dash and not first.endswith(":"):
            low, high = (int(part, 16) for part in line.split(" ")[0].split("-"))
            here = low <= address < high
        elif here and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError(f"no mapping at {address:#x}")


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def has_huge_pages():
    return SMAPS.exists() and Path("/sys/kernel/mm/transparent_hugepage/enabled").exists()


@pytest.mark.skipif(not has_huge_pages(), reason="no transparent huge pages, or no way to see them")
@pytest.mark.parametrize(
    "make, asked",
    [
        (lambda: Ram(64 * MIB), False),
        (lambda: Ram(128 * MIB), True),
        (lambda: Ram(GIB), True),
        (lambda: Ram(400 * GIB), False),
        (lambda: Ram(64 * MIB, huge=True), True),
        (lambda: Ram(256 * MIB, huge=False), False),
        (lambda: Ram(256 * MIB, memory=HostMemory(256 * MIB)), False),
    ],
)
def test_huge_pages_are_asked_for_ram_that_is_likely_to_be_used_as_a_whole(make, asked):
    assert ("hg" in flags(make().memory)) == asked


@pytest.mark.skipif(not has_huge_pages(), reason="no transparent huge pages, or no way to see them")
def test_device_memory_stays_sparse():
    assert "hg" not in flags(HostMemory(256 * MIB))


@pytest.mark.skipif(not SMAPS.exists(), reason="the resident size cannot be seen")
def test_a_sparse_ram_of_400_gib_costs_what_is_touched():
    space, ram = AddressSpace(), Ram(400 * GIB)
    space.map(0, ram)
    space.store(0, 8, 1)
    gc.collect()
    before = resident()
    for at in range(0, 400 * GIB, 400 * MIB):
        space.store(at, 8, at)
        assert space.load(at + 200 * MIB, 8)[0] == 0
    grown = resident() - before
    assert grown < 16 * MIB  # 1024 pages of 4 KiB were stored to; the same in huge pages were 2 GiB
    assert space.load(399 * GIB // (400 * MIB) * 400 * MIB, 8)[0] == 399 * GIB // (400 * MIB) * 400 * MIB
