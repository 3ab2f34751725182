"""step-atomic-setl."""

from cxl.bugs.step_atomic_setl import x86
from mmu.tcg import Switches
from tests.regress import faulty, fixed


def test_the_step_waits_for_its_own_end():
    seen = faulty("step-atomic-setl")
    assert seen.outcome == "hang"
    assert "cpu_exec_start" in seen.message
    assert [event[0] for event in seen.trace if event[0] == "atomic_exit"] == ["atomic_exit"]


def test_a_section_within_a_section_is_one_when_fixed():
    seen = fixed("step-atomic-setl")
    assert seen.outcome == "ok"
    assert seen.counts["bus_writes"]["ptw"] == 2  # the load sets A, the store D
    assert [event[1] for event in seen.trace if event[0] == "excl"] == ["begin", "end"]


def test_the_hang_of_the_plain_update_is_another():
    assert x86(Switches(setl_exclusive_hang=True)).outcome != "hang"
