"""The benchmark harness: what misses a limit, what is an error, what is written."""

import importlib
import json

import numpy as np
import pytest

from scripts.benches import __main__ as command
from scripts.benches import harness
from scripts.benches.harness import Bench, Row, WrongAnswer, expect, peak_memory
from scripts.benches.machine import machine, own_addresses
from scripts.benches.native import Loops


@pytest.mark.parametrize("name", command.groups())
def test_a_group_measures_what_it_says(name):
    """On a thousandth of the work, so that its checks of answers run and its times mean nothing."""
    rows = list(importlib.import_module(f"scripts.benches.group_{name}").rows(Bench(name, share=0.001)))
    assert rows
    assert {row.group for row in rows} == {name}
    assert all(row.ratio is None or row.ratio >= 0 for row in rows)


def test_runs_take_turns_and_each_pass_is_one_of_each():
    order = []
    bench = Bench("g", quick=True)
    bench.times({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 1)
    assert "".join(order) == "ab" + "ab" "ba" "ab" "ba" "ab"


def test_a_time_is_the_median_for_one_item(monkeypatch):
    clock = iter([0, 100, 0, 900, 0, 200, 0, 300, 0, 400])
    monkeypatch.setattr(harness.time, "thread_time_ns", lambda: next(clock))
    assert Bench("g", quick=True).times({"a": lambda: None}, 10) == {"a": 30}


@pytest.mark.parametrize("ours, limit, ok", [(11, 1.2, True), (12, 1.2, True), (13, 1.2, False), (99, None, True)])
def test_a_row_holds_while_the_ratio_is_at_most_the_limit(ours, limit, ok):
    row = Bench("g").row("what", ours, "loop", 10, limit)
    assert (row.ratio, row.ok) == (ours / 10, ok)


def test_a_wrong_answer_names_the_question_and_both_answers():
    expect("walk", np.array([7, 8]), np.array([1, 2]), np.array([1, 2]))
    with pytest.raises(WrongAnswer, match="walk: 1 of 2 answers are wrong; the first, for 0x8, must be 0x3, not 0x2"):
        expect("walk", np.array([7, 8]), np.array([1, 2]), np.array([1, 3]))


def test_peak_memory_sees_what_is_freed_again():
    size = 32 << 20
    used = peak_memory(lambda: np.ones(size, np.uint8).sum())
    if used is None:
        pytest.skip("/proc/self/clear_refs is not writable here")
    assert size * 0.9 < used < size * 1.5
    assert peak_memory(lambda: None) < 1 << 20


@pytest.mark.parametrize("ok", [True, False])
def test_status_and_file_say_whether_limits_hold(monkeypatch, tmp_path, capsys, ok):
    row = Row("bus", "what", 12.5, "loop", 10.0, 1.25, 1.2 if not ok else 1.3, ok)
    monkeypatch.setattr(command, "measure", lambda names, quick: iter([row]))
    path = tmp_path / "rows.json"
    assert command.main(["bus", "--json", str(path)]) == (0 if ok else 1)
    assert json.loads(path.read_text()) == [{
        "group": "bus", "name": "what", "ours_ns": 12.5, "against": "loop", "against_ns": 10.0, "ratio": 1.25,
        "limit": row.limit, "ok": ok,
    }]  # fmt: skip
    assert ("MISSED" in capsys.readouterr().out) is not ok


def test_a_wrong_answer_is_an_error_and_not_a_row(monkeypatch, capsys):
    def wrong(names, quick):
        raise WrongAnswer("walk: all answers are wrong")
        yield

    monkeypatch.setattr(command, "measure", wrong)
    assert command.main([]) == 1
    assert capsys.readouterr().err == "scripts/bench: walk: all answers are wrong\n"


def test_a_group_that_is_not_there_is_misuse(capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["nothing"])
    assert stopped.value.code == 2
    assert f"group must be one of {', '.join(command.groups())}, not nothing" in capsys.readouterr().err


def test_loops_read_what_the_bus_wrote():
    m = machine()
    addresses = np.array([0, 8, 4096], dtype=np.uint64)
    own_addresses(m, 0, 8192)
    values = np.zeros(3, np.uint64)
    Loops("bus").bind("ram_load", [m.ram, 8192], addresses, values)()
    assert values.tolist() == [0, 8, 4096]
    with pytest.raises(ValueError, match="contiguous uint64 of one length"):
        Loops("bus").bind("ram_load", [m.ram, 8192], addresses, values[:2])
