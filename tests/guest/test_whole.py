"""Devices are accessed uncut, as by a CPU, and windows with run(whole=True): the same registers, memory and faults."""

import pytest

from mmu.arm64 import Abort
from mmu.memory import Mmio
from mmu.types import Access, MemTxResult
from tests.guest.machines import ARCHS, DATA, MIB, PAGE, WINDOW, code, machine

DEVICE = 0x3000_0000
LOADS = {
    "x86_64": {
        1: "movzx eax, byte ptr [rsi]", 2: "movzx eax, word ptr [rsi]", 4: "mov eax, [rsi]", 8: "mov rax, [rsi]",
    },
    "aarch64": {1: "ldrb w0, [x2]", 2: "ldrh w0, [x2]", 4: "ldr w0, [x2]", 8: "ldr x0, [x2]"},
}  # fmt: skip
STORES = {
    "x86_64": {1: "mov [rsi], bl", 2: "mov [rsi], bx", 4: "mov [rsi], ebx", 8: "mov [rsi], rbx"},
    "aarch64": {1: "strb w1, [x2]", 2: "strh w1, [x2]", 4: "str w1, [x2]", 8: "str x1, [x2]"},
}
NAMES = {"x86_64": ("rax", "rbx", "rsi"), "aarch64": ("x0", "x1", "x2")}
VALUE = 0x8877_6655_4433_2211


def with_device(arch, seen):
    def read(offset, size):
        seen.append(("read", offset, size))
        return VALUE & (1 << 8 * size) - 1

    def write(offset, size, value):
        seen.append(("write", offset, size, value))

    m = machine(arch)
    m.space.map(0xF000_0000, Mmio(PAGE, read, write, unaligned=True))
    m.tables.map(DEVICE, 0xF000_0000, PAGE, page_size=PAGE, executable=False)
    return m


def run(m, arch, source, at, **how):
    value, given, address = NAMES[arch]
    m.load(code(arch, source)).set(**{value: 0, given: VALUE, address: at})
    return m.run(**how).registers[value]


@pytest.mark.parametrize("offset", [0, 8, 3])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("whole", [False, True])
def test_a_device_sees_each_access_as_from_the_host(whole, arch, size, offset):
    """Aligned, it is one access; else the bus cuts it, and asks for no byte beside it."""
    seen, value = [], VALUE & (1 << 8 * size) - 1
    with with_device(arch, seen) as m:
        loaded, _ = m.space.load(0xF000_0000 + offset, size)
        m.space.store(0xF000_0000 + offset, size, value)
        expected, seen[:] = seen[:], []
        assert run(m, arch, LOADS[arch][size], DEVICE + offset, whole=whole) == loaded
        run(m, arch, STORES[arch][size], DEVICE + offset, whole=whole)
        assert seen == expected
        if offset % size == 0:
            assert seen == [("read", offset, size), ("write", offset, size, value)]


@pytest.mark.parametrize("offset", [0, 3])
@pytest.mark.parametrize("register, size", [("bx", 2), ("ebx", 4), ("rbx", 8)])
def test_movbe_stores_its_bytes_turned_round(register, size, offset):
    """What the engine tells of a store is the value of before that."""
    seen = []
    with with_device("x86_64", seen) as m:
        m.write(DATA, bytes(16))
        source = f"movbe [rsi+{offset}], {register}; movbe [rdi+{offset}], {register}; movbe rax, [rdi+{offset}]"
        m.load(code("x86_64", source)).set(rbx=VALUE, rsi=DEVICE, rdi=DATA)
        loaded = m.run().registers["rax"]
        bytes_ = (VALUE & (1 << 8 * size) - 1).to_bytes(size, "big")
        assert m.read(DATA + offset, 16 - offset) == bytes_ + bytes(16 - offset - size)
        assert loaded == int.from_bytes(bytes_ + bytes(8 - size), "big")
        seen_bytes = b"".join(value.to_bytes(n, "little") for _, _, n, value in seen)
        assert seen_bytes == bytes_
        if not offset:
            assert [(kind, at, n) for kind, at, n, _ in seen] == [("write", 0, size)]


@pytest.mark.parametrize("arch", ARCHS)
def test_the_next_run_is_as_it_asks(arch):
    seen = []
    with machine(arch, dispatch="exact", tables="ram", code="ram", stack="ram") as m:
        for whole in (True, False, True):
            _, given, address = NAMES[arch]
            m.load(code(arch, STORES[arch][8])).set(**{address: DATA + 16, given: VALUE})
            seen += [e.size for e in m.run(trace=100, whole=whole).trace if e.address >= WINDOW]
        assert seen == [8, 4, 4, 8]


def test_what_reads_and_writes_does_each_once():
    seen = []
    with with_device("x86_64", seen) as m:
        run(m, "x86_64", "add [rsi], rbx", DEVICE)
        doubled = 2 * VALUE & (1 << 64) - 1
        assert seen == [("read", 0, 8), ("write", 0, 8, doubled)]
        seen.clear()
        m.load(code("x86_64", "movdqu xmm0, [rsi]; movdqu [rsi+16], xmm0")).set(rsi=DEVICE).run()
        assert [entry[:3] for entry in seen] == [("read", 0, 8), ("read", 8, 8), ("write", 16, 8), ("write", 24, 8)]


@pytest.mark.parametrize("offset", [0, 1, 5, 248, 252, 255, PAGE - 8, PAGE - 5, PAGE - 1])
@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("arch", ARCHS)
def test_the_same_bytes_as_in_pieces(arch, size, offset):
    """Across granules, and pages."""
    found = []
    for whole in (False, True):
        with machine(arch, dispatch="exact", tables="ram", code="ram", stack="ram") as m:
            m.write(DATA, bytes(range(256)) * 33)
            loaded = run(m, arch, LOADS[arch][size], DATA + offset, whole=whole)
            run(m, arch, STORES[arch][size], DATA + offset, whole=whole)
            found.append((loaded, m.read(DATA, 2 * PAGE + 256)))
    assert found[0] == found[1]


@pytest.mark.parametrize("arch", ARCHS)
def test_the_bus_has_each_access_to_a_window_once(arch):
    with machine(arch, dispatch="exact", tables="ram", code="ram", stack="ram") as m:
        _, given, address = NAMES[arch]
        m.load(code(arch, f"{LOADS[arch][8]}; {STORES[arch][8]}")).set(**{address: DATA + 16, given: VALUE})
        result = m.run(trace=100, whole=True)
        at = WINDOW + 2 * MIB + 16
        assert [(e.address, e.size) for e in result.trace if e.address >= WINDOW] == [(at, 8), (at, 8)]
        assert (result.counters.bus_reads, result.counters.bus_writes) == (1, 1)


def refusing(arch):
    m = machine(arch)
    m.space.map(0xF000_0000, Mmio(PAGE, lambda offset, size: MemTxResult.ERROR, lambda o, s, v: MemTxResult.ERROR))
    m.tables.map(DEVICE, 0xF000_0000, PAGE, page_size=PAGE, executable=False)
    return m


def test_a_load_that_the_bus_refuses_aborts_at_its_address():
    with refusing("aarch64") as m:
        m.load(code("aarch64", "ldr x0, [x2, #16]")).set(x0=5, x2=DEVICE)
        result = m.run()
        assert isinstance(result.stop.exception, Abort) and result.stop.exception.far == DEVICE + 16
        assert result.registers["x0"] == 5


@pytest.mark.parametrize("offset", [0, 4, 3])
@pytest.mark.parametrize("arch", ARCHS)
def test_a_store_that_a_device_refuses_is_made_once(arch, offset):
    seen = []

    def write(offset, size, value):
        seen.append((offset, size))
        return MemTxResult.ERROR

    with machine(arch) as m:
        m.space.map(0xF000_0000, Mmio(PAGE, write=write))
        m.tables.map(DEVICE, 0xF000_0000, PAGE, page_size=PAGE, executable=False)
        m.space.store(0xF000_0000 + offset, 8, VALUE)
        expected, seen[:] = seen[:], []
        result = m.load(code(arch, STORES[arch][8])).set(**{NAMES[arch][2]: DEVICE + offset}).run()
        assert (result.stop.reason, seen) == ("halt" if arch == "x86_64" else "fault", expected)


@pytest.mark.parametrize("offset", range(PAGE - 7, PAGE))
@pytest.mark.parametrize("arch", ARCHS)
def test_a_load_across_two_pages_of_a_device_asks_for_no_byte_beside_it(arch, offset):
    seen = []

    def read(offset, size):
        seen.extend(range(offset, offset + size))
        return sum((offset + n & 0xFF) << 8 * n for n in range(size))

    with machine(arch) as m:
        m.space.map(0xF000_0000, Mmio(2 * PAGE, read))
        m.tables.map(DEVICE, 0xF000_0000, 2 * PAGE, page_size=PAGE, executable=False)
        loaded = run(m, arch, LOADS[arch][8], DEVICE + offset)
        assert seen == list(range(offset, offset + 8))
        assert loaded == sum((offset + n & 0xFF) << 8 * n for n in range(8))


def test_a_store_that_the_bus_refuses_is_counted_once():
    with refusing("x86_64") as m:
        result = m.load(code("x86_64", "mov [rsi+8], rbx; mov rax, [rsi]")).set(rsi=DEVICE, rax=1).run()
        assert (result.stop.reason, result.registers["rax"], result.counters.bus_errors) == ("halt", 0, 2)
        assert result.counters.first_bus_error.access == Access.WRITE


@pytest.mark.parametrize("arch", ARCHS)
def test_an_access_that_leaves_its_page_goes_to_both(arch):
    seen = []
    with with_device(arch, seen) as m:
        m.tables.map(DEVICE + PAGE, WINDOW + 8 * MIB, PAGE, page_size=PAGE, executable=False)
        run(m, arch, STORES[arch][8], DEVICE + PAGE - 4)
        assert m.space.read(WINDOW + 8 * MIB, 4) == (VALUE >> 32).to_bytes(4, "little")
        assert b"".join(value.to_bytes(size, "little") for _, _, size, value in seen) == VALUE.to_bytes(8, "little")[:4]
