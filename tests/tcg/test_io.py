"""I/O inside a block: the memory map that it changes, one-shot blocks, bus errors (recipe R8)."""

import pytest

from mmu.memory import Mmio, Ram
from mmu.stripes import Route
from mmu.tcg import Switches, release
from tests.guest.machines import route
from tests.tcg.machines import CODE, DATA, DATA_PA, SIZE, WINDOW, Bench, bus, kinds

BUTTON = 1 << 39
BUTTON_VA, OTHER_VA = 0x5000_0000_0000, 0x5100_0000_0000
PUSH = "mov [rdi], rax; mov rbx, [rsi]; mov rcx, [rsi+8]; hlt"
DEFERRED = Switches(io_must_be_last=True)


def button(switches, action, other=WINDOW):
    """A register whose write calls *action*(bench), and a page at *other*; read before it was written."""
    b = Bench(switches)
    device = Mmio(4096, lambda offset, size: 0, lambda *_: action(b), name="button", valid=(1, 8))
    b.space.map(BUTTON, device)
    b.map(BUTTON_VA, BUTTON)
    b.map(OTHER_VA, other)
    return b


def uncommit(b):
    b.window.set_route(Route())


@pytest.mark.parametrize("switches, value", [
    (DEFERRED, 0x55), (Switches(), 0), (Switches(can_do_io="P0"), 0), (Switches(can_do_io="P1"), 0),
    (release("7.2"), 0), (release("8.2"), 0),
], ids=str)  # fmt: skip
def test_a_decoder_uncommitted_in_mid_block(switches, value):
    b = button(switches, uncommit)
    b.put(WINDOW, 0x55)
    result = b.load(PUSH, rdi=BUTTON_VA, rsi=OTHER_VA).run()
    assert (result.stop.reason, result.registers["rbx"]) == ("halt", value)


def test_the_next_block_sees_it():
    b = button(DEFERRED, uncommit)
    b.put(WINDOW, 0x55)
    result = b.load("mov [rdi], rax; mov rbx, [rsi]; jmp 1f; 1: mov rcx, [rsi]; hlt", rdi=BUTTON_VA, rsi=OTHER_VA).run()
    assert (result.registers["rbx"], result.registers["rcx"]) == (0x55, 0)


def test_the_old_memory_is_written_too():
    b = button(DEFERRED, uncommit)
    b.load("mov [rdi], rax; mov [rsi], rdx; hlt", rdi=BUTTON_VA, rsi=OTHER_VA, rdx=0x77)
    b.run()
    b.window.set_route(route(256, base=WINDOW, size=SIZE))
    assert b.get(WINDOW) == 0x77


@pytest.mark.parametrize("switches, value", [(DEFERRED, 1), (Switches(), 2)])
def test_a_region_that_is_mapped_over(switches, value):
    over = Ram(4096, "over")
    over.memory.write(0, b"\2")
    b = button(switches, lambda b: b.space.map(0x70_0000, over, priority=1), 0x70_0000)
    b.put(0x70_0000, 1)
    assert b.load(PUSH, rdi=BUTTON_VA, rsi=OTHER_VA).run().registers["rbx"] == value


@pytest.mark.parametrize("policy, recompiles", [("P0", 0), ("P1", 3), ("P2", 2)])
def test_each_policy_has_its_own_cost(policy, recompiles):
    """Three accesses to the window, the last of them before the end of the page."""
    b = Bench(Switches(can_do_io=policy), data_pa=WINDOW)
    b.map(CODE + 0x1000, 0x74_0000)
    b.load(bytes.fromhex("488b07" "488b07" "488b07" "f4"), at=CODE + 0xFF7, rip=CODE + 0xFF7)
    result = b.run()
    assert (result.counters.recompiles, len(bus(result, "data"))) == (recompiles, 3)


def test_a_port_is_marked_as_io():
    """Policy P1 allows I/O in IN, whose walk of nothing needs it: it ends its block."""
    result = Bench(Switches(can_do_io="P1")).load("in al, dx; inc rbx; hlt").run()
    assert [e.n_insns for e in kinds(result, "tb")] == [1, 2]
    result = Bench(Switches(can_do_io="P0")).load("in al, dx; inc rbx; hlt").run()
    assert [e.n_insns for e in kinds(result, "tb")] == [3]


@pytest.mark.parametrize("faulty, icount, ends", [(True, True, True), (False, True, False), (True, False, False)])
def test_a_block_of_device_memory_that_is_not_registered(faulty, icount, ends):
    b = Bench(Switches(can_do_io="P0", oneshot_unregistered=faulty, icount=icount), data_pa=WINDOW)
    b.map(0x5000_0000_0000, WINDOW + 0x1000)
    b.machine.write(0x5000_0000_0000, bytes.fromhex("488b07" "f4"))
    b.machine.set(rip=0x5000_0000_0000, rdi=DATA)
    end = b.run()
    assert (getattr(end, "kind", None) == "io_recompile") == ends
    if ends:
        assert "for pc=0x7f" in end.message


def test_x86_does_not_see_what_the_bus_refuses():
    b = button(Switches(), lambda b: None, 1 << 41)
    result = b.load("mov rbx, -1; mov rbx, [rsi]; mov [rsi], rbx; inc rcx; hlt", rsi=OTHER_VA).run()
    assert (result.registers["rbx"], result.registers["rcx"]) == (0, 1)
    assert {e.result for e in kinds(result, "bus")} == {"DECODE_ERROR"}
    assert result.counters.bus_errors == 2


def test_a_table_where_nothing_is_reads_as_not_present():
    b = Bench(Switches())
    b.put(b.entry(DATA, 2), (1 << 41) | 0x23)
    stop = b.load("mov [rdi], rax; hlt").run().stop
    assert (stop.exception.error_code, stop.exception.cr2) == (2, DATA)


@pytest.mark.parametrize("faulty, code", [(True, 8), (False, 9)])
def test_a_reserved_bit(faulty, code):
    b = Bench(Switches(rsvd_error_code=faulty), leaf=0x63)
    b.put(b.entry(DATA, 4), b.get(b.entry(DATA, 4)) | 1 << 7)
    stop = b.load("mov rax, [rdi]; hlt").run().stop
    assert stop.exception.error_code == code


def test_rom_tables_need_no_flags():
    """The flag is dropped, and the walk goes on."""
    from mmu.memory import Rom

    b = Bench(Switches())
    entry = (DATA_PA | 0x03).to_bytes(8, "little")
    rom = Rom(entry * 512, "rom")
    b.space.map(1 << 38, rom)
    b.put(b.entry(DATA, 2), (1 << 38) | 0x23)
    result = b.load("mov rax, [rdi]; inc rbx; hlt").run()
    assert result.registers["rbx"] == 1
    assert rom.memory.read(0, 8) == entry
    assert bus(result) == []


PIECES = {(0, 8): [8], (1, 8): [1, 2, 4, 1], (2, 4): [2, 2], (4, 8): [4, 4], (3, 2): [1, 1], (7, 4): [1, 2, 1]}
LOADS = {8: "mov rax, [rdi]; hlt", 4: "mov eax, [rdi]; hlt", 2: "mov ax, [rdi]; hlt"}


@pytest.mark.parametrize("offset, size", PIECES)
def test_an_access_is_cut_into_aligned_pieces(offset, size):
    b = Bench(Switches(), data_pa=WINDOW)
    b.space.write(WINDOW, bytes(range(32)))
    result = b.load(LOADS[size], rdi=DATA + offset).run()
    assert [e.size for e in kinds(result, "bus")] == PIECES[offset, size]
    assert result.registers["rax"].to_bytes(8, "little")[:size] == bytes(range(offset, offset + size))
    assert kinds(result, "lock") == [("lock", "+"), ("lock", "-")]


AROUND = {(0, 8): [(0, 8)], (1, 8): [(0, 8), (8, 8)], (2, 4): [(0, 4), (4, 4)], (3, 2): [(2, 2), (4, 2)]}


@pytest.mark.parametrize("offset, size", AROUND)
def test_before_8_1_a_load_is_of_the_aligned_words_around_it(offset, size):
    b = Bench(release("7.2"), data_pa=WINDOW)
    b.space.write(WINDOW, bytes(range(32)))
    result = b.load(LOADS[size], rdi=DATA + offset).run()
    assert bus(result) == [("r", *piece) for piece in AROUND[offset, size]]
    assert result.registers["rax"].to_bytes(8, "little")[:size] == bytes(range(offset, offset + size))
    assert len(kinds(result, "lock")) == 2 * len(AROUND[offset, size])


def test_before_8_1_a_store_is_one_of_each_byte():
    b = Bench(release("7.2"), data_pa=WINDOW)
    result = b.load("mov [rdi], rax; hlt", rdi=DATA + 0xFD, rax=0x8877665544332211).run()
    assert bus(result) == [("w", 0xFD + n, 1) for n in range(8)]
    assert b.get(WINDOW + 0xFD) == 0x8877665544332211


SIXTEEN = {0: [(0, 8), (8, 8)], 1: [(1, 1), (2, 2), (4, 4), (8, 1), (9, 1), (10, 2), (12, 4), (16, 1)], 4: [
    (4, 4), (8, 4), (12, 4), (16, 4)]}  # fmt: skip
WIDE = {
    "x86_64": ("movups xmm0, [rdi]; movups [rsi], xmm0; hlt", "rdi", "rsi"),
    "aarch64": ("ldr q0, [x0]; str q0, [x1]; wfi", "x0", "x1"),
}


@pytest.mark.parametrize("offset", SIXTEEN)
@pytest.mark.parametrize("arch", WIDE)
def test_16_bytes_come_under_one_lock(arch, offset):
    """First what is more than 8 bytes, then 8."""
    source, load, store = WIDE[arch]
    b = Bench(Switches(can_do_io="P0"), arch=arch, data_pa=WINDOW)
    b.space.write(WINDOW, bytes(range(64)))
    result = b.load(source, **{load: DATA + offset, store: DATA + 0x100 + offset}).run()
    stored = [("w", 0x100 + at, size) for at, size in SIXTEEN[offset]]
    assert bus(result) == [("r", *piece) for piece in SIXTEEN[offset]] + stored
    assert len(kinds(result, "lock")) == 4
    assert b.space.read(WINDOW + 0x100 + offset, 16) == bytes(range(offset, offset + 16))


def test_before_8_1_16_bytes_are_two_accesses():
    b = Bench(release("7.2"), data_pa=WINDOW)
    result = b.load(WIDE["x86_64"][0], rdi=DATA, rsi=DATA + 0x100).run()
    assert bus(result) == [("r", 0, 8), ("r", 8, 8), ("w", 0x100, 8), ("w", 0x108, 8)]
    assert len(kinds(result, "lock")) == 8


PAIRS = {
    "ldp w1, w2, [x0]": [("r", 0, 8)], "ldp x1, x2, [x0]": [("r", 0, 8), ("r", 8, 8)],
    "stp w1, w2, [x0]": [("w", 0, 8)], "stp x1, x2, [x0, #16]!": [("w", 16, 8), ("w", 24, 8)],
    "ldpsw x1, x2, [x0]": [("r", 0, 8)],
}  # fmt: skip


@pytest.mark.parametrize("instruction", PAIRS)
def test_a_pair_of_registers_is_one_access(instruction):
    b = Bench(Switches(can_do_io="P0"), arch="aarch64", data_pa=WINDOW)
    result = b.load(f"{instruction}; wfi", x1=0x1111, x2=0x2222).run()
    assert bus(result) == PAIRS[instruction]
    assert len(kinds(result, "lock")) == 2


def test_two_vectors_are_two_accesses():
    b = Bench(Switches(can_do_io="P0"), arch="aarch64", data_pa=WINDOW)
    b.space.write(WINDOW, bytes(range(32)))
    result = b.load("ldp q0, q1, [x0]; add x1, x0, #0x40; stp q1, q0, [x1]; wfi").run()
    assert len(kinds(result, "lock")) == 8
    assert b.space.read(WINDOW + 0x40, 32) == bytes(range(16, 32)) + bytes(range(16))


@pytest.mark.parametrize("arch", WIDE)
def test_16_bytes_over_two_pages(arch):
    source, load, store = WIDE[arch]
    b = Bench(Switches(), arch=arch, data_pa=WINDOW)
    b.map(DATA + 0x1000, 0x75_0000)
    b.space.write(WINDOW + 0xFF4, bytes(range(12)))
    b.space.write(0x75_0000, bytes(range(12, 16)))
    result = b.load(source, **{load: DATA + 0xFF4, store: DATA + 0x100}).run()
    assert bus(result)[:2] == [("r", 0xFF4, 4), ("r", 0xFF8, 8)]
    assert b.space.read(WINDOW + 0x100, 16) == bytes(range(16))


@pytest.mark.parametrize("name", ["7.2", "10.0"])
def test_an_access_from_ram_into_the_window(name):
    b = Bench(release(name), data_pa=0x75_0000)
    b.map(DATA + 0x1000, WINDOW)
    b.load("mov [rdi], rax; mov rbx, [rdi]; hlt", rdi=DATA + 0xFFD, rax=0x8877665544332211)
    result = b.run()
    assert result.registers["rbx"] == 0x8877665544332211
    assert (b.get(0x75_0FFD, 3), b.get(WINDOW, 5)) == (0x332211, 0x8877665544)
    around = [("w", n, 1) for n in range(5)] + [("r", 0, 8)]
    assert bus(result) == (around if name == "7.2" else [("w", 0, 4), ("w", 4, 1), ("r", 0, 4), ("r", 4, 1)])


@pytest.mark.parametrize("first, second", [("ram", "window"), ("window", "ram")])
def test_an_access_over_two_pages_is_translated_before_any_byte_moves(first, second):
    pages = {"ram": 0x75_0000, "window": WINDOW + 0x4000}
    b = Bench(Switches(), data_pa=pages[first])
    b.map(DATA + 0x1000, pages[second])
    b.load("mov [rdi], rax; hlt", rdi=DATA + 0xFFC, rax=0x8877665544332211)
    b.run()
    assert (b.get(pages[first] + 0xFFC, 4), b.get(pages[second], 4)) == (0x44332211, 0x88776655)
    b = Bench(Switches(), data_pa=pages[first])
    stop = b.load("mov [rdi], rax; hlt", rdi=DATA + 0xFFC, rax=0x8877665544332211).run().stop
    assert stop.exception.cr2 == DATA + 0x1000
    assert b.get(pages[first] + 0xFFC, 4) == 0
