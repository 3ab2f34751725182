"""Batches of loads and stores: arrays in, arrays out, faults as values. That they equal single accesses: test_twin."""

import threading

import numpy as np
import pytest

from mmu import Alias, FaultKind, Ram, SoftMmu
from tests.softmmu.machines import (
    FAR,
    LARGE,
    NEAR,
    NOFLUSH,
    PAGE,
    RAM,
    READ,
    SHARED,
    SHOWN,
    WINDOW,
    WRITE,
    Arm64Board,
    X86Board,
)

IN_ROM, IN_DEVICE, IN_WINDOW = (NEAR + n * PAGE for n in (2, 3, 5))
MISSING = 0x7000_0000


@pytest.fixture
def board():
    return X86Board()


@pytest.fixture
def tlb(board):
    return SoftMmu(board.space, board.regs(), 64)


def test_loads_have_the_shape_of_the_addresses_and_the_type_of_the_size(tlb):
    vas = NEAR + 8 * np.arange(12, dtype=np.uint64).reshape(3, 4)
    values = tlb.load_many(vas, 8)
    assert (values.dtype, values.shape) == (np.uint64, (3, 4))
    assert (values == vas - NEAR + RAM).all()
    for size in (1, 2, 4):
        values = tlb.load_many(vas, size)
        assert values.dtype == f"u{size}"
        assert (values == (vas - NEAR + RAM).astype(f"u{size}")).all()


@pytest.mark.parametrize("where, memory", [(NEAR, RAM), (IN_WINDOW, WINDOW)])
def test_hits_make_no_walk(tlb, where, memory):
    vas = np.arange(where, where + PAGE, 8, dtype=np.uint64)
    assert (tlb.load_many(vas, 8) == vas - where + memory).all()
    assert (tlb.stats.misses, tlb.stats.hits) == (1, len(vas) - 1)
    assert tlb.stats.bus == (len(vas) if memory == WINDOW else 0)


def test_entries_of_another_address_space_are_no_hits(tlb, board):
    board.tables[2].unmap(NEAR, PAGE)
    vas = np.arange(NEAR, NEAR + PAGE, 8, dtype=np.uint64)
    tlb.load_many(vas, 8)
    tlb.set_registers(board.regs(2))
    assert tlb.load_many(vas, 8).kind is FaultKind.NOT_PRESENT
    tlb.set_registers(board.regs(1, cr3=board.regs(1).cr3 | NOFLUSH))
    assert (tlb.load_many(vas, 8) == vas - NEAR + RAM).all()
    assert tlb.stats.misses == 2


@pytest.mark.parametrize("board", [X86Board, Arm64Board])
def test_an_address_with_metadata_is_found(board):
    board = board()
    lam_u48 = 1 << 62
    regs = board.regs(cr3=board.regs().cr3 | lam_u48) if isinstance(board, X86Board) else board.regs()
    tlb = SoftMmu(board.space, regs, 64)
    tag = 0x5A << 56 if isinstance(board, Arm64Board) else 0x2A << 48
    vas = np.array([NEAR, NEAR | tag, NEAR + 8 | tag], dtype=np.uint64)
    assert tlb.load_many(vas, 8).tolist() == [RAM, RAM, RAM + 8]
    assert (tlb.stats.misses, tlb.stats.hits) == (1, 2)


def test_unaligned_loads_and_those_over_two_pages(tlb, board):
    """Also when all pages are there: behind page 1 comes ROM, and other RAM in memory."""
    vas = np.array([NEAR + 3, NEAR + PAGE - 3, IN_WINDOW + 0xFD, IN_ROM - 4], dtype=np.uint64)
    expected = [board.space.read(a, 8) for a in (RAM + 3, RAM + PAGE - 3, WINDOW + 0xFD)]
    expected.append(board.space.read(RAM + 2 * PAGE - 4, 4) + bytes(range(4)))
    for _ in range(2):
        assert [v.tobytes() for v in tlb.load_many(vas, 8)] == expected


def test_the_first_fault_ends_a_batch(tlb, board):
    out = np.zeros(4, np.uint64)
    vas = [NEAR + 8, NEAR + 16, MISSING, NEAR + 24]
    fault = tlb.load_many(vas, 8, out=out)
    assert (fault.kind, fault.va, fault.access) == (FaultKind.NOT_PRESENT, MISSING, READ)
    assert out.tolist() == [8, 16, 0, 0]
    vas = [NEAR, FAR, NEAR + 8]
    assert tlb.store_many(vas, np.array([1, 2, 3], np.uint64)).access == WRITE
    assert (tlb.read(NEAR, 1), tlb.read(NEAR + 8, 1)) == (b"\1", b"\x08")


def test_with_a_status_a_batch_goes_on(tlb):
    status = np.full(4, 99, np.uint8)
    vas = [NEAR + 8, MISSING, 1 << 47, NEAR + 16]
    assert tlb.load_many(vas, 8, status=status).tolist() == [8, 0, 0, 16]
    assert status.tolist() == [0, FaultKind.NOT_PRESENT, FaultKind.NON_CANONICAL, 0]
    assert tlb.store_many([FAR, NEAR], [1, 2], 1, status=status[:2]) is None
    assert status[:2].tolist() == [FaultKind.PERMISSION, 0]
    assert tlb.stats.faults == 3


def test_a_load_that_faults_on_its_second_page_gives_zero(tlb):
    status = np.zeros(1, np.uint8)
    assert tlb.load_many([SHARED + len(SHOWN) * PAGE - 4], 8, status=status).tolist() == [0]
    assert status.tolist() == [FaultKind.NOT_PRESENT]


def test_a_load_that_the_bus_refuses_in_its_second_page_gives_zero():
    board = Arm64Board()
    tlb, status = SoftMmu(board.space, board.regs(), 64), np.zeros(2, np.uint8)
    assert tlb.load_many([IN_WINDOW + 2 * PAGE - 6, NEAR + 8], 8, status=status).tolist() == [0, RAM + 8]
    assert status.tolist() == [FaultKind.BUS, 0]


def test_stores_reach_every_kind_of_memory(tlb, board):
    vas = np.array([NEAR, IN_ROM, IN_DEVICE + 8, IN_WINDOW + 0x108, NEAR + 5], dtype=np.uint64)
    assert tlb.store_many(vas, 0x11, 4) is None
    assert board.space.read(RAM, 9) == b"\x11\0\0\0\0\x11\0\0\0"
    assert board.space.read(WINDOW + 0x108, 4) == board.memories[1].read(8, 4) == b"\x11\0\0\0"
    assert board.seen == [("write", 8, 4, 0x11)]
    assert tlb.stats.discarded == 4


def test_values_may_be_of_any_type_that_fits(tlb):
    tlb.store_many([NEAR, NEAR + 8], [5, (1 << 16) - 1], 2)
    tlb.store_many(np.array([NEAR + 2], np.int64), np.array([7], np.int16))
    assert tlb.load_many([NEAR, NEAR + 2, NEAR + 8], 2).tolist() == [5, 7, 65535]


def test_an_empty_batch(tlb):
    assert tlb.load_many([], 8).shape == (0,)
    assert tlb.store_many(np.zeros((0, 3), np.uint64), np.zeros((0, 3), np.uint8)) is None


@pytest.mark.parametrize("run, says", [
    (lambda t: t.load_many([NEAR], 3), "size must be one of 1, 2, 4, 8"),
    (lambda t: t.load_many([-1], 8), "vas must be numbers in 0"),
    (lambda t: t.load_many([1.5], 8), "vas must be numbers in 0"),
    (lambda t: t.load_many([NEAR], 8, out=np.zeros(1, np.uint32)), "out must be a writeable"),
    (lambda t: t.load_many([NEAR], 8, out=np.zeros(2, np.uint64)), "out must be a writeable"),
    (lambda t: t.load_many([NEAR], 8, status=np.zeros(1, np.uint16)), "status must be a writeable"),
    (lambda t: t.load_many([NEAR], 8, out=[0]), "out must be an array of u8"),
    (lambda t: t.load_many([NEAR], 8, status=[0]), "status must be an array of u1"),
    (lambda t: t.load_many([NEAR], True), "size must be one of 1, 2, 4, 8"),
    (lambda t: t.store_many([NEAR], [256], 1), "must fit in 1 bytes"),
    (lambda t: t.store_many([NEAR], [-1], 8), "must fit in 8 bytes"),
    (lambda t: t.store_many([NEAR], [1.0], 8), "values must be integers"),
    (lambda t: t.store_many([NEAR], [1, 2], 8), "broadcast"),
])  # fmt: skip
def test_wrong_arguments(tlb, run, says):
    with pytest.raises(ValueError, match=says):
        run(tlb)
    assert tlb.stats.misses == 0


def test_a_batch_sees_a_map_that_a_device_changes_in_it(tlb, board):
    board.cover.memory.write(8, b"covered!")
    board.device._read = lambda offset, size: board.show(True) or 0
    vas = [NEAR + PAGE + 8, IN_DEVICE, NEAR + PAGE + 8]
    assert [v.tobytes() for v in tlb.load_many(vas, 8)][2] == b"covered!"


def test_what_a_device_raises_ends_a_batch(tlb, board):
    def fail(offset, size):
        raise KeyError("device")

    board.device._read = fail
    with pytest.raises(KeyError, match="device"):
        tlb.load_many([NEAR, IN_DEVICE, NEAR], 8)
    assert tlb.load_many([NEAR + 8], 8).tolist() == [8]


def test_a_batch_that_remaps_its_own_pages():
    """Stores to a table are stores like any other; what was kept stays until a flush."""
    board = X86Board()
    tlb = SoftMmu(board.space, board.regs(), 64)
    step = next(s for s in tlb_steps(board, NEAR + PAGE) if s.level == 1)
    at = LARGE + step.address - RAM
    assert tlb.load_many([NEAR + PAGE, at], 8).tolist()[0] == RAM + PAGE
    tlb.store_many([at], np.array([step.value & ~0x1000], np.uint64))
    assert tlb.load_many([NEAR + PAGE + 8], 8).tolist() == [RAM + PAGE + 8]
    tlb.flush(NEAR + PAGE)
    assert tlb.load_many([NEAR + PAGE + 8], 8).tolist() == [RAM + 8]


def tlb_steps(board, va):
    from mmu import x86

    return x86.walk(board.space, board.regs(), va, READ).steps


def test_a_map_that_another_thread_changes():
    """Every load sees the one RAM or the other; none sees what was there before both."""
    board = X86Board()
    vas = np.tile(np.arange(NEAR + PAGE, NEAR + 2 * PAGE, 8, dtype=np.uint64), 64)
    covers = [Ram(PAGE, name=name) for name in "ab"]
    for n, cover in enumerate(covers):
        cover.memory.write(0, bytes([0xA0 + n]) * PAGE)
    board.space.map(RAM + PAGE, covers[0], priority=2)
    tlb, done = SoftMmu(board.space, board.regs(), 64), threading.Event()

    def change():
        for _ in range(200):
            board.space.map(RAM + PAGE, covers[1], priority=3)
            board.space.unmap(covers[1])
        done.set()

    thread = threading.Thread(target=change)
    thread.start()
    seen = set()
    while not done.is_set():
        seen |= set(np.unique(tlb.load_many(vas, 1)).tolist())
    thread.join()
    assert seen <= {0xA0, 0xA1}
    assert set(np.unique(tlb.load_many(vas, 1)).tolist()) == {0xA0}


def test_threads_take_turns():
    board = X86Board()
    tlb, wrong = SoftMmu(board.space, board.regs(), 64), []

    def run(first):
        vas = np.arange(NEAR + first, NEAR + 2 * PAGE, 16, dtype=np.uint64)
        for n in range(30):
            if (tlb.load_many(vas, 8) != vas - NEAR).any():
                wrong.append(n)
            tlb.flush(int(vas[n]))

    threads = [threading.Thread(target=run, args=(n * 8,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong




def test_ram_that_the_host_has_at_odd_addresses(board):
    board.space.map(RAM + PAGE, Alias(board.ram, 2 * PAGE + 4, PAGE), priority=5)
    board.space.write(2 * PAGE, bytes(range(256)) * 32)
    tlb = SoftMmu(board.space, board.regs(), 64)
    vas = np.arange(NEAR + PAGE, NEAR + 2 * PAGE, 8, dtype=np.uint64)
    for size in (8, 4, 2, 1):
        values = tlb.load_many(vas, size)
        assert [v.tobytes() for v in values] == [board.space.read(2 * PAGE + 4 + 8 * n, size) for n in range(512)]
    tlb.store_many(vas, np.arange(512, dtype=np.uint64))
    assert board.space.read(2 * PAGE + 4, PAGE) == np.arange(512, dtype=np.uint64).tobytes()


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_results_may_take_the_place_of_the_addresses(tlb, size):
    """A batch must not read its own results for addresses, also where it misses, and walks again."""
    vas = np.array([NEAR + n * 264 % PAGE for n in range(300)] + [NEAR + 4 * PAGE - 3, NEAR + PAGE], np.uint64)
    expected, kept = tlb.load_many(vas, size), vas.copy()
    tlb.flush()
    place = vas.view(f"u{size}")[: len(vas)]
    assert np.array_equal(tlb.load_many(vas, size, out=place), expected)
    tlb.flush()
    status = kept.view(np.uint8)[: len(kept)]
    assert np.array_equal(tlb.load_many(kept, size, status=status), expected)
    with pytest.raises(ValueError, match="must not share memory"):
        tlb.load_many([NEAR], 1, out=status[:1], status=status[:1])


def test_all_bytes_of_an_array_of_wide_items_are_stored(tlb):
    items = np.arange(1, 5, dtype=np.uint64)
    assert tlb.write(NEAR, items) is None
    assert tlb.read(NEAR, 32) == items.tobytes()
