"""`cxl-mmu bench`: the benches of the checkout that this package runs from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[GROUP...] [--json FILE] [--quick]")
def bench(arguments: tuple[str, ...]) -> int:
    """Measure ratios against reference loops that are compiled in the same run.

    Exit status 1: a limit was missed or an answer was wrong. Needs a checkout of the project and a C compiler.
    """
    if not (ROOT / "scripts/benches").is_dir():
        raise click.ClickException(f"bench needs a checkout of the project: there is no scripts/benches in {ROOT}")
    command = [sys.executable, "-P", "-m", "scripts.benches", *arguments]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode
