"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cxl import Topology, TopologyError

F = TypeVar("F", bound=Callable[..., Any])
MOCK = "cxl_test"


class Number(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases
    """An address or a size: decimal, or 0x..., underscores allowed."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            number = int(value, 0)
        except ValueError:
            self.fail(f"{value!r} is not a number; write 4096 or 0x1000", param, context)
        if not 0 <= number < 1 << 64:
            self.fail(f"{value} must be in 0..2^64-1", param, context)
        return number


NUMBER = Number()


class TableSides(click.ParamType):  # type: ignore[type-arg]
    """Where tables are: "window", "ram", or by level, "ram,PT=window"."""

    name = "sides"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        from cxl.job import SIDES
        from mmu.guest.plan import REST

        if not isinstance(value, str) or value in SIDES:
            return value
        sides = {}
        for word in value.split(","):
            level, equals, side = word.rpartition("=")
            level = level if equals else REST
            if side not in SIDES or not level or level in sides:
                self.fail(
                    f"{value!r} must be {' or '.join(SIDES)}, or that by level, such as ram,PT=window", param, context)
            sides[level] = side
        return sides


def goes_without(snapshot: str) -> None:
    """Refuse options that say what a snapshot knows. Raises click.UsageError."""
    context = click.get_current_context()
    for name in ("qemu_args", "topology", "cedt", "arch", "tables", "code", "data", "stack", "flags"):
        if name in context.params and context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} goes with a program: {snapshot} has its own")


def tables_option(command: F) -> F:
    return click.option(
        "--tables", type=TableSides(), default="window", show_default=True, metavar="SIDE[,LEVEL=SIDE]...",
        help="Where the tables are: window or ram; also by level, such as ram,PT=window.")(command)


def topology_options(command: F) -> F:
    """Where the topology comes from; the three arguments go to `topology_of`."""
    for option in (
        click.option("--cedt", metavar="FILE", help="CEDT that adds what a cxl list file lacks."),
        click.option(
            "--topology", "-t", metavar="FILE",
            help=f"File of the machine: a QEMU command line, a CEDT, cxl list JSON, TOML; or {MOCK}."),
        click.option(
            "--qemu-args", metavar="TEXT",
            help="QEMU command line of the machine.  [default: two devices behind one bridge, 2 ways at 256 bytes]"),
    ):  # fmt: skip
        command = option(command)
    return command


def topology_of(qemu_args: str | None, topology: str | None, cedt: str | None) -> Topology:
    """The machine that the options name. Raises click.UsageError when they name two."""
    if qemu_args is not None and topology is not None:
        raise click.UsageError("give --qemu-args or --topology, not both")
    if cedt is not None:
        if topology is None:
            raise click.UsageError("--cedt goes with --topology and the JSON of cxl list")
        return _named(topology, lambda: Topology.from_cxl_list(Path(topology).read_bytes(), Path(cedt).read_bytes()))
    if topology == MOCK:
        from cxl.mock import cxl_test

        return cxl_test()
    if topology is not None:
        return Topology.from_file(topology)
    return Topology.default() if qemu_args is None else Topology.from_qemu(qemu_args)


def _named(path: str, make: Callable[[], Topology]) -> Topology:
    try:
        return make()
    except TopologyError as error:
        raise type(error)(f"{path}: {error}") from error


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)
