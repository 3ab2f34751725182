"""The model's TLB: what a second access finds, by the walks that it takes."""

import pytest

from mmu.tcg import Switches
from mmu.tcg.softmmu import Sizing
from tests.tcg.machines import DATA, PAGE, WINDOW, Bench, bus

WAY = 256 * PAGE  # pages that share a slot
HERE = DATA + 16 * PAGE  # which code does not share


def bench(source, data_pa=WINDOW, switches=None):
    b = Bench(switches or Switches())
    b.map(HERE, data_pa)
    for n in range(1, 11):
        b.map(HERE + n * WAY, 0x80_0000 + n * PAGE)
    return b.load(source, rdi=HERE, rsi=HERE + WAY)


def walks(b):
    """Besides those of the code's page."""
    return b.run().counters.walks - 1


TWICE = "mov rax, [rdi]; mov rbx, [rsi]; mov rcx, [rdi]; hlt"


def test_what_a_page_in_ram_loses_its_slot_to_leaves_it_among_the_victims():
    assert walks(bench(TWICE, 0x20_0000)) == 2


def test_a_page_of_a_device_is_walked_for_again():
    assert walks(bench(TWICE)) == 3


def test_after_eight_more_a_victim_is_gone():
    many = "; ".join(f"mov rbx, [rsi+{n * WAY}]" for n in range(9))
    eight = many.rsplit(";", 1)[0]
    assert walks(bench(f"mov rax, [rdi]; {eight}; mov rax, [rdi]; hlt", 0x20_0000)) == 9
    assert walks(bench(f"mov rax, [rdi]; {many}; mov rax, [rdi]; hlt", 0x20_0000)) == 11


@pytest.mark.parametrize("entries, expected", [(256, 3), (512, 2)])
def test_more_slots_keep_more(entries, expected):
    assert walks(bench(TWICE, switches=Switches(tlb_entries=entries))) == expected


@pytest.mark.parametrize("instruction, expected", [
    ("invlpg [rdi]", 2), ("invlpg [rsi]", 1), ("mov rdx, cr3; mov cr3, rdx", 2), ("nop", 1)])
def test_flushes(instruction, expected):
    b = bench(f"mov rax, [rdi]; {instruction}; mov rcx, [rdi]; hlt", 0x20_0000)
    fetches = 1 if "cr3" in instruction else 0
    assert walks(b) == expected + fetches


def test_a_large_page_goes_with_any_of_its_pages():
    """INVLPG of one part flushes all of the index, the page of the code too."""
    b = bench(f"mov rax, [rdi]; invlpg [rdi+{5 * PAGE}]; mov rcx, [rdi]; hlt")
    b.put(b.entry(HERE, 2), 0x80_0000 | 0xE3)
    assert walks(b) == 3


@pytest.mark.parametrize("used, now, entries", [
    ((182, 10), (1, 2), [512, 512]),  # more than 70 % in use: twice as large at the next flush
    ((181, 10), (1, 2), [256, 256]),
    ((50, 50), (1, 500), [256, 64 * 2]),  # less than 30 %, and the window is over: 50 of 64 would be too full
    ((40, 40), (1, 500), [256, 64]),
    ((3, 3), (500, 501), [64, 64]),
    ((150, 3, 3), (1, 500, 2000), [256, 256, 64]),  # the most of a window counts
])  # fmt: skip
def test_the_size_follows_the_use(used, now, entries):
    sizing = Sizing(256, 400)
    assert [sizing.flushed(u, n) for u, n in zip(used, now, strict=True)] == entries


def test_without_a_window_the_size_stays():
    assert Sizing(256, 0).flushed(256, 10**6) == 256


def test_a_program_that_uses_much_gets_more():
    """200 pages, a flush, and again: then both halves fit."""
    b = Bench(Switches(tlb_window=1 << 30))
    for n in range(200):
        b.map(HERE + n * PAGE, 0x80_0000 + n * PAGE)
    source = "mov ebp, 2; 2: mov ecx, 200; mov rsi, rdi; 1: mov rax, [rsi]; add rsi, 4096; dec ecx; jnz 1b;"
    result = b.load(f"{source} mov rdx, cr3; mov cr3, rdx; dec ebp; jnz 2b; hlt", rdi=HERE).run()
    assert result.stop.reason == "halt"
    assert max(b.machine.cpu.emulator.accesses.tlb.sizes().values()) == 512


def test_entries_of_the_walker_are_read_each_time():
    """A TLB keeps translations; a table's entry is never kept."""
    b = Bench(Switches(), (1,)).load("mov rax, [rdi]; invlpg [rdi]; mov rcx, [rdi]; hlt")
    assert len(bus(b.run(), "ptw")) == 2
