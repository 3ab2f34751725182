"""The atlas is whole: every bug has a file, a switch that something consults, a regress test and a planted mistake."""

import ast
from dataclasses import fields
from pathlib import Path

import pytest

from cxl.bugs import NAMES, every, get
from cxl.bugs.bug import BUS, Mode, Outcome
from mmu.tcg import BUGS, Switches
from tests.mutations import ROOT, table_switches

REGRESS = {path: ast.get_docstring(ast.parse(path.read_text())) for path in (ROOT / "tests/regress").glob("test_*.py")}


@pytest.mark.parametrize("name", NAMES)
def test_a_bug_is_in_the_file_of_its_name_and_has_a_regress_test(name):
    bug = get(name)
    assert bug.name == name
    assert Path(ROOT, "cxl", "bugs", f"{name.replace('-', '_')}.py").is_file()
    assert [path for path, doc in REGRESS.items() if doc == f"{name}."] != []


@pytest.mark.parametrize("bug", every(), ids=lambda bug: bug.name)
def test_its_scenario_is_told(bug):
    assert bug.scene.endswith(".")
    assert len(bug.trigger.split()) > 30
    assert bug.references


def test_every_switch_is_of_a_bug_and_every_bug_of_the_model_in_the_atlas():
    used = {switch for bug in every() for switch in bug.switches}
    assert {name.replace("-", "_") for name in BUGS} == used


def test_every_switch_has_a_planted_mistake():
    planted = {m.name.split()[1].replace("-", "_") for m in table_switches.MUTATIONS}
    assert {switch for bug in every() for switch in bug.switches} == planted


@pytest.mark.parametrize("bug", every(), ids=lambda bug: bug.name)
def test_modes_differ_by_the_switches_alone(bug):
    faulty, fixed = bug.emulator(Mode.FAULTY), bug.emulator(Mode.FIXED)
    differ = {f.name for f in fields(Switches) if getattr(faulty, f.name) != getattr(fixed, f.name)}
    assert differ == set(bug.switches)
    assert fixed.bugs == ()


@pytest.mark.parametrize("bug", every(), ids=lambda bug: bug.name)
def test_something_can_be_seen_of_each_bug_that_has_a_switch(bug):
    seen = [(bug.expected(Mode.FAULTY, a), bug.expected(Mode.FIXED, a)) for a in bug.arches]
    assert any(faulty != fixed for faulty, fixed in seen) == bool(bug.switches)


def test_an_architecture_without_a_scenario_does_not_apply():
    bug = get("arm-hafdbs-mmio")
    seen = bug.run(bug.chosen("x86_64"), bug.emulator(Mode.FAULTY))
    assert seen.outcome == Outcome.NOT_APPLICABLE
    assert bug.expected(Mode.FAULTY, "x86_64").complaints(seen) == []


def test_accesses_without_a_guest_are_those_of_any_architecture():
    assert get("hdm-target-list").chosen("aarch64") == BUS


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("bug", every(), ids=lambda bug: bug.name)
def test_the_same_run_gives_the_same_trace(bug, mode):
    for arch in bug.arches:
        emulator = bug.emulator(mode)
        assert bug.run(arch, emulator) == bug.run(arch, emulator)
