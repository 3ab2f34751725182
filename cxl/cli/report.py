"""What a run prints: as text, and as JSON of the same facts."""

from __future__ import annotations

import io
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from cxl.job import Job, Walk
from mmu.show import access_text, exception_text, size_text, walk_text
from mmu.types import Fault, Place, Translation

if TYPE_CHECKING:
    from mmu.guest.counters import Counters
    from mmu.guest.result import RunResult

RESULT = {"x86_64": "rax", "aarch64": "x0"}  # where a program leaves its result
PER_LINE = 4
INITIATORS = {"data": "guest data", "tables": "page walks", "code": "code", "mirror": "mirror"}
TRAFFIC = ("reads", "read_bytes", "writes", "write_bytes")


def plain(value: Any) -> Any:
    """Values of ours as JSON has them."""
    if isinstance(value, Enum) and isinstance(value, int):
        return value.name or int(value)
    if isinstance(value, Enum):
        return value.name
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def _device_table(result: RunResult) -> str:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("device")
    table.add_column("by")
    for name in TRAFFIC:
        table.add_column(name.replace("_", " "), justify="right")
    for attribute, who in INITIATORS.items():
        for device, traffic in getattr(result.counters, attribute, {}).items():
            table.add_row(device, who, *(str(getattr(traffic, name)) for name in TRAFFIC))
    out = io.StringIO()
    Console(file=out, width=100, no_color=True).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _registers(result: RunResult) -> list[str]:
    width = max(map(len, result.registers))
    cells = [f"{name:<{width}} {value:#018x}" for name, value in result.registers.items()]
    return ["  " + "  ".join(cells[i : i + PER_LINE]) for i in range(0, len(cells), PER_LINE)]


def _stop(result: RunResult) -> list[str]:
    stop = result.stop
    lines = [f"stop: {stop.reason} at {stop.pc:#x}" + (f": {stop.detail}" if stop.detail else "")]
    if stop.exception is not None:
        lines.append(f"  {exception_text(stop.exception)}")
    if stop.fault is not None:
        lines.append(f"  {access_text(stop.fault.access)} of {stop.fault.va:#x}")
    return lines


def _counters(counters: Counters) -> list[str]:
    lines = [
        f"counters: {counters.fills} fills, {counters.walks} walks, {counters.faults} faults, "
        f"{counters.bus_reads + counters.bus_writes} bus accesses, {counters.bus_errors} bus errors"]
    if counters.mirrored or counters.direct:
        lines.append(
            f"  {counters.mirrored + counters.direct} pages of windows were RAM for the guest ({counters.mirrored} "
            f"mirrored, {counters.direct} in place): its accesses to them are not counted")
    return lines


def _model_counters(counters: Any) -> str:
    """Of a run under a release (`mmu.tcg`)."""
    made = {tag: counters.reads.get(tag, 0) + counters.writes.get(tag, 0) for tag in ("ptw", "data", "fetch")}
    return (
        f"counters: {counters.instructions} instructions, {counters.blocks} blocks, {counters.recompiles} recompiled, "
        f"{counters.walks} walks, {counters.faults} faults, {counters.atomic_exits} atomics alone, "
        f"{sum(made.values())} bus accesses ({', '.join(f'{n} {tag}' for tag, n in made.items())}), "
        f"{counters.bus_errors} bus errors")


def run_text(job: Job, result: RunResult, walk: Walk) -> str:
    counters = result.counters
    lines = []
    for region in job.regions:
        devices = ", ".join(d.name for d in region.devices)
        last = region.base + region.size - 1
        lines.append(
            f"{region.name}: {region.base:#x}..{last:#x}, {len(region.devices)} ways at "
            f"{size_text(region.granularity)} over {devices}")
    for name, (base, size) in job.areas.items():
        lines.append(f"{name}: {size_text(size)} at {base:#x}, {job.space.place(base)}")
    lines += _stop(result)
    name = RESULT[job.machine.arch]
    lines += [f"result: {name} = {result.registers[name]:#x}", "registers:", *_registers(result)]
    lines.append(walk_text(walk.va, walk.access, walk.result, walk.place))
    lines += _counters(counters) if job.release is None else [_model_counters(counters)]
    lines.append(_device_table(result))
    return "\n".join(lines)


def _place(place: Place | None) -> Any:
    return None if place is None else plain(place)


def walk_record(walk: Walk) -> dict[str, Any]:
    found = walk.result
    record: dict[str, Any] = {
        "va": walk.va, "access": access_text(walk.access),
        "steps": [
            {"level": s.level, "name": s.name, "stage": s.stage, "address": s.address, "value": s.value,
             "flags": dict(s.flags), "place": _place(s.place)}
            for s in found.steps
        ],
    }  # fmt: skip
    if isinstance(found, Translation):
        record |= {
            "pa": found.pa, "page_size": found.page_size, "writable": found.writable, "user": found.user,
            "executable": found.executable, "place": _place(walk.place),
        }  # fmt: skip
    else:
        record["fault"] = fault_record(found)
    return record


def fault_record(fault: Fault) -> dict[str, Any]:
    return {
        "kind": fault.kind.name, "level": fault.level, "va": fault.va, "access": access_text(fault.access),
        "stage": fault.stage, "entry_address": fault.entry_address, "gpa": fault.gpa,
    }  # fmt: skip


def _end(job: Job) -> dict[str, Any]:
    """How the emulator ended, where it did: which way, in which level of a walk, and where that table is."""
    end = job.ended
    return {} if end is None else {"kind": end.kind, "level": end.level, "place": _place(end.place)}


def run_record(job: Job, result: RunResult, walk: Walk) -> dict[str, Any]:
    stop = result.stop
    return {
        "arch": job.machine.arch,
        "dispatch": job.machine.dispatch,
        "regions": [
            {"name": r.name, "base": r.base, "size": r.size, "granularity": r.granularity,
             "devices": [d.name for d in r.devices]}
            for r in job.regions
        ],
        "areas": {name: {"base": base, "size": size} for name, (base, size) in job.areas.items()},
        "release": job.release,
        "stop": {
            "reason": stop.reason, "pc": stop.pc, "detail": stop.detail,
            "exception": None if stop.exception is None else
            {"type": type(stop.exception).__name__, **plain(stop.exception)},
            "fault": None if stop.fault is None else fault_record(stop.fault),
            **_end(job),
        },
        "result": result.registers[RESULT[job.machine.arch]],
        "registers": result.registers,
        "walk": walk_record(walk),
        "counters": plain(result.counters),
        "delivered": plain(result.delivered),
    }  # fmt: skip
