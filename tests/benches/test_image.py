"""The tables that walks are measured on: deterministic, and with right answers."""

import numpy as np
import pytest

from mmu import Access, Translation, x86
from scripts.benches.image import FAULT, build, dense, registers
from scripts.benches.machine import WINDOW, machine
from scripts.benches.native import Loops

PAGES, COUNT = 2048, 5000


@pytest.fixture(scope="module")
def m():
    return machine()


@pytest.fixture(scope="module")
def loops():
    return Loops("walk")


def test_the_same_seed_gives_the_same_image():
    a, b, other = build(pages=PAGES), build(pages=PAGES), build(pages=PAGES, seed=9)
    assert np.array_equal(a.tables, b.tables)
    assert np.array_equal(a.questions(COUNT), b.questions(COUNT))
    assert not np.array_equal(a.tables, other.tables)


def test_an_image_has_pages_of_all_sizes_and_knows_how_many():
    image = build(pages=PAGES)
    assert [(shift, len(va)) for shift, va, _ in image.pages] == [(12, 2048), (21, 64), (30, 8)]
    assert image.mappings == 2048 + 64 + 8
    for _, va, _ in image.pages:
        assert len(set(va.tolist())) == len(va)


@pytest.mark.parametrize("pages", [256, 131072])
def test_pages_that_do_not_fit_are_refused(pages):
    with pytest.raises(ValueError, match=f"pages must be 512 .. 65536 .* not {pages}"):
        build(pages=pages)


@pytest.mark.parametrize(
    "loop, base",
    [("ram_full", 0), ("ram_full", WINDOW), ("window_full", 0), ("window_full", WINDOW), ("ram_in_flight", 0)])
def test_reference_loops_agree_with_the_answers(m, loops, loop, base):
    image = build(base, pages=PAGES)
    m.fill(image.addresses, image.tables)
    va, pa = image.questions(COUNT) if loop == "ram_in_flight" else image.with_faults(COUNT)
    out = np.zeros(COUNT, np.uint64)
    loops.bind(loop, m.setup(image.root), va, out)()
    assert np.array_equal(out, pa)
    assert (pa == FAULT).sum() == (0 if loop == "ram_in_flight" else COUNT // 5)


@pytest.mark.parametrize("image", [build(pages=PAGES), dense(1024)], ids=["scattered", "dense"])
def test_recursion_finds_every_page_in_order(m, loops, image):
    m.fill(image.addresses, image.tables)
    words = np.zeros(2 * image.mappings, np.uint64)
    loops.bind("ram_enumerate", m.setup(image.root), words, words)()
    va, pa = image.sorted()
    assert np.array_equal(words[::2], va)
    assert np.array_equal(words[1::2], pa)


@pytest.mark.parametrize("pages", [0, 1000, 512 * 513])
def test_dense_pages_fill_tables(pages):
    with pytest.raises(ValueError, match=f"multiple of 512 up to 262144, not {pages}"):
        dense(pages)


def test_the_reference_walker_agrees(m):
    image = build(pages=PAGES)
    m.fill(image.addresses, image.tables)
    regs = registers(image)
    for va, pa in zip(*(a.tolist() for a in image.with_faults(200))):
        answer = x86.walk(m.space, regs, va, Access.READ, engine="reference")
        assert pa == (answer.pa if isinstance(answer, Translation) else FAULT)
