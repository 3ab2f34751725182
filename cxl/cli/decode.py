"""`cxl-mmu decode`: which device and DPA an address is, and back."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from cxl import Miss, Route, Topology
from cxl.cli.options import NUMBER, json_option, topology_of, topology_options
from cxl.cli.stream import stream
from cxl.job import programmed


def level_records(found: Route | Miss) -> list[dict[str, Any]]:
    return [
        {"kind": v.kind, "name": v.name, "decoder": v.decoder, "ways": v.ways, "granularity": v.granularity,
         "index": v.index, "target": v.target}
        for v in found.levels
    ]  # fmt: skip


def _record(hpa: int, found: Route | Miss) -> dict[str, Any]:
    levels = level_records(found)
    if isinstance(found, Route):
        return {"hpa": hpa, "device": found.device, "dpa": found.dpa, "levels": levels}
    return {"hpa": hpa, "miss": found.reason, "level": found.level, "levels": levels}


def _text(hpa: int, found: Route | Miss, explain: bool) -> str:
    if isinstance(found, Route):
        line = f"{hpa:#x} -> {found.device} DPA {found.dpa:#x}"
    else:
        line = f"{hpa:#x} -> no device: {found.level}: {found.reason}"
    return "\n  ".join([line, *map(str, found.levels)]) if explain else line


def _reverse(topology: Topology, text: str) -> tuple[str, int, list[int]]:
    device, colon, number = text.rpartition(":")
    if not colon:
        raise click.BadParameter(f"{text!r} must be DEVICE:DPA, such as mem0:0x1000", param_hint="--dpa")
    dpa = NUMBER.convert(number, None, None)
    return device, dpa, topology.encode(device, dpa)


@click.command()
@click.argument("addresses", nargs=-1, metavar="[HPA]...")
@click.option("--dpa", multiple=True, metavar="DEVICE:DPA", help="Every HPA that reaches this device address.")
@click.option("--explain", is_flag=True, help="Also print what each level did.")
@topology_options
@json_option
def decode(
    addresses: tuple[str, ...], dpa: tuple[str, ...], explain: bool,
    qemu_args: str | None, topology: str | None, cedt: str | None, as_json: bool,
) -> int:  # fmt: skip
    """Which device and device address (DPA) each HPA is; with --dpa the other way round.

    HPA - reads addresses from standard input, one a line, and writes "HPA DEVICE DPA" lines.
    When the machine has no committed decoder, the largest region is committed in each window, as `run` does.
    Exit status 1 when an address has no answer.
    """
    if not addresses and not dpa:
        raise click.UsageError("give an HPA, or --dpa DEVICE:DPA")
    machine = programmed(topology_of(qemu_args, topology, cedt))
    if addresses == ("-",):
        return stream(machine, sys.stdin, sys.stdout)
    hpas = [NUMBER.convert(address, None, None) for address in addresses]
    found = [(hpa, machine.decode(hpa)) for hpa in hpas]
    back = [_reverse(machine, text) for text in dpa]
    if as_json:
        records = [_record(hpa, f) for hpa, f in found]
        click.echo(json.dumps(records + [{"device": d, "dpa": a, "hpas": hpas} for d, a, hpas in back], indent=2))
    else:
        for hpa, f in found:
            click.echo(_text(hpa, f, explain))
        for device, at, hpas in back:
            click.echo(f"{device} DPA {at:#x} <- {' '.join(map(hex, hpas)) or 'no HPA'}")
    return int(any(isinstance(f, Miss) for _, f in found) or any(not hpas for _, _, hpas in back))
