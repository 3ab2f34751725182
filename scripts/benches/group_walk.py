"""x86-64 4-level walks at random over 65,536 scattered pages: in batches, and one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mmu import Access, x86
from mmu.core import ffi, lib
from mmu.x86.native import c_registers
from scripts.benches import peers
from scripts.benches.harness import Bench, Row, expect
from scripts.benches.image import FAULT, Image, build, registers
from scripts.benches.machine import WINDOW, Machine, machine
from scripts.benches.native import Loops, accepts

CHECKED = 10_000  # addresses, a fifth of them faults
CALLS = 20_000
MEMORY = 1 << 20
AIM_NS = 1000
BATCH = "batch, tables in RAM"
FULL = "full checks, inline RAM test"
ONE = "one x86.walk call from Python, no steps"


class Walks:
    """One image on the machine: our batch walk and the reference loops over the same addresses."""

    def __init__(self, m: Machine, loops: Loops, image: Image, count: int) -> None:
        m.fill(image.addresses, image.tables)
        self.space, self.ram, self.image, self.regs = m.space, m.ram, image, registers(image)
        self._loops = loops
        self._setup = m.setup(image.root)
        self.va, self.pa = image.questions(count)
        self._out: Any = None
        self._answers = np.zeros(count, np.uint64)

    def ours(self) -> None:
        self._out = x86.walk_many(self.space, self.regs, self.va, Access.READ, out=self._out)

    def loop(self, function: str, loops: Loops | None = None) -> Any:
        return (loops or self._loops).bind(function, self._setup, self.va, self._answers)

    def ours_from_c(self) -> Any:
        where = (ffi.addressof(lib, "mmu_x86_walk"), self.space.port, c_registers(self.regs))
        setup = [*(int(ffi.cast("uintptr_t", p)) for p in where), int(Access.READ)]
        return self._loops.bind("one_by_one", setup, self.va, self._answers)

    def check(self, *functions: str) -> None:
        """Raise WrongAnswer unless ours and the loops are right about every address, and ours about faults too."""
        va, pa = self.image.with_faults(CHECKED)
        got = x86.walk_many(self.space, self.regs, va, Access.READ)
        expect("walk_many, with faults", va, np.where(got["status"] == 0, got["pa"], np.uint64(FAULT)), pa)
        self.ours()
        expect("walk_many", self.va, np.where(self._out["status"] == 0, self._out["pa"], np.uint64(FAULT)), self.pa)
        for what, run in (("mmu_x86_walk", self.ours_from_c()), *((f, self.loop(f)) for f in functions)):
            run()
            expect(what, self.va, self._answers, self.pa)


def rows(bench: Bench) -> Iterator[Row]:
    m, loops = machine(), Loops("walk")
    count = bench.items(10_000_000)
    yield from in_ram(bench, m, loops, count)
    yield from in_window(bench, m, loops, count)


def in_ram(bench: Bench, m: Machine, loops: Loops, count: int) -> Iterator[Row]:
    walks = Walks(m, loops, build(), count)
    walks.check("ram_full", "ram_in_flight")
    runs = {
        "ours": walks.ours, "full": walks.loop("ram_full"), "floor": walks.loop("ram_in_flight"),
        "from C": walks.ours_from_c(),
    }  # fmt: skip
    if accepts("-march=native"):
        runs["native"] = walks.loop("ram_full", Loops("walk", "-march=native"))
    times = bench.times(runs, count)
    yield bench.row(BATCH, times["ours"], FULL, times["full"], 1.0)
    yield bench.row("one mmu_x86_walk call from C", times["from C"], FULL, times["full"])
    if "native" in times:
        yield bench.row(BATCH, times["ours"], "same, -march=native", times["native"])
    yield bench.row(BATCH, times["ours"], "32 in flight, present and size only", times["floor"])
    yield bench.memory_row("batch, memory beyond the in and out arrays", walks.ours, MEMORY)
    one = one_by_one(bench, walks)
    yield bench.row(ONE, one, "aim", AIM_NS)
    yield from peers.rows(bench, walks, (BATCH, times["ours"]), (ONE, one))


def in_window(bench: Bench, m: Machine, loops: Loops, count: int) -> Iterator[Row]:
    walks = Walks(m, loops, build(WINDOW), count)
    walks.check("window_full")
    times = bench.times({
        "ours": walks.ours, "full": walks.loop("window_full"), "from C": walks.ours_from_c()}, count)  # fmt: skip
    against = "full checks, bus, window first", times["full"]
    yield bench.row("batch, every entry in a 4-way window", times["ours"], *against, 1.5)
    yield bench.row("one mmu_x86_walk call from C, same window", times["from C"], *against)


def one_by_one(bench: Bench, walks: Walks) -> float:
    """ns for a call."""
    space, regs, read, walk = walks.space, walks.regs, Access.READ, x86.walk
    vas = walks.va[:CALLS].tolist()

    def calls() -> None:
        for va in vas:
            walk(space, regs, va, read, steps=False)

    return bench.times({"ours": calls}, CALLS)["ours"]
