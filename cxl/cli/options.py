"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from cxl import Topology

F = TypeVar("F", bound=Callable[..., Any])


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


def topology_options(command: F) -> F:
    """--qemu-args: where the topology comes from. `topology_of` makes it."""
    return click.option(
        "--qemu-args", metavar="TEXT",
        help="QEMU command line of the machine. [default: two devices behind one bridge, 2 ways at 256 bytes]",
    )(command)  # fmt: skip


def topology_of(qemu_args: str | None) -> Topology:
    return Topology.default() if qemu_args is None else Topology.from_qemu(qemu_args)


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)
