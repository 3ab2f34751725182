"""`cxl-mmu bench`: the benches of the checkout, with its own words and exit status."""

import json

from cxl.cli import bench
from cxl.cli.main import main


def test_it_measures_and_writes_the_rows(tmp_path, capfd):
    file = tmp_path / "rows.json"
    assert main(["bench", "decode", "--quick", "--json", str(file)]) in (0, 1)  # 1: too slow, on a busy machine
    rows = json.loads(file.read_text())
    assert rows and {row["group"] for row in rows} == {"decode"}
    assert f"{rows[0]['name']}" in capfd.readouterr().out


def test_a_group_that_is_none_is_misuse(capfd):
    assert main(["bench", "nothing"]) == 2
    assert "group must be one of bug, bus, decode," in capfd.readouterr().err


def test_without_a_checkout_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    assert main(["bench"]) == 2
    assert capsys.readouterr().err == (
        f"cxl-mmu: bench needs a checkout of the project: there is no scripts/benches in {tmp_path}\n")
