"""Devices that a snapshot takes along: where they are, what they are, and their state.

A device is one when it has `take_state`, which gives what JSON can hold, and `give_state`, which makes it what that was
or raises ValueError, LookupError or TypeError, and changes nothing then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mmu.errors import SnapshotError
from mmu.guest.devices.exit import DebugExit
from mmu.guest.devices.serial import Pl011, Serial16550

if TYPE_CHECKING:
    from mmu.machine import Machine
    from mmu.memory import AddressSpace

MEMORY, PORTS = "memory", "ports"


@runtime_checkable
class Saved(Protocol):
    name: str

    def take_state(self) -> Mapping[str, Any]: ...

    def give_state(self, state: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class DeviceImage:
    """A device of *kind*, its class, at *address* of the memory or of the I/O ports."""

    where: str
    address: int
    kind: str
    name: str
    state: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}, {self.where} {self.address:#x})"

    def is_like(self, other: DeviceImage) -> bool:
        return str(self) == str(other)


def _spaces(machine: Machine) -> Iterable[tuple[str, AddressSpace]]:
    yield MEMORY, machine.space
    if machine.cpu.io is not None:
        yield PORTS, machine.cpu.io


def find(machine: Machine) -> list[tuple[Saved, DeviceImage]]:
    """Each such device with what it is now, once, in the order of addresses."""
    found: dict[int, tuple[Saved, DeviceImage]] = {}
    for where, space in _spaces(machine):
        for r in space.view.ranges:
            device = r.region
            if isinstance(device, Saved) and id(device) not in found:
                image = DeviceImage(
                    where, r.first - r.offset, type(device).__name__, device.name, device.take_state())
                found[id(device)] = device, image
    return list(found.values())


def give(machine: Machine, images: Iterable[DeviceImage]) -> None:
    """Make the machine's devices what *images* say. SnapshotError, and nothing changed, when they are others."""
    here, images = find(machine), list(images)
    if len(here) != len(images) or not all(mine.is_like(image) for (_, mine), image in zip(here, images)):
        given = [image for _, image in here]
        raise SnapshotError(f"the snapshot has the devices {_names(images)}, and the machine {_names(given)}")
    for n, ((device, _), image) in enumerate(zip(here, images)):
        try:
            device.give_state(image.state)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            for other, before in here[:n]:
                other.give_state(before.state)
            raise SnapshotError(f"device {image}: {type(error).__name__}: {error}") from None


def _names(images: Iterable[DeviceImage]) -> str:
    return ", ".join(map(str, images)) or "none"


def build(machine: Machine, images: Iterable[DeviceImage]) -> None:
    """Map fresh devices as *images* say. SnapshotError for one that is not of this package."""
    spaces = dict(_spaces(machine))
    for image in images:
        if image.where not in spaces:
            raise SnapshotError(f"device {image}: {machine.arch} has no such place")
        spaces[image.where].map(image.address, _new(machine, image))


def _new(machine: Machine, image: DeviceImage) -> Any:
    try:
        if image.kind == "DebugExit":
            return DebugExit(machine, image.state["size"], image.name)
        if image.kind in ("Serial16550", "Pl011"):
            kind = Serial16550 if image.kind == "Serial16550" else Pl011
            return kind(image.name, image.state["capacity"])
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise SnapshotError(f"device {image}: {type(error).__name__}: {error}") from None
    raise SnapshotError(f"device {image}: only the program that has it can make it")
