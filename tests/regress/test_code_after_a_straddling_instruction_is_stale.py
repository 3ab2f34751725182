"""straddle-final-insn."""

from cxl.bugs.second_page_mmio import START
from cxl.bugs.straddle_final_insn import x86
from mmu.tcg import Switches
from tests.regress import faulty, fixed


def blocks(seen):
    return [event.n_insns for event in seen.trace if event[0] == "tb" and event.page0 == -1]


def test_the_block_goes_on_and_misses_what_it_writes():
    seen = faulty("straddle-final-insn")
    assert seen.outcome == "wrong-data"
    assert seen.registers["rbx"] == 0x11
    first = next(event for event in seen.trace if event[0] == "tb")
    assert (first.pc, first.page0) == (START, -1)
    assert first.n_insns > 1


def test_every_block_from_mmio_has_one_instruction_when_fixed():
    seen = fixed("straddle-final-insn")
    assert seen.outcome == "ok"
    assert seen.registers["rbx"] == 0x22
    assert blocks(seen) == [1, 1, 1, 1]


def test_where_io_ends_a_block_the_data_is_right_but_the_block_too_long():
    seen = x86(Switches(straddle_final_insn=True, can_do_io="P1"))
    assert seen.outcome == "ok"
    assert max(blocks(seen)) > 1
