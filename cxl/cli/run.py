"""`cxl-mmu run`: a guest program with its page tables, code and data in a CXL window."""

from __future__ import annotations

import json
from collections.abc import Callable

import click

from cxl.cli.options import NUMBER, F, goes_without, json_option, tables_option, topology_of, topology_options
from cxl.cli.report import run_record, run_text
from cxl.examples import find
from cxl.job import SIDES, Job, Placement

PLAIN, MODEL = 10.0, 120.0  # seconds that a run may take; a model of an emulator is slower


def placed(what: str) -> Callable[[F], F]:
    return click.option(
        f"--{what}", type=click.Choice(SIDES), default="window", show_default=True, help=f"Where the {what} is.")


@click.command()
@click.argument("program", required=False)
@click.option("--arch", type=click.Choice(["x86_64", "aarch64"]), default="x86_64", show_default=True)
@topology_options
@tables_option
@click.option(
    "--code", type=click.Choice(SIDES), help="Where the code is.  [default: window; ram with --release, as reported]")
@placed("data")
@click.option("--stack", type=click.Choice(SIDES), help="Where the stack is.  [default: as --data]")
@click.option(
    "--dispatch", type=click.Choice(["exact", "direct", "mirror", "auto"]), default="exact", show_default=True,
    help="How the window is served: exact counts each access, the others run at the speed of RAM.")
@click.option("--release", metavar="R", help="Run it as this release of QEMU would, such as 8.2.")
@click.option(
    "--flags", type=click.Choice(["set", "clear"]),
    help="With --release: accessed and dirty flags, set beforehand as Linux does, or left to walks.  [default: set]")
@click.option("--explain", type=NUMBER, metavar="VA", help="Whose walk to explain.  [default: what faulted, else data]")
@click.option(
    "--timeout", type=float,
    help=f"Seconds until the guest is stopped.  [default: {PLAIN:g}; {MODEL:g} with --release]")
@click.option("--limit", type=int, help="Instructions until the guest is stopped.")
@click.option("--snapshot", metavar="FILE", help="Write the machine, as it is when it stops, to FILE.")
@click.option("--resume", metavar="FILE", help="Go on with a machine that --snapshot wrote, instead of PROGRAM.")
@json_option
def run(
    program: str | None, arch: str, qemu_args: str | None, topology: str | None, cedt: str | None,
    tables: str | dict[str, str], code: str | None, data: str, stack: str | None,
    dispatch: str, release: str | None, flags: str | None, explain: int | None,
    timeout: float | None, limit: int | None, snapshot: str | None, resume: str | None, as_json: bool,
) -> int:  # fmt: skip
    """Run PROGRAM: a path (.s, .bin, .elf) or the name of a shipped example.

    Exit status 0 when the guest halted, 1 when it stopped in any other way, or the emulator of --release ended.
    """
    if release is None and flags is not None:
        raise click.UsageError("--flags goes with --release")
    if release is not None and dispatch != "exact":
        raise click.UsageError(f"--release dispatches every access, as the emulator does: not --dispatch {dispatch}")
    if (program is None) == (resume is None):
        raise click.UsageError("give PROGRAM or --resume FILE" + (", not both" if program else ""))
    if resume is not None:
        from cxl.snapshot import load

        goes_without(resume)
        job = load(resume, release, dispatch)
    else:
        assert program is not None
        source = find(program, arch)
        where = Placement(tables, code or ("window" if release is None else "ram"), data, stack or data)
        job = Job(topology_of(qemu_args, topology, cedt), arch, where, dispatch, release, flags != "clear")
    try:
        seconds = (PLAIN if release is None else MODEL) if timeout is None else timeout
        result = job.go(seconds, limit) if resume is not None else job.run(source, seconds, limit)
        walk = job.walk(result, explain)
        if snapshot is not None:
            from cxl.snapshot import save

            save(snapshot, job.machine, job.topology)
        if as_json:
            click.echo(json.dumps(run_record(job, result, walk), indent=2))
        else:
            click.echo(run_text(job, result, walk))
    finally:
        job.close()
    return int(result.stop.reason != "halt")
