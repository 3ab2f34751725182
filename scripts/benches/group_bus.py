"""The bus: single accesses from C and from Python, to RAM, a 4-way window and devices; blocks of 1 MiB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mmu import AddressSpace, Container, NativeMmio, Ram
from mmu.core import ffi, lib
from scripts.benches.blocks import blocks, repeat
from scripts.benches.harness import Bench, Row, expect
from scripts.benches.machine import GRANULARITY, RAM_SIZE, WINDOW, Machine, machine, own_addresses
from scripts.benches.native import Loops

TOUCHED = 16 << 20
REGION, SPACING = 4096, 1 << 20
REGIONS = (1, 10, 100, 1000)
FLAT = 1.1
CALLS = 200_000
AIM_NS = 1000
REFERENCE = "address test, then memory"


def rows(bench: Bench) -> Iterator[Row]:
    m, loops = machine(), Loops("bus")
    yield from _singles(bench, m, loops)
    yield from _regions(bench, loops)
    yield from _calls(bench, m)
    yield from blocks(bench, m)


def _singles(bench: Bench, m: Machine, loops: Loops) -> Iterator[Row]:
    count = bench.items(10_000_000)
    offsets = np.random.default_rng(1).integers(0, TOUCHED // 8, count).astype(np.uint64) * np.uint64(8)
    answers = np.zeros(count, np.uint64)
    for name, base, loop, setup in (
        ("RAM", 0, "ram", [m.ram, RAM_SIZE]),
        ("a 4-way window", WINDOW, "window", [WINDOW, RAM_SIZE, *m.devices]),
    ):
        own_addresses(m, base, TOUCHED)
        addresses = offsets + np.uint64(base)
        # What a load answers is its own address; a store of that keeps it so, and answers 0.
        for kind, expected in (("load", addresses), ("store", np.zeros(count, np.uint64))):
            runs = {
                "ours": loops.bind(f"port_{kind}", port_call(m.space, f"mmu_port_{kind}"), addresses, answers),
                "loop": loops.bind(f"{loop}_{kind}", setup, addresses, answers),
            }
            for what, run in runs.items():
                run()
                expect(f"{kind}, {name}, {what}", addresses, answers, expected)
            loops.bind(f"{loop}_load", setup, addresses, answers)()
            expect(f"{name} after a {kind}", addresses, answers, addresses)
            times = bench.times(runs, count)
            yield bench.row(f"{kind}, {name}", times["ours"], REFERENCE, times["loop"])


def _regions(bench: Bench, loops: Loops) -> Iterator[Row]:
    """How the number of regions shows: it must not in the search, and does in how many devices the caches can hold."""
    count = bench.items(2_000_000)
    answers, spaces = np.zeros(count, np.uint64), {n: _beside_ram(loops, n) for n in REGIONS}
    for name, pick, limit in (
        ("RAM beside {:,} devices", _in_ram, FLAT),
        ("16 devices in C out of {:,}", _in_16_devices, FLAT),
        ("{:,} devices in C", _in_devices, None),
    ):
        runs = {}
        for n, space in spaces.items():
            addresses = pick(np.random.default_rng(n), n, count).astype(np.uint64)
            runs[str(n)] = loops.bind("port_load", port_call(space, "mmu_port_load"), addresses, answers)
            runs[str(n)]()
            expect(f"load, {name.format(n)}", addresses, answers, addresses)
        times = bench.times(runs, count)
        for n in REGIONS[1:]:
            yield bench.row(f"load, {name.format(n)}", times[str(n)], "the same, of one", times["1"], limit)


def _beside_ram(loops: Loops, devices: int) -> AddressSpace:
    """RAM at 0, then the devices; all of it holds its own addresses."""
    space, ram = AddressSpace(), Ram(SPACING)
    ram.memory.write(0, np.arange(0, SPACING, 8, dtype=np.uint64).tobytes())
    box = Container((devices + 1) * SPACING)
    box.map(0, ram)
    for i in range(1, devices + 1):
        base = i * SPACING
        box.map(base, NativeMmio(REGION, loops.address("device_read"), context=base, keep=loops))
    space.map(0, box)
    return space


def _in_devices(rng: np.random.Generator, devices: int, count: int) -> Any:
    return rng.integers(1, devices + 1, count) * SPACING + rng.integers(0, REGION // 8, count) * 8


def _in_16_devices(rng: np.random.Generator, devices: int, count: int) -> Any:
    """Whatever their number, only 16 of them, far apart, are used."""
    return (1 + rng.integers(0, 16, count) * devices // 16) * SPACING + rng.integers(0, REGION // 8, count) * 8


def _in_ram(rng: np.random.Generator, devices: int, count: int) -> Any:
    return rng.integers(0, REGION // 8, count) * 8


def _calls(bench: Bench, m: Machine) -> Iterator[Row]:
    """One call from Python at a time."""
    count, s = bench.items(CALLS), m.space
    data = bytes(range(8))
    for where, base in (("RAM", 0), ("a 4-way window", WINDOW)):
        at = base + GRANULARITY
        calls: dict[str, Callable[[], object]] = {
            "space.read(pa, 8)": lambda at=at: s.read(at, 8),
            "space.write(pa, 8 bytes)": lambda at=at: s.write(at, data),
            "space.load(pa, 8)": lambda at=at: s.load(at, 8),
            "space.store(pa, 8, value)": lambda at=at: s.store(at, 8, 1),
        }
        for name, call in calls.items():
            times = bench.times({"ours": lambda call=call: repeat(call, count)}, count)
            yield bench.row(f"{name}, {where}", times["ours"], "aim", AIM_NS, 1.0)


def port_call(space: AddressSpace, function: str) -> list[int]:
    """The setup of the loops that call *function* on this thread's port of *space*."""
    where: tuple[Any, ...] = (ffi.addressof(lib, function), space.port)
    return [int(ffi.cast("uintptr_t", p)) for p in where]
