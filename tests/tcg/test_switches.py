"""Switches and releases: every bug has its field, every release its row, by the notes and by what was measured."""

import ast
import subprocess
import sys
from collections import Counter
from dataclasses import fields

import pytest

from mmu.tcg import BUGS, RELEASES, Switches, release, reverted
from mmu.tcg.releases import CHANGES
from mmu.tcg.switches import field_of
from tests.mutations import ROOT
from tests.tcg.machines import Bench, kinds

# Faulty in these releases; what was measured on 7.2.22 and 10.0.13, for the others by the dates of the fixes.
EXPECTED = {
    "ptw-retaddr": "7.2 8.2 9.0",
    "lookup-tb-can-do-io": "7.2 8.2",
    "double-lock": "8.2",
    "setl-exclusive-hang": "7.2 8.2 9.0 9.1",
    "plugin-walk": "8.2 9.0 9.1",
    "arm-hafdbs-mmio": "7.2 8.2",
    "second-page-mmio": "7.2",
    "straddle-final-insn": "7.2 8.2 9.0",
    "straddle-jump-cache": " ".join(RELEASES),
    "atomic-flags": "",
    "atomic-step-livelock": "",
    "oneshot-unregistered": "",
    "io-must-be-last": "",
    "stage2-ro-update": "9.0 9.1 9.2 10.0 10.1 11.1",
    "rsvd-error-code": " ".join(RELEASES),
    "step-atomic-setl": "9.2 10.0 10.1 11.1",
    "excl-bql-deadlock": "9.2 10.0 10.1 11.1",
}
POLICY = {"7.2": "P0", "8.2": "P1", "9.0": "P1"}


@pytest.mark.parametrize("name", RELEASES)
def test_a_release_has_its_bugs(name):
    found = {bug for bug in EXPECTED if release(name).named(bug)}
    assert {bug for bug, releases in EXPECTED.items() if name in releases.split()} == found
    assert POLICY.get(name, "P2") == release(name).can_do_io


def test_every_switch_is_consulted_in_one_place():
    """Whatever else depends on it asks that place. The atlas only sets switches; their own file derives policies."""
    files = [p for room in ("mmu", "cxl") for p in (ROOT / room).rglob("*.py")]
    others = [p for p in files if "bugs" not in p.parts and p != ROOT / "mmu/tcg/switches.py"]
    asked = Counter(node.attr for p in others for node in ast.walk(ast.parse(p.read_text()))
                    if isinstance(node, ast.Attribute))
    assert {bug: n for bug in BUGS if (n := asked[field_of(bug)]) != 1} == {}


def test_instructions_marked_as_io_follow_the_policy_that_is_in_force():
    """With io_must_be_last nothing ends a block for I/O, whatever the policy would be."""
    assert Switches(io_must_be_last=True).policy == "P0"
    assert Switches(can_do_io="P1").policy == "P1"
    result = Bench(Switches(io_must_be_last=True)).load("in al, dx; inc rbx; hlt").run()
    assert [e.n_insns for e in kinds(result, "tb")] == [3]


def test_every_bug_of_the_model_has_a_row():
    assert set(EXPECTED) <= set(BUGS)


def test_the_default_is_everything_fixed():
    assert Switches().bugs == ()
    assert Switches().can_do_io == "P2"


def test_a_release_goes_by_both_names():
    assert release("qemu-8.2") == release("8.2")


@pytest.mark.parametrize("name", ["8.1", "qemu", "", "v8.2"])
def test_release_wrong_name(name):
    with pytest.raises(ValueError, match="release must be one of"):
        release(name)


def test_every_change_is_of_a_field_and_has_a_source():
    names = {f.name for f in fields(Switches)}
    assert all(c.field in names and c.source and c.since < c.until for c in CHANGES)


def test_no_two_changes_of_a_field_overlap():
    for i, one in enumerate(CHANGES):
        for other in CHANGES[:i]:
            assert one.field != other.field or one.until <= other.since or other.until <= one.since


def test_the_measured_build_undoes_single_fixes():
    assert reverted(0) == release("10.0")
    before = reverted(1 + 2 + 4 + 16)
    assert (before.lookup_tb_can_do_io, before.double_lock, before.ptw_retaddr, before.can_do_io) == (
        True, True, True, "P1")  # fmt: skip
    assert not before.setl_exclusive_hang
    assert reverted(8).setl_asserts and reverted(8).setl_exclusive_hang
    with pytest.raises(ValueError, match="mask must be made of the bits"):
        reverted(32)


def test_switches_by_name():
    s = Switches().with_bug("ptw-retaddr")
    assert s.bugs == ("ptw-retaddr",) and s.ptw_retaddr
    assert s.with_bug("ptw-retaddr", False) == Switches()
    with pytest.raises(ValueError, match="bug must be one of"):
        s.named("ptw_retaddr")


@pytest.mark.parametrize("wrong", [{"can_do_io": "P3"}, {"tlb_entries": 100}, {"tlb_entries": 32}])
def test_switches_wrong_policy(wrong):
    with pytest.raises(ValueError, match="must be"):
        Switches(**wrong)


def test_importing_the_interface_loads_no_engine():
    code = (
        "import sys, mmu.tcg; mmu.tcg.release('8.2'); mmu.tcg.EmulatorAbort; mmu.tcg.Event;"
        "assert not {'unicorn', 'capstone', 'mmu._core'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
