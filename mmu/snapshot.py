"""A machine between two instructions, as a value and as a file: its CPU, its memory, and where its program is.

Memory is that of the regions which the space shows, and of the devices behind its windows. Of regions made of calls, in
the space and at I/O ports, those that can say their state are part of it (`mmu.guest.devices.saved`: the serial ports
and DebugExit); others keep it. Restoring needs a machine of the same shape: the same memories, by name and size, in the
same order of addresses, and the same devices, by kind and name, at the same addresses. Device memory that is laid over
files is part of it like any other; restoring writes to the files then.

The file: MAGIC; the length of the header, 8 bytes, little endian; the header, which is JSON in UTF-8; the contents.
Header: "arch", "cpu" (`mmu.guest.state`), "plan" (areas as [base, size, va], and "levels"), "program" (what it has
mapped: [va, size]), "memories": "name", "size", and "runs", the [offset, bytes] that are not zero; "crc32" of the
contents, which are all runs in order; "devices": "where", "address", "kind", "name" and "state"; "extra": what the
writer added. Format 1 had neither devices nor the CPU's clock, and is not read.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmu.errors import SnapshotError
from mmu.guest import state
from mmu.guest.devices import saved
from mmu.guest.devices.saved import DeviceImage
from mmu.guest.plan import Area, Plan
from mmu.memory.host import HostMemory
from mmu.memory.region import Ram
from mmu.memory.resident import runs
from mmu.memory.striped import Striped

if TYPE_CHECKING:
    from mmu.machine import Machine
    from mmu.memory import AddressSpace

FORMAT = b"cxl-mmu snapshot "
MAGIC = FORMAT + b"3\n"
LENGTH = 8  # bytes of the header's length
AREAS = ("tables", "code", "data", "stack")


@dataclass(frozen=True)
class MemoryImage:
    """What a memory of *size* bytes holds: (offset, bytes), ascending; all else is zero."""

    name: str
    size: int
    runs: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True)
class Snapshot:
    """See the module. `extra` is the caller's: what JSON can hold."""

    arch: str
    cpu: state.State
    plan: Plan | None
    memories: tuple[MemoryImage, ...]
    program: tuple[tuple[int, int], ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    devices: tuple[DeviceImage, ...] = ()

    def save(self, path: str | PathLike[str]) -> None:
        """Write the file. Raises OSError."""
        contents = b"".join(data for image in self.memories for _, data in image.runs)
        header = json.dumps({
            "arch": self.arch, "cpu": self.cpu, "plan": None if self.plan is None else _plan_record(self.plan),
            "program": self.program,
            "memories": [
                {"name": m.name, "size": m.size, "runs": [[offset, len(data)] for offset, data in m.runs]}
                for m in self.memories
            ],
            "crc32": zlib.crc32(contents), "devices": [vars(d) for d in self.devices], "extra": dict(self.extra),
        }).encode()  # fmt: skip
        Path(path).write_bytes(MAGIC + len(header).to_bytes(LENGTH, "little") + header + contents)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Snapshot:
        """Read a file. Raises OSError, and SnapshotError with what is wrong with it."""
        try:
            return _parse(Path(path).read_bytes())
        except SnapshotError as error:
            raise SnapshotError(f"{path}: {error}") from None


# -- the file ---------------------------------------------------------------------------------------


def _parse(data: bytes) -> Snapshot:
    if data.startswith(FORMAT) and not data.startswith(MAGIC):
        number = data[len(FORMAT) :][:9].split(b"\n")[0].decode("ascii", "replace")
        raise SnapshotError(f"this is a snapshot of format {number}, and only format 2 is read")
    if not data.startswith(MAGIC):
        raise SnapshotError("this is not a snapshot: it must begin with " + repr(MAGIC.decode()))
    start = len(MAGIC) + LENGTH
    length = int.from_bytes(data[len(MAGIC) : start], "little")
    if start + length > len(data):
        raise SnapshotError(f"the header has {length} bytes, and the file ends after {len(data)}")
    contents = memoryview(data)[start + length :]
    try:
        header = json.loads(data[start : start + length])
        memories = tuple(_images(header["memories"], contents))
        crc, plan = header["crc32"], header["plan"]
        found = Snapshot(
            header["arch"], header["cpu"], None if plan is None else _plan(plan), memories,
            tuple((_whole(va), _whole(size)) for va, size in header["program"]), header["extra"],
            tuple(_device(record) for record in header["devices"]))
    except (KeyError, TypeError, ValueError, AttributeError, UnicodeDecodeError) as error:
        if isinstance(error, SnapshotError):
            raise
        raise SnapshotError(f"the header is damaged: {type(error).__name__}: {error}") from None
    if zlib.crc32(contents) != crc:
        raise SnapshotError("the contents are damaged: their CRC-32 is not what the header says")
    return found


def _images(records: list[dict[str, Any]], contents: memoryview) -> Iterator[MemoryImage]:
    at = 0
    for record in records:
        found, size = [], _whole(record["size"])
        for offset, length in record["runs"]:
            if not 0 <= offset <= offset + length <= size:
                raise SnapshotError(f"memory {record['name']}: {length} bytes at {offset:#x} leave its {size:#x}")
            if at + length > len(contents):
                raise SnapshotError(f"memory {record['name']}: the file ends within it, after {len(contents)} bytes")
            found.append((_whole(offset), bytes(contents[at : at + length])))
            at += length
        yield MemoryImage(str(record["name"]), size, tuple(found))


def _device(record: Mapping[str, Any]) -> DeviceImage:
    where, kind, name, state = (record[key] for key in ("where", "kind", "name", "state"))
    if not (isinstance(where, str) and isinstance(kind, str) and isinstance(name, str) and isinstance(state, dict)):
        raise ValueError(f"not a device: {record}")
    return DeviceImage(where, _whole(record["address"]), kind, name, state)


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"a whole number is wanted, not {value!r}")
    return value


def _plan_record(plan: Plan) -> dict[str, Any]:
    areas = {name: getattr(plan, name) for name in AREAS}
    return {name: [a.base, a.size, a.va] for name, a in areas.items()} | {
        "levels": {str(number): [a.base, a.size, a.va] for number, a in plan.levels.items()}
    }


def _plan(record: dict[str, Any]) -> Plan:
    areas = {name: Area(*record[name]) for name in AREAS}
    return Plan(**areas, levels={int(number): Area(*area) for number, area in record["levels"].items()})


# -- a machine --------------------------------------------------------------------------------------


def memories(space: AddressSpace) -> list[tuple[str, HostMemory]]:
    """Each memory that the space shows, with a name, once, in the order of addresses."""
    found: dict[int, tuple[str, HostMemory]] = {}
    for r in space.view.ranges:
        if isinstance(r.region, Ram):
            found.setdefault(id(r.region.memory), (r.region.name, r.region.memory))
        elif isinstance(r.region, Striped):
            for target in r.region.targets:
                found.setdefault(id(target.memory), (target.name, target.memory))
    return list(found.values())


def take(machine: Machine, extra: Mapping[str, Any] | None = None) -> Snapshot:
    """What the machine is now. Changes nothing."""
    images = (
        MemoryImage(name, memory.size, tuple((at, memory.read(at, n)) for at, n in runs(memory)))
        for name, memory in memories(machine.space)
    )
    return Snapshot(
        machine.arch, state.take(machine.cpu), machine.plan, tuple(images), machine.program, dict(extra or {}),
        tuple(image for _, image in saved.find(machine)))


def restore(machine: Machine, snapshot: Snapshot) -> None:
    """Make the machine what it was.

    SnapshotError, and nothing changed, when it is of another shape; BusError, when a file lost what is to be written.
    """
    if not isinstance(snapshot, Snapshot):
        raise TypeError(f"a machine is restored from a Snapshot, not from {snapshot!r:.80}")
    if machine.arch != snapshot.arch:
        raise SnapshotError(f"the snapshot is of an {snapshot.arch} machine, and this is an {machine.arch} one")
    here = memories(machine.space)
    wanted, given = [(m.name, m.size) for m in snapshot.memories], [(name, m.size) for name, m in here]
    if wanted != given:
        raise SnapshotError(f"the snapshot has the memories {_names(wanted)}, and the machine {_names(given)}")
    held = [list(runs(memory)) for _, memory in here]
    for (_, memory), image in zip(here, snapshot.memories):
        for at, data in image.runs if memory.files else ():
            memory.read(at, len(data))  # raises where the file is not as long any more
    before = state.take(machine.cpu)
    try:
        _give_cpu(machine, snapshot.cpu)
        saved.give(machine, snapshot.devices)
    except SnapshotError:
        state.give(machine.cpu, before)
        raise
    for (_, memory), image, old in zip(here, snapshot.memories, held):
        for at, n in old:
            memory.write(at, bytes(n))
        for at, data in image.runs:
            memory.write(at, data)
    machine.adopt(snapshot.plan, snapshot.program)


def _give_cpu(machine: Machine, found: state.State) -> None:
    try:
        state.give(machine.cpu, found)
        machine.walk_registers()  # refuses what no CPU has
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, struct.error) as error:
        raise SnapshotError(f"the state of the CPU is damaged: {type(error).__name__}: {error}") from None


def _names(found: list[tuple[str, int]]) -> str:
    return ", ".join(f"{name} ({size:#x} bytes)" for name, size in found) or "none"
