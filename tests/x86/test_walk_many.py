"""Batches: each answer is that of `x86.walk`, and what the batch leaves in memory is what the walks would."""

import random
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmu import Access, AddressSpace, Alias, Fault, Mmio, Ram, x86
from mmu.x86.native import result_type
from tests.x86.images import ACCESSES, GUESTS, STAGE2, Image, address, registers, stage2

relaxed = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
seeds = st.integers(0, 2**32 - 1)
CR0, CR4, EFER = 0x80010033, 0x6A0, 0xD01
P, RW, US, A, D, PS = 1, 2, 4, 32, 64, 128


def one_by_one(image, regs, vas, access, update):
    out = np.zeros(len(vas), result_type())
    for i, va in enumerate(vas):
        answer = x86.walk(image.space, regs, int(va), access, update=update, steps=False)
        if isinstance(answer, Fault):
            event = x86.exception(answer, regs)
            codes = (getattr(event, name, None) for name in ("error_code", "exit_info_1", "qualification"))
            out[i] = (0, 0, answer.kind, next((code for code in codes if code is not None), 0))
        else:
            out[i] = (answer.pa, answer.page_size, 0, 0)
    return out


def check_batch(seed, guest, nested, update, plain, ways=0):
    images = [Image(seed, guest, nested, plain=plain, tidy=True, ways=ways) for _ in range(2)]
    r = random.Random(seed)
    for _ in range(3):
        regs = registers(r, guest, stage2(r, nested))
        vas = np.array([address(r, guest) for _ in range(r.choice((1, 31, 32, 33, 100)))], np.uint64)
        access = r.choice(ACCESSES)
        for _ in range(2):  # the second time nothing is left to update
            expected = one_by_one(images[0], regs, vas, access, update)
            actual = x86.walk_many(images[1].space, regs, vas, access, update=update)
            np.testing.assert_array_equal(expected, actual)
    assert images[0].space.traffic() == images[1].space.traffic()
    assert images[0].memory() == images[1].memory()


@pytest.mark.parametrize("guest", GUESTS)
@relaxed
@given(seed=seeds, update=st.booleans(), plain=st.booleans())
def test_a_batch_answers_as_single_walks_do(guest, seed, update, plain):
    check_batch(seed, guest, "none", update, plain)


@relaxed
@given(seed=seeds, guest=st.sampled_from(list(GUESTS)), nested=st.sampled_from(list(STAGE2)), plain=st.booleans())
def test_a_batch_behind_stage_2_answers_as_single_walks_do(seed, guest, nested, plain):
    check_batch(seed, guest, nested, True, plain)


@relaxed
@given(seed=seeds, guest=st.sampled_from(["4-level", "5-level", "pae", "32-bit"]), ways=st.sampled_from([1, 2, 4]))
def test_a_batch_through_a_window_reads_each_device_as_single_walks_do(seed, guest, ways):
    check_batch(seed, guest, "none", True, True, ways)


def numpy_walk(memory, cr3, vas, write, user):
    """4-level walks, a level at a time, over an image of RAM: (pa, granted). Knows no reserved bits and no XD."""
    words = np.frombuffer(memory, np.uint64)
    u = np.uint64
    table, rights = np.full(len(vas), cr3, u), np.full(len(vas), P | RW | US, u)
    pa, open_ = np.zeros(len(vas), u), np.ones(len(vas), bool)
    for shift in (39, 30, 21, 12):
        entry = words[((table + (vas >> u(shift) & u(511)) * u(8)) >> u(3)) % u(len(words))]
        rights = np.where(open_, rights & entry, rights)
        leaf = open_ & ((entry & u(PS) != 0) & (shift in (30, 21)) | (shift == 12))
        size = u((1 << shift) - 1)
        pa = np.where(leaf, entry & u(0xFFFFFFFFFF000) & ~size | vas & size, pa)
        open_ &= ~leaf
        table = entry & u(0xFFFFFFFFFF000)
    good = (rights & u(P) != 0) & (not write or rights & u(RW) != 0) & (not user or rights & u(US) != 0)
    return np.where(good, pa, u(0)), good


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("user", [False, True])
def test_a_batch_over_ram_agrees_with_a_walk_in_numpy(write, user):
    rng = np.random.default_rng(20)
    frames = 256
    words = rng.integers(1, frames, frames * 512, np.uint64) * np.uint64(4096) | np.uint64(P | RW | US | A | D)
    words ^= (rng.integers(0, 8, len(words)) == 0) * rng.choice(np.array([P, RW, US, 0], np.uint64), len(words))
    large = rng.integers(0, 20, len(words)) == 0
    words[large] = words[large] & np.uint64(0x1FF) | np.uint64(PS)
    words[:512] &= ~np.uint64(PS)  # the PML4: bit 7 is reserved there
    vas = rng.integers(0, 1 << 47, 20_000, np.uint64)
    space = AddressSpace()
    space.map(0, Ram(frames * 4096))
    space.write(0, words.tobytes())
    regs = x86.Registers(CR0, 0, CR4, EFER, cpl=3 if user else 0)
    out = x86.walk_many(space, regs, vas, Access.WRITE if write else Access.READ)
    pa, good = numpy_walk(words.tobytes(), 0, vas, write, user)
    assert 0.2 < good.mean() < 0.9
    np.testing.assert_array_equal(good, out["status"] == 0)
    np.testing.assert_array_equal(pa, out["pa"])


@pytest.fixture
def small():
    """Low 2 MiB mapped to themselves."""
    space = AddressSpace()
    space.map(0, Ram(1 << 20))
    for table, entry in ((0x1000, 0x2000 | P | RW), (0x2000, 0x3000 | P | RW), (0x3000, PS | P | RW)):
        space.write(table, entry.to_bytes(8, "little"))
    return space, x86.Registers(CR0, 0x1000, CR4, EFER)


def test_out_is_filled_and_returned(small):
    space, regs = small
    vas = np.arange(0, 6 << 12, 1 << 12, np.uint64).reshape(2, 3)
    out = np.zeros((2, 3), result_type())
    assert x86.walk_many(space, regs, vas, Access.READ, out) is out
    np.testing.assert_array_equal(vas, out["pa"])
    assert (out["page_size"] == 2 << 20).all()


def test_tables_right_behind_ram_are_read_through_the_bus():
    """The page table begins where RAM ends: a device gives its entries, not the host memory that comes next."""
    ram, space = Ram(1 << 20), AddressSpace()
    space.map(0, ram)
    for table, below in ((0x1000, 0x2000), (0x2000, 0x3000), (0x3000, 0x8000)):
        space.write(table, (below | P | RW | A).to_bytes(8, "little"))
    space.write(0x8000, (0x6000 | P | A).to_bytes(8, "little") * 512)
    space.unmap(ram)
    space.map(0, Alias(ram, 0, 0x8000))
    space.map(0x8000, Mmio(4096, lambda offset, size: 0x7000 | P | A))
    regs = x86.Registers(CR0, 0x1000, CR4, EFER)
    out = x86.walk_many(space, regs, np.arange(0, 64 << 12, 1 << 12, np.uint64), Access.READ)
    assert set(out["pa"]) == {0x7000}


def test_no_addresses_are_no_walks(small):
    space, regs = small
    with space.trace() as trace:
        assert x86.walk_many(space, regs, np.zeros(0, np.uint64), Access.READ).shape == (0,)
    assert trace == []


def test_a_strided_array_is_read_as_it_looks(small):
    space, regs = small
    vas = np.arange(0, 1 << 16, 1 << 8, np.uint64)[::7]
    np.testing.assert_array_equal(vas, x86.walk_many(space, regs, vas, Access.READ)["pa"])


@pytest.mark.parametrize(
    ("vas", "out", "message"),
    [
        (np.array([-1]), None, "vas must be numbers in 0..0xffffffffffffffff"),
        (np.array([1.5]), None, "not an array of float64"),
        (np.zeros(2, np.uint64), np.zeros(3, result_type()), r"shape \(2,\), not of .* and \(3,\)"),
        (np.zeros(2, np.uint64), np.zeros(2, np.uint64), "out must be a writeable contiguous array"),
        (np.zeros(2, np.uint64), np.zeros(4, result_type())[::2], "out must be a writeable contiguous array"),
    ],
)
def test_walk_many_wrong_arrays(small, vas, out, message):
    space, regs = small
    with pytest.raises(ValueError, match=message):
        x86.walk_many(space, regs, vas, Access.READ, out)


def test_walk_many_wrong_access(small):
    space, regs = small
    with pytest.raises(ValueError, match="exactly one of READ, WRITE and FETCH"):
        x86.walk_many(space, regs, np.zeros(2, np.uint64), Access.READ | Access.WRITE)


def test_what_a_device_raises_comes_out_of_the_batch():
    def broken(offset, size):
        raise KeyError("table")

    space = AddressSpace()
    space.map(0, Mmio(0x10000, broken))
    with pytest.raises(KeyError, match="table"):
        x86.walk_many(space, x86.Registers(CR0, 0x1000, CR4, EFER), np.zeros(64, np.uint64), Access.READ)


def test_other_threads_run_during_a_batch(small):
    """Python code of another thread goes on while a long batch is in C."""
    space, regs = small
    vas = np.zeros(3_000_000, np.uint64)
    started, counted = threading.Event(), 0

    def batch():
        started.set()
        x86.walk_many(space, regs, vas, Access.READ)

    thread = threading.Thread(target=batch)
    thread.start()
    started.wait()
    while thread.is_alive():
        counted += 1
    assert counted > 100
