"""alias-path."""

import pytest

from cxl.bugs.alias_path import x86
from mmu.tcg import Switches
from tests.regress import bus, faulty, fixed


def test_every_access_goes_through_the_decoders():
    seen = faulty("alias-path")
    assert seen.outcome == "ok"
    assert seen.counts["bus_reads"] == {"ptw": 8, "data": 1, "fetch": 0}
    assert seen.counts["recompiles"] > 0


def test_it_is_ram_when_fixed():
    seen = fixed("alias-path")
    assert seen.outcome == "ok"
    assert bus(seen) == []
    assert (seen.counts["recompiles"], seen.counts["lock_depth"]) == (0, 0)


WALKS = ("ptw_retaddr", "setl_exclusive_hang", "double_lock", "lookup_tb_can_do_io", "plugin_walk")


@pytest.mark.parametrize("bug", WALKS)
def test_no_bug_shows_there(bug):
    assert x86(Switches(can_do_io="P1", **{bug: True})).outcome == "ok"


def test_they_do_without_it():
    assert x86(Switches(can_do_io="P1", ptw_retaddr=True, alias_path=True)).outcome == "abort"
