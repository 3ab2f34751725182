"""`cxl-mmu bug`."""

import json
from html.parser import HTMLParser

import pytest

from cxl.bugs import NAMES, every, get
from cxl.bugs.bug import Expected, Mode, Outcome
from cxl.cli.main import main
from mmu.tcg import BUGS, RELEASES, Switches

OUTCOMES = {"ok", "abort", "hang", "crash", "guest-fault", "wrong-data", "error", "not-applicable"}


def out(capsys, *words, status=0):
    assert main(["bug", *words]) == status
    return capsys.readouterr().out


def test_list_has_every_bug(capsys):
    text = out(capsys, "list")
    assert [line.split()[0] for line in text.splitlines() if line[0] not in " "][1:] == list(NAMES)
    assert [b["name"] for b in json.loads(out(capsys, "list", "--json"))] == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_show_tells_the_story(name, capsys):
    text = out(capsys, "show", name)
    bug = get(name)
    assert text.startswith(f"{name}: {bug.title}\n")
    assert all(reference in text for reference in bug.references)
    shown = json.loads(out(capsys, "show", name, "--json"))
    assert (shown["name"], shown["switches"]) == (name, list(bug.switches))
    made = dict.fromkeys(shown["switches"], True) | shown["policy"] | shown["needs"]
    assert Switches(**made) == bug.emulator(Mode.FAULTY)
    assert all(f"{field}={value!r}" in text for field, value in (shown["policy"] | shown["needs"]).items())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", Mode)
def test_a_scenario_shows_what_the_atlas_says(name, mode):
    bug = get(name)
    for arch in bug.arches:
        assert bug.expected(mode, arch).complaints(bug.run(arch, bug.emulator(mode))) == []


def test_run_both_modes(capsys):
    text = out(capsys, "run", "hdm-target-list")
    assert text.splitlines()[0] == "hdm-target-list, bus, faulty: wrong-data: as expected"
    assert "hdm-target-list, bus, fixed: ok: as expected" in text
    record = json.loads(out(capsys, "run", "hdm-target-list", "--json"))
    assert [r["outcome"] for r in record["runs"]] == ["wrong-data", "ok"]


def test_run_of_one_mode_is_one_object(capsys):
    record = json.loads(out(capsys, "run", "hdm-target-list", "--mode", "faulty", "--json"))
    assert (record["name"], record["mode"], record["release"]) == ("hdm-target-list", "faulty", None)
    assert record["outcome"] == "wrong-data"
    assert record["counts"]["bus_writes"] == {"ptw": 0, "data": 8, "fetch": 0}
    assert "trace" not in record


def test_run_traces_on_request(capsys):
    record = json.loads(out(capsys, "run", "hdm-target-list", "--mode", "fixed", "--json", "--trace"))
    assert len(record["trace"]) == 8
    assert record["trace"][0] == {
        "kind": "bus", "rw": "w", "region": "window0", "offset": 0, "size": 8, "value": 0x1111111111111111,
        "result": "OK", "tag": "data",
    }  # fmt: skip
    assert "bus w window0+0x100 8 <- 0x2222222222222222 OK data" in out(capsys, "run", "hdm-target-list", "--trace")


@pytest.mark.parametrize("release", ["7.2", "qemu-7.2"])
def test_run_under_a_release(release, capsys):
    record = json.loads(out(capsys, "run", "hdm-decoder-count", "--release", release, "--json"))
    assert (record["mode"], record["release"], record["outcome"]) == ("release", "7.2", "error")


def test_a_release_but_for_the_bug(capsys):
    words = ("run", "hdm-decoder-count", "--release", "7.2", "--mode")
    assert json.loads(out(capsys, *words, "fixed", "--json"))["outcome"] == "ok"
    assert json.loads(out(capsys, *words, "faulty", "--json"))["outcome"] == "error"


def test_a_release_with_one_bug_mended_is_not_known_before(capsys):
    """Without the hang, 8.2 gets to the next of its bugs."""
    text = out(capsys, "run", "setl-exclusive-hang", "--release", "8.2", "--mode", "both")
    first, second = [line for line in text.splitlines() if line[0] != " "]
    assert first == "setl-exclusive-hang, x86_64, faulty (qemu 8.2): hang: as expected"
    assert second == "setl-exclusive-hang, x86_64, fixed (qemu 8.2): abort: not known before"


def test_exit_status_1_when_it_shows_something_else(capsys, monkeypatch):
    monkeypatch.setattr(Expected, "complaints", lambda expected, seen: ["no"] if seen.outcome == "ok" else [])
    assert "bus, fixed: ok: no" in out(capsys, "run", "hdm-target-list", status=1)
    out(capsys, "run", "hdm-target-list", "--mode", "faulty", status=0)


def test_complaints_say_what_differs():
    seen = get("hdm-target-list").run("bus", get("hdm-target-list").emulator(Mode.FIXED))
    expected = Expected(Outcome.ABORT, counts={"recompiles": 1})
    assert expected.complaints(seen) == ["the outcome must be abort, not ok", "recompiles must be 1, not 0"]
    assert Expected(Outcome.OK, "text").complaints(seen) == ["the message must hold 'text', not ''"]


@pytest.mark.parametrize("words, message", [
    (["run", "hdm-target"], "there is no bug 'hdm-target': do you mean hdm-target-list"),
    (["show", "zzz"], "there is no bug 'zzz': the atlas has"),
    (["run", "hdm-target-list", "--release", "5.0"], "release must be one of 7.2, 8.2"),
    (["run", "hdm-target-list", "--mode", "broken"], "'broken' is not one of 'faulty', 'fixed', 'both'"),
])  # fmt: skip
def test_misuse_is_one_line(words, message, capsys):
    assert main(["bug", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.fixture(scope="module")
def cells():
    from cxl.bugs.matrix import matrix

    return matrix(every())


def test_matrix_is_every_bug_by_every_release(cells):
    from cxl.bugs.show import matrix_record

    record = matrix_record(cells)
    assert list(record) == ["bugs"]
    assert list(record["bugs"]) == list(NAMES)
    assert all(list(row) == list(RELEASES) and set(row.values()) <= OUTCOMES for row in record["bugs"].values())


def test_no_cell_of_the_matrix_surprises(cells):
    assert [(c.bug.name, c.release, c.complaints) for row in cells.values() for c in row.values() if c.complaints] == []


def test_another_bug_that_comes_first_is_one_that_the_release_has():
    from mmu.tcg import release

    for bug in every():
        for name, (_, other) in bug.elsewhere.items():
            assert other != bug.name
            assert release(name).named(other) if other in BUGS else " " in other, (bug.name, name)


def test_matrix_is_printed(cells, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("cxl.bugs.matrix.matrix", lambda bugs: cells)
    assert out(capsys, "matrix").splitlines()[0].split() == ["bug", *RELEASES]
    assert set(json.loads(out(capsys, "matrix", "--json"))) == {"bugs"}
    page = out(capsys, "matrix", "--html")
    out(capsys, "matrix", "--html", str(tmp_path / "page.html"))
    assert (tmp_path / "page.html").read_text() == page
    seen = []

    class Cells(HTMLParser):
        def handle_starttag(self, tag, attributes):
            seen.extend(value for name, value in attributes if tag == "td" and name == "class")

    Cells().feed(page)
    assert seen == [c.seen.outcome.value for row in cells.values() for c in row.values()]


def test_a_group_alone_names_its_commands(capsys):
    """Before click 8.2 that is help, and no misuse."""
    status, said = main(["bug"]), capsys.readouterr()
    assert (status, said.err) in (
        (2, "cxl-mmu: cxl-mmu bug needs a command: list, matrix, run, show\n"), (0, ""))
    assert all(name in said.err + said.out for name in ("list", "matrix", "run", "show"))
