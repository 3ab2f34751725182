"""CXL addresses: one at a time in C, in batches from numpy, routes compiled; random over regions of 12 or 16 GiB."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cxl import Backing, Blueprint, BridgePlan, DevicePlan, PortPlan, SwitchPlan, Topology, WindowPlan
from cxl.compile import compile_route, nodes_below
from mmu.core import ffi
from scripts.benches.harness import Bench, Row, expect
from scripts.benches.native import Loops

GIB = 1 << 30
BASE = 48 * GIB  # a multiple of 12 x 256 MiB
MAPS = (0x404100, 0x808200, 0x1010400, 0x2020800)
SMALL, LARGE = 4000, 1 << 20  # addresses: such that they stay in a cache, or do not
REPEATS = 500
POWER_OF_TWO, PARITY, MODULO_THREE = range(3)  # enum kind in decode.c
SINGLE_LIMIT, BATCH_LIMIT, PORTABLE_LIMIT, FLAT_LIMIT = 1.5, 3.0, 1 / 3, 1.1
COMPILE_NS = 1e6


@dataclass(frozen=True)
class Case:
    """*levels*: ports per level from the windows down: host bridges, root ports, then ports of each switch."""

    name: str
    kind: int
    levels: tuple[int, ...]
    maps: tuple[int, ...] | None = None
    windows: int = 1


CASES = (
    Case("16 ways, 2 levels below 4 bridges", POWER_OF_TWO, (4, 2, 2)),
    Case("16 ways, XOR over 16 bridges", PARITY, (16, 1), MAPS),
    Case("3 ways", MODULO_THREE, (3, 1)),
    Case("12 ways", MODULO_THREE, (12, 1)),
)
# Pairs whose cost must not differ: one in which there is little, one in which there is much.
FLAT = (
    ("1 and 32 devices", Case("1 device", POWER_OF_TWO, (1, 1)), Case("32 devices", POWER_OF_TWO, (2, 2, 8))),
    ("1 and 64 windows", Case("1 window", POWER_OF_TWO, (2, 1)),
     Case("64 windows", POWER_OF_TWO, (2, 1), windows=64)),
    ("0 and 3 switch levels", Case("no switch", POWER_OF_TWO, (2, 4)),
     Case("3 switch levels", POWER_OF_TWO, (1, 1, 2, 2, 2))),
)  # fmt: skip


def topology(case: Case) -> Topology:
    """Committed devices of 1 GiB; further windows, of 1 GiB each, hang below the first."""
    plan = Blueprint()
    for n in range(case.levels[0]):
        plan.bridges.append(BridgePlan(f"hb{n}", n, 32))
        _below(plan, f"hb{n}", case.levels[1:])
    targets = tuple(b.name for b in plan.bridges)
    size = max(len(plan.devices), 16 if case.windows == 1 else 2) * GIB
    first = WindowPlan("window0", BASE, size, 256, targets, case.maps)
    plan.windows = [first] + [
        replace(first, name=f"window{n}", base=BASE + size + (n << 34), size=GIB) for n in range(1, case.windows)]
    topo = Topology(plan)
    topo.commit(0)
    return topo


def _below(plan: Blueprint, parent: str, levels: tuple[int, ...]) -> None:
    for n in range(levels[0]):
        port = f"{parent}.{n}"
        plan.ports.append(PortPlan(port, parent, n))
        if len(levels) == 1:
            plan.devices.append(DevicePlan(f"m{port}", port, Backing(f"b{port}", GIB), decoders=32))
        else:
            plan.switches.append(SwitchPlan(f"s{port}", port, 32))
            _below(plan, f"s{port}", levels[1:])


class Subject:
    """One machine, random addresses of its first region, and every way to translate them."""

    def __init__(self, case: Case, loops: Loops, count: int, repeats: int) -> None:
        self.topo, self._loops, self._case, self.count, self._repeats = topology(case), loops, case, count, repeats
        region = self.topo.regions["region0"]
        rng = np.random.default_rng(1)
        self.hpas = rng.integers(0, region.size, count).astype(np.uint64) + np.uint64(region.base)
        self.rows = self.topo.decode_many(self.hpas)
        self._questions, self._answers = np.tile(self.hpas, 2), np.zeros(2 * count, np.uint64)
        self._region = self._setup(region)

    def _setup(self, region: Any) -> list[int]:
        """`struct region` of decode.c, the devices in the order of the loop's own index."""
        numbers = [0] * 16
        ways = region.ways
        for chunk in range(64 * ways):
            hpa = region.base + chunk * 256
            if self._case.kind == PARITY:
                index = sum(((hpa & m).bit_count() & 1) << i for i, m in enumerate(MAPS))
            else:
                index = chunk % ways
            numbers[index] = self.topo.devices[self.topo.decode(hpa).device].number  # type: ignore[union-attr]
        power = (ways & -ways).bit_length() - 1
        packed = [int.from_bytes(bytes(numbers[i : i + 8]), "little") for i in (0, 8)]
        return [self._case.kind, region.base, region.size, 8, power, *MAPS, *packed]

    def ours(self, function: str) -> Any:
        handle = self.topo._batch_locator()._handle
        return self._run(function, [int(ffi.cast("uintptr_t", handle))])

    def loop(self, prefix: str = "") -> Any:
        return self._run(f"{prefix}formula", self._region)

    def _run(self, function: str, setup: list[int]) -> Any:
        """Bound to run `repeats` times, after its answers were compared with those of the levels."""
        once = self._loops.bind(function, setup, self._questions, self._answers)
        self._answers[:] = 0
        once()
        expected = np.concatenate([self.rows["dpa"], self.rows["device"].astype(np.uint64)])
        if function == "ours_many":
            expected = self.rows.view(np.uint64)
        expect(f"{self._case.name}, {function}", self._questions, self._answers, expected)
        address = self._loops.address(function)
        return self._loops.bind("repeated", [address, self._repeats, *setup], self._questions, self._answers)

    def decode_many(self) -> None:
        self.topo.decode_many(self.hpas, self.rows)


def rows(bench: Bench) -> Iterator[Row]:
    loops = Loops("decode", f"-I{Path(__file__).parents[2] / 'csrc'}")
    vectors, repeats = _has_vectors(), bench.items(REPEATS)
    for case in CASES:
        yield from _case(bench, Subject(case, loops, SMALL, repeats), case, vectors)
    for name, little, much in FLAT:
        pair = [Subject(case, loops, SMALL, repeats) for case in (little, much)]
        times = bench.times({"little": pair[0].ours("ours_one"), "much": pair[1].ours("ours_one")}, SMALL * repeats)
        yield bench.row(f"one translation, {name}", times["much"], little.name, times["little"], FLAT_LIMIT)
    if vectors:
        count = max(64, bench.items(LARGE) // 64 * 64)  # the vector loop has no tail
        yield _numpy(bench, Subject(CASES[0], loops, count, 1))
    yield _compile(bench)


def _case(bench: Bench, subject: Subject, case: Case, vectors: bool) -> Iterator[Row]:
    runs = {"one": subject.ours("ours_one"), "many": subject.ours("ours_many"), "loop": subject.loop()}
    if vectors:
        runs["vectors"] = subject.loop("vector_")
    times = bench.times(runs, subject.count * bench.items(REPEATS))
    plain, batch = "one region's formula", f"batch of {SMALL}, {case.name}"
    yield bench.row(f"one translation, {case.name}", times["one"], plain, times["loop"], SINGLE_LIMIT)
    if vectors:
        yield bench.row(batch, times["many"], "the formula, AVX-512", times["vectors"], BATCH_LIMIT)
    yield bench.row(batch, times["many"], plain, times["loop"], PORTABLE_LIMIT if vectors else None)


def _numpy(bench: Bench, subject: Subject) -> Row:
    times = bench.times({"ours": subject.decode_many, "formula": subject.loop("vector_")}, subject.count)
    name = f"Topology.decode_many of {subject.count:,}, {CASES[0].name}"
    return bench.row(name[:52], times["ours"], "the formula, AVX-512", times["formula"], BATCH_LIMIT)


def _has_vectors() -> bool:
    """What the library asks of a CPU before it uses them (csrc/locate_avx512.c)."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split())
    except OSError:
        return False
    return {"avx512f", "avx512vl", "avx512dq", "avx512ifma", "avx512_vpopcntdq"} <= flags


def _compile(bench: Bench) -> Row:
    topo = topology(Case("", POWER_OF_TWO, (4, 2, 4)))
    window = topo.windows[0]
    below = nodes_below(window)
    taken = []
    for _ in range(max(3, bench.items(50))):
        start = time.thread_time_ns()
        compile_route(window, below)
        taken.append(time.thread_time_ns() - start)
    return bench.row("routes of 32 devices compiled", sorted(taken)[len(taken) // 2], "1 ms", COMPILE_NS, 1.0)
