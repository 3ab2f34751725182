"""`cxl-mmu topology`: show, check, convert, schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click

from cxl import Topology
from cxl.cli.options import json_option, topology_of, topology_options
from cxl.cli.report import plain
from cxl.job import programmed

READ: dict[str, Callable[[bytes], Topology]] = {
    "qemu": lambda data: Topology.from_qemu(data.decode()),
    "cedt": Topology.from_cedt,
    "cxl-list": Topology.from_cxl_list,
    "toml": lambda data: Topology.from_toml(data.decode()),
}
WRITE: dict[str, Callable[[Topology], str | bytes]] = {
    "qemu": lambda t: t.to_qemu() + "\n",
    "cedt": Topology.to_cedt,
    "cxl-list": lambda t: t.to_cxl_list() + "\n",
    "toml": Topology.to_toml,
}


@click.group()
def topology() -> None:
    """Show, check and convert descriptions of machines."""


@topology.command()
@topology_options
@click.option("--commit", is_flag=True, help="Commit the largest region in each window when nothing is committed.")
@click.option("--svg", metavar="FILE", help="Write a drawing instead.")
@json_option
def show(
    qemu_args: str | None, topology: str | None, cedt: str | None, commit: bool, svg: str | None, as_json: bool
) -> None:
    """The machine as a tree: windows, regions, host bridges, ports, switches, devices, committed decoders."""
    from cxl import show

    machine = topology_of(qemu_args, topology, cedt)
    if commit:
        programmed(machine)
    if svg is not None:
        Path(svg).write_text(show.svg(machine))
    else:
        click.echo(machine.to_cxl_list() if as_json else show.tree(machine))


@topology.command()
@topology_options
@click.option("--commit", is_flag=True, help="Commit the largest region in each window when nothing is committed.")
@json_option
def check(qemu_args: str | None, topology: str | None, cedt: str | None, commit: bool, as_json: bool) -> int:
    """What Linux would refuse of what is committed, by errno, or compute wrongly. Exit status 1 when there is any."""
    machine = topology_of(qemu_args, topology, cedt)
    if commit:
        programmed(machine)
    problems = machine.check(for_linux=True)
    if as_json:
        click.echo(json.dumps(plain(problems), indent=2))
    else:
        for problem in problems:
            click.echo(str(problem))
        if not problems:
            click.echo("nothing is wrong")
    return int(bool(problems))


@topology.command()
@click.argument("source")
@click.option("--from", "form", type=click.Choice(list(READ)), help="Form of the file.  [default: by its content]")
@click.option("--to", "target", type=click.Choice(list(WRITE)), required=True)
@click.option("--output", "-o", metavar="FILE", help="[default: standard output]")
def convert(source: str, form: str | None, target: str, output: str | None) -> None:
    """Read SOURCE and write the same machine in another form."""
    machine = Topology.from_file(source) if form is None else READ[form](Path(source).read_bytes())
    made = WRITE[target](machine)
    data = made if isinstance(made, bytes) else made.encode()
    if output is None:
        click.echo(data, nl=False)
    else:
        Path(output).write_bytes(data)


@topology.command()
def schema() -> None:
    """The JSON Schema of hand-written TOML files."""
    from cxl.exchange.toml import schema

    click.echo(json.dumps(schema(), indent=2))
