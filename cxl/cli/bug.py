"""`cxl-mmu bug`: list, show, run, matrix. The atlas itself: `cxl.bugs`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cxl.bugs.bug import ARCHES
from cxl.cli.options import json_option

if TYPE_CHECKING:
    from cxl.bugs.matrix import Cell
    from cxl.bugs.show import Run

STDOUT = "-"
WIDTH = 124


@click.group()
def bug() -> None:
    """What goes wrong in an emulator when tables, code or data are in CXL memory: each bug, faulty and fixed."""


@bug.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Every bug with its fix and a line."""
    from cxl.bugs import every
    from cxl.bugs.show import summary

    if as_json:
        click.echo(json.dumps([summary(b) for b in every()], indent=2))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("bug", "status", "what happens"):
        table.add_column(column, no_wrap=column != "what happens")
    for b in every():
        table.add_row(b.name, str(b.fix).split(" (")[0], b.title)
    click.echo(_drawn(table))


@bug.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """The story of bug NAME: trigger, fix, references, and what its scenario shows in both modes."""
    from cxl.bugs import get
    from cxl.bugs.show import record, story

    found = get(name)
    click.echo(json.dumps(record(found), indent=2) if as_json else story(found))


@bug.command()
@click.argument("name")
@click.option("--mode", type=click.Choice(["faulty", "fixed", "both"]), help="[default: both, without --release]")
@click.option("--release", "version", metavar="R", help="QEMU release, such as 8.2; with --mode: but for this bug.")
@click.option("--arch", type=click.Choice(ARCHES), help="[default: the first that the bug has]")
@click.option("--trace", is_flag=True, help="Print every event.")
@json_option
def run(
    name: str, mode: str | None, version: str | None, arch: str | None, trace: bool, as_json: bool
) -> int:  # fmt: skip
    """Run the scenario of bug NAME. Exit status 0 when what is seen is what must be.

    "faulty" has this bug alone, everything else fixed; --release R alone is that release as it was. With --json, one
    run is one object; both modes are an object with the list "runs".
    """
    from cxl.bugs.show import run_record, run_text

    runs = _runs(name, mode, version, arch)
    if as_json:
        records = [run_record(r, trace) for r in runs]
        whole = records[0] if len(records) == 1 else {"name": runs[0].bug.name, "runs": records}
        click.echo(json.dumps(whole, indent=2))
    else:
        click.echo("\n".join(run_text(r, trace) for r in runs))
    return int(any(r.complaints for r in runs))


def _runs(name: str, mode: str | None, version: str | None, arch: str | None) -> list[Run]:
    from cxl.bugs import get
    from cxl.bugs.bug import Mode
    from cxl.bugs.show import Run

    found = get(name)
    base = None if version is None else found.under(version)
    label = None if version is None else version.removeprefix("qemu-")
    chosen = found.chosen(arch)
    if base is not None and mode is None:
        assert label is not None
        seen = found.run(chosen, base)
        return [Run(found, chosen, "release", label, seen, found.expected_under(label, chosen))]
    runs = []
    for m in list(Mode) if mode in (None, "both") else [Mode(mode)]:
        known = label is None or not found.switches or found.is_in(label) == (m is Mode.FAULTY)
        expected = found.expected(m, chosen, label) if known else None
        runs.append(Run(found, chosen, m.value, label, found.run(chosen, found.emulator(m, base)), expected))
    return runs


@bug.command()
@click.option("--html", "page", is_flag=False, flag_value=STDOUT, metavar="[FILE]",
              help="Write a page instead, to FILE or to standard output.")  # fmt: skip
@json_option
def matrix(page: str | None, as_json: bool) -> int:
    """Every bug's scenario under every release. Exit status 1 when a cell is not what it must be."""
    from cxl.bugs import every
    from cxl.bugs.matrix import matrix as cells_of
    from cxl.bugs.show import html, matrix_record

    cells = cells_of(every())
    if page is not None:
        text = html(cells)
        if page == STDOUT:
            click.echo(text, nl=False)
        else:
            Path(page).write_text(text)
    else:
        click.echo(json.dumps(matrix_record(cells), indent=2) if as_json else _table(cells))
    wrong = [cell for row in cells.values() for cell in row.values() if cell.complaints]
    for cell in wrong:
        click.echo(f"cxl-mmu: {cell.bug.name} under {cell.release}: {'; '.join(cell.complaints)}", err=True)
    return int(bool(wrong))


def _table(cells: dict[str, dict[str, Cell]]) -> str:
    from rich.table import Table

    from mmu.tcg import RELEASES

    table = Table(box=None, pad_edge=False)
    for column in ("bug", *RELEASES):
        table.add_column(column, no_wrap=True)
    for name, row in cells.items():
        table.add_row(name, *(cell.seen.outcome.value for cell in row.values()))
    return _drawn(table)


def _drawn(table: object) -> str:
    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=WIDTH, no_color=True).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())
