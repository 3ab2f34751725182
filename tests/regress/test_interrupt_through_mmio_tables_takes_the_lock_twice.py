"""double-lock."""

from cxl.bugs.kernel import CODE_SELECTOR, Kernel
from mmu.tcg import Switches
from tests.regress import bus, faulty, fixed


def test_the_second_lock_aborts():
    seen = faulty("double-lock")
    assert seen.outcome == "abort"
    assert "bql_lock_impl: assertion failed: (!bql_locked())" in seen.message
    assert seen.counts["lock_depth"] == 2
    assert [event[0] for event in seen.trace if event[0] in ("lock", "interrupt", "bus")] == ["lock", "interrupt"]
    assert seen.registers["rcx"] == 0


def test_the_lock_is_held_throughout_when_fixed():
    seen = fixed("double-lock")
    assert seen.outcome == "ok"
    events = [event[:2] for event in seen.trace if event[0] in ("lock", "bus")]
    assert events == [("lock", "+"), ("bus", "r"), ("lock", "-")]
    assert [(event[2], event[7]) for event in bus(seen)] == [("window0", "ptw")]
    assert seen.counts["lock_depth"] == 1
    assert seen.registers["cs"] == CODE_SELECTOR


def test_tables_in_ram_are_the_same_in_both_modes():
    for double in True, False:
        seen = Kernel(Switches(double_lock=double), "rrr").interrupted()
        assert (seen.outcome, seen.counts["lock_depth"], bus(seen)) == ("ok", 1, [])
