"""Two threads against one: readers of a window while its decoders are recommitted, and machines. A recommit's cost."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mmu import Striped
from mmu.core import ffi, lib
from scripts.benches import pair
from scripts.benches.harness import Bench, Row, WrongAnswer
from scripts.benches.machine import WINDOW, Machine, machine, own_addresses
from scripts.benches.native import Loops

CSRC = Path(__file__).resolve().parents[2] / "csrc"
TOUCHED = 256 << 10  # each thread's words stay in its core's caches, so that only the bus can hold them up
PAUSE = 0.0005  # seconds between recommits
AT_LEAST = 1.9  # what two threads read in the time that one needs
RECOMMIT_AIM_NS = 2000


class Readers:
    """Threads that load at random from the window of *m*, each through a port of its own."""

    def __init__(self, m: Machine, loops: Loops, passes: int) -> None:
        self._m, self._loops, self._passes = m, loops, passes
        rng = np.random.default_rng(3)
        self._addresses = WINDOW + rng.integers(0, TOUCHED // 8, 1 << 16).astype(np.uint64) * np.uint64(8)

    def run(self, count: int) -> float:
        """CPU ns of a load with *count* threads at it. Raises WrongAnswer when one read wrong or had to wait."""
        answers = [np.zeros_like(self._addresses) for _ in range(count)]
        threads = [threading.Thread(target=self._one, args=(a,)) for a in answers]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for a in answers:
            if a[2]:
                raise WrongAnswer(f"{count} readers while decoders recommit: {a[2]} loads were wrong")
            if a[1]:
                raise WrongAnswer(f"{count} readers while decoders recommit: one slept {a[1]} times, as on a lock")
        return statistics.mean(float(a[0]) for a in answers) / self._passes / len(self._addresses)

    def _one(self, answers: Any) -> None:
        port = self._m.space.new_port()
        where = (ffi.addressof(lib, "mmu_port_load"), port.handle)
        setup = [*(int(ffi.cast("uintptr_t", p)) for p in where), self._passes]
        self._loops.bind("reader", setup, self._addresses, answers)()


def rows(bench: Bench) -> Iterator[Row]:
    m, loops = machine(), Loops("threads", f"-I{CSRC}")
    own_addresses(m, WINDOW, TOUCHED)
    (window,) = (r.region for r in m.space.view.ranges if isinstance(r.region, Striped))
    readers = Readers(m, loops, bench.items(300))
    stop = threading.Event()
    writer = threading.Thread(target=_recommit, args=(window, stop))
    writer.start()
    try:
        readers.run(2)
        taken = [(readers.run(1), readers.run(2)) for _ in range(bench.passes)]
    finally:
        stop.set()
        writer.join()
    one, two = (statistics.median(t) for t in zip(*taken))
    yield bench.row("load, window, 2 readers beside recommits", two / 2, "1 reader beside them", one, 1 / AT_LEAST)
    yield _recommits(bench, loops)
    yield from pair.rows(bench)


def _recommit(window: Striped, stop: threading.Event) -> None:
    routes = [window.route, replace(window.route)]
    while not stop.wait(PAUSE):
        routes.reverse()
        window.set_route(routes[0])


def _recommits(bench: Bench, loops: Loops) -> Row:
    """To make a route, publish it and destroy one that nobody reads, as decoders do."""
    names = ("mmu_bus_create", "mmu_bus_destroy", "mmu_bus_publish", "mmu_bus_reclaim", "mmu_route_create",
             "mmu_route_destroy")
    functions = [int(ffi.cast("uintptr_t", ffi.addressof(lib, name))) for name in names]
    rounds = np.zeros(bench.items(100_000), np.uint64)
    failed = np.zeros_like(rounds)
    times = bench.times({"ours": loops.bind("recommits", functions, rounds, failed)}, len(rounds))
    if failed.any():
        raise WrongAnswer(f"recommits: {int(np.count_nonzero(failed))} of {len(rounds)} failed")
    return bench.row("recommit of a window, in C", times["ours"], "aim", RECOMMIT_AIM_NS, 1.0)
