"""Accesses of 8 bytes at random addresses of 16 MiB, made in C: to RAM, and to a 4-way window."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mmu.core import ffi, lib
from scripts.benches.harness import Bench, Row, expect
from scripts.benches.machine import RAM_SIZE, WINDOW, Machine, machine, own_addresses
from scripts.benches.native import Loops

TOUCHED = 16 << 20
REFERENCE = "address test, then memory"


def rows(bench: Bench) -> Iterator[Row]:
    m, loops = machine(), Loops("bus")
    yield from _singles(bench, m, loops)


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
                "ours": loops.bind(f"port_{kind}", port_call(m, f"mmu_port_{kind}"), addresses, answers),
                "loop": loops.bind(f"{loop}_{kind}", setup, addresses, answers),
            }
            for what, run in runs.items():
                run()
                expect(f"{kind}, {name}, {what}", addresses, answers, expected)
            loops.bind(f"{loop}_load", setup, addresses, answers)()
            expect(f"{name} after a {kind}", addresses, answers, addresses)
            times = bench.times(runs, count)
            yield bench.row(f"{kind}, {name}", times["ours"], REFERENCE, times["loop"])


def port_call(m: Machine, function: str) -> list[int]:
    """The setup of the loops that call *function* on the machine's port."""
    where: tuple[Any, ...] = (ffi.addressof(lib, function), m.space.port)
    return [int(ffi.cast("uintptr_t", p)) for p in where]
