"""The address space: what is seen where, and how accesses are cut, traced and refused."""

import gc
import random
import sys
import threading
import time
import weakref
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmu import AddressSpace, Alias, Container, Frames, HostMemory, Mmio, Ram, Rom, Striped, Target
from mmu.core import ffi, lib
from mmu.errors import AddressRangeError, AlignmentError, BusError, RegionOverlapError
from mmu.memory import FlatView, TraceEntry
from mmu.memory.region import Region
from mmu.stripes import Route, Slot, Span
from mmu.types import MemTxResult, Place


def recorder(size, **options):
    """An Mmio region of bytes that records each call as (kind, offset, size)."""
    memory, calls = bytearray(size), []

    def read(offset, n):
        calls.append(("r", offset, n))
        return int.from_bytes(memory[offset : offset + n], "little")

    def write(offset, n, value):
        calls.append(("w", offset, n))
        memory[offset : offset + n] = value.to_bytes(n, "little")

    return Mmio(size, read, write, **options), calls


@pytest.mark.parametrize(
    "offset, size, pieces",
    [(0, 8, [8]), (1, 8, [1, 2, 4, 1]), (2, 4, [2, 2]), (4, 8, [4, 4]), (3, 2, [1, 1]), (7, 1, [1])],
)
def test_an_access_is_cut_into_naturally_aligned_pieces(offset, size, pieces):
    space = AddressSpace()
    region, calls = recorder(64)
    space.map(0x1000, region)
    stored = 0x8877665544332211 & ((1 << 8 * size) - 1)
    space.store(0x1000 + offset, size, stored)
    value, result = space.load(0x1000 + offset, size)
    assert (value, result) == (stored, MemTxResult.OK)
    assert [n for kind, _, n in calls if kind == "r"] == pieces
    assert [n for kind, _, n in calls if kind == "w"] == pieces


def test_a_device_with_4_byte_registers_sees_two_calls_low_first():
    space = AddressSpace()
    region, calls = recorder(64, implemented=(4, 4))
    space.map(0, region)
    space.store(8, 8, 0x8877665544332211)
    assert space.load(8, 8)[0] == 0x8877665544332211
    assert calls == [("w", 8, 4), ("w", 12, 4), ("r", 8, 4), ("r", 12, 4)]


def test_a_size_that_a_device_does_not_take_is_a_decode_error_and_not_a_call():
    space = AddressSpace()
    region, calls = recorder(64, valid=(4, 4))
    space.map(0, region)
    assert space.load(0, 8) == (0, MemTxResult.DECODE_ERROR)
    assert space.store(0, 1, 0) == MemTxResult.DECODE_ERROR
    assert calls == []


def test_a_refusal_by_the_device_is_the_result():
    space = AddressSpace()
    space.map(0, Mmio(64, lambda o, n: MemTxResult.ERROR, lambda o, n, v: MemTxResult.ERROR))
    assert space.load(0, 8) == (0, MemTxResult.ERROR)
    assert space.store(0, 8, 1) == MemTxResult.ERROR


@pytest.mark.parametrize("refused", [0, 4])
def test_a_refusal_of_one_piece_is_the_result_of_the_access(refused):
    space = AddressSpace()
    bad = MemTxResult.ERROR
    space.map(0, Mmio(64, lambda o, n: bad if o == refused else 1, lambda o, n, v: bad if o == refused else None,
                      implemented=(4, 4)))  # fmt: skip
    assert space.load(0, 8) == (1 << 32 if refused == 0 else 1, bad)
    assert space.store(0, 8, 1) == bad


def test_nothing_there_is_a_decode_error_with_zeroes():
    space = AddressSpace()
    assert space.load(0x1000, 8) == (0, MemTxResult.DECODE_ERROR)
    with pytest.raises(BusError, match="DECODE_ERROR"):
        space.read(0x1000, 8)
    with pytest.raises(BusError, match="DECODE_ERROR"):
        space.write(0x1000, b"x")


def test_an_access_that_runs_out_of_ram_errs_and_keeps_what_it_read():
    space = AddressSpace()
    space.map(0, Ram(4096))
    space.write(4092, b"\x11\x22\x33\x44")
    assert space.load(4092, 8) == (0x44332211, MemTxResult.DECODE_ERROR)


def test_rom_drops_writes():
    space = AddressSpace()
    space.map(0, Rom(b"\x42" * 4096))
    assert space.store(0, 8, 0) == MemTxResult.OK
    assert space.read(0, 2) == b"\x42\x42"


def test_an_exception_in_a_callback_comes_out_unchanged():
    space = AddressSpace()
    space.map(0, Mmio(64, lambda o, n: 1 // 0))
    with pytest.raises(ZeroDivisionError):
        space.load(0, 8)
    with pytest.raises(ZeroDivisionError):
        space.read(0, 8)


def test_a_value_too_wide_from_a_callback_is_an_exception_and_not_a_zero():
    space = AddressSpace()
    space.map(0, Mmio(64, lambda o, n: 1 << 64))
    with pytest.raises(OverflowError, match="read of 8 bytes at 0x8"):
        space.load(8, 8)


def test_threads_keep_their_own_exceptions():
    wrong = []

    def go(kind):
        space = AddressSpace()

        def bad(offset, size):
            raise kind()

        space.map(0, Mmio(64, bad))
        for _ in range(500):
            try:
                space.load(0, 8)
            except Exception as e:
                if type(e) is not kind:
                    wrong.append(e)

    threads = [threading.Thread(target=go, args=(k,)) for k in (KeyError, ValueError, OSError)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_a_callback_may_use_the_bus():
    space = AddressSpace()
    space.map(0, Ram(4096))
    space.store(8, 8, 77)
    space.map(0x10000, Mmio(64, lambda o, n: space.load(8, 8)[0]))
    assert space.load(0x10000, 8) == (77, MemTxResult.OK)


def test_a_callback_may_read_a_block_while_one_is_read():
    space = AddressSpace()
    space.map(0, Ram(4096))
    space.write(0, b"a" * 4096)
    space.map(4096, Mmio(8, lambda o, n: int.from_bytes(space.read(0, 24)[:n], "little")))
    assert space.read(4080, 24) == b"a" * 24


def test_bytes_of_a_block_that_nobody_answers_are_cleared():
    space = AddressSpace()
    space.map(0, Ram(4096))
    space.map(8192, Mmio(64, lambda o, n: MemTxResult.ERROR))
    space.map(12288, Striped(4096, 12288, []))
    space.write(0, b"a" * 4096)
    buffer = ffi.new("char[]", b"x" * 16384)
    assert lib.mmu_port_read(space.port, 0, buffer, 16384) == (MemTxResult.ERROR | MemTxResult.DECODE_ERROR).value
    assert ffi.buffer(buffer, 16384)[:] == b"a" * 4096 + bytes(12288)


def test_trace_lists_accesses_before_they_are_cut():
    space = AddressSpace()
    space.map(0, Ram(4096))
    with space.trace() as entries:
        space.store(1, 8, 5)
        space.load(0, 4)
        space.exchange(16, 8, 0, 3)
        space.exchange(16, 8, 0, 4)
    space.load(0, 1)
    assert entries == [
        TraceEntry("write", 1, 8, 5),
        TraceEntry("read", 0, 4, 5 << 8),
        TraceEntry("exchange", 16, 8, 0, desired=3, stored=True),
        TraceEntry("exchange", 16, 8, 3, desired=4, stored=False),
    ]


def test_a_trace_that_is_too_short_says_so():
    space = AddressSpace()
    space.map(0, Ram(4096))
    with pytest.raises(BufferError, match="2 accesses were made, the trace holds 1"), space.trace(1):
        space.load(0, 1)
        space.load(0, 1)


def test_a_trace_within_a_trace_is_refused_and_does_not_end_it():
    space = AddressSpace()
    with space.trace() as outer:
        with pytest.raises(RuntimeError, match="traced already"), space.trace():
            pass
        space.load(0, 4)
    assert len(outer) == 1
    with space.trace() as again:
        space.load(0, 4)
    assert again == outer


@pytest.mark.parametrize("address, size, says", [
    (0, 3, r"one of \(1, 2, 4, 8\) bytes, not 3"), (0, 16, "not 16"), (0, -4, "not -4"),
    (0, (1 << 32) + 4, "not 4294967300"), ((1 << 64) - 4, 8, "8 bytes at 0xfffffffffffffffc leave the 64-bit address"),
    (-8, 8, "8 bytes at -0x8 leave the 64-bit address space"),
    (1 << 64, 1, "leave the 64-bit address space"),
])  # fmt: skip
def test_misuse_of_a_single_access_is_refused(address, size, says):
    with pytest.raises(AddressRangeError, match=says):
        AddressSpace().load(address, size)
    with pytest.raises(AddressRangeError, match=says):
        AddressSpace().store(address, size, 0)


@pytest.mark.parametrize("size, value", [(1, 0x100), (4, 1 << 32), (8, 1 << 64), (8, -1)])
def test_a_value_that_does_not_fit_is_not_stored_in_part(size, value):
    space = AddressSpace()
    space.map(0, Ram(4096))
    with pytest.raises(AddressRangeError, match=f"store of {size} bytes at 0x0: a value must be in 0"):
        space.store(0, size, value)
    assert space.load(0, 8) == (0, MemTxResult.OK)


@pytest.mark.parametrize("expected, desired", [(1 << 32 | 7, 9), (7, 1 << 32), (7, -1), (-1, 7)])
def test_an_exchange_of_4_bytes_does_not_compare_the_half_of_a_wider_value(expected, desired):
    space = AddressSpace()
    space.map(0, Ram(4096))
    space.store(0, 4, 7)
    with pytest.raises(AddressRangeError, match=r"a value must be in 0\.\.0xffffffff"):
        space.exchange(0, 4, expected, desired)
    assert space.load(0, 8) == (7, MemTxResult.OK)


def test_all_bytes_of_an_array_of_wide_items_are_written():
    space, items = AddressSpace(), array("Q", range(1, 5))
    ram = Ram(4096)
    space.map(0, ram)
    space.write(0, items)
    assert space.access(64, data=items) == MemTxResult.OK
    ram.memory.write(128, items)
    assert [space.read(at, 32) for at in (0, 64, 128)] == [items.tobytes()] * 3
    with pytest.raises(AddressRangeError, match="32 bytes at 0xfffffffffffffff0 leave"):
        space.write((1 << 64) - 16, items)
    with pytest.raises(BusError, match="write of 32 bytes"):
        space.write(4096, items)


@pytest.mark.parametrize("size", [1 << 63, 1 << 64])
def test_more_bytes_than_an_object_can_have_are_a_memory_error(size):
    with pytest.raises(MemoryError, match="more than an object can have"):
        AddressSpace().read(0, size)
    with pytest.raises(MemoryError, match="more than an object can have"):
        AddressSpace().access(0, size)


def test_exchange_must_be_aligned():
    space = AddressSpace()
    space.map(0, Ram(4096))
    with pytest.raises(AddressRangeError):
        space.exchange(4, 8, 0, 1)
    with pytest.raises(AddressRangeError, match=r"one of \(4, 8\) bytes, not 2"):
        space.exchange(4, 2, 0, 1)


def test_a_space_reaches_to_its_last_byte():
    space = AddressSpace()
    space.map((1 << 64) - 4096, Ram(4096))
    space.write((1 << 64) - 8, b"12345678")
    assert space.load((1 << 64) - 8, 8)[0] == int.from_bytes(b"12345678", "little")
    with pytest.raises(AddressRangeError, match="leave the 64-bit address space"):
        space.read((1 << 64) - 8, 9)


def test_overlap_names_both_regions():
    space = AddressSpace()
    space.map(0x1000, Ram(4096, "ram0"))
    with pytest.raises(RegionOverlapError, match=r"0x800\.\.0x17ff \(ram1\) overlaps 0x1000\.\.0x1fff \(ram0\)"):
        space.map(0x800, Ram(4096, "ram1"))
    assert len(space.view.ranges) == 1


def test_region_outside_the_space_is_refused():
    with pytest.raises(AddressRangeError, match="leaves space"):
        AddressSpace().map((1 << 64) - 4095, Ram(4096))


@pytest.mark.parametrize("base, region, priority, says", [
    (0x1000, Region(4096, "nothing"), 0, "Region is not memory by itself"), (4096.0, Ram(4096), 0, "'float' object"),
    (0x1000, Ram(4096), "high", "'str' object"), (0x1000, b"rom", 0, "can show a region, such as Ram, not b'rom'"),
])  # fmt: skip
def test_a_region_that_cannot_be_shown_is_not_half_there(base, region, priority, says):
    space = AddressSpace()
    space.map(0, Ram(4096))
    before = space.view.ranges
    with pytest.raises(TypeError, match=says):
        space.map(base, region, priority)
    assert space.view.ranges == before
    space.map(0x1000, Ram(4096))
    assert len(space.view.ranges) == 2


def test_a_map_that_one_of_two_spaces_refuses_is_in_neither(monkeypatch):
    one, two, box = AddressSpace("one"), AddressSpace("two"), Container(1 << 20)
    window = Striped(4096, 0, [Target("mem", HostMemory(4096))])
    for space in (one, two):
        space.map(0, box)
    monkeypatch.setattr(two, "_number", lambda target: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        box.map(0, window)
    monkeypatch.undo()
    assert [len(s.view.ranges) for s in (one, two)] == [0, 0]
    box.map(0, window)
    assert [len(s.view.ranges) for s in (one, two)] == [1, 1]


def test_a_route_that_cannot_be_published_is_not_the_windows_route(monkeypatch):
    space, window = AddressSpace(), Striped(4096, 0, [Target("mem", HostMemory(4096))])
    space.map(0, window)
    before = window.route
    monkeypatch.setattr(space, "_number", lambda target: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        window.set_route(Route((Span(0, 4095, 8, 0, 256, (Slot(0, 0, 0, 1, 256),)),)))
    monkeypatch.undo()
    assert window.route is before
    assert space.load(0, 8)[1] == MemTxResult.ERROR


def test_a_region_is_there_all_the_time_while_threads_change_others_in_its_container():
    space, box, over, failures = AddressSpace(), Container(1 << 20), threading.Event(), []

    class Look:
        def refresh(self):
            if FlatView(box).find(0) is None:
                failures.append("gone")

    space.map(0, box)
    for n in range(40):
        box.map(n * 8192, Ram(4096))
    box.watch(look := Look())

    def change(number):
        region = Ram(4096, f"ram{number}")
        while not over.is_set():
            box.map((60 + number) * 8192, region, priority=number)
            box.unmap(region)

    def guarded(number):
        try:
            change(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(3)]
    interval, end = sys.getswitchinterval(), time.monotonic() + 1
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        while time.monotonic() < end and not failures:
            assert space.load(0, 4) == (0, MemTxResult.OK)
            look.refresh()
    finally:
        over.set()
        sys.setswitchinterval(interval)
        for thread in threads:
            thread.join()
    assert not failures
    assert len(box.children) == 40


def test_a_container_cannot_contain_itself():
    inner, outer = Container(4096, "inner"), Container(8192, "outer")
    outer.map(0, inner)
    with pytest.raises(ValueError, match="look contains inner"):
        inner.map(0, Alias(outer, 0, 4096, "look"))


def test_higher_priority_is_seen_and_comes_off_again():
    space = AddressSpace()
    low, high = Ram(0x3000, "low"), Ram(0x1000, "high")
    space.map(0, low)
    space.map(0x1000, high, priority=1)
    assert [(r.first, r.last, r.region.name, r.offset) for r in space.view.ranges] == [
        (0, 0xFFF, "low", 0), (0x1000, 0x1FFF, "high", 0), (0x2000, 0x2FFF, "low", 0x2000),
    ]  # fmt: skip
    assert space.place(0x1004) == Place("high", 4)
    space.unmap(high)
    assert [(r.first, r.last, r.region.name) for r in space.view.ranges] == [(0, 0x2FFF, "low")]


def test_a_change_below_an_alias_reaches_the_space():
    space = AddressSpace()
    box = Container(0x2000)
    space.map(0x10000, Alias(box, 0x1000, 0x1000))
    assert space.view.ranges == ()
    box.map(0x1000, Ram(0x1000, "ram"))
    assert space.place(0x10000) == Place("ram", 0)


def naive(tree, address):
    """What *address* shows, by descent: the slow twin of FlatView."""
    region, offset = tree, address
    if isinstance(region, Alias):
        return naive(region.target, offset + region.offset)
    if not isinstance(region, Container):
        return region, offset
    for base, child, _ in region.children:
        if base <= offset < base + child.size and (found := naive(child, offset - base)):
            return found
    return None


@st.composite
def trees(draw, depth=2):
    box = Container(64)
    leaves = []
    for i in range(draw(st.integers(1, 5))):
        size = draw(st.integers(1, 40))
        if depth and draw(st.booleans()):
            child = draw(trees(depth - 1))
        else:
            child = Ram(size, f"ram{depth}{i}")
            leaves.append(child)
        if draw(st.booleans()):
            at = draw(st.integers(0, child.size - 1))
            child = Alias(child, at, draw(st.integers(1, child.size - at)))
        base = draw(st.integers(0, max(0, box.size - child.size)))
        if base + child.size <= box.size:
            box.map(base, child, priority=i)
    return box


@settings(max_examples=300, deadline=None)
@given(tree=trees())
def test_flat_view_shows_what_descent_finds(tree):
    view = FlatView(tree)
    for address in range(64):
        found = view.find(address)
        expected = naive(tree, address)
        if expected is None:
            assert found is None
        else:
            assert (found.region, found.offset + address - found.first) == expected
    assert all(a.last < b.first for a, b in zip(view.ranges, view.ranges[1:]))


@settings(max_examples=200, deadline=None)
@given(
    edges=st.lists(st.integers(1, 63), min_size=1, max_size=5, unique=True),
    address=st.integers(0, 56), size=st.sampled_from([1, 2, 4, 8]),
)  # fmt: skip
def test_an_access_over_region_edges_gives_each_region_its_bytes(edges, address, size):
    space, pattern = AddressSpace(), bytes(range(1, 65))
    cuts = [0, *sorted(edges), 64]
    for a, b in zip(cuts, cuts[1:]):
        memory = HostMemory(64)
        memory.write(0, pattern[a:b])
        space.map(a, Ram(b - a, memory=memory))
    assert space.load(address, size) == (int.from_bytes(pattern[address : address + size], "little"), MemTxResult.OK)
    assert space.read(0, 64) == pattern


def test_terabytes_cost_what_is_touched():
    space = AddressSpace()
    space.map(0, Ram(400 << 30))
    space.write((400 << 30) - 8, b"deadbeef")
    assert space.read((400 << 30) - 8, 8) == b"deadbeef"


def test_frames_come_lowest_first_and_run_out():
    frames = Frames(0x1000, 0x2FFF)
    assert [frames(), frames()] == [0x1000, 0x2000]
    with pytest.raises(AddressRangeError, match=r"no frame left in 0x1000\.\.0x2fff"):
        frames()
    frames.free(0x1000)
    assert (frames.used, frames()) == (1, 0x1000)
    with pytest.raises(ValueError, match="not one given out"):
        frames.free(0x9000)
    with pytest.raises(AlignmentError):
        Frames(1, 0x1000)


def test_host_memory_over_a_file(tmp_path):
    path = tmp_path / "m0"
    path.write_bytes(bytes(8192))
    memory = HostMemory(16384)
    with path.open("r+b") as f:
        memory.map_file(4096, 8192, f.fileno())
        with pytest.raises(AddressRangeError):
            memory.map_file(100, 8192, f.fileno())
    memory.write(4096, b"hello")
    memory.sync()
    assert path.read_bytes()[:5] == b"hello"
    with pytest.raises(AddressRangeError, match="leave a memory"):
        memory.read(16380, 8)


def test_what_an_old_map_showed_is_let_go():
    space = AddressSpace()
    ram = Ram(4096)
    space.map(0, ram)
    space.load(0, 8)
    space.unmap(ram)
    watched = weakref.ref(ram)
    del ram
    space.map(0, Ram(4096))
    gc.collect()
    assert watched() is None
    assert lib.mmu_bus_retired(space.bus) == 0


def test_a_callback_may_change_the_map_under_its_own_access():
    space = AddressSpace()

    def read(offset, size):
        space.unmap(region)
        for i in range(3):
            space.map(0x100000 * (i + 1), Ram(4096))
        return 7

    region = Mmio(64, read)
    space.map(0, region)
    assert space.load(0, 8) == (7, MemTxResult.OK)
    assert space.load(0, 8) == (0, MemTxResult.DECODE_ERROR)
    space.refresh()
    assert lib.mmu_bus_retired(space.bus) == 0


def test_readers_see_whole_maps_while_another_thread_changes_them():
    space = AddressSpace()
    memories = [HostMemory(4096) for _ in range(2)]
    for i, m in enumerate(memories):
        m.write(0, bytes([i + 1]) * 4096)
    regions = [Ram(4096, f"ram{i}", m) for i, m in enumerate(memories)]
    space.map(0, regions[0], priority=0)
    seen, stop = set(), threading.Event()

    def read():
        while not stop.is_set():
            seen.add(space.load(8, 8))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for t in threads:
        t.start()
    for _ in range(300):
        space.map(0, regions[1], priority=1)
        space.unmap(regions[1])
    stop.set()
    for t in threads:
        t.join()
    assert seen <= {(int.from_bytes(bytes([i]) * 8, "little"), MemTxResult.OK) for i in (1, 2)}


def test_a_space_in_a_cycle_with_its_callback_is_collected():
    def make():
        space = AddressSpace()
        space.map(0, Mmio(64, lambda o, n: space.load(0x1000, 8)[0]))
        space.load(0, 8)
        return weakref.ref(space)

    watched = make()
    gc.collect()
    assert watched() is None


def test_traffic_can_be_asked_for_while_a_thread_maps_windows():
    space, failures = AddressSpace(), []
    port = space.new_port()

    def ask():
        try:
            while mapping.is_alive():
                port.traffic()
        except RuntimeError as error:
            failures.append(error)

    def fill():
        for n in range(300):
            space.map(n * 4096, Striped(4096, 0, [Target(f"mem{n}", HostMemory(4096))]))

    mapping, asking = threading.Thread(target=fill), threading.Thread(target=ask)
    mapping.start()
    asking.start()
    mapping.join()
    asking.join()
    assert not failures


def test_traffic_of_threads_that_ended_is_kept():
    space = AddressSpace()
    window = Striped(1 << 28, 1 << 32, [Target("mem0", HostMemory(4096))])
    space.map(1 << 32, window)
    span = Span(1 << 32, (1 << 32) + 4095, 8, 0, 256, (Slot(0, 1 << 32, 0, 1, 256),))
    window.set_route(Route((span,)))
    for _ in range(3):
        t = threading.Thread(target=space.load, args=(1 << 32, 8))
        t.start()
        t.join()
    assert space.traffic()["mem0"].reads == 3


def layouts():
    """(first, size) of regions that do not overlap: even, crowded at one end, doubling, huge and tiny together."""
    even = [(i << 20, 4096) for i in range(1000)]
    crowded = [*((i * 4096, 2048) for i in range(500)), (1 << 62, 1 << 61)]
    doubling = [(1 << i, 1 << (i - 1)) for i in range(3, 63)]
    tiny = [(3 * i, 2) for i in range(300)]
    return {"even": even, "crowded": crowded, "doubling": doubling, "tiny": tiny}


@pytest.mark.parametrize("layout", layouts())
def test_search_of_the_map_finds_what_a_scan_finds(layout):
    space, calls, regions = AddressSpace(), [], layouts()[layout]
    box = Container(1 << 64)
    for n, (first, size) in enumerate(regions):
        box.map(first, Mmio(size, lambda o, s, n=n: calls.append((n, o)) or 0))
    space.map(0, box)
    rng = random.Random(layout)
    edges = [a + d for a, s in regions for d in (-1, 0, 1, s - 1, s) if a + d >= 0]
    for address in [*edges, *(rng.randrange(1 << 64) for _ in range(100))]:
        calls.clear()
        _, result = space.load(address, 1)
        expected = [(n, address - a) for n, (a, s) in enumerate(regions) if a <= address < a + s]
        assert calls == expected
        assert result == (MemTxResult.OK if expected else MemTxResult.DECODE_ERROR)


def test_as_many_regions_elsewhere_are_found_where_they_are_now():
    space, box = AddressSpace(), Container(1 << 40)
    space.map(0, box)
    memories = [HostMemory(4096) for _ in range(40)]
    for i, memory in enumerate(memories):
        memory.write(0, bytes([i + 1]))
    for spacing in (4096, 1 << 20, 1 << 33, 4096):
        box.children = [(i * spacing, Ram(4096, f"ram{i}", m), 0) for i, m in enumerate(memories)]
        box.refresh()
        assert [space.load(i * spacing, 1)[0] for i in range(40)] == list(range(1, 41))
        box.children = [(i * spacing, Ram(4096, f"ram{i}", m), 0) for i, m in enumerate(reversed(memories))]
        box.refresh()
        assert [space.load(i * spacing, 1)[0] for i in range(40)] == list(range(40, 0, -1))


def test_maps_that_no_port_reads_are_freed_although_nobody_asks():
    space = AddressSpace()
    generation, ranges = ffi.new("uint64_t *"), ffi.new("struct mmu_range[]", 0)
    for _ in range(1000):
        lib.mmu_bus_publish(space.bus, ranges, 0, generation)
        assert lib.mmu_bus_retired(space.bus) <= 32
