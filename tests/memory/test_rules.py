"""The rules of QEMU's memory API that other tests of this room do not show; rules that differ here say so."""

import ctypes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmu import AddressSpace, Alias, Container, Mmio, NativeMmio, Ram, RamDevice, Rom, RomDevice
from mmu.types import MemTxResult, Place
from tests.memory.test_mmio import READ, WRITE, mapped

OK, ERROR, DECODE_ERROR, ACCESS_ERROR = (
    MemTxResult.OK, MemTxResult.ERROR, MemTxResult.DECODE_ERROR, MemTxResult.ACCESS_ERROR)


# ---- kinds of regions ----


def test_what_each_kind_of_region_does_with_a_store_and_a_load():
    calls = []

    def flash_write(offset, size, value):
        calls.append((offset, size, value))

    regions = {
        "ram": Ram(64), "rom": Rom(bytes(range(64))), "ram device": RamDevice(64),
        "rom device": RomDevice(bytes(range(64)), flash_write), "io": Mmio(64, lambda o, n: 0x77),
    }  # fmt: skip
    found = {}
    for name, region in regions.items():
        space = mapped(region)
        found[name] = (space.store(8, 1, 0x55), space.load(8, 1))
    assert found == {
        "ram": (OK, (0x55, OK)), "rom": (OK, (8, OK)), "ram device": (OK, (0x55, OK)),
        "rom device": (OK, (8, OK)), "io": (OK, (0x77, OK)),
    }
    assert calls == [(8, 1, 0x55)]


def test_a_container_alone_answers_nothing():
    space = AddressSpace()
    space.map(0, Container(64))
    assert space.view.ranges == ()
    assert space.load(0, 4) == (0, DECODE_ERROR)


# ---- rendering ----


def test_a_region_of_higher_priority_hides_a_part_of_another_and_splits_it():
    """Equal priorities do not overlap here: there is an error for that, where QEMU lets the newer one win."""
    space, box = AddressSpace(), Container(0x100)
    box.map(0, Mmio(0x100, lambda o, n: 1, name="io"))
    box.map(0x40, Ram(0x40, "ram"), priority=1)
    space.map(0, box)
    assert [(r.first, r.region.name, r.offset) for r in space.view.ranges] == [
        (0, "io", 0), (0x40, "ram", 0), (0x80, "io", 0x80)]


def test_neighbours_that_continue_one_another_are_one_range_and_others_are_not():
    space, ram, box = AddressSpace(), Ram(0x100), Container(0x400)
    for at, offset in (0, 0), (0x40, 0x40), (0x80, 0xC0), (0xC0, 0x80):
        box.map(at, Alias(ram, offset, 0x40))
    space.map(0, box)
    assert [(r.first, r.last, r.offset) for r in space.view.ranges] == [
        (0, 0x7F, 0), (0x80, 0xBF, 0xC0), (0xC0, 0xFF, 0x80)]


def test_a_child_is_clipped_to_what_its_alias_shows():
    space, box = AddressSpace(), Container(0x200)
    box.map(0x40, Ram(0x100, "ram"))
    space.map(0x1000, Alias(box, 0x80, 0x40))
    assert [(r.first, r.last, r.offset) for r in space.view.ranges] == [(0x1000, 0x103F, 0x40)]
    assert space.place(0x1000) == Place("ram", 0x40)


# ---- dispatch ----


def test_there_may_be_more_regions_than_a_page_has_bytes():
    """QEMU had at most 4,096 sections in a map: that is why interleave could not be made of aliases."""
    space, box, ram = AddressSpace(), Container(1 << 20), Ram(8192)
    # map() would look at each for overlaps
    box.children = tuple((i * 16, Alias(ram, (4199 - i) % 1000 * 8, 8), 0) for i in range(4200))
    space.map(0, box)
    assert len(space.view.ranges) == 4200
    for i in (0, 1, 1000, 4095, 4096, 4199):
        space.store(i * 16, 8, i + 1)
        assert ram.memory.read((4199 - i) % 1000 * 8, 8) == (i + 1).to_bytes(8, "little")
        assert space.load(i * 16 + 8, 8) == (0, DECODE_ERROR)


# ---- which accesses are valid ----


def test_a_device_is_asked_before_its_sizes_and_alignment_are_looked_at():
    asked = []
    region = Mmio(64, lambda o, n: 1 // 0, accepts=lambda o, n, w: asked.append((o, n, w)) or True, valid=(2, 4))
    space = mapped(region)
    assert space.load(8, 1) == (0, DECODE_ERROR)
    assert space.store(8, 8, 1) == DECODE_ERROR
    assert asked == [(8, 1, False), (8, 8, True)]


@pytest.mark.parametrize("unaligned, result", [(False, DECODE_ERROR), (True, OK)])
def test_an_offset_that_is_askew_in_the_region_goes_through_only_where_that_is_valid(unaligned, result):
    """The region lies askew: the access itself is aligned, so nothing cuts it. It goes to the callback as it is."""
    calls = []
    region = Mmio(64, lambda o, n: calls.append(("r", o, n)) or 5, lambda o, n, v: calls.append(("w", o, n)),
                  unaligned=unaligned)
    space = mapped(region, 0x1002)
    assert space.load(0x1008, 4) == (5 if unaligned else 0, result)
    assert space.store(0x1008, 4, 9) == result
    assert calls == ([("r", 6, 4), ("w", 6, 4)] if unaligned else [])


def test_a_valid_unaligned_access_is_cut_where_the_device_implements_less_and_stays_askew():
    calls = []
    region = Mmio(64, lambda o, n: calls.append((o, n)) or 0, unaligned=True, implemented=(1, 2))
    mapped(region, 0x1001).load(0x1004, 4)
    assert calls == [(3, 2), (5, 2)]


# ---- what callbacks may do ----


def native(read=None, write=None, **options):
    functions = [READ(read) if read else None, WRITE(write) if write else None]
    addresses = [ctypes.cast(f, ctypes.c_void_p).value if f else 0 for f in functions]
    return NativeMmio(64, *addresses, keep=functions, **options)


def test_a_callback_in_c_that_writes_no_value_reads_as_0_whatever_it_returns():
    for returned in 0, 1, 4:
        space = mapped(native(lambda context, offset, size, value, returned=returned: returned))
        assert space.load(0, 8) == (0, MemTxResult(returned))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_callback_in_c_that_writes_more_than_it_was_asked_for_is_cut(size):
    def read(context, offset, n, value):
        value[0] = 0x8877665544332211
        return 0

    whole = 0x8877665544332211
    assert mapped(native(read)).load(0, size) == (whole & (1 << 8 * size) - 1, OK)
    assert mapped(native(read, implemented=(8, 8))).load(0, size) == (whole & (1 << 8 * size) - 1, OK)
    assert mapped(native(read, implemented=(1, 1))).load(0, 2) == (0x1111, OK)


@pytest.mark.parametrize("value", [1 << 32, -1, 1 << 64])
def test_a_value_that_does_not_fit_is_an_overflow_in_python_and_names_the_region(value):
    space = mapped(Mmio(64, lambda o, n: value, name="uart"))
    with pytest.raises(OverflowError, match=rf"uart: a read .* at 0x8 returned {value:#x}, not one of 0\.\.0xf"):
        space.load(8, 4)
    with pytest.raises(OverflowError):
        space.read(8, 4)


@pytest.mark.parametrize("value", [None, 1.0, "7"])
def test_a_callback_that_returns_no_number_is_a_type_error_that_names_the_region(value):
    with pytest.raises(TypeError, match=rf"uart: a read of 4 bytes at 0x8 returned {value!r}, neither an integer"):
        mapped(Mmio(64, lambda o, n: value, name="uart")).load(8, 4)


def test_a_callback_of_writes_that_returns_a_number_is_a_type_error_that_names_the_region():
    space = mapped(Mmio(64, write=lambda o, n, v: v, name="uart"))
    with pytest.raises(TypeError, match=r"region uart: a write of 4 bytes at 0x8 returned 7, neither None"):
        space.store(8, 4, 7)


@pytest.mark.parametrize("make", [lambda s: s.load(0, 8), lambda s: s.read(0, 64), lambda s: s.exchange(0, 8, 0, 1)])
def test_an_exception_ends_an_access_at_the_first_piece(make):
    calls = []

    def read(offset, size):
        calls.append(offset)
        raise LookupError(offset)

    with pytest.raises(LookupError):
        make(mapped(Mmio(64, read, implemented=(1, 4))))
    assert calls == [0]


def test_results_of_the_calls_of_one_access_are_or_ed():
    answers = {0: OK, 2: ERROR, 4: ACCESS_ERROR, 6: OK}
    space = mapped(Mmio(64, lambda o, n: answers[o], lambda o, n, v: answers[o], implemented=(2, 2)))
    assert space.load(0, 8) == (0, ERROR | ACCESS_ERROR)
    assert space.store(0, 8, 0) == ERROR | ACCESS_ERROR


def test_a_short_write_is_widened_without_reading_first():
    calls = []
    space = mapped(Mmio(
        64, lambda o, n: calls.append("read") or 0, lambda o, n, v: calls.append((o, n, v)), implemented=(4, 8)))
    space.store(1, 1, 0xAB)
    assert calls == [(1, 4, 0xAB)]


def test_the_guard_is_not_for_memory_the_device_may_read_its_own_flash():
    seen = []

    def write(offset, size, value):
        seen.append(space.load(0x10, 1))
        seen.append(space.store(0x10, 1, 0))

    space = mapped(RomDevice(b"\x42" * 64, write))
    assert space.store(0, 1, 1) == OK
    assert seen == [(0x42, OK), ACCESS_ERROR]


# ---- blocks ----


@settings(max_examples=200, deadline=None)
@given(
    offset=st.integers(0, 63), size=st.integers(1, 64), widest=st.sampled_from([1, 2, 4, 8]), write=st.booleans())
def test_a_block_is_made_of_aligned_accesses_as_wide_as_the_device_takes_each_byte_once(offset, size, widest, write):
    calls, data = [], bytes(range(1, size + 1))
    space = mapped(Mmio(
        128, lambda o, n: calls.append((o, n)) or int.from_bytes(bytes(range(o, o + n)), "little"),
        lambda o, n, v: calls.append((o, n)) or written.extend(v.to_bytes(n, "little")), valid=(1, widest)))
    written = bytearray()
    if write:
        space.write(offset, data)
        assert bytes(written) == data
    else:
        assert space.read(offset, size) == bytes(range(offset, offset + size))
    assert all(o % n == 0 and n <= widest for o, n in calls)
    assert [b for o, n in calls for b in range(o, o + n)] == list(range(offset, offset + size))
    # None could be wider: two neighbours are never the halves of one that is aligned and allowed.
    assert not any(n == m and 2 * n <= widest and o % (2 * n) == 0 for (o, n), (_, m) in zip(calls, calls[1:]))
