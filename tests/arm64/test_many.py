"""walk_many gives for every address what walk gives, whichever way its addresses go."""

import threading
from random import Random

import numpy as np
import pytest

from mmu import AddressSpace, HostMemory, Mmio, Ram, Striped, Target, arm64
from mmu.arm64.many import RESULT
from mmu.stripes import Route, Slot, Span
from mmu.types import Access, Fault
from tests.arm64 import soup
from tests.pagetables import AF, TABLE, VALID

EACH = Access.READ, Access.WRITE, Access.FETCH, Access.READ | Access.UNPRIVILEGED


def one_by_one(space, regs, vas, access, update):
    rows = np.zeros(len(vas), RESULT)
    for row, va in zip(rows, vas.tolist()):
        found = arm64.walk(space, regs, va, access, engine="reference", update=update, steps=False)
        if isinstance(found, Fault):
            row["status"], row["esr"] = found.kind, arm64.exception(found, regs).esr
        else:
            row["pa"], row["page_size"] = found.pa, found.page_size
    return rows


def addresses(rng, count):
    return np.array([soup.address(rng) for _ in range(count)], np.uint64)


@pytest.mark.parametrize("seed", range(24))
def test_batch_gives_what_single_walks_give(seed):
    rng = Random(seed)
    big_endian, count = seed % 8 == 7, rng.choice((1, 63, 64, 65, 255, 256, 400))
    contents = soup.fill(seed % 4, bool(seed % 2), big_endian)
    many, single = soup.Bowl(contents), soup.Bowl(contents)
    for access in EACH:
        regs, vas = soup.registers(rng, big_endian), addresses(rng, count)
        expected = one_by_one(single.space, regs, vas, access, update=False)
        assert expected.tolist() == arm64.walk_many(many.space, regs, vas, access, update=False).tolist()
    assert contents == many.contents()[0][: len(contents)]


@pytest.mark.parametrize("seed", range(12))
def test_batch_updates_descriptors_as_single_walks_do(seed):
    """AF and dirty state: the outcome does not depend on the order, for updates of soup only ever widen rights."""
    rng = Random(1000 + seed)
    contents = soup.fill(seed % 4, True, False)
    many, single = soup.Bowl(contents), soup.Bowl(contents)
    regs = soup.registers(rng)
    tcr = regs.tcr_el1 | 3 << 39  # HA, HD
    regs = arm64.Registers(sctlr_el1=1, tcr_el1=tcr, ttbr0_el1=regs.ttbr0_el1, ttbr1_el1=regs.ttbr1_el1, pa_range=52)
    vas = addresses(rng, 400)
    one_by_one(single.space, regs, vas, Access.WRITE, update=True)
    arm64.walk_many(many.space, regs, vas, Access.WRITE)
    assert single.contents() == many.contents()
    assert contents != many.contents()[0]


def linear(space, base=0x10000, flags=AF):
    """Maps VA 2 MiB .. 4 MiB - 1 to itself by pages; returns the registers (3 levels)."""
    space.write(base, (base + 0x1000 | VALID | TABLE).to_bytes(8, "little"))
    space.write(base + 0x1008, (base + 0x2000 | VALID | TABLE).to_bytes(8, "little"))
    pages = (np.arange(512, dtype=np.uint64) + np.uint64(512)) << np.uint64(12) | np.uint64(VALID | TABLE | flags)
    space.write(base + 0x2000, pages.tobytes())
    return arm64.Registers(sctlr_el1=1, tcr_el1=25 | 1 << 23 | 5 << 32, ttbr0_el1=base)


def soup_in_a_window(contents):
    """The first half of *contents* behind a 2-way window whose last 64 KiB nothing decodes; RAM after it."""
    half = soup.SIZE // 2
    targets = [Target(f"mem{n}", HostMemory(half)) for n in range(2)]
    space, window = AddressSpace(), Striped(half, 0, targets)
    slots = tuple(Slot(n, 0, 0, 2, 256) for n in range(2))
    window.set_route(Route((Span(0, half - 0x1_0001, 8, 1, 256, slots),)))
    space.map(0, window)
    space.map(half, Ram(half))
    space.write(0, contents)
    return space


@pytest.mark.parametrize("seed", range(8))
def test_batch_over_tables_in_a_window_reads_each_entry_as_often_as_single_walks_do(seed):
    """Traffic of the devices; entries that the batch cannot judge at once, absent ones among them, count once."""
    rng, contents = Random(2000 + seed), soup.fill(seed % 4, True, False)
    single, many = soup_in_a_window(contents), soup_in_a_window(contents)
    for _ in range(4):
        regs = soup.registers(rng)
        regs = arm64.Registers(sctlr_el1=1, tcr_el1=regs.tcr_el1, ttbr0_el1=regs.ttbr0_el1, ttbr1_el1=regs.ttbr1_el1)
        vas = addresses(rng, 300)
        expected = one_by_one(single, regs, vas, Access.READ, update=False)
        assert expected.tolist() == arm64.walk_many(many, regs, vas, Access.READ, update=False).tolist()
        assert single.traffic() == many.traffic()
    assert all(t.reads > 100 for t in many.traffic().values())


def test_out_is_filled_and_returned():
    space = AddressSpace()
    space.map(0, Ram(1 << 22))
    regs = linear(space)
    vas = np.arange(0x20_0000, 0x20_0000 + 600 * 8, 8, dtype=np.uint64)
    out = np.zeros(600, arm64.result_type())
    assert arm64.walk_many(space, regs, vas, Access.READ, out=out) is out
    assert vas.tolist() == out["pa"].tolist()
    assert {4096} == set(out["page_size"].tolist())
    assert not out["status"].any() and not out["error_code"].any()


@pytest.mark.parametrize("wrong", [np.array([0, -1]), np.zeros(2), [1.5], np.array(["1"])])
def test_walk_many_wrong_addresses(wrong):
    with pytest.raises(ValueError, match="vas must be numbers in 0"):
        arm64.walk_many(AddressSpace(), arm64.Registers(), wrong, Access.READ)


@pytest.mark.parametrize("wrong", [np.zeros(2, RESULT), np.zeros(3, np.uint64), np.zeros(6, RESULT)[::2]])
def test_walk_many_wrong_out(wrong):
    with pytest.raises(ValueError, match="out must be a writeable contiguous array"):
        arm64.walk_many(AddressSpace(), arm64.Registers(), np.zeros(3, np.uint64), Access.READ, out=wrong)


def test_addresses_of_any_shape_and_integer_type():
    space = AddressSpace()
    space.map(0, Ram(1 << 22))
    vas = [[0x20_0001, 0x20_1002], [0x3F_F003, 0x20_0004]]
    for kind in (np.int64, np.uint32, np.uint64):
        assert arm64.walk_many(space, linear(space), np.array(vas, kind), Access.READ)["pa"].tolist() == vas
    assert arm64.walk_many(space, linear(space), np.array([], np.uint64), Access.READ).tolist() == []


def test_walk_many_wrong_access():
    with pytest.raises(ValueError, match="access must be READ, WRITE or FETCH"):
        arm64.walk_many(AddressSpace(), arm64.Registers(), np.zeros(3, np.uint64), Access.READ | Access.WRITE)


def test_error_in_a_device_comes_out_of_the_batch():
    def fails(offset, size):
        raise KeyError("device")

    space = AddressSpace()
    space.map(0, Ram(1 << 16))
    space.map(1 << 16, Mmio(1 << 16, fails))
    regs = arm64.Registers(sctlr_el1=1, tcr_el1=25 | 1 << 23 | 5 << 32, ttbr0_el1=1 << 16)
    with pytest.raises(KeyError, match="device"):
        arm64.walk_many(space, regs, np.zeros(300, np.uint64), Access.READ)


def test_device_is_read_once_for_each_address():
    reads = []
    space = AddressSpace()
    space.map(0, Ram(1 << 16))
    space.map(1 << 16, Mmio(1 << 12, lambda o, s: reads.append((o, s)) or (0x703 | o << 9)))
    space.write(0x1000, (0x2003).to_bytes(8, "little"))
    space.write(0x2000, (0x1_0003).to_bytes(8, "little"))
    regs = arm64.Registers(sctlr_el1=1, tcr_el1=25 | 1 << 23 | 5 << 32, ttbr0_el1=0x1000)
    vas = np.arange(300, dtype=np.uint64) << np.uint64(12)
    found = arm64.walk_many(space, regs, vas, Access.READ)
    assert vas.tolist() == found["pa"].tolist()
    assert [(8 * i, 8) for i in range(300)] == sorted(reads)


def test_batches_of_threads_do_not_disturb_each_other():
    space = AddressSpace()
    space.map(0, Ram(1 << 22))
    regs = linear(space)
    vas = np.arange(0x20_0000, 0x40_0000, 16, dtype=np.uint64)
    found = {}

    def work(number):
        found[number] = arm64.walk_many(space, regs, vas + np.uint64(number), Access.READ)["pa"] - np.uint64(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all((found[n] == vas).all() for n in range(4))
