"""Windows: the C route against the plain-integer reference, and where the bytes land."""

import os
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmu import AddressSpace, HostMemory, Ram, Striped, Target
from mmu.core import ffi, lib
from mmu.errors import AddressRangeError
from mmu.memory.port import TARGETS
from mmu.stripes import GRANULARITIES, WAYS, Miss, Route, Slot, Span, dpa_offset, hpa_offset, position, xor_address
from mmu.types import MemTxResult, Place
from tests.strategies import PART, WINDOW, granularities, routes, ways

SIZE = 4 * PART


@pytest.fixture(scope="module")
def targets():
    return [Target(f"mem{i}", HostMemory(4 * PART)) for i in range(4)]


@settings(max_examples=300, deadline=None)
@given(route=routes(), addresses=st.lists(st.integers(WINDOW, WINDOW + SIZE - 1), min_size=20, max_size=20))
def test_compiled_route_agrees_with_plain_integers(targets, route, addresses):
    compiled = Striped(SIZE, WINDOW, targets).compile(route, lambda t: 0)
    target, dpa = ffi.new("uint32_t *"), ffi.new("uint64_t *")
    for hpa in addresses:
        status = lib.mmu_route_locate(compiled, hpa, target, dpa)
        match route.locate(hpa):
            case Miss(at_device=at_device):
                assert status == (1 + lib.MMU_SLOT_REFUSED if at_device else 1 + lib.MMU_SLOT_NO_DEVICE)
            case found:
                assert (status, target[0], dpa[0]) == (0, *found)


@given(ways=ways, granularity=granularities, offset=st.integers(0, (1 << 52) - 1))
def test_position_and_dpa_have_an_inverse(ways, granularity, offset):
    there = position(offset, ways, granularity), dpa_offset(offset, ways, granularity)
    assert offset == hpa_offset(there[1], there[0], ways, granularity)


@given(address=st.integers(0, (1 << 52) - 1))
def test_xor_is_its_own_inverse(address):
    maps = (0x404100, 0x808200)
    assert address == xor_address(xor_address(address, maps), maps)


@pytest.mark.parametrize("wrong", [0, 5, 7, 9, 24, -1])
def test_ways_without_an_encoding_are_refused(wrong):
    with pytest.raises(ValueError, match=f"not {wrong}"):
        position(0, wrong, 256)


@pytest.mark.parametrize("wrong", [0, 128, 300, 32768])
def test_granularity_without_an_encoding_is_refused(wrong):
    with pytest.raises(ValueError, match=f"not {wrong}"):
        dpa_offset(0, 2, wrong)


@pytest.mark.parametrize("wrong", [-1, 2])
def test_position_outside_the_set_is_refused(wrong):
    with pytest.raises(ValueError, match=rf"0\.\.1, not {wrong}"):
        hpa_offset(0, wrong, 2, 256)


def window(targets, count, granularity):
    """A window over *count* targets in position order, all of it decoded."""
    space = AddressSpace()
    striped = Striped(SIZE, WINDOW, targets)
    space.map(WINDOW, striped)
    shift, bits = granularity.bit_length() - 1, (count & -count).bit_length() - 1
    # The index comes from the absolute address, positions count from the base: for 3, 6 and 12 ways they differ.
    first = WINDOW // granularity
    order = sorted(range(count), key=lambda i: (first + i) % count)
    slots = tuple(Slot(i, WINDOW, 0, count, granularity) for i in order)
    mod3 = shift + bits if count % 3 == 0 else None
    striped.set_route(Route((Span(WINDOW, WINDOW + SIZE - 1, shift, bits, granularity, slots, (), mod3),)))
    return space


SETS = [(w, g) for w in sorted(WAYS.values()) for g in GRANULARITIES]
PATTERN = bytes((13 * i + (i >> 8)) & 255 for i in range(4096))


@settings(max_examples=200, deadline=None)
@given(
    which=st.sampled_from(SETS),
    start=st.integers(0, 1 << 17),
    stores=st.lists(st.tuples(st.integers(0, 4000), st.sampled_from([1, 2, 4, 8])), min_size=1, max_size=20),
)
@example(which=(2, 256), start=0, stores=[(252, 8)])
def test_every_byte_of_a_store_lands_where_plain_integers_say(which, start, stores):
    count, granularity = which
    targets = [Target(f"mem{i}", HostMemory(1 << 20)) for i in range(count)]
    space = window(targets, count, granularity)
    expected = [bytearray(1 << 20) for _ in targets]
    for at, size in stores:
        data = PATTERN[at : at + size]
        assert space.store(WINDOW + start + at, size, int.from_bytes(data, "little")) == MemTxResult.OK
        for i, byte in enumerate(data):
            offset = start + at + i
            expected[position(offset, count, granularity)][dpa_offset(offset, count, granularity)] = byte
    assert expected == [bytearray(t.memory.read(0, 1 << 20)) for t in targets]
    for at, size in stores:
        value, result = space.load(WINDOW + start + at, size)
        assert (value.to_bytes(size, "little"), result) == (PATTERN[at : at + size], MemTxResult.OK)


@settings(max_examples=100, deadline=None)
@given(which=st.sampled_from(SETS), start=st.integers(0, 1 << 16), size=st.integers(0, 1 << 16))
def test_blocks_and_single_accesses_see_the_same_bytes(which, start, size):
    count, granularity = which
    space = window([Target(f"mem{i}", HostMemory(1 << 20)) for i in range(count)], count, granularity)
    data = (PATTERN * 17)[:size]
    space.write(WINDOW + start, data)
    assert space.read(WINDOW + start, size) == data
    for at in range(0, size - 8, 997):
        assert space.load(WINDOW + start + at, 8)[0].to_bytes(8, "little") == data[at : at + 8]


@settings(max_examples=200, deadline=None)
@given(route=routes(), at=st.sampled_from([WINDOW, WINDOW, 0x1000, 0x1004]), rng=st.randoms(use_true_random=False))
def test_short_way_and_long_way_through_a_window_agree(targets, route, at, rng):
    space, striped = AddressSpace(), Striped(SIZE, WINDOW, targets)
    space.map(at, striped)
    striped.set_route(route)
    for number in range(30):
        size = rng.choice([1, 2, 4, 8])
        offset = rng.randrange(SIZE // 8 - 1) * 8 + rng.choice([0, 0, 0, 4, 7])
        data = bytes(number + i + 1 for i in range(size))
        stored = space.store(at + offset, size, int.from_bytes(data, "little"))
        with space.trace():  # what is traced takes the long way
            long = space.load(at + offset, size)
        assert space.load(at + offset, size) == long
        found = [located(route, targets, WINDOW + offset + i) for i in range(size)]
        expected = bytes(byte if refused is None else 0 for byte, refused in zip(data, found))
        failed = MemTxResult.OK if set(found) == {None} else MemTxResult.ERROR
        assert long == (int.from_bytes(expected, "little"), failed)
        assert stored == (MemTxResult.ERROR if True in found else MemTxResult.OK)


@settings(max_examples=60, deadline=None)
@given(route=routes(), rng=st.randoms(use_true_random=False))
def test_a_block_across_spans_and_holes_is_what_its_bytes_are(targets, route, rng):
    space, striped = AddressSpace(), Striped(SIZE, WINDOW, targets)
    space.map(WINDOW, striped)
    striped.set_route(route)
    for _ in range(4):
        size = rng.randrange(1, 3000)
        start = min(max(rng.randrange(5) * PART + rng.randrange(-2000, 2000), 0), SIZE - size)
        data = rng.randbytes(size)
        written = space.access(WINDOW + start, data=data)
        read, result = space.access(WINDOW + start, size)
        places = [route.locate(WINDOW + start + i) for i in range(size)]
        found = [located(route, targets, WINDOW + start + i) for i in range(size)]
        memory = {p: byte for p, byte, refused in zip(places, data, found) if refused is None}  # the last one stays
        assert read == bytes(memory[p] if refused is None else 0 for p, refused in zip(places, found))
        assert result == (MemTxResult.OK if set(found) == {None} else MemTxResult.ERROR)
        assert written == (MemTxResult.ERROR if True in found else MemTxResult.OK)


def located(route, targets, hpa):
    """None when a byte of a device answers at *hpa*; else whether the device refuses writes as well as reads."""
    found = route.locate(hpa)
    if isinstance(found, Miss):
        return found.at_device
    return None if found[1] < targets[found[0]].memory.size else True


def test_a_device_that_divides_by_3_in_a_window_that_does_not():
    targets = [Target("mem0", HostMemory(1 << 20))]
    targets[0].memory.write(256, b"\x01")
    targets[0].memory.write(768, b"\x02")
    space, striped = AddressSpace(), Striped(SIZE, WINDOW, targets)
    space.map(WINDOW, striped)
    striped.set_route(Route((Span(WINDOW, WINDOW + SIZE - 1, 8, 0, 256, (Slot(0, WINDOW, 0, 3, 256),)),)))
    assert [space.load(WINDOW + 768, 1)[0] for _ in range(2)] == [1, 1]


def test_a_port_that_remembers_a_window_sees_the_next_map():
    targets = [Target(f"mem{i}", HostMemory(65536)) for i in range(2)]
    for i, t in enumerate(targets):
        t.memory.write(0, bytes([i + 1]) * 65536)
    space = AddressSpace()
    windows = [Striped(4096, WINDOW, targets, f"window{i}") for i in range(2)]
    for i, w in enumerate(windows):
        w.set_route(Route((Span(WINDOW, WINDOW + 4095, 8, 0, 256, (Slot(i, WINDOW, 0, 1, 256),)),)))
    space.map(0, windows[0])
    space.map(4096, windows[1])
    for base in (0, 4096, 0, 4096):
        assert space.load(base, 1)[0] == (1 if base == 0 else 2)
    space.unmap(windows[0])
    assert space.load(4096, 1) == (2, MemTxResult.OK)
    assert space.load(0, 1) == (0, MemTxResult.DECODE_ERROR)
    space.map(0, windows[0])
    windows[1].set_route(Route())
    assert space.load(4096, 1) == (0, MemTxResult.ERROR)
    assert space.load(0, 1) == (1, MemTxResult.OK)


def test_every_size_is_counted():
    targets = [Target("mem0", HostMemory(4096))]
    space = window(targets, 1, 256)
    for size in (1, 2, 4, 8):
        for _ in range(size):
            space.load(WINDOW, size)
        space.store(WINDOW, size, 0)
    space.read(WINDOW, 3)
    t = space.traffic()["mem0"]
    assert (t.reads, t.writes, t.read_bytes, t.write_bytes) == (16, 4, 85 + 3, 15)


def test_each_granule_of_a_block_is_counted_for_its_device():
    targets = [Target(f"mem{i}", HostMemory(4096)) for i in range(2)]
    space = window(targets, 2, 256)
    space.read(WINDOW + 256, 4 * 256 + 10)
    space.write(WINDOW, bytes(3 * 256))
    counted = {n: (t.reads, t.read_bytes, t.writes, t.write_bytes) for n, t in space.traffic().items()}
    assert counted == {"mem0": (2, 512, 2, 512), "mem1": (3, 522, 1, 256)}


def test_a_block_finds_granules_that_xor_maps_spread():
    targets = [Target(f"mem{i}", HostMemory(8192)) for i in range(2)]
    space, striped = AddressSpace(), Striped(16384, WINDOW, targets)
    space.map(WINDOW, striped)
    slots = tuple(Slot(i, WINDOW, 0, 2, 256) for i in range(2))
    striped.set_route(Route((Span(WINDOW, WINDOW + 16383, 8, 0, 256, slots, (1 << 8 | 1 << 10,)),)))
    space.write(WINDOW, PATTERN)
    for at in range(0, 4096, 256):
        which, dpa = (at >> 8 ^ at >> 10) & 1, at // 512 * 256
        assert targets[which].memory.read(dpa, 256) == PATTERN[at : at + 256]
    assert space.read(WINDOW, 4096) == PATTERN


def test_a_block_has_the_bytes_of_a_device_up_to_its_end_within_a_granule():
    space = window([Target("small", HostMemory(4096 + 100))], 1, 256)
    data = PATTERN[:1024]
    assert space.access(WINDOW + 4096 - 512, data=data) == MemTxResult.ERROR
    assert space.access(WINDOW + 4096 - 512, 1024) == (data[:612] + bytes(412), MemTxResult.ERROR)


def test_an_8_byte_store_across_a_granule_reaches_two_devices():
    targets = [Target(f"mem{i}", HostMemory(4096)) for i in range(2)]
    space = window(targets, 2, 256)
    space.store(WINDOW + 252, 8, 0x8877665544332211)
    assert (targets[0].memory.read(252, 4), targets[1].memory.read(0, 4)) == (b"\x11\x22\x33\x44", b"\x55\x66\x77\x88")
    assert targets[0].memory.read(256, 4) == bytes(4)
    traffic = space.traffic()
    assert [(traffic[n].writes, traffic[n].write_bytes) for n in ("mem0", "mem1")] == [(1, 4), (1, 4)]


def test_undecoded_read_errs_and_undecoded_write_is_dropped(targets):
    space = AddressSpace()
    space.map(WINDOW, Striped(SIZE, WINDOW, targets))
    assert space.load(WINDOW, 8) == (0, MemTxResult.ERROR)
    assert space.store(WINDOW, 8, 1) == MemTxResult.OK
    assert space.access(WINDOW, 16) == (bytes(16), MemTxResult.ERROR)
    assert space.exchange(WINDOW, 8, 0, 1) == (0, MemTxResult.ERROR)
    assert space.place(WINDOW) == Place("window", 0)


def test_a_device_that_refuses_errs_on_writes_too(targets):
    space = AddressSpace()
    striped = Striped(SIZE, WINDOW, targets)
    space.map(WINDOW, striped)
    striped.set_route(Route((Span(WINDOW, WINDOW + PART - 1, 8, 0, 256, (Miss("no", at_device=True),)),)))
    assert space.load(WINDOW, 8) == (0, MemTxResult.ERROR)
    assert space.store(WINDOW, 8, 1) == MemTxResult.ERROR


def test_access_past_the_device_memory_errs():
    space = window([Target("small", HostMemory(4096))], 1, 256)
    assert space.load(WINDOW + 4088, 8) == (0, MemTxResult.OK)
    assert space.load(WINDOW + 4096, 8) == (0, MemTxResult.ERROR)
    assert space.store(WINDOW + 4096, 8, 1) == MemTxResult.ERROR
    data, result = space.access(WINDOW + 4090, 12)
    assert (data, result) == (bytes(12), MemTxResult.ERROR)


def test_exchange_in_a_window_is_counted_as_read_and_write():
    targets = [Target(f"mem{i}", HostMemory(4096)) for i in range(2)]
    space = window(targets, 2, 256)
    space.store(WINDOW + 256, 8, 5)
    assert space.exchange(WINDOW + 256, 8, 4, 6) == (5, MemTxResult.OK)
    assert space.exchange(WINDOW + 256, 8, 5, 6) == (5, MemTxResult.OK)
    assert targets[1].memory.read(0, 1) == b"\x06"
    t = space.traffic()["mem1"]
    assert (t.reads, t.writes) == (2, 2)


def test_a_new_route_is_seen_at_once(targets):
    space = window(targets, 1, 256)
    space.store(WINDOW, 1, 7)
    (striped,) = {r.region for r in space.view.ranges}
    striped.set_route(Route())
    assert space.load(WINDOW, 1) == (0, MemTxResult.ERROR)


def test_a_route_is_compiled_once_however_often_maps_change(targets, monkeypatch):
    compiled = []
    of = Striped.compile
    monkeypatch.setattr(Striped, "compile", lambda self, *a: compiled.append(self.name) or of(self, *a))
    space = AddressSpace()
    for i in range(2):
        space.map(i * PART, Striped(PART, i * PART, targets, f"window{i}"))
    space.map(0x1000, Ram(4096), priority=1)  # now the first window is seen in two parts
    assert compiled == ["window0", "window1"]
    space.view.find(PART).region.set_route(Route((Span(PART, 2 * PART - 1, 8, 0, 256, (Slot(0, PART, 0, 1, 256),)),)))
    assert compiled[2:] == ["window1"] * 2  # to check it, then for this space
    assert [space.load(base, 1)[1] for base in (0, PART)] == [MemTxResult.ERROR, MemTxResult.OK]


def test_thousands_of_routes_leave_memory_flat(targets):
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    space = window(targets, 4, 256)
    (striped,) = {r.region for r in space.view.ranges}
    routes = [striped.route, Route()]
    for i in range(500):
        striped.set_route(routes[i & 1])
    before = resident()
    for i in range(5000):
        striped.set_route(routes[i & 1])
    assert resident() - before < 1 << 19


def test_a_window_knows_its_hpa_wherever_it_is_mapped():
    targets = [Target(f"mem{i}", HostMemory(4096)) for i in range(2)]
    space = window(targets, 2, 256)
    (striped,) = {r.region for r in space.view.ranges}
    space.unmap(striped)
    space.map(0x1000, striped)
    space.store(0x1000 + 0x100, 1, 9)
    assert targets[1].memory.read(0, 1) == b"\x09"


def test_a_window_mapped_askew_still_cuts_at_its_own_granules():
    targets = [Target(f"mem{i}", HostMemory(4096)) for i in range(2)]
    space = window(targets, 2, 256)
    (striped,) = {r.region for r in space.view.ranges}
    space.unmap(striped)
    space.map(0x1004, striped)
    space.store(0x1100, 8, 0x8877665544332211)  # an aligned address, 4 bytes short of a granule's end
    assert (targets[0].memory.read(252, 4), targets[1].memory.read(0, 4)) == (b"\x11\x22\x33\x44", b"\x55\x66\x77\x88")
    assert space.load(0x1100, 8) == (0x8877665544332211, MemTxResult.OK)


def test_route_with_a_target_that_is_not_there_is_refused(targets):
    striped = Striped(SIZE, WINDOW, targets)
    with pytest.raises(AddressRangeError, match="out of range"):
        striped.set_route(Route((Span(WINDOW, WINDOW + 4095, 8, 0, 256, (Slot(4, WINDOW, 0, 1, 256),)),)))
    assert striped.route == Route()


def test_spans_must_be_sorted_and_apart():
    a = Span(0, 4095, 8, 0, 256, (Miss("x"),))
    with pytest.raises(ValueError, match="sorted and apart"):
        Route((a, a))


def test_span_needs_a_slot_for_each_index():
    with pytest.raises(ValueError, match="needs 2 slots, not 1"):
        Span(0, 4095, 8, 1, 256, (Miss("x"),))


@settings(max_examples=200, deadline=None)
@given(route=routes(), start=st.integers(WINDOW, WINDOW + SIZE - 65536), size=st.integers(1, 65536))
def test_pieces_cover_an_access_and_stay_in_one_slot(route, start, size):
    pieces = route.pieces(start, size)
    assert sum(n for _, n in pieces) == size
    assert [a for a, _ in pieces] == [start + sum(n for _, n in pieces[:i]) for i in range(len(pieces))]
    for at, n in pieces:
        first, last = route.locate(at), route.locate(at + n - 1)
        if isinstance(first, Miss):
            assert isinstance(last, Miss)
        else:
            assert (first[0], first[1] + n - 1) == last


TWO = (Slot(0, 0, 0, 2, 256), Slot(1, 0, 0, 2, 256))


@pytest.mark.parametrize("granule, most, more", [
    (512, 256, {"bits": 1}), (512, 256, {"maps": (0x2100,)}), (4096, 256, {"slots": TWO[:1]}),
    (1024, 512, {"slots": (Slot(0, 0, 0, 1, 256),) * 3, "mod3_shift": 9}),
])  # fmt: skip
def test_a_granule_over_two_slots_is_refused_and_the_window_stays_as_it_was(granule, most, more):
    """A block would be read from the first slot as a whole."""
    window = Striped(1 << 16, 0, [Target(f"mem{n}", HostMemory(1 << 16)) for n in range(2)])
    before = window.route
    parts = {"first": 0, "last": 0xFFFF, "shift": 8, "bits": 0, "slots": TWO, **more}
    with pytest.raises(AddressRangeError, match=rf"granule of span .* must be at most {most}, .*, not {granule}"):
        window.set_route(Route((Span(granule=granule, **parts),)))
    assert window.route is before
    window.set_route(Route((Span(granule=most, **parts),)))


@pytest.mark.parametrize("slot, error, says", [
    (Slot(0, 0, 0, 2, 300), ValueError, "granularity must be a power of two .*, not 300"),
    (Slot(0, 0, 0, 5, 256), ValueError, "ways must be one of .*, not 5"),
    (Slot(-1, 0, 0, 1, 256), AddressRangeError, "window w: .* out of range: can't convert negative"),
    (Slot(0, 0, 1 << 64, 1, 256), AddressRangeError, "window w: .* out of range: int too big"),
    (Slot(1, 0, 0, 1, 256), AddressRangeError, "window w: .* out of range"),
])  # fmt: skip
def test_a_slot_that_no_decoder_has_is_refused(slot, error, says):
    window = Striped(4096, 0, [Target("mem0", HostMemory(4096))], "w")
    with pytest.raises(error, match=says):
        window.set_route(Route((Span(0, 4095, 8, 0, 256, (slot,)),)))
    with pytest.raises(TypeError, match="window w: a route must be a Route, not None"):
        window.set_route(None)
    assert window.route == Route()


@pytest.mark.parametrize("same", [True, False])
def test_traffic_of_a_device_behind_two_windows_is_the_sum(same):
    """Also of two devices of one name, as those of two topologies may be."""
    space, memory = AddressSpace(), HostMemory(4096)
    for base in (0, 1 << 32):
        window = Striped(4096, base, [Target("mem0", memory if same else HostMemory(4096))])
        window.set_route(Route((Span(base, base + 4095, 8, 0, 256, (Slot(0, base, 0, 1, 256),)),)))
        space.map(base, window)
    for address in (0, 0, 1 << 32):
        space.load(address, 4)
    assert space.traffic()["mem0"].reads == 3


def test_a_device_that_is_shown_again_and_again_is_counted_on():
    """Ports count a limited number of devices."""
    space, memory = AddressSpace(), HostMemory(4096)
    for _ in range(TARGETS + 1):
        window = Striped(4096, 0, [Target("mem0", memory)])
        space.map(0, window)
        space.unmap(window)
    window.set_route(Route((Span(0, 4095, 8, 0, 256, (Slot(0, 0, 0, 1, 256),)),)))
    space.map(0, window)
    space.load(0, 4)
    assert space.traffic()["mem0"].reads == 1


def test_threads_that_attach_one_memory_at_once_agree_on_where_its_bytes_live():
    """Two tables of places for one memory: what a guest moves is then lost to those who know the other table."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(200):
            memory, start, found = HostMemory(1 << 44), threading.Barrier(2), set()

            def ask(memory=memory, start=start, found=found):
                start.wait()
                found.add(memory.places)

            threads = [threading.Thread(target=ask) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(found) == 1
    finally:
        sys.setswitchinterval(interval)
