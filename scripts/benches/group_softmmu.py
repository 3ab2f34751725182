"""Loads and stores of 8 bytes at random virtual addresses through a TLB with every page: of RAM, of a 4-way window."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mmu import Frames, SoftMmu, x86
from mmu.core import ffi
from scripts.benches.harness import Bench, Row, expect
from scripts.benches.machine import GRANULARITY, WAYS, WINDOW, Machine, machine, own_addresses
from scripts.benches.mirrored import while_mirrored
from scripts.benches.native import Loops

PAGE, MIB = 4096, 1 << 20
TABLES = 64 * MIB
VIRTUAL = 0x7000_0000_0000
CR0, PAE, EFER = 0x8001_0001, 1 << 5, 0xD00
CALLS = 20_000
SHIFTS = (GRANULARITY.bit_length() - 1, WAYS.bit_length() - 1)
# (memory touched, entries, whether the limits hold): as in the group bus; and what the second-level cache holds, where
# a loop waits for nothing and every instruction of a lookup shows
SIZES = ((16 * MIB, 4096, True), (MIB, 256, False))


class Pages:
    """*size* bytes of *base* in pages of 4 KiB at VIRTUAL, all of them in the TLB, and random addresses in them."""

    def __init__(self, m: Machine, base: int, size: int, entries: int, count: int) -> None:
        own_addresses(m, base, size)
        tables = x86.PageTables(m.space, Frames(TABLES, TABLES + 16 * MIB - 1))
        tables.map(VIRTUAL, base, size, page_size=PAGE, dirty=1, accessed=1)
        regs = x86.Registers(cr0=CR0, cr3=tables.root, cr4=PAE, efer=EFER)
        self.tlb, self.size = SoftMmu(m.space, regs, entries), size
        words = np.random.default_rng(1).integers(0, size // 8, count).astype(np.uint64)
        self.va = np.uint64(VIRTUAL) + words * np.uint64(8)
        self.expected = self.va - np.uint64(VIRTUAL) + np.uint64(base)
        self.out = np.zeros(count, np.uint64)
        for va in range(VIRTUAL, VIRTUAL + size, PAGE):
            self.tlb.write(va, self.tlb.read(va, 8))

    def load(self) -> None:
        self.tlb.load_many(self.va, 8, out=self.out)

    def store(self) -> None:
        self.tlb.store_many(self.va, self.expected)

    def check(self, what: str, run: Any) -> None:
        self.out[:] = 0
        run()
        expect(what, self.va, self.out, self.expected)


def rows(bench: Bench) -> Iterator[Row]:
    m, loops, count = machine(), Loops("softmmu"), bench.items(4_000_000)
    for size, entries, limited in SIZES:
        name = f"{size // MIB} MiB, {entries} entries"
        yield from ram(bench, m, loops, Pages(m, 0, size, entries, count), name, 1.5 if limited else None)
        yield from window(bench, m, loops, Pages(m, WINDOW, size, entries, count), name, 2.0 if limited else None)
    rows: list[Row] = []
    while_mirrored(m, 16 * MIB, lambda: rows.append(mirrored(bench, m, loops, count)))
    yield from rows
    yield from others(bench, m, count)


def mirrored(bench: Bench, m: Machine, loops: Loops, count: int) -> Row:
    """A guest has the window in its mirror, page after page, so it is RAM for the TLB too."""
    pages = Pages(m, WINDOW, 16 * MIB, 4096, count)
    mirror = int(ffi.cast("uintptr_t", m.space.mirror().address))
    gather = loops.bind("gather", [VIRTUAL, mirror], pages.va, pages.out)
    for what, run in {"load": pages.load, "gather": gather}.items():
        pages.check(f"mirrored, {what}", run)
    all_hit(pages, pages.load, "mirrored")
    times = bench.times({"load": pages.load, "gather": gather}, len(pages.va))
    return bench.row("load_many, hits in a mirrored window, 16 MiB, 4096 entries", times["load"],
                     "plain gather loop", times["gather"], 1.5)


def all_hit(pages: Pages, run: Any, what: str) -> None:
    misses = pages.tlb.stats.misses
    run()
    expect(f"{what}: misses", [0], [pages.tlb.stats.misses - misses], [0])


def ram(
    bench: Bench, m: Machine, loops: Loops, pages: Pages, name: str, limit: float | None
) -> Iterator[Row]:  # fmt: skip
    setup = [VIRTUAL, m.ram]
    runs = {"load": pages.load, "gather": loops.bind("gather", setup, pages.va, pages.out)}
    for what, run in runs.items():
        pages.check(f"{name}, {what}", run)
    all_hit(pages, pages.load, name)
    runs |= {"store": pages.store, "scatter": loops.bind("scatter", setup, pages.va, pages.expected)}
    times = bench.times(runs, len(pages.va))
    yield bench.row(f"load_many, hits in RAM, {name}", times["load"], "plain gather loop", times["gather"], limit)
    yield bench.row(f"store_many, hits in RAM, {name}", times["store"], "plain scatter loop", times["scatter"])
    all_hit(pages, pages.store, name)


def window(
    bench: Bench, m: Machine, loops: Loops, pages: Pages, name: str, limit: float | None
) -> Iterator[Row]:  # fmt: skip
    route = loops.bind("route", [VIRTUAL, pages.size, *SHIFTS, *m.devices], pages.va, pages.out)
    for what, run in {"load": pages.load, "route": route}.items():
        pages.check(f"{name}, window, {what}", run)
    all_hit(pages, pages.load, name)
    times = bench.times({"load": pages.load, "route": route}, len(pages.va))
    yield bench.row(f"load_many, exact window, {name}", times["load"], "flattened-route loop", times["route"], limit)


def others(bench: Bench, m: Machine, count: int) -> Iterator[Row]:
    """What has no loop to stand against: a batch that always misses, and one call from Python."""
    few = Pages(m, 0, 16 * MIB, 64, count // 8 or 1)
    few.check("misses", few.load)
    yield bench.row("load_many, 64 entries, 98 % misses", bench.times({"load": few.load}, len(few.va))["load"])
    vas = few.va[:CALLS].tolist()
    one = Pages(m, 0, 16 * MIB, 4096, 1)

    def calls() -> None:
        for va in vas:
            one.tlb.read(va, 8)

    yield bench.row("one read() of 8 bytes from Python", bench.times({"ours": calls}, len(vas))["ours"])
