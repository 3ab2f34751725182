"""The x86 builder: what it writes, in which order, and what it refuses."""

import pytest

from mmu import AddressSpace, Frames, MemTxResult, Mmio, Ram, x86
from mmu.errors import AddressRangeError, AlignmentError, BusError
from tests import pagetables as raw

K, M, G = 1 << 10, 1 << 20, 1 << 30
TABLES = 0x10_0000


@pytest.fixture
def space():
    space = AddressSpace()
    space.map(0, Ram(16 * M))
    return space


@pytest.fixture
def frames():
    return Frames(TABLES, 2 * TABLES - 1)


def tables_in_memory(space, frames):
    return space.read(TABLES, frames.used * 4096)


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("size, va, pa", [
    (4 * K, 0x7FFF_FFFF_F000, 0x1000),
    (2 * M, 0x7F12_3460_0000, 0x12_3440_0000),
    (G, 0xFFFF_8000_0000_0000, 0x3F_4000_0000),
])  # fmt: skip
def test_one_page_is_what_the_manual_says(space, frames, levels, size, va, pa):
    tables = x86.PageTables(space, frames, levels=levels)
    tables.map(va, pa, size, writable=False, user=True, executable=False)

    want = raw.x86([(va, pa, size, raw.US | raw.XD)], base=TABLES, levels=levels)
    assert (want.root, b"".join(want.pages.values())) == (tables.root, tables_in_memory(space, frames))


def test_the_largest_pages_that_fit_are_used(space, frames):
    tables = x86.PageTables(space, frames)
    tables.map(G - 2 * M - 4 * K, G - 2 * M - 4 * K, 2 * G + 2 * M + 4 * K + 4 * K)

    sizes = [tables.find(va).size for va in (G - 2 * M - 4 * K, G - 2 * M, G, 2 * G, 3 * G)]
    assert sizes == [4 * K, 2 * M, G, G, 4 * K]
    assert tables.find(3 * G + 4 * K) is None


def test_page_size_is_obeyed(space, frames):
    tables = x86.PageTables(space, frames)
    tables.map(0, 0, 2 * M, page_size=4 * K)
    assert tables.find(M).size == 4 * K


@pytest.mark.parametrize("keyword, bit", [
    ("global_", raw.G), ("pwt", raw.PWT), ("pcd", raw.PCD), ("accessed", raw.A), ("dirty", raw.D), ("user", raw.US),
])  # fmt: skip
def test_keywords_set_their_bit(space, frames, keyword, bit):
    tables = x86.PageTables(space, frames)
    tables.map(0, 0, 4 * K, **{keyword: True})
    want = raw.x86([(0, 0, 4 * K, raw.RW | bit)], base=TABLES)
    assert b"".join(want.pages.values()) == tables_in_memory(space, frames)


@pytest.mark.parametrize("size, bit", [(4 * K, raw.PAT_4K), (2 * M, raw.PAT_LARGE), (G, raw.PAT_LARGE)])
def test_pat_and_protection_key_stand_where_the_page_size_has_them(space, frames, size, bit):
    tables = x86.PageTables(space, frames)
    tables.map(0, 0, size, pat=True, pkey=5)
    want = raw.x86([(0, 0, size, raw.RW | bit | 5 << 59)], base=TABLES)
    assert b"".join(want.pages.values()) == tables_in_memory(space, frames)


@pytest.mark.parametrize("arguments, says", [
    ({"va": 1 << 47, "pa": 0, "size": 4 * K}, "0x800000000000 is not a canonical address of 48 bits"),
    ({"va": 0x7FFF_FFFF_F000, "pa": 0, "size": 8 * K}, "not a canonical"),
    ({"va": 0, "pa": 0, "size": 1 << 64}, "crosses addresses that no table can map"),
    ({"va": -4096, "pa": 0, "size": 4 * K}, "not a canonical"),
    ({"va": 0, "pa": 1 << 46, "size": 4 * K}, "physical addresses must be in 0..0x3fffffffffff, not 0x400000000000"),
    ({"va": 0, "pa": (1 << 46) - 4096, "size": 8 * K}, "physical addresses must be in"),
    ({"va": 0, "pa": -4096, "size": 4 * K}, "physical addresses must be in"),
    ({"va": 1, "pa": 0, "size": 4 * K}, "address must be a multiple of 0x1000, not 0x1"),
    ({"va": 0, "pa": 1, "size": 4 * K}, "physical address must be a multiple of 0x1000, not 0x1"),
    ({"va": 0, "pa": 0, "size": 1}, "size must be a multiple of 0x1000, not 0x1"),
    ({"va": 0, "pa": 0, "size": 0}, "size must be positive, not 0"),
    ({"va": 0, "pa": 0, "size": -4096}, "size must be positive, not -4096"),
    ({"va": 4 * K, "pa": 0, "size": 2 * M, "page_size": 2 * M}, "multiple of 0x200000, not 0x1000"),
    ({"va": 0, "pa": 0, "size": 4 * K, "page_size": 8 * K}, "one of 0x40000000, 0x200000, 0x1000 bytes, not 0x2000"),
    ({"va": 0, "pa": 0, "size": 4 * K, "pkey": 16}, "PK: 0x10 does not fit in 4 bits"),
])  # fmt: skip
def test_map_wrong_arguments(space, frames, arguments, says):
    tables = x86.PageTables(space, frames, phys_bits=46)
    with space.trace() as entries, pytest.raises(ValueError, match=says):
        tables.map(**arguments)
    assert (frames.used, entries) == (1, [])


def test_map_wrong_keyword(space, frames):
    with pytest.raises(TypeError, match="'writeable' is not a right"):
        x86.PageTables(space, frames).map(0, 0, 4 * K, writeable=True)


def test_map_again_the_same_way_changes_nothing(space, frames):
    tables = x86.PageTables(space, frames)
    tables.map(0, 0, 4 * M + 4 * K)
    before = tables_in_memory(space, frames)
    tables.map(0, 0, 4 * M + 4 * K, accessed=True, dirty=True)  # as hardware may have left it
    tables.map(M, M, 2 * M)
    assert before == tables_in_memory(space, frames)


@pytest.mark.parametrize("how", [
    {"va": 2 * M, "pa": 3 * M, "size": 4 * M},
    {"va": 2 * M, "pa": 2 * M, "size": 4 * M, "writable": False},
    {"va": 4 * M, "pa": 4 * M, "size": 2 * M, "page_size": 4 * K},
])  # fmt: skip
def test_map_wrong_conflict_names_both_sides_and_changes_nothing(space, frames, how):
    tables = x86.PageTables(space, frames)
    tables.map(4 * M, 4 * M, 2 * M)
    before = tables_in_memory(space, frames)
    with pytest.raises(ValueError, match=r"^0x400000\.\.0x5fffff cannot .*: 0x400000 is mapped to 0x400000 by"):
        tables.map(**how)
    assert before == tables_in_memory(space, frames)


def test_map_wrong_large_page_over_a_table(space, frames):
    tables = x86.PageTables(space, frames)
    tables.map(4 * K, 0, 4 * K)
    with pytest.raises(ValueError, match="one page of 0x200000 bytes: 0x0 is covered by a table at 0x103000"):
        tables.map(0, 0, 2 * M, page_size=2 * M)


def test_frames_that_run_out_leave_nothing_behind(space):
    frames = Frames(TABLES, TABLES + 3 * 4096 - 1)
    tables = x86.PageTables(space, frames)
    with space.trace() as entries, pytest.raises(AddressRangeError, match="no frame left"):
        tables.map(0, 0, 4 * K)
    assert (frames.used, [e for e in entries if e.kind == "write"]) == (1, [])


def test_frames_without_free_are_kept_for_the_next_edit(space):
    given = iter(range(TABLES, TABLES + 4 * 4096, 4096))
    tables = x86.PageTables(space, lambda: next(given))
    with pytest.raises(StopIteration):
        tables.map(M, 0, 2 * G)  # needs four more than there are
    tables.map(0, 0, 4 * K)
    assert tables.find(0).size == 4 * K


@pytest.mark.parametrize("given, error", [
    ([0x1000, 0x2100], AlignmentError), ([0x1000, 1 << 52], ValueError), ([0x1000, 0x1000], ValueError),
])  # fmt: skip
def test_wrong_frames_are_refused(space, given, error):
    given = iter(given)
    tables = x86.PageTables(space, lambda: next(given))
    with pytest.raises(error, match=r"0x1000|0xfffff"):
        tables.map(0, 0, 4 * K)
    assert space.read(tables.root, 4096) == bytes(4096)


def test_entries_are_single_stores_linked_after_their_contents(space, frames):
    tables = x86.PageTables(space, frames)
    with space.trace() as entries:
        tables.map(0, 0x5000, 4 * K)
    writes = [(e.address, e.size, e.value) for e in entries if e.kind == "write"]
    link = raw.P | raw.RW | raw.US
    root, pdpt, pd, pt = (TABLES + n * 4096 for n in range(4))
    page = 0x5000 | raw.P | raw.RW
    assert [(pt, 8, page), (pd, 8, pt | link), (pdpt, 8, pd | link), (root, 8, pdpt | link)] == writes


def test_frames_are_zeroed_before_use(space, frames):
    space.write(TABLES, b"\xff" * 16 * K)
    tables = x86.PageTables(space, frames)
    tables.map(0, 0, 4 * K)
    assert [record[:3] for record in tables.scan().tolist()] == [(0, 0, 4 * K)]


def test_a_bus_that_refuses_undoes_the_edit(frames):
    kept, refuse = {}, {TABLES + 2 * 4096}
    def write(offset, size, value):
        if TABLES + offset in refuse and value:
            return MemTxResult.ERROR
        kept[offset] = value
        return MemTxResult.OK
    space = AddressSpace()
    space.map(TABLES, Mmio(M, read=lambda offset, size: kept.get(offset, 0), write=write))
    tables = x86.PageTables(space, frames)
    with pytest.raises(BusError, match="cannot be written"):
        tables.map(0, 0, 4 * K)
    assert (frames.used, space.load(tables.root, 8)[0]) == (1, 0)


def test_pae_and_32_bit_tables(space, frames):
    pae = x86.PageTables(space, frames, levels=3)
    pae.map(0xFFE0_0000, 0xF_FFE0_0000, 2 * M, executable=False)
    assert (space.load(pae.root + 24, 8)[0] & 0xFFF, pae.find(0xFFE0_0000).pa) == (1, 0xF_FFE0_0000)
    old = x86.PageTables(space, frames, levels=2)
    old.map(0xFFC0_0000, 0xAB_FFC0_0000, 4 * M)  # PSE-36
    assert (old.find(0xFFFF_F000).pa, old.find(0xFFFF_F000).size) == (0xAB_FFC0_0000, 4 * M)
    assert space.load(old.root + 4 * 0x3FF, 4)[0] == 0xFFC0_0000 | 0xAB << 13 | raw.PS | raw.RW | raw.P
    with pytest.raises(ValueError, match="does not fit"):
        old.map(0, 1 << 32, 4 * K)
    with pytest.raises(ValueError, match="no field XD"):
        old.map(0, 0, 4 * K, executable=False)


def test_ept(space, frames):
    ept = x86.EptTables(space, frames)
    ept.map(1 << 47, 0x20_0000, 2 * M, writable=False)
    assert ept.eptp(accessed_dirty=True) == TABLES | 0x5E
    assert space.load(TABLES + 256 * 8, 8)[0] == TABLES + 0x1000 | 0x407
    assert space.load(TABLES + 0x2000, 8)[0] == 0x20_0000 | 1 << 7 | 6 << 3 | 5
    with pytest.raises(ValueError, match="does not make a page"):
        ept.map(0, 0, 4 * K, readable=False, writable=False, executable=False)


def test_npt_pages_are_user_pages(space, frames):
    npt = x86.NptTables(space, frames)
    npt.map(0, 0, 4 * K)
    assert npt.find(0).rights["user"] == 1


def entries_at(space, table, *indexes):
    return [space.load(table + 8 * index, 8)[0] for index in indexes]


def test_unmap_of_a_part_splits_a_large_page(space, frames):
    tables = x86.PageTables(space, frames)
    tables.map(0, G, G, dirty=True, pat=True)
    tables.unmap(2 * M + 4 * K, 8 * K)
    assert [tables.find(2 * M + 4 * K), tables.find(2 * M + 8 * K)] == [None, None]
    pages = [tables.find(va) for va in (0, 2 * M, 4 * M)]
    kept = [(page.pa, page.size, page.rights["dirty"], page.rights["pat"]) for page in pages]
    assert kept == [(G, 2 * M, 1, 1), (G + 2 * M, 4 * K, 1, 1), (G + 4 * M, 2 * M, 1, 1)]


def test_split_and_merge_keep_the_bits_that_software_owns(space, frames):
    tables = x86.PageTables(space, frames)
    tables.map(0, 0, 2 * M)
    directory = TABLES + 2 * 4096
    own = 7 << 9 | 0x55 << 52
    before = space.load(directory, 8)[0] | own
    space.store(directory, 8, before)
    tables.split(0, 2 * M)
    table = space.load(directory, 8)[0] & -4096
    assert [own | raw.P | raw.RW, own | raw.P | raw.RW | 0x1FF000] == entries_at(space, table, 0, 511)
    tables.merge(0, 2 * M)
    assert [before] == entries_at(space, directory, 0)


def test_merge_keeps_accessed_and_dirty_of_any_page(space, frames):
    tables = x86.PageTables(space, frames)
    tables.map(0, 0, 2 * M, page_size=4 * K)
    table = TABLES + 3 * 4096
    space.store(table + 8 * 5, 8, 0x5000 | raw.P | raw.RW | raw.A)
    space.store(table + 8 * 6, 8, 0x6000 | raw.P | raw.RW | raw.A | raw.D)
    tables.merge(0, 2 * M)
    assert entries_at(space, TABLES + 2 * 4096, 0) == [raw.P | raw.RW | raw.PS | raw.A | raw.D]
    assert frames.used == 3


@pytest.mark.parametrize("odd", [0x5000 | raw.P, 0x6000 | raw.P | raw.RW, 0x5000 | raw.P | raw.RW | 1 << 9, 0])
def test_merge_leaves_what_does_not_agree(space, frames, odd):
    tables = x86.PageTables(space, frames)
    tables.map(0, 0, 2 * M, page_size=4 * K)
    space.store(TABLES + 3 * 4096 + 8 * 5, 8, odd)
    before = tables_in_memory(space, frames)
    tables.merge(0, 2 * M)
    assert before == tables_in_memory(space, frames)


def test_merge_up_to_a_size(space, frames):
    tables = x86.PageTables(space, frames)
    tables.map(0, 0, G, page_size=2 * M)
    tables.map(G, G, 2 * M, page_size=4 * K)
    tables.merge(0, 2 * G, page_size=2 * M)
    assert [tables.find(0).size, tables.find(G).size] == [2 * M, 2 * M]
    tables.merge(0, G - 4 * K)
    assert tables.find(0).size == 2 * M
    tables.merge(0, G)
    assert tables.find(0).size == G


@pytest.mark.parametrize("edit", ["unmap", "protect"])
def test_unmap_and_protect_wrong_hole(space, frames, edit):
    tables = x86.PageTables(space, frames)
    tables.map(0, 0, 4 * K)
    before = tables_in_memory(space, frames)
    with pytest.raises(ValueError, match=r"0x1000\.\.0x1fff must be mapped, but its PTE is 0x0 \(not present\)"):
        getattr(tables, edit)(0, 8 * K)
    assert before == tables_in_memory(space, frames)


def test_invalidate_is_called_before_frames_are_freed(space, frames):
    seen = []
    tables = x86.PageTables(space, frames, invalidate=lambda va, size: seen.append((va, size, frames.used)))
    top = 0xFFFF_FFFF_FFFF_F000
    tables.map(top, 0, 4 * K)
    assert seen == []
    tables.protect(top, 4 * K, writable=True)  # as it is
    assert seen == []
    tables.unmap(top, 4 * K)
    assert ([(top, 4 * K, 4)], 1) == (seen, frames.used)


def test_tables_of_others_are_used_and_not_freed(space, frames):
    image = raw.x86([(0, 0x5000, 4 * K, raw.RW)], base=8 * M)
    tables = x86.PageTables(space, frames, root=image.load(space))
    tables.map(4 * K, 0x6000, 4 * K)
    tables.unmap(0, 8 * K)
    assert (frames.used, tables.find(0)) == (0, None)
    assert entries_at(space, 8 * M, 0) == [(8 * M + 4096) | raw.P | raw.RW | raw.US]
    with pytest.raises(AlignmentError, match="the root must be a multiple of 0x1000, not 0x800"):
        x86.PageTables(space, frames, root=0x800)
