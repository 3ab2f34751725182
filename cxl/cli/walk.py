"""`cxl-mmu walk`: one page walk, every step explained: bits of the address, table, entry, and its way to a device."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from cxl.cli.decode import level_records
from cxl.cli.options import NUMBER, goes_without, json_option, tables_option, topology_of, topology_options
from cxl.cli.report import plain, walk_record
from cxl.cli.run import placed
from cxl.decode import Route
from cxl.examples import find
from cxl.job import SIDES, Job, Placement, Walk
from mmu import Access, Fault, Translation, arm64, x86
from mmu.guest.trees import trees
from mmu.show import exception_text, walk_text

if TYPE_CHECKING:
    from cxl.topology import Topology
    from mmu.machine import Machine
    from mmu.radix.form import Level
    from mmu.types import Step

ACCESSES = {"read": Access.READ, "write": Access.WRITE, "fetch": Access.FETCH}


@click.command()
@click.argument("va", type=NUMBER)
@click.option("--program", help="Loaded first, so that its code is mapped: as PROGRAM of run.")
@click.option("--snapshot", metavar="FILE", help="Walk in a machine that `cxl-mmu run --snapshot` wrote.")
@click.option("--access", type=click.Choice(list(ACCESSES)), default="read", show_default=True)
@click.option("--user", is_flag=True, help="As user code (CPL 3, EL0).")
@click.option("--engine", type=click.Choice(["native", "reference"]), default="native", show_default=True)
@click.option("--arch", type=click.Choice(["x86_64", "aarch64"]), default="x86_64", show_default=True)
@topology_options
@tables_option
@placed("code")
@placed("data")
@click.option("--stack", type=click.Choice(SIDES), help="Where the stack is.  [default: as --data]")
@json_option
def walk(
    va: int, program: str | None, snapshot: str | None, access: str, user: bool, engine: str, arch: str,
    qemu_args: str | None, topology: str | None, cedt: str | None, tables: str | dict[str, str], code: str, data: str,
    stack: str | None, as_json: bool,
) -> int:  # fmt: skip
    """Translate VA by the tables of a guest that is set up as `run` does it, and has not run yet, or of a snapshot.

    Nothing is changed: no flag is set. Exit status 0 for a translation, 1 for a fault.
    """
    if program is not None and snapshot is not None:
        raise click.UsageError("give --program or --snapshot, not both")
    with ExitStack() as opened:
        if snapshot is not None:
            from cxl.snapshot import load

            goes_without(snapshot)
            job = load(snapshot)
            opened.callback(job.close)
        else:
            job = Job(topology_of(qemu_args, topology, cedt), arch, Placement(tables, code, data, stack or data))
            opened.callback(job.close)
            if program is not None:
                job.machine.load(find(program, arch))
        machine, topo = job.machine, job.topology
        done = _walk(machine, va, ACCESSES[access], user, engine)
        ways = _ways(machine, topo, va, done.walk.result.steps)
        click.echo(json.dumps(_record(done, ways), indent=2) if as_json else _text(done, ways, topo))
    return int(isinstance(done.walk.result, Fault))


@dataclasses.dataclass(frozen=True)
class _Done:
    walk: Walk
    exception: Any


def _walk(machine: Machine, va: int, access: Access, user: bool, engine: Any) -> _Done:
    registers = machine.walk_registers()
    room, least = (x86, {"cpl": 3}) if isinstance(registers, x86.Registers) else (arm64, {"el": 0})
    if user:
        registers = dataclasses.replace(registers, **least)
    found = room.walk(machine.space, registers, va, access, engine=engine, update=False)
    place = machine.space.place(found.pa) if isinstance(found, Translation) else None
    exception = room.exception(found, registers) if isinstance(found, Fault) else None
    return _Done(Walk(va, access, found, place), exception)


def _ways(machine: Machine, topology: Topology, va: int, steps: Sequence[Step]) -> list[_Way]:
    if not steps:
        return []
    first = steps[0].address
    (tree,) = (t for t in trees(machine.cpu) if t.root <= first < t.root + t.levels[0].table_bytes)
    levels = {level.number: level for level in tree.levels}
    return [_Way(levels[step.level], topology, va, step) for step in steps]


class _Way:
    """How one entry was found: which of which table, by which bits, and how its address went to a device."""

    def __init__(self, level: Level, topology: Topology, va: int, step: Step) -> None:
        self.low, self.high = level.shift, level.shift + level.bits - 1
        self.index = va >> self.low & (1 << level.bits) - 1
        self.table = step.address - self.index * level.width
        self.found = topology.decode(step.address) if topology.window_at(step.address) is not None else None

    def lines(self) -> list[str]:
        lines = [f"entry {self.index} (bits {self.high}..{self.low}) of the table at {self.table:#x}"]
        return lines + _way(self.found)


def _way(found: Any) -> list[str]:
    if found is None:
        return []
    return [*map(str, found.levels), *([] if isinstance(found, Route) else [f"{found.level}: {found.reason}"])]


def _text(done: _Done, ways: list[_Way], topology: Topology) -> str:
    walk = done.walk
    head, *steps = walk_text(walk.va, walk.access, walk.result, walk.place).splitlines()
    lines = [head]
    for i, line in enumerate(steps):
        lines.append(line)
        if i < len(ways):
            lines += [f"      {text}" for text in ways[i].lines()]
    if isinstance(walk.result, Translation):
        pa = walk.result.pa
        lines += [f"      {text}" for text in _way(topology.decode(pa) if topology.window_at(pa) else None)]
    if done.exception is not None:
        lines.append(f"      {exception_text(done.exception)}")
    return "\n".join(lines)


def _record(done: _Done, ways: list[_Way]) -> dict[str, Any]:
    record = walk_record(done.walk)
    for step, way in zip(record["steps"], ways):
        step |= {"index": way.index, "bits": [way.high, way.low], "table": way.table,
                 "levels": [] if way.found is None else level_records(way.found)}  # fmt: skip
    if done.exception is not None:
        record["exception"] = {"type": type(done.exception).__name__, **plain(done.exception)}
    return record
