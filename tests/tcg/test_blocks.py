"""Which blocks are found again, and by what."""

import pytest

from mmu.memory import AddressSpace, Alias, Ram
from mmu.tcg import Switches
from mmu.tcg.blocks import NO_PAGE, Block, Blocks, Flags
from mmu.tcg.decode_x86 import decoder
from mmu.tcg.instruction import Flow, Instruction
from tests.tcg.machines import CODE, CODE_PA, PAGE, Bench, kinds

USUAL = Flags()


def block(pc=CODE, page0=0x1000, page1=NO_PAGE, size=4, flags=USUAL):
    return Block(pc, 0, flags, (Instruction(size),), bytes(size), page0, page1, 512, (), (0, size))


def test_a_page_takes_with_it_what_begins_in_the_page_before():
    blocks = Blocks(False)
    for pc in CODE - PAGE, CODE, CODE + PAGE:
        blocks.remember(block(pc))
    blocks.flush_jumps(CODE)
    assert [blocks.by_address(pc, 0, USUAL) is None for pc in (CODE - PAGE, CODE, CODE + PAGE)] == [True, True, False]


def test_a_block_over_two_pages_is_not_jumped_to_directly():
    blocks, one = Blocks(False), block()
    blocks.link(one, 0, block(CODE + 8, page1=0x2000))
    assert one.links == {}
    blocks.link(one, 0, to := block(CODE + 8))
    assert one.links == {0: to}


@pytest.mark.parametrize("keep_all", [False, True])
def test_a_block_of_device_memory_is_kept_by_mistake_only(keep_all):
    blocks, one, to = Blocks(keep_all), block(), block(CODE + 8, NO_PAGE)
    blocks.remember(to)
    blocks.link(one, 0, to)
    assert (blocks.by_address(CODE + 8, 0, USUAL) is to) == keep_all
    assert (one.links == {0: to}) == keep_all


@pytest.mark.parametrize("pa, size, gone", [
    (0x1000, 1, False), (0x1FFD, 1, False), (0x1FFE, 1, True), (0x1FFF, 1, True), (0x5000, 1, True), (0x5001, 1, True),
    (0x5002, 1, False), (0x1FF0, 15, True), (0x1FF0, 14, False)])
def test_a_store_removes_the_blocks_that_it_touches(pa, size, gone):
    """Of a block of 4 bytes, two at the end of one page and two at the start of another."""
    blocks, one = Blocks(False), block(CODE + 0xFFE, 0x1000, 0x5000)
    blocks.add(one)
    assert (blocks.stored(pa, size) == [one]) == gone == (not one.valid)
    assert (blocks.by_page(one.pc, 0x1000, 0, USUAL) is None) == gone


def test_a_second_page_that_was_mapped_anew_is_seen():
    """The block is found by its first page; its second one is another by now."""
    b = Bench(Switches())
    b.map(CODE + PAGE, 0x81_0000)
    b.space.write(0x81_0000, b"\x44\x33\x22\x11\xf4")
    b.space.write(0x82_0000, b"\x88\x77\x66\x55\xf4")
    b.machine.write(CODE + 0xFFF, b"\xb8")  # mov eax, imm32; hlt
    b.map(0x5000_0000_0000, b.entry(CODE + PAGE, 1) & -PAGE)
    first = b.load("jmp rsi", rsi=CODE + 0xFFF).run()
    b.machine.write(CODE + PAGE + 4, b"\xc3")
    b.space.write(0x82_0004, b"\xc3")
    b.load("mov rbp, 2; 1: call rsi; mov [rdi], rdx; invlpg [rbx]; dec rbp; jnz 1b; hlt", rsi=CODE + 0xFFF,
           rbx=CODE + PAGE, rdx=0x82_0063, rdi=0x5000_0000_0000 + b.entry(CODE + PAGE, 1) % PAGE)
    second = b.run()
    assert (first.registers["rax"], second.registers["rax"]) == (0x11223344, 0x55667788)


@pytest.mark.parametrize("code, flow, inhibit", [
    ("f390", Flow.MAIN_LOOP, False),  # pause
    ("8ed8", Flow.MAIN_LOOP, False),  # mov ds, eax
    ("8ed0", Flow.MAIN_LOOP, True),  # mov ss, eax
    ("8c17", Flow.NEXT, False),  # mov [rdi], ss
    ("8cd0", Flow.NEXT, False),  # mov eax, ss
    ("8ee0", Flow.NEXT, False),  # mov fs, eax
    ("90", Flow.NEXT, False),
])  # fmt: skip
def test_what_ends_a_block(code, flow, inhibit):
    found = decoder().decode(bytes.fromhex(code) + b"\x90" * 13)
    assert (found.flow, found.inhibit) == (flow, inhibit)


def test_a_store_to_another_place_of_the_same_ram_changes_code():
    """Blocks belong to RAM, wherever it is seen; the plain machine agrees."""
    code = bytes.fromhex("b905000000" "b877000000" "884e06" "ffc9" "75f4" "f4")
    # mov ecx, 5; 1: mov eax, 0x77; mov [rsi + 6], cl; dec ecx; jnz 1b; hlt
    for emulator in None, Switches():
        b = Bench(emulator)
        b.space.map(1 << 38, Alias(b.space.view.find(CODE_PA).region, 0, CODE_PA + PAGE))
        b.map(0x5000_0000_0000, (1 << 38) + CODE_PA)
        result = b.load(code, rsi=0x5000_0000_0000).run()
        assert (result.registers["rax"], result.registers["rcx"]) == (2, 0)


def test_ram_that_is_shown_twice():
    one, two = Ram(4 * PAGE), Ram(PAGE)
    space = AddressSpace()
    aliases = (0x20_0000, Alias(one, PAGE, 2 * PAGE)), (0x30_0000, Alias(one, 0, 9))
    for at, region in (0, one), (0x10_0000, two), *aliases:
        space.map(at, region)
    memory = Bench(Switches()).machine.cpu.emulator.accesses.memory
    memory.space = space
    memory.take_over()
    assert memory.twins(8) == [0x30_0008]
    assert memory.twins(PAGE + 8) == [0x20_0008]
    assert memory.twins(0x20_1FFF) == [3 * PAGE - 1]
    assert memory.twins(3 * PAGE) == memory.twins(0x10_0000) == memory.twins(0x999_0000) == []


def test_blocks_are_translated_once():
    b = Bench(Switches()).load("mov ecx, 100; 1: dec ecx; jnz 1b; hlt")
    result = b.run()
    assert [e.n_insns for e in kinds(result, "tb")] == [3, 2, 1]
    assert result.counters.chained > 90
    assert result.counters.instructions == 202
