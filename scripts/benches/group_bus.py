"""Loads of 8 bytes at random addresses of 16 MiB, made in C: from RAM, and from a 4-way window."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmu.core import ffi, lib
from scripts.benches.harness import Bench, Row, expect
from scripts.benches.machine import RAM_SIZE, WINDOW, machine, own_addresses
from scripts.benches.native import Loops

TOUCHED = 16 << 20


def rows(bench: Bench) -> Iterator[Row]:
    m, loops = machine(), Loops("bus")
    count = bench.items(10_000_000)
    offsets = np.random.default_rng(1).integers(0, TOUCHED // 8, count).astype(np.uint64) * np.uint64(8)
    port = [int(ffi.cast("uintptr_t", f)) for f in (ffi.addressof(lib, "mmu_port_load"), m.space.port)]
    for name, base, loop, setup in (
        ("load from RAM", 0, "ram_load", [m.ram, RAM_SIZE]),
        ("load from a 4-way window", WINDOW, "window_load", [WINDOW, RAM_SIZE, *m.devices]),
    ):
        own_addresses(m, base, TOUCHED)
        addresses, values = offsets + np.uint64(base), np.zeros(count, np.uint64)
        runs = {
            "ours": loops.bind("port_load", port, addresses, values),
            "loop": loops.bind(loop, setup, addresses, values),
        }
        for what, run in runs.items():
            run()
            expect(f"{name}, {what}", addresses, values, addresses)
        times = bench.times(runs, count)
        yield bench.row(name, times["ours"], "address test, then memory", times["loop"])
