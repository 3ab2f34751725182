"""Rows of the group "bus": 1 MiB at once, of RAM, of a window, and of one that a running guest has in its mirror."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from scripts.benches.harness import Bench, Row, WrongAnswer
from scripts.benches.machine import WINDOW, Machine
from scripts.benches.mirrored import while_mirrored

BLOCK = 1 << 20


def repeat(call: Callable[[], object], count: int) -> None:
    for _ in range(count):
        call()


def blocks(bench: Bench, m: Machine) -> Iterator[Row]:
    """1 MiB at once, over and over: it stays in the caches, as does what it is compared with."""
    yield from _copies(bench, m, "RAM", 0, 3.0)
    yield from _copies(bench, m, "a 4-way 256 B window", WINDOW, 6.0)
    rows: list[Row] = []
    while_mirrored(m, BLOCK, lambda: rows.extend(_copies(bench, m, "the window, mirrored", WINDOW, 2.0)))
    yield from rows


def _copies(bench: Bench, m: Machine, where: str, base: int, limit: float) -> Iterator[Row]:
    times, s = bench.items(200), m.space
    data = np.random.default_rng(2).integers(0, 256, BLOCK, np.uint8)
    copy, raw = np.zeros_like(data), data.tobytes()
    s.write(base, raw)
    if s.read(base, BLOCK) != raw:
        raise WrongAnswer(f"1 MiB of {where} is not what was written")
    runs = {
        f"read of 1 MiB, {where}": lambda: s.read(base, BLOCK),
        f"write of 1 MiB, {where}": lambda: s.write(base, raw),
        "memcpy": lambda: np.copyto(copy, data),
    }
    measured = bench.times({n: lambda run=run: repeat(run, times) for n, run in runs.items()}, times)
    for name in list(runs)[:2]:
        yield bench.row(name, measured[name], "memcpy", measured["memcpy"], limit)
