"""Two machines on two threads, each on data of its own, against one."""

from __future__ import annotations

import resource
import statistics
import threading
import time
from collections.abc import Iterator

from scripts.benches.group_guest import LOAD, PER_LOOP, STORE, Guest
from scripts.benches.harness import Bench, Row, WrongAnswer

AT_LEAST = 1.8  # what two threads do in the time that one needs
SLEEPS = 100  # waits of a thread for the interpreter, before and after its run; on a lock it would sleep by the million


class Worker:
    """One guest and the thread that runs it: CPU seconds of the run, and how often it went to sleep."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self.seconds, self.sleeps = 0.0, 0

    def run(self, start: threading.Barrier) -> None:
        start.wait()
        slept, began = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw, time.thread_time()
        self._guest.run()
        self.seconds = time.thread_time() - began
        self.sleeps = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - slept


def together(workers: list[Worker]) -> float:
    """Mean CPU seconds of a worker while all run. Raises WrongAnswer when one had to wait."""
    start = threading.Barrier(len(workers))
    threads = [threading.Thread(target=w.run, args=(start,)) for w in workers]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for w in workers:
        if w.sleeps > SLEEPS:
            raise WrongAnswer(f"{len(workers)} machines: a thread slept {w.sleeps} times during its run, as on a lock")
    return statistics.mean(w.seconds for w in workers)


def rows(bench: Bench) -> Iterator[Row]:
    for what, program, dispatch, full in (
        ("loads in a window, auto", LOAD, "auto", 20_000_000), ("stores in a window, exact", STORE, "exact", 1_000_000),
    ):  # fmt: skip
        count = bench.items(full) // PER_LOOP + 1
        bus = 2 * count * PER_LOOP if dispatch == "exact" else 0
        workers = [Worker(Guest(program, dispatch, "data", rcx=count).check(bus)) for _ in range(2)]
        taken = [(together(workers[:1]), together(workers)) for _ in range(bench.passes)]
        one, two = (statistics.median(t) / (count * PER_LOOP) * 1e9 for t in zip(*taken))
        yield bench.row(f"guests, {what}: 2 machines", two / 2, "1 machine", one, 1 / AT_LEAST)
