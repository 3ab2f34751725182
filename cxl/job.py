"""A machine with its tables, code, data and stack in RAM or in a CXL window: what `cxl-mmu run` sets up and reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from cxl.errors import TopologyError
from cxl.region import Region
from cxl.topology import Topology
from mmu.errors import AddressRangeError
from mmu.memory import AddressSpace, Ram
from mmu.types import Access, Fault, Place, Translation

if TYPE_CHECKING:
    from mmu.guest.result import RunResult
    from mmu.machine import Machine
    from mmu.tcg import EmulatorStop, Switches

MIB = 1 << 20
# One area after the other, 1 MiB apart, from the start of the first committed region or from 16 MiB into RAM.
SIZES = {"tables": 0x40000, "code": 0x40000, "data": 0x40000, "stack": 0x10000}
SPACING = MIB
RAM_OFFSET = 16 * MIB
SIDES = ("window", "ram")


def programmed(topology: Topology) -> Topology:
    """As the file says; when no decoder is committed anywhere, the largest region in each window is."""
    blocks = [n.registers for n in (*topology.bridges.values(), *topology.switches.values())]
    blocks += [d.registers for d in topology.devices.values()]
    if not any(block.committed for block in blocks if block is not None):
        topology.commit()
    return topology


def space_of(topology: Topology) -> AddressSpace:
    """A space with the RAM and the windows of *topology*."""
    space = AddressSpace()
    for i, (base, size) in enumerate(topology.ram):
        space.map(base, Ram(size, f"ram{i}"))
    topology.attach(space)
    return space


def go(machine: Machine, timeout: float, limit: int | None) -> tuple[RunResult, EmulatorStop | None]:
    """A run that an emulator may not survive: then its end as a stop like others, and what it was."""
    from mmu.guest.result import RunResult
    from mmu.guest.stop import Stop
    from mmu.tcg import EmulatorStop

    try:
        return machine.run(timeout=timeout, limit=limit), None
    except EmulatorStop as end:
        pc = machine.cpu.pc if end.pc is None else end.pc
        return RunResult(Stop(end.outcome, pc, detail=str(end)), end.registers, end.trace, end.counters), end


def emulated(topology: Topology, release: str) -> Switches:
    """Let *topology* show on a bus what that release of QEMU does. Returns its switches."""
    from mmu.tcg import release as switches_of

    switches = switches_of(release)
    topology.emulate(switches)
    return switches


@dataclass(frozen=True, slots=True)
class Placement:
    """Where each part of the guest lives: "window" or "ram".

    Tables may say it by level, {"PT": "window", "rest": "ram"}; the levels are those of `mmu.Machine.setup`.
    """

    tables: str | Mapping[str, str] = "window"
    code: str = "window"
    data: str = "window"
    stack: str = "window"

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            for side in value.values() if isinstance(value, Mapping) else (value,):
                if side not in SIDES:
                    raise ValueError(f"{f.name} must be one of {', '.join(SIDES)}, not {side!r}")


@dataclass(frozen=True, slots=True)
class Walk:
    """One walk of the guest's tables, explained. `place` is where the translated address is."""

    va: int
    access: Access
    result: Translation | Fault
    place: Place | None


class Job:
    """A topology, programmed and attached to an address space with RAM, and a guest placed on it.

    *dispatch*: see mmu.Machine; "exact" counts every access by device.
    *release*: run it as that release of QEMU does ("8.2"; `mmu.tcg`), its decoders and memory map included.
    *flags_set*: under a release, all accessed and dirty flags of the tables are set beforehand, as Linux has them.

    Raises TopologyError when something is to live in a window and no region can be committed, AddressRangeError
    when it does not fit there.
    """

    def __init__(
        self, topology: Topology, arch: str = "x86_64", placement: Placement | None = None, dispatch: str = "exact",
        release: str | None = None, flags_set: bool = True,
    ) -> None:  # fmt: skip
        from mmu.machine import Machine  # the engine: not needed to look at a topology

        self.topology, self.placement, self.release = topology, placement or Placement(), release
        self._flags_set = flags_set
        self.ended: EmulatorStop | None = None  # how the emulator ended, if that was not by the guest
        emulator = None if release is None else emulated(topology, release)
        self.regions: list[Region] = list(programmed(topology).regions.values())
        self.space = space_of(topology)
        tables, where = self.placement.tables, self.placement
        levels = {} if isinstance(tables, str) else {n: self._area("tables", side) for n, side in tables.items()}
        areas = {f.name: self._area(f.name, getattr(where, f.name)) for f in fields(where) if f.name != "tables"}
        if isinstance(tables, str):
            areas = {"tables": self._area("tables", tables)} | areas
        self.machine: Machine = Machine(self.space, arch, dispatch, emulator)
        try:
            self.machine.setup(
                tables=levels or areas["tables"], code=areas["code"], data=areas["data"], stack=areas["stack"])
        except BaseException:
            self.machine.close()
            raise
        self.areas = {f"{name} tables": area for name, area in levels.items()} | areas

    @classmethod
    def around(cls, machine: Machine, topology: Topology, release: str | None = None) -> Job:
        """A job with a machine that is set up already, and goes on from where it stands."""
        job = cls.__new__(cls)
        job.topology, job.placement, job.release = topology, Placement(), release
        job._flags_set, job.ended = False, None
        job.regions, job.space, job.machine = list(topology.regions.values()), machine.space, machine
        plan = machine.plan
        areas = {} if plan is None else {f.name: getattr(plan, f.name) for f in fields(Placement)}
        job.areas = {name: (area.base, area.size) for name, area in areas.items()}
        return job

    def _area(self, name: str, side: str) -> tuple[int, int]:
        offset, size = list(SIZES).index(name) * SPACING, SIZES[name]
        if side == "window":
            if not self.regions:
                raise TopologyError(f"{name} is to live in a window, but no region can be committed in this topology")
            base, room = self.regions[0].base, self.regions[0].size
        else:
            if not self.topology.ram:
                raise AddressRangeError(f"{name} is to live in RAM, but the topology names none")
            base, room = self.topology.ram[0]
            offset += RAM_OFFSET
        if offset + size > room:
            raise AddressRangeError(f"{name} needs {offset + size:#x} bytes of {side}, and there are {room:#x}")
        return base + offset, size

    def run(self, program: Any, timeout: float = 10.0, limit: int | None = None) -> RunResult:
        """Load and run; afterwards what the guest wrote is in the devices' backing files."""
        self.machine.load(program)
        return self.go(timeout, limit)

    def go(self, timeout: float = 10.0, limit: int | None = None) -> RunResult:
        """Run from where the guest stands. An emulator's own end is a stop like others, and more of it in `ended`."""
        if self.release is not None and self._flags_set:
            self._touch()
        result, self.ended = go(self.machine, timeout, limit)
        for device in self.topology.devices.values():
            device.sync()
        return result

    def _touch(self) -> None:
        """Set accessed and dirty flags of everything that is mapped, by walks of our own."""
        walk, registers = self._walker()
        for page in self.machine.tables.scan():
            for access in Access.READ, Access.WRITE:
                walk(self.space, registers, int(page["va"]), access, steps=False)

    def _walker(self) -> tuple[Any, Any]:
        from mmu import arm64, x86

        registers = self.machine.walk_registers()
        return (x86.walk if isinstance(registers, x86.Registers) else arm64.walk), registers

    def walk(self, result: RunResult, va: int | None = None) -> Walk:
        """Walk the tables as they stand. Sets no flag.

        *va*: default what faulted, else the first data byte, else, of a machine without a plan, where it stands.
        """
        fault = result.stop.fault
        if va is None and fault is not None:
            va, access = fault.va, fault.access
        elif va is None and self.machine.plan is None:
            va, access = result.stop.pc, Access.FETCH
        else:
            va, access = self.machine.plan.data.va if va is None and self.machine.plan else va or 0, Access.READ
        walk, registers = self._walker()
        found = walk(self.space, registers, va, access, update=False)
        return Walk(va, access, found, self.space.place(found.pa) if isinstance(found, Translation) else None)

    def close(self) -> None:
        self.machine.close()
