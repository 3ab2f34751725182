"""Accesses that the bus refuses: x86 goes on with 0, arm64 takes an external abort; never silently."""

import pytest

from mmu.arm64 import Abort
from mmu.guest.counters import BusErrorRecord
from mmu.machine import Machine
from mmu.memory import AddressSpace, HostMemory, Mmio, Ram, Striped, Target
from mmu.stripes import Miss, Route, Slot, Span
from mmu.types import Access, MemTxResult
from tests.guest.machines import CODE, MIB, PAGE, asm, code

HALF = 0x2000_0000  # a window whose every second granule of 256 bytes has no device
REFUSED = 0x2800_0000  # one whose device refuses
NOWHERE = 0x2C00_0000  # nothing is mapped on the bus
DEVICE = 0x2E00_0000
BASES = {HALF: 1 << 36, REFUSED: 1 << 37, NOWHERE: 1 << 38, DEVICE: 0xF000_0000}
READ, WRITE, FETCH = Access.READ, Access.WRITE, Access.FETCH


def broken(arch, device=None):
    space = AddressSpace()
    space.map(0, Ram(64 * MIB))
    target = Target("mem0", HostMemory(MIB))
    for at, missing in (HALF, Miss("no device")), (REFUSED, Miss("no decoder", at_device=True)):
        base = BASES[at]
        window = Striped(MIB, base, [target])
        window.set_route(Route((Span(base, base + MIB - 1, 8, 1, 256, (Slot(0, base, 0, 2, 256), missing)),)))
        space.map(base, window)
    space.map(BASES[DEVICE], device or Mmio(PAGE, read=lambda o, n: MemTxResult.ERROR))
    m = Machine(space, arch)
    m.load(code(arch, "nop"))
    for va, pa in BASES.items():
        m.tables.map(va, pa, 4 * PAGE if va != DEVICE else PAGE, page_size=PAGE, executable=True)
    return m


def run(arch, source, device=None, **registers):
    with broken(arch, device) as m:
        m.load(code(arch, source)).set(**registers)
        return m.run()


# -- x86 ------------------------------------------------------------------------------------------


def test_x86_reads_zero_and_counts():
    result = run("x86_64", "mov rax, -1; mov rax, [rbx+0x108]", rbx=HALF)
    assert (result.stop.reason, result.registers["rax"]) == ("halt", 0)
    assert result.counters.bus_errors == 2  # an access of 8 bytes is two of 4
    assert result.counters.first_bus_error == BusErrorRecord((1 << 36) + 0x108, 4, READ, MemTxResult.ERROR)


@pytest.mark.parametrize("at, errors", [(HALF, 0), (REFUSED, 1), (NOWHERE, 1), (DEVICE, 0)])
def test_x86_stores_are_lost_and_counted_where_the_bus_says_so(at, errors):
    result = run("x86_64", "mov dword ptr [rbx+0x100], 5; mov dword ptr [rbx], 7; mov eax, 3", rbx=at)
    assert (result.stop.reason, result.registers["rax"]) == ("halt", 3)
    assert result.counters.bus_errors == errors + (at == NOWHERE)


def test_x86_keeps_the_good_half_of_an_access():
    result = run("x86_64", "mov dword ptr [rbx+0xfc], 0x11223344; mov rax, [rbx+0xfc]", rbx=HALF)
    assert result.registers["rax"] == 0x11223344
    assert result.counters.bus_errors == 2  # one for the word that the engine reads ahead
    assert result.counters.first_bus_error.address == (1 << 36) + 0x100


def test_x86_cannot_run_what_it_cannot_read():
    for at in (HALF, NOWHERE, DEVICE):
        result = run("x86_64", "jmp rbx", rbx=at + 0x10)
        assert (result.stop.reason, result.stop.pc) == ("bus-error", at + 0x10)
        assert result.counters.bus_errors == 1
        assert result.counters.first_bus_error.access == FETCH


# -- arm64 ----------------------------------------------------------------------------------------

DATA_ABORT, FETCH_ABORT = 0x25 << 26 | 1 << 25, 0x21 << 26 | 1 << 25
EXTERNAL, WNR, EA = 0x10, 1 << 6, 1 << 9


@pytest.mark.parametrize(
    "source, at, esr, far",
    [
        ("ldr x9, [x8, #0x108]", HALF, DATA_ABORT | EA, HALF + 0x108),
        ("ldr x9, [x10], #8", HALF, DATA_ABORT | EA, HALF + 0x100),
        ("ldp x9, x10, [x8, #0xf8]", HALF, DATA_ABORT | EA, HALF + 0x100),
        ("ldr q0, [x8, #0x100]", HALF, DATA_ABORT | EA, HALF + 0x100),
        ("ldrb w9, [x8, #0x1ff]", HALF, DATA_ABORT | EA, HALF + 0x1FF),
        ("str x9, [x8, #0x100]", REFUSED, DATA_ABORT | EA | WNR, REFUSED + 0x100),
        ("stp x9, x10, [x8, #0xf8]", REFUSED, DATA_ABORT | EA | WNR, REFUSED + 0x100),
        ("ldr x9, [x8]", NOWHERE, DATA_ABORT, NOWHERE),
        ("str w9, [x8, #4]", NOWHERE, DATA_ABORT | WNR, NOWHERE + 4),
        ("ldr w9, [x8, #4]", DEVICE, DATA_ABORT | EA, DEVICE + 4),
    ],
)
def test_arm64_takes_an_external_abort(source, at, esr, far):
    with broken("aarch64") as m:
        m.load(code("aarch64", f"add x7, x7, #1; {source}; add x7, x7, #1"))
        m.set(x7=0, x8=at, x9=0x99, x10=at + 0x100)
        before = m.registers
        result = m.run()
        stop = result.stop
        assert isinstance(stop.exception, Abort)
        assert (stop.reason, stop.pc, stop.exception.esr, stop.exception.far) == (
            "fault", CODE + 4, esr | EXTERNAL, far)
        changed = {n for n, v in result.registers.items() if v != before[n]}
        assert changed == {"pc", "x7"}
        assert result.registers["x7"] == 1
        assert result.counters.bus_errors == 1
        assert result.counters.first_bus_error.address == BASES[at] + far - at


@pytest.mark.parametrize("service", ["exact", "direct", "mirror", "auto"])
def test_an_aborted_store_leaves_the_same_bytes_however_windows_are_served(service):
    """Across from a page that refuses into one that the engine may have as RAM: the rest of it is stored."""
    space, memory = AddressSpace(), HostMemory(MIB)
    space.map(0, Ram(64 * MIB))
    window = Striped(MIB, BASES[HALF], [Target("mem0", memory)])
    base = BASES[HALF]
    refuses = Span(base, base + PAGE - 1, 8, 0, 256, (Miss("no decoder", at_device=True),))
    answers = Span(base + PAGE, base + MIB - 1, 8, 0, 256, (Slot(0, base, 0, 1, 256),))
    window.set_route(Route((refuses, answers)))
    space.map(base, window)
    with Machine(space, "aarch64", service) as m:
        m.load(code("aarch64", "ldr w0, [x1]; str w9, [x8]"))
        m.tables.map(HALF, base, 4 * PAGE, page_size=PAGE, executable=False)
        stop = m.set(x1=HALF + PAGE, x8=HALF + PAGE - 3, x9=0x4433_2211).run().stop
        assert (stop.reason, stop.exception.far) == ("fault", HALF + PAGE - 3)
        assert space.read(base + PAGE, 2) == b"\x44\0"


@pytest.mark.parametrize("at", [HALF, NOWHERE, DEVICE])
def test_arm64_cannot_fetch_what_it_cannot_read(at):
    result = run("aarch64", "br x8", x8=at + 0x10)
    kind = 0 if at == NOWHERE else EA
    assert (result.stop.pc, result.stop.exception.esr, result.stop.exception.far) == (
        at + 0x10, FETCH_ABORT | EXTERNAL | kind, at + 0x10)


def test_arm64_does_not_abort_for_bytes_that_are_only_read_ahead():
    """The engine reads whole words around an unaligned load; the last one lies in a granule without device."""
    result = run("aarch64", "mov x9, #-1; ldur x9, [x8, #0xf5]; ldur w10, [x8, #0xf9]; mov x11, #1", x8=HALF)
    assert (result.stop.reason, result.registers["x9"], result.registers["x11"]) == ("halt", 0, 1)
    assert result.counters.bus_errors == 0
    result = run("aarch64", "ldur x9, [x8, #0xf9]", x8=HALF)
    assert (result.stop.exception.fsc, result.stop.exception.far) == (EXTERNAL, HALF + 0x100)


def test_arm64_aborts_when_one_register_needs_what_another_only_read_ahead():
    device = Mmio(PAGE, read=lambda offset, size: MemTxResult.ERROR if offset == 0x104 else 0)
    result = run("aarch64", "add x8, x8, #0xf9; ldp x9, x10, [x8]", device=device, x8=DEVICE)
    assert (result.stop.pc, result.stop.exception.fsc, result.stop.exception.far) == (
        CODE + 4, EXTERNAL, DEVICE + 0x101)
    result = run("aarch64", "add x8, x8, #0xf9; ldr x9, [x8]", device=device, x8=DEVICE)
    assert result.stop.reason == "halt"


@pytest.mark.parametrize("at, reason", [(0xFF9, "halt"), (0xFFD, "fault")])
def test_arm64_does_not_abort_for_what_it_reads_ahead_on_the_next_page(at, reason):
    device = Mmio(2 * PAGE, read=lambda offset, size: MemTxResult.ERROR if offset == 0x1004 else 0)
    with broken("aarch64", device) as m:
        m.tables.map(DEVICE + PAGE, BASES[DEVICE] + PAGE, PAGE, page_size=PAGE, executable=False)
        m.load(code("aarch64", "ldr x9, [x8]")).set(x8=DEVICE + at)
        stop = m.run().stop
        assert stop.reason == reason
        if reason == "fault":
            assert stop.exception.far == DEVICE + 0x1004


@pytest.mark.parametrize("at", [NOWHERE, DEVICE])
@pytest.mark.parametrize("offset", [0, 0x40, 0x7C])
def test_arm64_zeroing_a_block_aborts_where_it_is(at, offset):
    """The engine stores it by a helper, and would go on to the end of its block."""
    device = Mmio(PAGE, read=lambda o, n: 0, write=lambda o, n, v: MemTxResult.ERROR)
    with broken("aarch64", device) as m:
        m.load(code("aarch64", "mov x9, #5; dc zva, x8; mov x9, #6; str x9, [x10]"))
        m.set(x8=at + offset, x10=CODE + 0x800)
        stop = (result := m.run()).stop
        block = at + offset // 64 * 64
        assert (stop.reason, stop.pc, stop.exception.far, result.registers["x9"]) == ("fault", CODE + 4, block, 5)
        kind = 0 if at == NOWHERE else EA
        assert stop.exception.esr == DATA_ABORT | WNR | EXTERNAL | kind
        assert m.read(CODE + 0x800, 8) == bytes(8)
        assert result.counters.first_bus_error == BusErrorRecord(
            BASES[at] + block - at, 8, WRITE, MemTxResult.DECODE_ERROR if at == NOWHERE else MemTxResult.ERROR)


def test_arm64_zeroing_a_block_of_a_device_that_raises_ends_there():
    def write(offset, size, value):
        raise ZeroDivisionError

    with broken("aarch64", Mmio(PAGE, read=lambda o, n: 0, write=write)) as m:
        m.load(code("aarch64", "mov x9, #5; dc zva, x8; mov x9, #6")).set(x8=DEVICE)
        with pytest.raises(ZeroDivisionError):
            m.run()
        assert (m.registers["pc"], m.registers["x9"]) == (CODE + 4, 5)


@pytest.mark.parametrize("service", ["exact", "mirror"])
@pytest.mark.parametrize("offset", [0, 0x40, 0xFC])
def test_arm64_zeroing_a_block_of_a_window_zeroes_it_and_no_more(offset, service):
    space = AddressSpace()
    space.map(0, Ram(64 * MIB))
    target = Target("mem0", HostMemory(MIB))
    window = Striped(MIB, 1 << 36, [target])
    window.set_route(Route((Span(1 << 36, (1 << 36) + MIB - 1, 8, 0, 256, (Slot(0, 1 << 36, 0, 1, 256),)),)))
    space.map(1 << 36, window)
    with Machine(space, "aarch64", dispatch=service) as m:
        m.load(code("aarch64", "dc zva, x8"))
        m.tables.map(HALF, 1 << 36, PAGE, page_size=PAGE, executable=False)
        m.write(HALF, b"\x55" * PAGE)
        result = m.set(x8=HALF + offset).run()
        block = offset // 64 * 64
        expected = bytearray(b"\x55" * PAGE)
        expected[block : block + 64] = bytes(64)
        assert (result.stop.reason, m.read(HALF, PAGE)) == ("halt", bytes(expected))
        assert result.counters.bus_writes == (8 if service == "exact" else 0)


def test_arm64_handler_gets_the_abort_and_goes_on():
    with broken("aarch64") as m:
        source = "msr vbar_el1, x1; isb; ldr x9, [x8]; mov x11, #1"
        m.load(code("aarch64", source))
        m.write(CODE + 0x1200, asm("aarch64", "mrs x12, esr_el1; mrs x13, far_el1; mov x8, sp; sub x8, x8, #8; eret"))
        result = m.set(x1=CODE + 0x1000, x8=HALF + 0x100).run()
        assert (result.stop.reason, result.registers["x11"]) == ("halt", 1)
        assert result.registers["x12"] == DATA_ABORT | EA | EXTERNAL
        assert result.registers["x13"] == HALF + 0x100


def test_a_table_behind_nothing_is_a_fault_of_the_walk():
    for arch, root in ("x86_64", "cr3"), ("aarch64", "ttbr0_el1"):
        with broken(arch) as m:
            result = m.set(**{root: BASES[NOWHERE]}).run()
            assert (result.stop.reason, result.stop.pc) == ("fault", CODE)
            if arch == "aarch64":
                assert result.stop.exception.fsc == 0x14  # external abort on a walk, level 0
            else:
                assert result.stop.exception.error_code == 16  # nobody answered: an entry of 0


def test_a_device_is_not_asked_again_to_find_an_address():
    """The exact address of a fault is found by running the instruction once more: without touching devices."""
    seen = []
    device = Mmio(PAGE, read=lambda o, n: seen.append((o, n)) or 0)
    result = run("x86_64", "mov rsi, rbx; mov edi, 0x30000000; movsd", device=device, rbx=DEVICE + 8)
    assert result.stop.exception.cr2 == 0x3000_0000
    assert seen == [(8, 4)]
