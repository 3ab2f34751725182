"""alias-path."""

import pytest

from cxl import Topology
from cxl.bugs import get
from cxl.bugs.alias_path import x86
from cxl.bugs.bug import Mode
from cxl.bugs.busside import several
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


NEED_A_DEVICE = (
    "ptw-retaddr", "lookup-tb-can-do-io", "double-lock", "setl-exclusive-hang", "arm-hafdbs-mmio", "second-page-mmio",
    "straddle-final-insn", "straddle-jump-cache", "atomic-flags", "atomic-step-livelock", "oneshot-unregistered",
    "step-atomic-setl", "excl-bql-deadlock",
)  # fmt: skip


@pytest.mark.parametrize("name", NEED_A_DEVICE)
def test_with_one_device_the_other_scenarios_meet_nothing(name, monkeypatch):
    """What is shown as RAM has a host address: none of these bugs is met, and nothing is dispatched."""
    monkeypatch.setattr(Topology, "default", lambda: several(1))
    bug = get(name)
    for arch in bug.arches:
        seen = bug.run(arch, bug.emulator(Mode.FAULTY))
        assert (seen.outcome, bus(seen)) == ("ok", [])


@pytest.mark.parametrize("name", NEED_A_DEVICE)
def test_with_one_device_and_no_direct_path_they_do(name, monkeypatch):
    monkeypatch.setattr(Topology, "default", lambda: several(1))
    bug = get(name)
    arch = bug.arches[0]
    seen = bug.run(arch, bug.emulator(Mode.FAULTY).replace(alias_path=True))
    assert bug.expected(Mode.FAULTY, arch).complaints(seen) == []


WALKS = ("ptw_retaddr", "setl_exclusive_hang", "double_lock", "lookup_tb_can_do_io", "plugin_walk")


@pytest.mark.parametrize("bug", WALKS)
def test_no_bug_shows_there(bug):
    assert x86(Switches(can_do_io="P1", **{bug: True})).outcome == "ok"


def test_they_do_without_it():
    assert x86(Switches(can_do_io="P1", ptw_retaddr=True, alias_path=True)).outcome == "abort"
