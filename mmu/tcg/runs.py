"""A run of `mmu.Machine` in the model."""

from __future__ import annotations

import time
from importlib import import_module
from typing import TYPE_CHECKING

from mmu.guest.stop import Delivered, Stop
from mmu.memory.space import Traffic
from mmu.tcg.counters import Counters
from mmu.tcg.releases import switches_of
from mmu.tcg.stops import EmulatorStop
from mmu.tcg.trace import Event

if TYPE_CHECKING:
    from mmu.memory import AddressSpace
    from mmu.tcg.arm64 import ModelArm64
    from mmu.tcg.x86 import ModelX86

    Model = ModelX86 | ModelArm64

PORTS = {"data": "data", "tables": "walk", "code": "code"}  # counter -> initiator
CPUS = {"x86_64": ("mmu.tcg.x86", "ModelX86"), "aarch64": ("mmu.tcg.arm64", "ModelArm64")}  # loaded when used


def new_cpu(space: AddressSpace, arch: str, emulator: object) -> Model:
    module, name = CPUS[arch]
    cpu: Model = getattr(import_module(module), name)(space, switches_of(emulator))
    return cpu


def run(
    cpu: Model, pc: int, timeout: float | None, limit: int, exceptions: int
) -> tuple[Stop, list[Event], Counters, tuple[Delivered, ...]]:
    """Raises EmulatorStop, which then has trace, counters and registers."""
    emulator = cpu.emulator
    before = {name: cpu.ports[port].traffic() for name, port in PORTS.items()}
    try:
        stop = emulator.run(pc, limit, None if timeout is None else time.monotonic() + timeout, exceptions)
    except EmulatorStop as end:
        end.trace, end.counters, end.registers = emulator.trace.events, _counters(cpu, before), cpu.registers()
        raise
    return stop, emulator.trace.events, _counters(cpu, before), cpu.delivered.all()


def _counters(cpu: Model, before: dict[str, dict[str, Traffic]]) -> Counters:
    counters = cpu.emulator.counters()
    counters.exceptions = cpu.delivered.count(cpu.counters.exceptions)
    for name, port in PORTS.items():
        setattr(counters, name, _difference(cpu.ports[port].traffic(), before[name]))
    return counters


def _difference(now: dict[str, Traffic], before: dict[str, Traffic]) -> dict[str, Traffic]:
    """What came since, of devices that were reached."""
    found = {}
    for device, traffic in now.items():
        was = before.get(device, Traffic())
        if traffic != was:
            found[device] = Traffic(
                traffic.reads - was.reads, traffic.writes - was.writes,
                traffic.read_bytes - was.read_bytes, traffic.write_bytes - was.write_bytes)  # fmt: skip
    return found
