"""What a softmmu does, by the reference and by C: translation, entries, flushes, memory that is no RAM."""

import pytest

from mmu import AddressSpace, Fault, FaultKind, Mmio, arm64, x86
from mmu.tlb.softmmu import Watched
from mmu.tlb.table import Flag
from mmu.types import MemTxResult
from tests.softmmu.machines import (
    BASES,
    CR0,
    FAR,
    FETCH,
    IMPLEMENTATIONS,
    LARGE,
    NEAR,
    NOFLUSH,
    PAE,
    PAGE,
    PCIDE,
    PGE,
    RAM,
    READ,
    ROM,
    SHARED,
    SMAP,
    SMEP,
    WINDOW,
    WP,
    WRITE,
    Arm64Board,
    EptBoard,
    M,
    NptBoard,
    Stage2Board,
    X86Board,
    route,
)

CR4 = PAE | PGE | PCIDE
IN_ROM, IN_DEVICE, IN_HALF, IN_WINDOW, IN_NOTHING = (NEAR + n * PAGE for n in (2, 3, 4, 5, 7))


@pytest.fixture(params=["py", "c"])
def impl(request):
    return IMPLEMENTATIONS[request.param]


@pytest.fixture
def board():
    return X86Board()


@pytest.fixture
def tlb(impl, board):
    return impl(board.space, board.regs(), 64)


def word(value, size=8):
    return value.to_bytes(size, "little")


def walked(tlb, run):
    """How many walks *run* made."""
    before = tlb.stats.misses
    run()
    return tlb.stats.misses - before


def kept(tlb):
    return {entry.page for entry in tlb.entries()}


# ---- answers ----

def test_reads_what_the_tables_lead_to(tlb):
    assert tlb.read(NEAR + 8, 8) == word(RAM + 8)
    assert tlb.fetch(NEAR + PAGE, 4) == word(RAM + PAGE, 4)
    assert tlb.read(IN_WINDOW + 0x108, 8) == word(WINDOW + 0x108)
    assert tlb.read(NEAR, 0) == b""


def test_a_second_access_to_the_page_makes_no_walk(tlb):
    assert walked(tlb, lambda: tlb.read(NEAR, 8)) == 1
    with tlb.space.trace() as seen:
        assert walked(tlb, lambda: (tlb.read(NEAR + 0xFF8, 8), tlb.fetch(NEAR, 4))) == 0
    assert [(e.address, e.size) for e in seen] == [(0xFF8, 8), (0, 4)]
    assert (tlb.stats.hits, tlb.stats.fills, tlb.stats.misses) == (2, 1, 1)


@pytest.mark.parametrize("board", [X86Board, Arm64Board, NptBoard, EptBoard, Stage2Board], ids=lambda b: b.__name__)
def test_faults_are_those_of_a_walk(impl, board):
    board = board()
    walk = x86.walk if isinstance(board, X86Board) else arm64.walk
    for more in ({}, {"cpl": 3} if isinstance(board, X86Board) else {"el": 0}):
        tlb = impl(board.space, board.regs(**more), 64)
        runs = ((READ, tlb.read), (FETCH, tlb.fetch), (WRITE, lambda va, n, tlb=tlb: tlb.write(va, bytes(n))))
        for va in (0, NEAR, NEAR + PAGE, FAR, FAR + PAGE, LARGE + PAGE, IN_ROM, 1 << 47, 1 << 60, (1 << 64) - 8):
            for access, run in runs:
                found, expected = run(va, 4), walk(board.space, board.regs(**more), va, access, update=False)
                assert isinstance(found, Fault) == isinstance(expected, Fault)
                if isinstance(found, Fault):
                    assert found == expected


def test_both_pages_are_translated_before_any_byte_is_touched(board, tlb):
    board.tables[1].unmap(NEAR + 4 * PAGE, PAGE)  # behind the device's
    tlb.read(IN_DEVICE, 8)
    board.seen.clear()
    fault = tlb.write(IN_HALF - 4, bytes(8))
    assert (fault.kind, fault.va, fault.access) == (FaultKind.NOT_PRESENT, IN_HALF, WRITE)
    assert tlb.read(IN_DEVICE + 8, 3 * PAGE).va == IN_HALF
    assert board.seen == []


def test_an_access_runs_over_many_pages(tlb):
    data = bytes(range(256)) * 32
    assert tlb.write(NEAR + 0x10, data[:PAGE]) is None
    assert tlb.read(NEAR + 0x10, PAGE) == data[:PAGE]
    assert tlb.read(LARGE + 0x123, 3 * PAGE) == tlb.space.read(RAM + 0x123, 3 * PAGE)


def test_after_the_last_address_comes_the_first(impl, board):
    """32-bit: bits above 31 are no part of an address."""
    tables = x86.PageTables(board.space, board.frames, levels=2)
    tables.map(0xFFFF_F000, RAM, PAGE)
    tables.map(0, RAM + PAGE, PAGE)
    tlb = impl(board.space, x86.Registers(cr0=CR0, cr3=tables.root, cr4=1 << 4, efer=0), 64)
    assert tlb.read(0xFFFF_FFFC, 8) == word(RAM + 0xFF8)[4:] + word(RAM + PAGE)[:4]
    assert tlb.read((1 << 64) - 4, 8) == tlb.read(0xFFFF_FFFC, 8)
    assert tlb.stats.misses == 2


def test_without_paging_addresses_are_physical(impl, board):
    tlb = impl(board.space, x86.Registers(cr0=1, cr3=0, cr4=0, efer=0), 64)
    assert (tlb.read(0x208, 8), tlb.write(ROM, b"x"), tlb.read(ROM, 2)) == (word(0x208), None, b"\0\1")
    assert tlb.stats.hits == 1


def test_metadata_of_a_pointer_finds_the_same_entry(impl, board):
    lam_u48 = 1 << 62
    regs = board.regs(cpl=3)
    tlb = impl(board.space, board.regs(cpl=3, cr3=regs.cr3 | lam_u48), 64)
    assert tlb.read(NEAR | 0x5A << 48, 8) == word(RAM)
    assert walked(tlb, lambda: tlb.read(NEAR, 8)) == 0
    assert tlb.fetch(NEAR | 0x5A << 48, 8).kind is FaultKind.NON_CANONICAL


def test_the_top_byte_of_arm64_finds_the_same_entry(impl):
    board = Arm64Board()
    tlb = impl(board.space, board.regs(), 64)
    assert tlb.read(NEAR | 0x5A << 56, 8) == word(RAM)
    assert walked(tlb, lambda: tlb.read(NEAR, 8)) == 0
    assert tlb.flush(NEAR | 0x77 << 56) == 1
    tbid = board.regs().tcr_el1 | 1 << 51
    tlb.set_registers(board.regs(tcr_el1=tbid))
    code = FAR + PAGE
    assert tlb.read(code | 0x5A << 56, 8) == tlb.fetch(code, 8) == word(RAM + PAGE)
    assert tlb.fetch(code | 0x5A << 56, 8).kind is FaultKind.NOT_PRESENT


# ---- dirty flags ----

def test_the_first_store_walks_and_sets_the_dirty_flag(board, tlb):
    tlb.read(NEAR, 8)
    (entry,) = tlb.entries()
    assert (entry.read, entry.write, entry.fetch) == (Flag(0), Flag.NOTDIRTY, Flag(0))
    assert not board.tables[1].find(NEAR).rights["dirty"]
    assert walked(tlb, lambda: tlb.write(NEAR, b"a")) == 1
    assert board.tables[1].find(NEAR).rights["dirty"]
    assert walked(tlb, lambda: (tlb.write(NEAR, b"b"), tlb.read(NEAR, 1), tlb.fetch(NEAR, 1))) == 0
    assert (tlb.stats.upgrades, tlb.stats.evictions, len(tlb.entries())) == (1, 0, 1)


def test_a_store_that_is_refused_walks_each_time(tlb):
    tlb.read(FAR, 8)
    assert tlb.entries()[0].write is None
    for n in (1, 2):
        assert tlb.write(FAR, b"a").kind is FaultKind.PERMISSION
        assert tlb.stats.faults == n


def test_a_page_fault_removes_the_page(board, tlb):
    """A retry after the tables were mended needs no INVLPG."""
    tlb.read(FAR, 8)
    tlb.write(FAR, b"a")
    assert kept(tlb) == set()


# ---- the store ----

def test_what_is_pushed_out_is_found_among_the_victims(tlb):
    for base in BASES[:3]:
        tlb.read(base, 8)
    assert [(e.place, e.page) for e in tlb.entries()] == [(0, SHARED), (64, NEAR), (65, FAR)]
    assert walked(tlb, lambda: tlb.read(NEAR, 8)) == 0
    assert [(e.place, e.page) for e in tlb.entries()] == [(0, NEAR), (64, SHARED), (65, FAR)]
    assert (tlb.stats.victim_hits, tlb.stats.hits) == (1, 1)


def test_nine_pages_share_a_slot_and_a_tenth_pushes_the_oldest_out(tlb):
    for base in BASES[:10]:
        tlb.read(base, 8)
    assert tlb.stats.evictions == 1
    assert kept(tlb) == set(BASES[1:10])


def test_flags_keep_an_entry_from_being_found_among_the_victims(tlb):
    """TCG compares a victim's comparator for equality with the bare page address."""
    window, other = IN_WINDOW, FAR + 5 * PAGE
    tlb.read(window, 8)
    assert walked(tlb, lambda: tlb.read(window, 8)) == 0
    tlb.read(other, 8)
    assert walked(tlb, lambda: tlb.read(window, 8)) == 1


def test_a_fill_takes_the_place_of_a_victim_of_the_same_page(tlb):
    tlb.read(NEAR, 8)
    tlb.read(FAR, 8)
    tlb.write(NEAR, b"a")
    assert [(e.place, e.page) for e in tlb.entries()] == [(0, NEAR), (65, FAR)]


# ---- the memory map ----

def test_a_change_of_the_memory_map_is_seen_at_once(board, tlb):
    tlb.read(NEAR + PAGE, 8)
    board.cover.memory.write(0, b"covered!")
    board.show(True)
    assert kept(tlb) == set()
    assert tlb.read(NEAR + PAGE, 8) == b"covered!"
    board.show(False)
    assert tlb.read(NEAR + PAGE, 8) == word(RAM + PAGE)
    assert (tlb.stats.flushed, tlb.stats.flushes, tlb.stats.misses) == (0, 0, 3)


def test_a_change_of_the_route_is_seen_at_once(board, tlb):
    assert tlb.read(IN_WINDOW + 0x100, 8) == word(WINDOW + 0x100)
    board.window.set_route(route(1024))
    assert tlb.read(IN_WINDOW + 0x100, 8) == board.memories[0].read(0x100, 8) == word(WINDOW + 0x200)


def test_stores_to_rom_are_dropped_and_still_consumed(board, tlb):
    assert tlb.write(IN_ROM + 8, b"12345678") is None
    assert tlb.read(IN_ROM + 8, 8) == bytes(range(8, 16))
    assert (tlb.stats.discarded, tlb.stats.bus) == (8, 0)
    assert Flag.DISCARD_WRITE in next(e for e in tlb.entries()).write
    tlb.write(IN_ROM + PAGE - 2, b"abcd")
    assert board.seen == [("write", 0, 2, int.from_bytes(b"cd", "little"))]


def test_a_flash_chip_is_memory_to_loads_and_sees_stores(board, tlb):
    flash = NEAR + 8 * PAGE
    assert tlb.read(flash + 1, 2) == bytes([254, 253])
    (entry,) = tlb.entries()
    assert entry.read == Flag(0)
    tlb.write(flash + 4, b"\x40")
    assert (board.seen, tlb.stats.bus, tlb.stats.discarded) == ([("write", 4, 1, 0x40)], 1, 0)
    board.flash.readable = False
    assert tlb.read(flash + 4, 1) == b"\x40"
    assert board.seen[1:] == [("read", 4, 1)]


@pytest.mark.parametrize("offset, size, pieces", [
    (0, 8, [(0, 8)]), (1, 8, [(1, 1), (2, 2), (4, 4), (8, 1)]), (2, 4, [(2, 2), (4, 2)]), (4, 8, [(4, 4), (8, 4)]),
    (3, 2, [(3, 1), (4, 1)]), (8, 16, [(8, 8), (16, 8)]),
])  # fmt: skip
def test_a_device_sees_naturally_aligned_pieces(board, tlb, offset, size, pieces):
    tlb.read(IN_DEVICE + offset, size)
    assert board.seen == [("read", *piece) for piece in pieces]
    assert tlb.stats.bus == len(pieces)
    assert tlb.entries()[0].read == Flag.MMIO


def test_a_page_that_ram_covers_in_part_goes_over_the_bus(board, tlb):
    tlb.write(IN_HALF + 0x7F8, b"abcdefgh")
    assert board.half.memory.read(0x7F8, 8) == b"abcdefgh"
    assert tlb.read(IN_HALF + 0x7FC, 8) == b"efgh" + bytes(4)
    assert (tlb.stats.bus, tlb.stats.bus_errors) == (3, 1)


def test_a_window_counts_what_reaches_each_device(board, tlb):
    before = board.space.traffic()["mem1"]
    for offset in (0, 0x100, 0x104, 0x300):
        tlb.read(IN_WINDOW + offset, 4)
    tlb.write(IN_WINDOW + 0x1FC, b"12345678")
    after = board.space.traffic()["mem1"]
    assert (after.reads - before.reads, after.writes - before.writes) == (3, 1)


def test_a_bus_error_of_an_x86_access_reads_as_zero(tlb):
    assert (tlb.read(IN_NOTHING, 16), tlb.write(IN_NOTHING, b"x")) == (bytes(16), None)
    assert tlb.stats.bus_errors == 3


def test_a_bus_error_can_be_a_machine_check(impl, board):
    regs = board.regs(bus_error="machine-check")
    tlb = impl(board.space, regs, 64)
    fault = tlb.read(IN_DEVICE + 0xFF0, 16)
    assert (fault.kind, fault.va, fault.level) == (FaultKind.BUS, IN_DEVICE + 0xFF8, None)
    assert fault.detail == {"result": MemTxResult.ERROR}
    assert x86.exception(fault, regs) == x86.MachineCheck(None)
    assert [offset for _, offset, _ in board.seen] == [0xFF0, 0xFF8]


def test_a_bus_error_of_an_arm64_access_is_an_external_abort(impl):
    board = Arm64Board()
    tlb = impl(board.space, board.regs(), 64)
    fault = tlb.write(IN_NOTHING + 8, bytes(8))
    assert arm64.exception(fault, board.regs()).esr == 0x9600_0050
    assert (fault.kind, fault.va, fault.detail) == (FaultKind.BUS, IN_NOTHING + 8, {"result": MemTxResult.DECODE_ERROR})


# ---- registers ----

def test_privilege_selects_an_index_and_keeps_the_others(board, tlb):
    tlb.read(FAR + PAGE, 8)
    tlb.set_registers(board.regs(cpl=3))
    assert tlb.index == 1
    assert tlb.read(FAR + PAGE, 8).kind is FaultKind.PERMISSION
    tlb.set_registers(board.regs())
    assert tlb.index == 0
    assert tlb.read(NEAR, 8) == word(RAM)


def test_rights_that_registers_take_away_are_gone_at_once(board, tlb):
    tlb.set_registers(board.regs(cr0=CR0 & ~WP))
    assert tlb.write(FAR, b"a") is None
    tlb.set_registers(board.regs())
    assert tlb.write(FAR, b"a").kind is FaultKind.PERMISSION
    tlb.set_registers(board.regs(cr4=CR4 | SMAP))
    assert tlb.read(NEAR, 1).kind is FaultKind.PERMISSION
    tlb.set_registers(board.regs(cr4=CR4 | SMAP, ac=True))
    assert tlb.read(NEAR, 8) == word(RAM).replace(b"\0", b"a", 1)
    tlb.set_registers(board.regs(cr4=CR4 | SMAP))
    assert tlb.read(NEAR, 1).kind is FaultKind.PERMISSION


@pytest.mark.parametrize("new, gone", [
    (lambda b: b.regs(), set()),
    (lambda b: b.regs(cpl=3), set()),
    (lambda b: b.regs(2), set()),  # the other PCID's own, of which there are none
    (lambda b: b.regs(cr3=b.tables[2].root | 1), {NEAR}),
    (lambda b: b.regs(cr3=b.tables[2].root | 1 | NOFLUSH), set()),
    (lambda b: b.regs(cr4=PAE | PCIDE), {NEAR, SHARED}),
    (lambda b: b.regs(cr4=PAE | PGE), {NEAR, SHARED}),
    (lambda b: b.regs(cr4=CR4 | SMEP), {NEAR, SHARED}),
    (lambda b: b.regs(cr4=CR4 | SMAP), set()),
    (lambda b: b.regs(cr0=CR0 & ~WP), set()),
])  # fmt: skip
def test_a_change_of_registers_removes_what_the_manual_says(board, tlb, new, gone):
    tlb.read(NEAR, 8)
    tlb.read(SHARED, 8)
    tlb.set_registers(new(board))
    assert kept(tlb) == {NEAR, SHARED} - gone


def test_cr3_removes_the_pages_of_the_new_pcid_that_are_not_global(board, tlb):
    tlb.read(NEAR, 8)
    tlb.set_registers(board.regs(2))
    tlb.read(FAR, 8)
    tlb.read(SHARED, 8)
    tlb.set_registers(board.regs(1))
    assert kept(tlb) == {FAR, SHARED}
    assert walked(tlb, lambda: tlb.read(SHARED, 8)) == 0
    tlb.set_registers(board.regs(2, cr3=board.regs(2).cr3 | NOFLUSH))
    assert walked(tlb, lambda: tlb.read(FAR, 8)) == 0


def test_arm64_registers_remove_nothing_and_asids_keep_entries_apart(impl):
    board = Arm64Board()
    tlb = impl(board.space, board.regs(1), 64)
    tlb.read(NEAR, 8)
    tlb.read(SHARED, 8)
    tlb.set_registers(board.regs(2))
    assert (walked(tlb, lambda: tlb.read(SHARED, 8)), walked(tlb, lambda: tlb.read(NEAR, 8))) == (0, 1)
    tlb.set_registers(board.regs(1))
    assert walked(tlb, lambda: tlb.read(NEAR, 8)) == 0
    assert tlb.stats.flushes == 0


def test_the_current_asid_is_where_tcr_says_and_as_wide(impl):
    board = Arm64Board()
    tcr = board.regs().tcr_el1
    ttbr0, ttbr1 = board.regs().ttbr0_el1, 0x1234 << 48
    tlb = impl(board.space, board.regs(tcr_el1=tcr | 1 << 22, ttbr1_el1=ttbr1), 64)
    tlb.read(NEAR, 8)
    tlb.set_registers(board.regs(tcr_el1=tcr & ~(1 << 36), ttbr0_el1=ttbr0 | 0x5600 << 48))
    tlb.read(FAR, 8)
    assert {entry.page: entry.space for entry in tlb.entries()} == {NEAR: 0x1234, FAR: 1}


def test_vmids_keep_entries_apart(impl):
    board = Stage2Board()
    tlb = impl(board.space, board.regs(1), 64)
    tlb.read(SHARED, 8)
    tlb.set_registers(board.regs(1, vmid=4))
    assert walked(tlb, lambda: tlb.read(SHARED, 8)) == 1
    tlb.set_registers(board.regs(1))
    assert walked(tlb, lambda: tlb.read(SHARED, 8)) == 0


def test_set_registers_wrong_architecture(tlb):
    with pytest.raises(TypeError, match="regs must be"):
        tlb.set_registers(arm64.Registers())


# ---- flushes ----

def filled(board, impl, entries=64):
    tlb = impl(board.space, board.regs(2), entries)
    tlb.read(FAR, 8)
    tlb.set_registers(board.regs(1))
    for base in (NEAR, SHARED):
        tlb.read(base, 8)
    tlb.set_registers(board.regs(1, cpl=3))
    tlb.read(NEAR + PAGE, 8)
    return tlb


ALL = {NEAR, FAR, SHARED, NEAR + PAGE}


@pytest.mark.parametrize("arguments, gone", [
    ({}, ALL),
    ({"global_too": False}, ALL - {SHARED}),
    ({"space": 1, "global_too": False}, {NEAR, NEAR + PAGE}),
    ({"space": 2, "global_too": False}, {FAR}),
    ({"space": 2}, {FAR, SHARED}),
    ({"index": 0}, ALL - {NEAR + PAGE}),
    ({"index": 1}, {NEAR + PAGE}),
    ({"index": 9}, set()),
    ({"va": NEAR + 0x123}, {NEAR}),
    ({"va": NEAR, "space": 2}, set()),
    ({"va": SHARED, "space": 2}, {SHARED}),
    ({"va": SHARED, "global_too": False}, set()),
    ({"va": NEAR, "size": PAGE}, {NEAR}),
    ({"va": NEAR, "size": PAGE + 1}, {NEAR, NEAR + PAGE}),
    ({"va": NEAR + PAGE, "size": FAR - NEAR - PAGE}, {NEAR + PAGE}),
    ({"va": NEAR, "size": 65 * PAGE}, ALL),  # more pages than slots
])  # fmt: skip
def test_a_flush_removes_what_it_names(impl, board, arguments, gone):
    tlb = filled(board, impl)
    assert tlb.flush(**arguments) == len(gone)
    assert kept(tlb) == ALL - gone


def test_a_page_flush_near_a_large_page_empties_the_index(board, tlb):
    """TCG: one range covers all large pages, and an address in it may belong to any of them."""
    tlb.read(NEAR, 8)
    tlb.read(LARGE + 5 * PAGE, 8)
    assert tlb.flush(NEAR + PAGE) == 0
    assert tlb.flush(LARGE + M) == 2
    tlb.read(NEAR, 8)
    assert tlb.flush(LARGE + M) == 0  # the range went with the large page
    assert tlb.flush(NEAR) == 1


@pytest.mark.parametrize("pages", [1, 127, 128, 129, 256])
def test_a_complete_flush_finds_all_however_many(impl, board, pages):
    tlb = impl(board.space, board.regs(), 256)
    for _ in range(2):
        for n in range(pages):
            tlb.read(LARGE + n * PAGE, 8)
        assert tlb.flush() == pages
        assert tlb.entries() == []
        assert walked(tlb, lambda: tlb.read(LARGE + (pages - 1) * PAGE, 8)) == 1
        tlb.flush()


def test_large_pages_far_apart_widen_the_range(board, tlb):
    board.tables[1].map(LARGE + 4 * M, RAM, 2 * M)
    tlb.read(LARGE, 8)
    tlb.read(LARGE + 4 * M, 8)
    assert tlb.flush(LARGE + 3 * M) == 2
    tlb.read(LARGE, 8)
    assert tlb.flush(LARGE + 3 * M) == 0


def test_behind_stage_2_every_page_may_be_large(impl):
    board = NptBoard()
    tlb = impl(board.space, board.regs(), 64)
    tlb.read(NEAR, 8)
    assert tlb.flush(FAR) == 1


def test_a_flush_of_an_index_with_nothing_in_it_is_elided(impl, board):
    tlb = filled(board, impl)
    before = tlb.stats.flushed
    for elided in (0, 1):
        tlb.flush(index=1)
        assert tlb.stats.elided == elided
    tlb.flush()
    assert (tlb.stats.elided, tlb.stats.flushed - before) == (2, 4)


# ---- watchpoints ----

def test_accesses_to_a_watched_byte_are_noted(tlb):
    tlb.read(NEAR, 8)
    tlb.watch(NEAR + 0x10, 4)
    tlb.watch(NEAR + 0x20, 1, WRITE)
    for va in (0x0, 0xC, 0xD, 0x13, 0x14, 0x20):
        tlb.read(NEAR + va, 4)
    tlb.write(NEAR + 0x1C, bytes(5))
    tlb.fetch(NEAR + 0x10, 4)
    expected = [(0xD, 4, READ), (0x13, 4, READ), (0x1C, 5, WRITE)]
    assert tlb.watched() == [Watched(NEAR + offset, size, access) for offset, size, access in expected]
    assert (tlb.watched(), tlb.stats.watched) == ([], 3)
    (entry,) = tlb.entries()
    assert (entry.read, entry.write, entry.fetch) == (Flag.WATCHPOINT, Flag.WATCHPOINT, Flag(0))
    tlb.unwatch(NEAR + 0x10, 4)
    tlb.read(NEAR + 0x10, 4)
    assert tlb.watched() == []


def test_watch_wrong(tlb):
    for n in range(8):
        tlb.watch(n, 1)
    with pytest.raises(ValueError, match="at most 8"):
        tlb.watch(8, 1)
    with pytest.raises(ValueError, match="not watched"):
        tlb.unwatch(0, 2)
    with pytest.raises(ValueError, match="READ, WRITE or both"):
        tlb.watch(0, 1, FETCH)


# ---- devices that do something in the middle ----

def interfering(impl, board, va, act):
    """A TLB; the last table for *va* is read through a device, which runs act(tlb) once, at the entry of *va*."""
    steps = {s.level: s for s in x86.walk(board.space, board.regs(), va, READ, update=False).steps}
    table, pending = steps[1].address & ~0xFFF, [act]

    def read(offset, size):
        if table + offset == steps[1].address and pending:
            pending.pop()(tlb)
        return board.space.load(table + offset, size)[0]

    def write(offset, size, value):
        board.space.store(table + offset, size, value)

    board.space.map(1 << 30, Mmio(PAGE, read, write, name="table", reentrant=True))
    board.space.store(steps[2].address, 8, steps[2].value - table + (1 << 30))
    tlb = impl(board.space, board.regs(), 64)
    return tlb


@pytest.mark.parametrize("act", [
    lambda tlb: tlb.flush(),
    lambda tlb: tlb.space.map(1 << 40, Mmio(PAGE)),
], ids=["flush", "map"])  # fmt: skip
def test_a_walk_during_which_something_changes_is_answered_and_not_kept(impl, board, act):
    tlb = interfering(impl, board, NEAR, act)
    assert tlb.read(NEAR, 8) == word(RAM)
    assert (tlb.stats.misses, tlb.stats.fills, kept(tlb)) == (1, 0, set())
    assert tlb.read(NEAR, 8) == word(RAM)
    assert kept(tlb) == {NEAR}


def test_registers_that_a_device_sets_are_those_of_the_next_access(impl, board):
    tlb = interfering(impl, board, NEAR, lambda tlb: tlb.set_registers(board.regs(cpl=3)))
    assert tlb.read(NEAR, 8) == word(RAM)
    assert kept(tlb) == set()
    assert tlb.read(FAR + PAGE, 8).kind is FaultKind.PERMISSION


def test_a_device_may_use_the_same_object(impl, board):
    seen = []
    tlb = interfering(impl, board, NEAR, lambda tlb: seen.append(tlb.read(NEAR + PAGE, 8)))
    assert tlb.read(NEAR, 8) == word(RAM)
    assert seen == [word(RAM + PAGE)]
    assert kept(tlb) == {NEAR, NEAR + PAGE}


def test_a_device_may_take_the_memory_of_an_access_away(impl, board):
    """Page 1 is plain RAM when it is translated, and covered by other RAM once page 2 is."""
    board.cover.memory.write(0xFF8, b"coverage")
    tlb = interfering(impl, board, IN_ROM, lambda tlb: board.show(True))
    assert tlb.read(IN_ROM - 8, 12) == b"coverage" + bytes(range(4))


def test_a_device_may_put_memory_where_stores_were_dropped(impl, board):
    board.cover.memory.write(0, bytes(PAGE))
    tlb = interfering(impl, board, IN_DEVICE, lambda tlb: board.space.map(ROM, board.cover, priority=1))
    assert tlb.write(IN_DEVICE - 4, b"12345678") is None
    assert board.cover.memory.read(PAGE - 4, 4) == b"1234"
    assert tlb.stats.discarded == 0


def test_what_a_device_raises_comes_out_unchanged(impl, board):
    class Broken(Exception):
        pass

    def fail(tlb):
        raise Broken

    tlb = interfering(impl, board, NEAR, fail)
    with pytest.raises(Broken):
        tlb.read(NEAR, 8)
    assert tlb.read(NEAR, 8) == word(RAM)


# ---- misuse ----

@pytest.mark.parametrize("entries", [0, 32, 63, 65, 100, 1 << 21, -64])
def test_wrong_number_of_entries(impl, board, entries):
    with pytest.raises(ValueError, match=f"power of two in 64..1048576, not {entries}"):
        impl(board.space, board.regs(), entries)


def test_wrong_registers(impl):
    with pytest.raises(TypeError, match="regs must be"):
        impl(AddressSpace(), 5, 64)


@pytest.mark.parametrize("run", [
    lambda t: t.read(-1, 8), lambda t: t.read(1 << 64, 8), lambda t: t.read(0, -1), lambda t: t.write(1 << 64, b"a"),
    lambda t: t.fetch(-1, 1), lambda t: t.flush(-1), lambda t: t.flush(size=4), lambda t: t.flush(0, 0),
    lambda t: t.flush(index=16), lambda t: t.flush(space=1 << 16), lambda t: t.flush(1 << 64),
])  # fmt: skip
def test_wrong_arguments(tlb, run):
    with pytest.raises(ValueError):
        run(tlb)


def test_smallest_and_largest(impl, board):
    for entries in (64, 1 << 20):
        assert impl(board.space, board.regs(), entries).read(NEAR, 8) == word(RAM)
