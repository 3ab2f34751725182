"""What `cxl-mmu groom` prints: as text, and as JSON of the same facts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cxl.cli.report import plain
from cxl.groom.compare import EMULATOR_ENDS
from cxl.groom.find import KINDS, NOBODY, Found
from mmu.show import size_text

if TYPE_CHECKING:
    from cxl.groom.compare import Side
    from cxl.groom.job import Grooming
    from mmu.guest.result import RunResult
    from mmu.machine import Machine

TITLES = {"tables": "page tables", "code": "executable memory", "dma": "DMA buffers"}
VERBS = {"tables": "translates", "code": "runs at", "dma": ""}


# -- text -------------------------------------------------------------------------------------------


def text(machine: Machine, found: Grooming) -> str:
    lines = ["before", *_side(machine, found.before, found.kinds)]
    if found.after is not None:
        lines += ["moved" if found.moves else "nothing to move"]
        lines += [
            f"  {m.base:#x}..{m.base + m.size - 1:#x} -> {m.to:#x}..{m.to + m.size - 1:#x}, {size_text(m.size)}"
            for m in found.moves
        ]
        if found.moves:
            lines.append(f"  {found.changed} entries and registers changed")
        lines += ["after", *_side(machine, found.after, found.kinds)]
        lines += ["differences", *(f"  {line}" for line in found.differences)] if found.differences else [_same(found)]
    return "\n".join(lines)


def _same(found: Grooming) -> str:
    if found.before.result.stop.reason in EMULATOR_ENDS:
        return "the emulator does not end any more"
    return "same registers and memory"


def _side(machine: Machine, side: Side, kinds: tuple[str, ...]) -> Iterator[str]:
    stop = side.result.stop
    yield f"  stop: {stop.reason} at {stop.pc:#x}" + (f": {stop.detail}" if stop.detail else "")
    for kind in kinds:
        here = [f for f in side.found if f.kind == kind]
        inside = [f for f in here if f.in_window]
        if not here:
            continue
        total, size = sum(f.size for f in here), sum(f.size for f in inside)
        yield f"  {TITLES[kind]}: {size_text(size) if size else 'nothing'} of {size_text(total)} in windows"
        for run in runs(inside, side):
            yield "    " + _found(run, side)
    counters = side.result.counters
    traffic = {"page walks": counters.tables, "code": counters.code, "loads and stores": counters.data}
    yield f"  {counters.walks} walks: {_levels(machine, side)}"
    for who, devices in traffic.items():
        if devices:
            by = ", ".join(f"{name} {t.reads + t.writes}" for name, t in devices.items())
            yield f"  dispatched for {who}: {by}"
    if not side.usage.complete:
        yield "  more accesses than could be recorded: costs by page are of the first ones"


def runs(found: list[Found], side: Side) -> Iterator[tuple[Found, int]]:
    """Neighbours that are alike and cost nothing, as one: (the whole, how many)."""
    held: list[Found] = []
    for f in found:
        if held and not (
            _alike(held[-1], f) and not side.usage.dispatches(held[-1]) and not side.usage.dispatches(f)
        ):
            yield _merged(held)
            held = []
        held.append(f)
    if held:
        yield _merged(held)


def _alike(a: Found, b: Found) -> bool:
    follows = a.va is not None and b.va is not None and a.va + a.size == b.va
    return a.kind == b.kind == "code" and a.size == b.size and a.last + 1 == b.base and follows


def _merged(found: list[Found]) -> tuple[Found, int]:
    shares: dict[str, int] = {}
    for f in found:
        for device, n in f.shares.items():
            shares[device] = shares.get(device, 0) + n
    first = found[0]
    return Found(first.kind, first.base, sum(f.size for f in found), first.va, first.name, shares), len(found)


def _found(run: tuple[Found, int], side: Side) -> str:
    found, count = run
    where = "" if found.va is None else f" {VERBS[found.kind]} {found.va:#x}"
    pages = f" ({count} pages)" if count > 1 else ""
    shares = ", ".join(f"{size_text(n)} on {name or 'no device'}" for name, n in found.shares.items())
    usage = ", ".join(_usage(who, *both) for who, both in side.usage.of(found).items())
    rate = f" = {side.usage.per_walk(found):.2f} a walk" if found.kind == "tables" and usage else ""
    name = f"{found.name:<4} " if found.name else ""
    return f"{name}{found.base:#x}..{found.last:#x}{pages}{where}: {shares}" + (f"; {usage}{rate}" if usage else "")


def _usage(who: str, reads: int, writes: int) -> str:
    return f"{who} {reads} reads {writes} writes"


def levels(machine: Machine, side: Side) -> dict[str, float]:
    """Dispatches for each walk, by level, root first."""
    out = dict.fromkeys(machine.cpu.TABLES, 0.0)
    for f in side.found:
        if f.kind == "tables":
            out[f.name] = out.get(f.name, 0.0) + side.usage.per_walk(f)
    return out


def _levels(machine: Machine, side: Side) -> str:
    found = levels(machine, side)
    if not any(found.values()):
        return "no dispatch"
    each = ", ".join(f"{name} {n:.2f}" for name, n in found.items())
    return f"{each} dispatches each, {sum(found.values()):.2f} in all"


# -- JSON -------------------------------------------------------------------------------------------


def record(machine: Machine, found: Grooming) -> dict[str, Any]:
    return {
        "arch": machine.arch,
        "before": _side_record(machine, found.before, found.kinds),
        "moves": [{"base": m.base, "size": m.size, "to": m.to} for m in found.moves],
        "changed": found.changed,
        "after": None if found.after is None else _side_record(machine, found.after, found.kinds),
        "same": None if found.after is None else not found.differences,
        "differences": found.differences,
        "left": found.left,
    }


def _side_record(machine: Machine, side: Side, kinds: tuple[str, ...]) -> dict[str, Any]:
    return {
        "stop": _stop(side.result), "registers": side.result.registers, "counters": plain(side.result.counters),
        "complete": side.usage.complete, "dispatches_per_walk": levels(machine, side),
        **{kind: [_found_record(f, side) for f in side.found if f.kind == kind] for kind in KINDS if kind in kinds},
    }  # fmt: skip


def _stop(result: RunResult) -> dict[str, Any]:
    return {"reason": result.stop.reason, "pc": result.stop.pc, "detail": result.stop.detail}


def _found_record(found: Found, side: Side) -> dict[str, Any]:
    return {
        "base": found.base, "size": found.size, "va": found.va, "name": found.name or None,
        "in_window": found.in_window,
        "shares": {name: n for name, n in found.shares.items() if name != NOBODY},
        "unanswered": found.shares.get(NOBODY, 0),
        "accesses": {
            who: {"reads": reads, "writes": writes} for who, (reads, writes) in side.usage.of(found).items()},
        "dispatches": side.usage.dispatches(found),
        "dispatches_per_walk": side.usage.per_walk(found),
    }  # fmt: skip
