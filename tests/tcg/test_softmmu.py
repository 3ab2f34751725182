"""The model's TLB: what a second access finds, by the walks that it takes."""

import pytest

from mmu.tcg import Switches
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


def test_entries_of_the_walker_are_read_each_time():
    """A TLB keeps translations; a table's entry is never kept."""
    b = Bench(Switches(), (1,)).load("mov rax, [rdi]; invlpg [rdi]; mov rcx, [rdi]; hlt")
    assert len(bus(b.run(), "ptw")) == 2
