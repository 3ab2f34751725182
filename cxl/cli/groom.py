"""`cxl-mmu groom`: which tables, code and DMA buffers are in CXL windows, what it costs, and moving them to RAM."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from cxl.cli.groom_report import record, text
from cxl.cli.options import NUMBER, goes_without, json_option, tables_option, topology_of, topology_options
from cxl.cli.run import MODEL, PLAIN, placed
from cxl.examples import find
from cxl.groom import KINDS
from cxl.groom import groom as groomed
from cxl.job import SIDES, Job, Placement

if TYPE_CHECKING:
    from mmu.guest.result import RunResult


class Span(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases
    """START:SIZE in bytes."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        start, colon, size = value.partition(":")
        if not colon:
            self.fail(f"{value!r} is not a range; write START:SIZE, such as 0x2f0200000:0x4000", param, context)
        return NUMBER.convert(start, param, context), NUMBER.convert(size, param, context)


SPAN = Span()


@click.command()
@click.argument("program", required=False)
@click.option("--snapshot", metavar="FILE", help="A machine that `cxl-mmu run --snapshot` wrote, instead of PROGRAM.")
@click.option("--arch", type=click.Choice(["x86_64", "aarch64"]), default="x86_64", show_default=True)
@topology_options
@tables_option
@click.option(
    "--code", type=click.Choice(SIDES), help="Where the code is.  [default: window; ram with --release, as of run]")
@placed("data")
@click.option("--stack", type=click.Choice(SIDES), help="Where the stack is.  [default: as --data]")
@click.option("--dma", type=SPAN, multiple=True, metavar="START:SIZE", help="A DMA buffer, by physical address; many.")
@click.option("--only", type=click.Choice(KINDS), multiple=True, help="What to look for and move.  [default: all]")
@click.option("--apply", is_flag=True, help="Move it to RAM in the guest's tables, and run again.")
@click.option(
    "--to", type=SPAN, metavar="START:SIZE",
    help="RAM that is free to move to.  [default: RAM that is zero and that nothing refers to]")
@click.option("--release", metavar="R", help="Run it as this release of QEMU would, such as 8.2.")
@click.option(
    "--timeout", type=float,
    help=f"Seconds until the guest is stopped.  [default: {PLAIN:g}; {MODEL:g} with --release]")
@click.option("--limit", type=int, help="Instructions until the guest is stopped.")
@json_option
def groom(
    program: str | None, snapshot: str | None, arch: str, qemu_args: str | None, topology: str | None,
    cedt: str | None, tables: str | dict[str, str], code: str | None, data: str, stack: str | None,
    dma: tuple[tuple[int, int], ...], only: tuple[str, ...], apply: bool, to: tuple[int, int] | None,
    release: str | None, timeout: float | None, limit: int | None, as_json: bool,
) -> int:  # fmt: skip
    """Run PROGRAM (as `cxl-mmu run` does), or go on from a snapshot, and say what of it is in CXL windows.

    What the guest knows of physical addresses outside its tables, such as in the descriptors of a device, is not
    found; every move is listed, so that its driver can be told.

    Exit status 0 when nothing of that is in a window, 1 when something is. With --apply: 0 when nothing is left there
    and the program ends with the same registers and memory, else 1. Under a --release that ended before the program
    did: 0 when it does not end any more.
    """
    if (program is None) == (snapshot is None):
        raise click.UsageError("give PROGRAM or --snapshot FILE" + (", not both" if program else ""))
    if to is not None and not apply:
        raise click.UsageError("--to goes with --apply")
    with ExitStack() as opened:
        if snapshot is not None:
            from cxl.snapshot import load

            goes_without(snapshot)
            job = load(snapshot, release)
            opened.callback(job.close)
        else:
            assert program is not None
            source = find(program, arch)
            where = Placement(tables, code or ("window" if release is None else "ram"), data, stack or data)
            job = Job(topology_of(qemu_args, topology, cedt), arch, where, release=release)
            opened.callback(job.close)
            job.machine.load(source)
        seconds = (PLAIN if release is None else MODEL) if timeout is None else timeout

        def run() -> RunResult:
            return job.go(seconds, limit)

        found = groomed(job.machine, job.topology, run, dma=dma, kinds=only or KINDS, apply=apply, to=to)
        click.echo(json.dumps(record(job.machine, found), indent=2) if as_json else text(job.machine, found))
    return int(bool(found.left or found.differences))
