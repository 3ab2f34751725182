"""Regions made of calls: which accesses reach the device, in which pieces and order of bytes, and never from within."""

import ctypes
import threading
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmu import AddressSpace, Alias, Guard, Mmio, NativeMmio, Ram, Rom, RomDevice
from mmu.core import lib
from mmu.errors import AddressRangeError, BusError, MmuError
from mmu.types import MemTxResult
from tests.guest.machines import CODE, PAGE, machine

OK, ERROR, DECODE_ERROR, ACCESS_ERROR = (
    MemTxResult.OK, MemTxResult.ERROR, MemTxResult.DECODE_ERROR, MemTxResult.ACCESS_ERROR)


def mapped(region, base=0):
    space = AddressSpace()
    space.map(base, region)
    return space


# ---- the order of bytes, and accesses that do not fit what the device implements ----


def test_a_big_endian_register_has_its_top_byte_first():
    space = mapped(Mmio(64, lambda o, n: 0x11223344, big_endian=True, implemented=(4, 4)))
    assert space.load(0, 4) == (0x44332211, OK)
    assert space.read(0, 4) == b"\x11\x22\x33\x44"


def test_a_big_endian_register_takes_its_top_byte_first():
    seen = []
    space = mapped(Mmio(64, write=lambda o, n, v: seen.append((o, n, v)), big_endian=True, implemented=(4, 4)))
    space.write(0, b"\x11\x22\x33\x44\x55\x66\x77\x88")
    assert seen == [(0, 4, 0x11223344), (4, 4, 0x55667788)]


def shift(value, bits):
    return value << bits if bits >= 0 else value >> -bits


def reversed_bytes(value, size):
    return int.from_bytes(value.to_bytes(size, "little"), "big")


class Twin:
    """What io.c must do, said plainly: one access that the device takes, as calls of what it implements."""

    def __init__(self, low, high, big):
        self.low, self.high, self.big, self.calls = low, high, big, []

    def chunks(self, size):
        n = min(max(size, self.low), self.high)
        for i in range(0, size, n):
            yield i, n, 8 * (size - n - i if self.big else i)

    def read(self, device, offset, size):
        value = 0
        for i, n, bits in self.chunks(size):
            self.calls.append(("r", offset + i, n))
            value |= shift(device(offset + i, n), bits)
        value &= (1 << 8 * size) - 1
        return reversed_bytes(value, size) if self.big else value

    def write(self, offset, size, value):
        if self.big:
            value = reversed_bytes(value, size)
        for i, n, bits in self.chunks(size):
            self.calls.append(("w", offset + i, n, shift(value, -bits) & (1 << 8 * n) - 1))


SIZES = st.sampled_from([1, 2, 4, 8])


@settings(max_examples=300, deadline=None)
@given(pair=st.tuples(SIZES, SIZES), size=SIZES, index=st.integers(0, 7), value=st.integers(0, (1 << 64) - 1),
       big=st.booleans())
def test_an_access_is_adjusted_as_its_plain_twin_says(pair, size, index, value, big):
    low, high = sorted(pair)
    offset, value = index * size, value & (1 << 8 * size) - 1
    twin, calls = Twin(low, high, big), []

    def device(offset, n):
        return int.from_bytes(bytes((37 * offset + 11 * i + 1) & 255 for i in range(n)), "little")

    def read(offset, n):
        calls.append(("r", offset, n))
        return device(offset, n)

    space = mapped(Mmio(
        128, read, lambda o, n, v: calls.append(("w", o, n, v)), implemented=(low, high), big_endian=big))
    assert space.load(offset, size) == (twin.read(device, offset, size), OK)
    assert space.store(offset, size, value) == OK
    twin.write(offset, size, value)
    assert calls == twin.calls


# ---- which accesses a device takes ----


def test_a_device_may_turn_an_access_away_by_offset_size_and_direction():
    asked, called = [], []

    def accepts(offset, size, write):
        asked.append((offset, size, write))
        return not write and offset == 8

    space = mapped(Mmio(64, lambda o, n: called.append(o) or 5, accepts=accepts))
    assert space.load(8, 4) == (5, OK)
    assert space.load(0, 4) == (0, DECODE_ERROR)
    assert space.store(8, 4, 1) == DECODE_ERROR
    assert asked == [(8, 4, False), (0, 4, False), (8, 4, True)]
    assert called == [8]


def test_an_exception_while_asking_comes_out():
    space = mapped(Mmio(64, accepts=lambda o, n, w: 1 // 0))
    with pytest.raises(ZeroDivisionError):
        space.load(0, 4)
    with pytest.raises(ZeroDivisionError):
        space.write(0, b"x")


def test_a_block_is_cut_into_what_the_device_takes():
    calls = []
    space = mapped(Mmio(64, lambda o, n: calls.append((o, n)) or 0, valid=(4, 4)))
    assert space.access(0, 16) == (bytes(16), OK)
    assert calls == [(0, 4), (4, 4), (8, 4), (12, 4)]
    assert space.access(2, 4) == (bytes(4), DECODE_ERROR)


# ---- a device is not entered from within itself ----


def test_a_callback_that_accesses_its_own_region_is_refused():
    seen = []

    def read(offset, size):
        seen.append(offset)
        return space.load(0x1008, 4)[1].value

    space = mapped(Mmio(64, read), 0x1000)
    assert space.load(0x1000, 4) == (ACCESS_ERROR.value, OK)
    assert seen == [0]


def test_a_block_access_of_a_callback_to_its_own_region_raises():
    errors = []

    def read(offset, size):
        try:
            space.read(0, 8)
        except BusError as error:
            errors.append(error)
        return 0

    space = mapped(Mmio(64, read))
    assert space.load(0, 8) == (0, OK)
    assert [e.result for e in errors] == [ACCESS_ERROR]


def test_the_guard_is_off_again_after_an_access_and_after_an_exception():
    answers = iter([1, None, 3])

    def read(offset, size):
        answer = next(answers)
        if answer is None:
            raise KeyError
        return answer

    space = mapped(Mmio(64, read))
    assert space.load(0, 1) == (1, OK)
    with pytest.raises(KeyError):
        space.load(0, 1)
    assert space.load(0, 1) == (3, OK)


def test_regions_of_one_device_guard_each_other_and_others_do_not():
    nic, results = Guard("nic"), []
    space, dma = AddressSpace("cpu"), AddressSpace("dma")
    dma.map(0, Ram(4096))

    def doorbell(offset, size, value):
        results.append(dma.store(0x10000, 4, 1))  # its own other region, through another space and port
        results.append(dma.store(0x20000, 4, 1))
        results.append(dma.store(0, 4, 1))

    space.map(0, Mmio(64, write=doorbell, guard=nic))
    dma.map(0x10000, Mmio(64, guard=nic))
    dma.map(0x20000, Mmio(64, guard=Guard("other")))
    assert space.store(0, 4, 1) == OK
    assert results == [ACCESS_ERROR, OK, OK]


def test_a_device_entered_by_way_of_another_is_refused():
    results = []

    def first(offset, size):
        results.append(space.load(0x1000, 4)[1])
        return 0

    def second(offset, size):
        results.append(space.load(0, 4)[1])
        return 0

    space = mapped(Mmio(64, first))
    space.map(0x1000, Mmio(64, second))
    assert space.load(0, 4) == (0, OK)
    assert results == [ACCESS_ERROR, OK]


def test_a_reentrant_region_may_be_entered_again():
    def read(offset, size):
        return space.load(0, 4)[0] + 1 if offset else 5

    space = mapped(Mmio(64, read, reentrant=True))
    assert space.load(4, 4) == (6, OK)
    with pytest.raises(ValueError, match="guarded by Guard"):
        Mmio(64, guard=Guard("x"), reentrant=True)


def test_the_guard_does_not_keep_other_threads_out():
    inside, results = threading.Barrier(2, timeout=10), []

    def read(offset, size):
        inside.wait()  # both threads must be in the callback at once
        return 7

    space = mapped(Mmio(64, read))
    threads = [threading.Thread(target=lambda: results.append(space.load(0, 4))) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == [(7, OK)] * 2


def test_a_refused_size_is_refused_before_the_guard():
    results = []

    def read(offset, size):
        results.append(space.load(0, 8))
        return 0

    space = mapped(Mmio(64, read, valid=(1, 4)))
    space.load(0, 4)
    assert results == [(0, DECODE_ERROR)]


# ---- callbacks in C ----

READ = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32,
                        ctypes.POINTER(ctypes.c_uint64))
WRITE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint64)


def test_functions_in_c_are_called_with_their_context():
    seen = []

    def read(context, offset, size, value):
        value[0] = 0x1234
        seen.append(("r", context, offset, size))
        return 0

    def write(context, offset, size, value):
        seen.append(("w", context, offset, size, value))
        return 1

    functions = READ(read), WRITE(write)
    addresses = [ctypes.cast(f, ctypes.c_void_p).value for f in functions]
    space = mapped(NativeMmio(64, *addresses, context=0xABCD, keep=functions))
    assert space.load(8, 2) == (0x1234, OK)
    assert space.store(8, 4, 9) == ERROR
    assert seen == [("r", 0xABCD, 8, 2), ("w", 0xABCD, 8, 4, 9)]


@pytest.mark.parametrize(
    "returned, result", [(7, MemTxResult(7)), (8, ERROR), (255, ERROR), (256, ERROR), (1 << 30, ERROR)])
def test_a_function_in_c_that_returns_no_result_of_the_bus_has_erred(returned, result):
    functions = READ(lambda *_: returned), WRITE(lambda *_: returned)
    space = mapped(NativeMmio(64, *[ctypes.cast(f, ctypes.c_void_p).value for f in functions], keep=functions))
    assert (space.load(0, 4)[1], space.store(0, 4, 1), space.access(0, 4)[1]) == (result, result, result)


@pytest.mark.parametrize("returned", [-1, -3, lib.MMU_ECALLBACK, -5, -99])
def test_a_function_in_c_that_fails_is_an_error_of_the_host_and_traced(returned):
    functions = READ(lambda *_: returned), WRITE(lambda *_: returned)
    space = mapped(NativeMmio(64, *[ctypes.cast(f, ctypes.c_void_p).value for f in functions], keep=functions))
    with space.trace() as entries:
        for access in (lambda: space.load(0, 4), lambda: space.store(0, 4, 1), lambda: space.exchange(0, 4, 0, 1)):
            with pytest.raises(MmuError, match="at 0x0: a callback in C failed, and left no exception"):
                access()
    assert [e.result for e in entries] == [ERROR] * 3


def test_a_function_in_c_that_fails_under_a_guest_is_told_with_where_that_stands():
    function = READ(lambda *_: -1)
    m = machine("x86_64")
    m.space.map(1 << 38, NativeMmio(PAGE, ctypes.cast(function, ctypes.c_void_p).value, keep=function))
    with m.load(bytes.fromhex("90 488b0b f4")):  # nop; mov rcx, [rbx]; hlt
        m.tables.map(0x6000_0000, 1 << 38, PAGE, page_size=PAGE)
        with pytest.raises(MmuError, match=f"the guest at {CODE + 1:#x}: a callback in C failed"):
            m.set(rbx=0x6000_0000).run()


def test_without_functions_in_c_reads_are_0_and_writes_are_dropped():
    space = mapped(NativeMmio(64))
    assert (space.load(0, 8), space.store(0, 8, 1)) == ((0, OK), OK)


# ---- ROM devices ----


def test_a_rom_device_is_read_as_memory_and_written_as_a_device():
    calls = []
    flash = RomDevice(
        b"\x42" * 4096, lambda o, n, v: calls.append(("w", o, n, v)), lambda o, n: calls.append(("r", o, n)) or 0x80)
    space = mapped(flash, 0x1000)
    assert space.load(0x1000, 2) == (0x4242, OK)
    assert space.store(0x1010, 2, 0x98) == OK
    assert space.load(0x1010, 2) == (0x4242, OK)
    flash.readable = False
    assert space.load(0x1010, 1) == (0x80, OK)
    assert space.store(0x1012, 1, 0xFF) == OK
    flash.readable = True
    flash.memory.write(0x10, b"\x99")
    assert space.read(0x1010, 2) == b"\x99\x42"
    space.write(0x1020, b"ab")
    assert calls == [("w", 0x10, 2, 0x98), ("r", 0x10, 1), ("w", 0x12, 1, 0xFF), ("w", 0x20, 2, 0x6261)]


def test_a_rom_device_leaves_its_mode_in_the_middle_of_its_own_write():
    def write(offset, size, value):
        flash.readable = value == 0xFF

    flash = RomDevice(b"\x42" * 4096, write, lambda o, n: 0x80)
    space = mapped(flash)
    space.store(0, 1, 0x90)
    assert space.load(0, 1) == (0x80, OK)
    space.store(0, 1, 0xFF)
    assert space.load(0, 1) == (0x42, OK)


def test_an_exchange_on_a_rom_device_compares_memory_and_writes_to_the_device():
    calls = []
    space = mapped(RomDevice(bytes(4096), lambda o, n, v: calls.append((o, n, v))))
    assert space.exchange(8, 8, 0, 5) == (0, OK)
    assert space.exchange(8, 8, 1, 6) == (0, OK)
    assert calls == [(8, 8, 5)]


@pytest.mark.parametrize("wrong", [
    {"valid": (4, 2)}, {"implemented": (3, 4)}, {"valid": None}, {"valid": 4}, {"implemented": (1, 2, 4)}])  # fmt: skip
def test_sizes_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=r"two of 1, 2, 4, 8 in order, not "):
        Mmio(64, **wrong)


@pytest.mark.parametrize("what", ["read", "write", "accepts", "context"])
def test_what_is_no_address_is_not_called(what):
    """It was cut to 64 bits, and jumped to."""
    for wrong, error, says in (
        (-1, AddressRangeError, f"region uart: {what} must be an address, 0..0xf*, not -0x1"),
        (1 << 64, AddressRangeError, "must be an address"), (0.5, TypeError, "'float' object"),
    ):  # fmt: skip
        with pytest.raises(error, match=says):
            NativeMmio(64, name="uart", **{what: wrong})


@pytest.mark.parametrize("make, says", [
    (lambda: Mmio(64, read=5, name="uart"), "region uart: read must be a function or None, not 5"),
    (lambda: Mmio(64, write="w", name="uart"), "region uart: write must be a function or None, not 'w'"),
    (lambda: Mmio(64, guard="me", name="uart"), "region uart: guard must be a Guard, not 'me'"),
    (lambda: Alias(None, 0, 1), "an alias looks at a region, such as Ram, not at None"),
    (lambda: Alias(Ram(64), 0.5, 1), "'float' object cannot be"), (lambda: Ram(64.0), "'float' object cannot be"),
])  # fmt: skip
def test_a_region_made_of_something_else_is_refused_before_it_is_used(make, says):
    with pytest.raises(TypeError, match=says):
        make()


def test_rom_holds_all_bytes_of_an_array_of_wide_items():
    items = array("Q", range(1, 5))
    for rom in Rom(items), RomDevice(items, lambda o, n, v: None):
        assert mapped(rom).read(0, 32) == items.tobytes()


def test_a_group_of_regions_is_not_memory_by_itself():
    with pytest.raises(TypeError, match="Alias is not memory"):
        Alias(Ram(64), 0, 64).published()
    with pytest.raises(AddressRangeError):
        Mmio(0)
