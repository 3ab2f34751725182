"""excl-bql-deadlock."""

from cxl.bugs.excl_bql_deadlock import x86
from cxl.bugs.kernel import Kernel
from mmu.tcg import Switches
from tests.regress import faulty, fixed


def test_one_holds_the_lock_that_the_other_waits_for():
    seen = faulty("excl-bql-deadlock")
    assert seen.outcome == "hang"
    assert "holds the big lock" in seen.message
    assert seen.registers["rcx"] == 0


def test_the_lock_is_given_up_meanwhile_when_fixed():
    seen = fixed("excl-bql-deadlock")
    assert seen.outcome == "ok"
    assert seen.counts["bus_writes"]["ptw"] == 1


def test_one_cpu_alone_goes_on():
    assert x86(Switches(excl_bql_deadlock=True)).outcome == "ok"


def test_without_a_flag_to_set_there_is_nothing_to_wait_for():
    switches = Switches(excl_bql_deadlock=True, peer_waits_for_lock=True)
    assert Kernel(switches, "rrw").interrupted().outcome == "ok"
