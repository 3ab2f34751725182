"""Every mapping of an x86-64 address space: 65,536 pages next to each other, and scattered ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmu import x86
from scripts.benches.harness import Bench, Row, expect
from scripts.benches.image import Image, build, dense, registers
from scripts.benches.machine import Machine, machine
from scripts.benches.native import Loops

MAPPING_NS = 20


def rows(bench: Bench) -> Iterator[Row]:
    m, loops = machine(), Loops("walk")
    name, ours, loop = scan(bench, m, loops, "pages next to each other", dense())
    yield bench.row(name, ours, "20 ns a mapping", MAPPING_NS, 1.0)
    yield bench.row(name, ours, "recursion over the tables", loop)
    name, ours, loop = scan(bench, m, loops, "scattered pages", build())
    yield bench.row(name, ours, "recursion over the tables", loop)


def scan(bench: Bench, m: Machine, loops: Loops, what: str, image: Image) -> tuple[str, float, float]:
    """(name, our ns, the loop's ns) for one mapping of *image*. The name says how many entries a mapping costs."""
    m.fill(image.addresses, image.tables)
    regs = registers(image)
    words = np.zeros(2 * image.mappings, np.uint64)
    loop = loops.bind("ram_enumerate", m.setup(image.root), words, words)
    va, pa = image.sorted()
    found = x86.scan(m.space, regs)
    loop()
    for who, vas, pas in (("scan", found["va"], found["pa"]), ("reference recursion", words[::2], words[1::2])):
        expect(f"{who}, virtual address, {what}", np.arange(len(va)), vas, va)
        expect(f"{who}, physical address, {what}", va, pas, pa)
    times = bench.times({"ours": lambda: x86.scan(m.space, regs), "loop": loop}, image.mappings)
    entries = image.tables.size / image.mappings
    return f"{image.mappings:,} {what}, {entries:.1f} entries each", times["ours"], times["loop"]
