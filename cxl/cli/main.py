"""`cxl-mmu`: exit status 0 as expected, 1 the thing asked about is wrong, 2 misuse (one line on stderr)."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

import click

from mmu.errors import MmuError

# Command -> module that defines it under the same name; loaded when asked for.
COMMANDS = {
    "bench": "cxl.cli.bench",
    "bug": "cxl.cli.bug",
    "decode": "cxl.cli.decode",
    "groom": "cxl.cli.groom",
    "run": "cxl.cli.run",
    "topology": "cxl.cli.topology",
    "walk": "cxl.cli.walk",
}


class Commands(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[name]), name)
        return command


@click.command(cls=Commands)
@click.version_option(package_name="cxl-mmu")
def cli() -> None:
    """A software MMU whose page tables, code, data and DMA buffers may live in CXL memory."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        return _main(arguments)


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """One line, without the place in our code that Python's own has."""
    click.echo(f"cxl-mmu: warning: {message}", err=True)


def _main(arguments: Sequence[str] | None) -> int:
    try:
        status = cli.main(arguments, prog_name="cxl-mmu", standalone_mode=False)
    except click.ClickException as error:
        return misuse(_without_command(error) or error.format_message())
    except click.Abort:
        return misuse("interrupted")
    except (MmuError, ValueError, OSError) as error:
        return misuse(str(error))
    return status if isinstance(status, int) else 0


def _without_command(error: click.ClickException) -> str:
    """What to say when a group is named and none of its commands; "" when *error* is something else."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ != "NoArgsIsHelpError" or context is None or not isinstance(context.command, click.Group):
        return ""
    return f"{context.command_path} needs a command: {', '.join(context.command.list_commands(context))}"


def misuse(message: str) -> int:
    """One line, whatever the message was."""
    click.echo(f"cxl-mmu: {' '.join(message.split())}", err=True)
    return 2


def entry() -> None:
    sys.exit(main())
