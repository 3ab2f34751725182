"""The scan: against a plain recursion in Python, on tables made of bytes, and where tables are missing or endless."""

import random

import numpy as np
import pytest

from mmu import Access, AddressSpace, Frames, MemTxResult, Mmio, Ram, x86
from mmu.errors import BusError
from mmu.scan import Flag
from tests import pagetables as raw

K, M, G = 1 << 10, 1 << 20, 1 << 30
RWX = Flag.READ | Flag.WRITE | Flag.FETCH


@pytest.fixture
def space():
    space = AddressSpace()
    space.map(0, Ram(64 * M))
    return space


def registers(root, **more):
    return x86.Registers(**{"cr0": 0x80010001, "cr3": root, "cr4": 0x20, "efer": 0xD00, **more})


def plainly(image, table, levels=4, low=0, allowed=RWX | Flag.USER | Flag.USER_FETCH):
    """What the manual says of 4-level tables, as a recursion: (va, pa, size, flags)."""
    for index in range(512):
        entry = image.entry(table + index * 8)
        shift = 3 + 9 * levels
        va = low + (index << shift)
        if levels == 4 and index >= 256:
            va |= 0xFFFF << 48
        mine = Flag.READ | (Flag.WRITE if entry & raw.RW else 0) | (Flag.FETCH if not entry & raw.XD else 0)
        if entry & raw.US:
            mine |= Flag.USER | (Flag.USER_FETCH if not entry & raw.XD else 0)
        if not entry & raw.P:
            continue
        if levels == 1 or (levels < 4 and entry & raw.PS):
            for bit, flag in ((raw.G, Flag.GLOBAL), (raw.A, Flag.ACCESSED), (raw.D, Flag.DIRTY)):
                if entry & bit:
                    mine |= flag
            kept = mine & (allowed | Flag.GLOBAL | Flag.ACCESSED | Flag.DIRTY)
            yield va, entry & 0xF_FFFF_FFFF_F000 & -(1 << shift), 1 << shift, int(kept)
        else:
            yield from plainly(image, entry & 0xF_FFFF_FFFF_F000, levels - 1, va, allowed & mine)


@pytest.mark.parametrize("seed", range(12))
def test_random_tables_agree_with_a_plain_recursion(space, seed):
    rng = random.Random(seed)
    image = raw.Image(0x10_0000, {0x10_0000 + n * 4096: bytearray(4096) for n in range(16)})
    tables = list(image.pages)
    for level, mine in ((4, tables[:1]), (3, tables[1:4]), (2, tables[4:9]), (1, tables[9:])):
        below = {4: tables[1:4], 3: tables[4:9], 2: tables[9:], 1: []}[level]
        for table in mine:
            for _ in range(rng.choice([1, 3, 12])):
                bits = sum(rng.choice([0, bit]) for bit in (raw.RW, raw.US, raw.A, raw.XD, raw.PWT, 1 << 9))
                if level == 1 or (level < 4 and rng.random() < 0.3):
                    bits |= sum(rng.choice([0, bit]) for bit in (raw.D, raw.G)) | (raw.PS if level > 1 else 0)
                    target = rng.randrange(1 << 40) & -(1 << (3 + 9 * level))
                else:
                    target = rng.choice(below)
                index = rng.choice([0, 1, 255, 256, 511, rng.randrange(512)])
                image.set_entry(table + 8 * index, target | bits | raw.P)
    root = image.load(space)

    want = list(plainly(image, root))
    assert want == x86.scan(space, registers(root)).tolist()
    assert want == [r for b in x86.scan_batches(space, registers(root), batch=3) for r in b.tolist()]
    with space.trace():  # every entry an access of its own then
        assert want == x86.scan(space, registers(root)).tolist()


def test_every_page_found_is_what_the_walker_says(space):
    tables = x86.PageTables(space, Frames(0x10_0000, 0x1F_FFFF))
    tables.map(G - 4 * K, 0, 4 * M + 8 * K, user=True, writable=False)
    tables.map(0xFFFF_8000_0000_0000, 0x123000, 4 * K, executable=False, global_=True)
    regs = registers(tables.root)
    for va, pa, size, flags in tables.scan().tolist():
        answer = x86.walk(space, regs, va, Access.READ, update=False)
        rights = tuple(bool(flags & f) for f in (Flag.WRITE, Flag.USER, Flag.FETCH))
        assert (pa, size, rights) == (answer.pa, answer.page_size, (answer.writable, answer.user, answer.executable))


def test_merged_ranges(space):
    tables = x86.PageTables(space, Frames(0x10_0000, 0x1F_FFFF))
    tables.map(4 * K, 4 * K, 4 * M)
    tables.map(4 * M + 4 * K, 64 * M, 4 * K)
    tables.map(4 * M + 8 * K, 64 * M + 4 * K, 4 * K, writable=False)
    want = [(4 * K, 4 * K, 4 * M, RWX), (4 * M + 4 * K, 64 * M, 4 * K, RWX)]
    want += [(4 * M + 8 * K, 64 * M + 4 * K, 4 * K, RWX & ~Flag.WRITE)]
    assert want == tables.scan(merge=True).tolist()
    assert want == [r for b in tables.scan_batches(merge=True, batch=2) for r in b.tolist()]


def test_a_part_of_the_addresses(space):
    tables = x86.PageTables(space, Frames(0x10_0000, 0x1F_FFFF))
    tables.map(0, 0, 8 * M, page_size=4 * K)
    tables.map(8 * M, 8 * M, 2 * M)
    assert [(n * 4 * K, n * 4 * K, 4 * K, RWX) for n in range(1023, 1026)] == tables.scan(
        first=1023 * 4 * K + 5, last=1025 * 4 * K).tolist()
    assert tables.scan(first=9 * M).tolist() == [(8 * M, 8 * M, 2 * M, RWX)]  # the page of which a part is in it
    with pytest.raises(ValueError, match=r"within 0\.\.0xffffffffffff is wanted, not 0x5\.\.0x4"):
        tables.scan(first=5, last=4)


def test_pages_of_512_identical_entries(space):
    """One page of memory, mapped 512 * 512 times by one table that one directory names 512 times."""
    image = raw.x86([(0, 0x5000, 4 * K, raw.RW)], base=0x10_0000)
    directory, table = 0x10_2000, 0x10_3000
    for index in range(512):
        image.set_entry(directory + index * 8, table | raw.P | raw.RW)
        image.set_entry(table + index * 8, 0x5000 | raw.P | raw.RW)
    found = x86.scan(space, registers(image.load(space)))
    assert len(found) == 512 * 512
    assert np.array_equal(np.arange(512 * 512, dtype=np.uint64) << np.uint64(12), found["va"])
    assert {0x5000} == set(found["pa"].tolist())


def test_a_table_that_refers_to_itself_ends_with_the_levels(space):
    image = raw.Image(0x10_0000, {0x10_0000: bytearray(4096)})
    image.set_entry(0x10_0000 + 8 * 511, 0x10_0000 | raw.P | raw.RW)
    image.set_entry(0x10_0000 + 8 * 3, 0x10_0000 | raw.P | raw.RW)
    found = x86.scan(space, registers(image.load(space)))
    assert (16, {0x10_0000}, {4 * K}) == (len(found), set(found["pa"].tolist()), set(found["size"].tolist()))
    assert int(found["va"].max()) == 0xFFFF_FFFF_FFFF_F000


def test_a_whole_tree_that_refers_to_itself_can_be_stopped(space):
    image = raw.Image(0x10_0000, {0x10_0000: bytearray(4096)})
    for index in range(512):
        image.set_entry(0x10_0000 + 8 * index, 0x10_0000 | raw.P | raw.RW)
    batches = x86.scan_batches(space, registers(image.load(space)), batch=1000)  # 512**4 pages in all
    assert np.array_equal(np.arange(999, dtype=np.uint64) << np.uint64(12), next(batches)["va"])
    assert int(next(batches)["va"][0]) == 999 * 4 * K


def test_a_missing_table_is_reported(space):
    image = raw.x86([(0, 0, 4 * K, raw.RW), (4 * M, 0, 4 * K, raw.RW)], base=0x10_0000)
    image.set_entry(0x10_2000 + 8, 0x4000_0000 | raw.P | raw.RW)  # nothing is there
    regs = registers(image.load(space))
    with pytest.raises(BusError, match=r"entry at 0x40000000 \(for 0x200000\.\.0x3fffff\) cannot be read"):
        x86.scan(space, regs)
    found = x86.scan(space, regs, on_error="report").tolist()
    lost = (2 * M, 0x4000_0000, 2 * M, Flag.BUS_ERROR)
    assert [(0, 0, 4 * K, Flag.READ | Flag.WRITE | Flag.FETCH), lost, (4 * M, 0, 4 * K, RWX)] == found


@pytest.mark.parametrize("bits, more", [
    (1 << 45, {"phys_bits": 45}), (raw.XD, {"efer": 0x500}), (raw.PS | 1 << 13, {}),
])  # fmt: skip
def test_entries_with_reserved_bits_map_nothing(space, bits, more):
    image = raw.x86([(0, 0x20_0000, 2 * M, raw.RW), (2 * M, 0x20_0000, 2 * M, raw.RW | bits)], base=0x10_0000)
    regs = registers(image.load(space), **more)
    assert x86.scan(space, regs).tolist() == [(0, 0x20_0000, 2 * M, RWX)]
    bad = x86.scan(space, regs, on_error="report").tolist()[1]
    assert bad == (2 * M, 0x10_2008, 2 * M, Flag.INVALID)


def test_tables_behind_mmio_are_read_entry_by_entry():
    image = raw.x86([(0, 0x5000, 4 * K, raw.RW)], base=0)
    seen = []

    def read(offset, size):
        seen.append((offset, size))
        return image.entry(offset)

    space = AddressSpace()
    space.map(0, Mmio(16 * K, read=read, write=lambda offset, size, value: MemTxResult.OK))
    assert x86.scan(space, registers(0)).tolist() == [(0, 0x5000, 4 * K, RWX)]
    assert {8} == {size for _, size in seen}
    assert sorted(range(0, 16 * K, 8)) == sorted(offset for offset, _ in seen)


def test_an_exception_in_a_device_comes_out(space):
    def read(offset, size):
        raise ZeroDivisionError

    space.map(0x8000_0000, Mmio(4 * K, read=read, write=lambda offset, size, value: MemTxResult.OK))
    with pytest.raises(ZeroDivisionError):
        x86.scan(space, registers(0x8000_0000))


def test_nested_and_extended_tables(space):
    frames = Frames(0x10_0000, 0x1F_FFFF)
    npt, ept = x86.NptTables(space, frames), x86.EptTables(space, frames)
    npt.map(1 << 40, 0x5000, 4 * K, executable=False)
    ept.map(1 << 47, 2 * M, 2 * M, writable=False, dirty=True)
    nested = registers(0, stage2=x86.Npt(npt.root, 0x20, 0xD00))
    assert x86.scan(space, nested, stage=2).tolist() == [(1 << 40, 0x5000, 4 * K, Flag.READ | Flag.WRITE | Flag.USER)]
    extended = registers(0, stage2=x86.Ept(ept.eptp()))
    assert x86.scan(space, extended, stage=2).tolist() == [(1 << 47, 2 * M, 2 * M, Flag.READ | Flag.FETCH | Flag.DIRTY)]
    with pytest.raises(ValueError, match="guest-physical"):
        x86.scan(space, nested)
    with pytest.raises(ValueError, match=r"CR0\.PG is 0"):
        x86.scan(space, registers(0, cr0=1))


def test_wrong_options(space):
    tables = x86.PageTables(space, Frames(0x10_0000, 0x1F_FFFF))
    with pytest.raises(ValueError, match="batch must be at least 2"):
        tables.scan(batch=1)
    with pytest.raises(ValueError, match="on_error must be"):
        tables.scan(on_error="ignore")
