"""ptw-rom."""

from cxl.bugs.ptw_rom import x86
from mmu.tcg import Switches
from tests.regress import fixed


def test_the_walk_goes_on_as_if_the_flag_were_set():
    seen = fixed("ptw-rom")
    assert seen.outcome == "ok"  # which includes that A is still clear
    assert [event[1] for event in seen.trace if event[0] == "excl"] == ["begin", "end"]
    assert seen.registers["rbx"] == 1


def test_what_hangs_in_cxl_memory_hangs_in_rom():
    assert x86(Switches(setl_exclusive_hang=True)).outcome == "hang"
