"""`python -m scripts.benches [GROUP...] [--json FILE] [--quick]`; see scripts/bench."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from scripts.benches.harness import Bench, Row, WrongAnswer

PREFIX = "group_"


def groups() -> list[str]:
    return sorted(p.stem.removeprefix(PREFIX) for p in Path(__file__).parent.glob(f"{PREFIX}*.py"))


def measure(names: Sequence[str], quick: bool) -> Iterator[Row]:
    for name in names:
        module = importlib.import_module(f"scripts.benches.{PREFIX}{name}")
        yield from module.rows(Bench(name, quick))


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def line(row: Row) -> str:
    verdict = "" if row.limit is None else "ok" if row.ok else "MISSED"
    return (
        f"{row.group:8}{row.name:52}{_number(row.ours_ns, 1):>9}  {row.against or '':44}"
        f"{_number(row.against_ns, 1):>9}{_number(row.ratio, 2):>7}{_number(row.limit, 1):>7}  {verdict}").rstrip()


HEAD = f"{'group':8}{'what':52}{'ns':>9}  {'against':44}{'ns':>9}{'ratio':>7}{'limit':>7}"


def main(argv: Sequence[str] | None = None) -> int:
    here = groups()
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Medians of CPU time; ratios are taken within one run. "
        "Exit status 1: a limit was missed or an answer was wrong.")  # fmt: skip
    parser.add_argument("group", nargs="*", help=f"of {', '.join(here)}; all when none is given")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as a list of objects")
    parser.add_argument("--quick", action="store_true", help="fewer addresses and passes")
    args = parser.parse_args(argv)
    for name in args.group:
        if name not in here:
            parser.error(f"group must be one of {', '.join(here)}, not {name}")
    rows = []
    print(HEAD, flush=True)
    try:
        for row in measure(args.group or here, args.quick):
            rows.append(row)
            print(line(row), flush=True)
    except WrongAnswer as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 1
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0 if all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
