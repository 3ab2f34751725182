"""What a program computed, so that two runs of it can be told apart: registers, and memory as the program sees it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmu.guest.trees import trees

if TYPE_CHECKING:
    from cxl.groom.cost import Usage
    from cxl.groom.find import Found
    from mmu.guest.result import RunResult
    from mmu.machine import Machine

PAGE = 4096
SHOWN = 8  # differences that are listed
EMULATOR_ENDS = ("abort", "hang", "crash")  # reasons of a stop that are not the guest's
Contents = Mapping[int, tuple[int, int, int | None]]


@dataclass(frozen=True)
class Side:
    """One run: its result, what is where afterwards, and what it cost."""

    result: RunResult
    found: list[Found]
    usage: Usage
    memory: Contents  # virtual address -> (size, flags, CRC-32 of the bytes; None: tables, which hold addresses)

    @property
    def in_windows(self) -> list[Found]:
        return [f for f in self.found if f.in_window]


def contents(machine: Machine) -> Contents:
    """Every page that the guest can address, with its rights and what is in it. BusError when one cannot be read."""
    roots = trees(machine.cpu)
    tables = {node.address // PAGE for tree in roots for node in tree.tables()}
    found: dict[int, tuple[int, int, int | None]] = {}
    for tree in roots:
        for record in tree.mappings():
            va, pa, size = (int(record[name]) for name in ("va", "pa", "size"))
            holds_tables = any(page in tables for page in range(pa // PAGE, (pa + size - 1) // PAGE + 1))
            check = None if holds_tables else zlib.crc32(machine.space.read(pa, size))
            found[va] = (size, int(record["flags"]), check)
    return found


def differences(machine: Machine, before: Side, after: Side) -> list[str]:
    """Where the two runs differ, as sentences; roots of tables may, and so may what only a table holds.

    An emulator that ended before the guest did has computed nothing to compare: then the guest must end after.
    """
    out = []
    roots = {tree.register for tree in trees(machine.cpu)}
    a, b = before.result, after.result
    if a.stop.reason in EMULATOR_ENDS:
        return [f"the emulator ends all the same: {b.stop.detail}"] if b.stop.reason in EMULATOR_ENDS else []
    if "timeout" in (a.stop.reason, b.stop.reason):
        return ["nothing can be compared: the time was up before the guest ended"]
    if _end(a) != _end(b):
        out.append(f"stop: {a.stop.reason} at {a.stop.pc:#x} before, {b.stop.reason} at {b.stop.pc:#x} after")
    for name, value in a.registers.items():
        if name not in roots and b.registers[name] != value:
            out.append(f"{name}: {value:#x} before, {b.registers[name]:#x} after")
    pages = [
        f"page {va:#x}: {_what(before.memory.get(va), after.memory.get(va))}"
        for va in sorted({*before.memory, *after.memory}) if before.memory.get(va) != after.memory.get(va)
    ]  # fmt: skip
    more = [f"and {len(pages) - SHOWN} more pages"] if len(pages) > SHOWN else []
    return out + pages[:SHOWN] + more


def _end(result: RunResult) -> tuple[object, ...]:
    """How it ended, without where the tables are."""
    stop, fault = result.stop, result.stop.fault
    walk = None if fault is None else (fault.kind, fault.level, fault.va, fault.access, fault.stage)
    return stop.reason, stop.pc, stop.exception, stop.detail, walk


def _what(before: tuple[int, int, int | None] | None, after: tuple[int, int, int | None] | None) -> str:
    if before is None or after is None:
        return "mapped only " + ("after" if before is None else "before")
    if before[:2] != after[:2]:
        return f"size {before[0]:#x}, flags {before[1]:#x} before, {after[0]:#x}, {after[1]:#x} after"
    return "other contents"
