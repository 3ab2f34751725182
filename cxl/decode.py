"""Where an HPA goes, level by level from the registers: the reference for every compiled route."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cxl.decoder import DecoderBlock
from cxl.device.type3 import Type3
from cxl.nodes import Node
from cxl.settings import Settings
from cxl.window import Window
from mmu import stripes


@dataclass(frozen=True, slots=True)
class Level:
    """One step: `index` of `ways` at `granularity` (bytes) chosen by `decoder`, and the `target` it names.

    `kind` is "window", "host bridge", "switch" or "device". `decoder` None: a window or a pass-through.
    At a device, `target` is the DPA and `index` the position in the interleave set that the address has.
    """

    kind: str
    name: str
    decoder: int | None
    ways: int
    granularity: int
    index: int
    target: str | int

    def __str__(self) -> str:
        by = "pass-through" if self.decoder is None else f"decoder {self.decoder}"
        if self.kind == "window":
            by = "window"
        to = f"DPA {self.target:#x}" if isinstance(self.target, int) else self.target
        return f"{self.kind} {self.name}: {by}, {self.ways} ways @ {self.granularity}, index {self.index} -> {to}"


@dataclass(frozen=True, slots=True)
class Route:
    """An HPA that a device answers, at device address `dpa` (bytes)."""

    device: str
    dpa: int
    levels: tuple[Level, ...] = ()


@dataclass(frozen=True, slots=True)
class Miss:
    """An HPA that nobody answers: the `level` that gave up and why. Reads err and give 0.

    `at_device`: a device was reached and refused, so that writes err as well; else they are dropped.
    `poison`: the level is set to return poison on a decode error.
    """

    level: str
    reason: str
    at_device: bool = False
    poison: bool = False
    levels: tuple[Level, ...] = ()


def decode(window: Window, hpa: int) -> Route | Miss:
    """Follow *hpa*, which must be in *window*, through every level. Source: CXL 3.1, "HDM Decoders"."""
    if hpa < window.first:
        return Miss("platform", f"{hpa:#x} is in the DRAM that caches window {window.name}")
    index = window.index(hpa)
    node: Node = window.targets[index]
    levels = [Level("window", window.name, None, window.ways, window.granularity, index, node.name)]
    while True:
        step = _step(node, hpa)
        if isinstance(step, str):
            poison = node.registers is not None and node.registers.poison
            return Miss(f"{node.kind} {node.name}", step, poison=poison, levels=tuple(levels))
        level, number = step
        port = node.ports.get(number)
        if port is None or port.device is None:
            reason = f"there is no port {number}" if port is None else f"port {port.name} is empty"
            return Miss(f"{node.kind} {node.name}", reason, levels=tuple(levels))
        levels.append(Level(*level, target=port.name))
        if isinstance(port.device, Type3):
            return _device(port.device, _normalize(node, hpa) if window.normalized else hpa, levels, window.normalized)
        node = port.device


def can_normalize(s: Settings) -> bool:
    """The encodings of a host bridge's decoder name an interleave that can be taken out."""
    return s.iw <= 4 and s.ig < len(stripes.GRANULARITIES)


def _normalize(node: Node, hpa: int) -> int | None:
    """What a host bridge that takes its interleave out hands on; None when its decoder has a reserved encoding."""
    s = node.registers.match(hpa) if node.registers else ""
    if isinstance(s, str) or not can_normalize(s):
        return None
    return stripes.dpa_offset(hpa - s.base, 1 << s.iw, s.granularity)


def _step(node: Node, hpa: int) -> tuple[tuple[str, str, int | None, int, int, int], int] | str:
    """(level without its target, port number), or why the node does not route *hpa*."""
    if node.registers is None:
        return (node.kind, node.name, None, 1, 256, 0), node.only_port
    s = node.registers.match(hpa)
    if isinstance(s, str):
        return s
    index, number = node.registers.target(s, hpa)
    if number is None:
        return f"decoder {s.number} has no target {index}"
    return (node.kind, node.name, s.number, 1 << s.iw, s.granularity, index), number


def _device(device: Type3, hpa: int | None, levels: list[Level], normalized: bool) -> Route | Miss:
    found = "its host bridge has a reserved encoding" if hpa is None else translate(device.registers, hpa)
    if normalized and not isinstance(found, str) and found[1] != 1:
        found = f"decoder {found[0].number} interleaves below a host bridge that normalizes"
    where = f"device {device.name}"
    if isinstance(found, str):
        return Miss(where, found, True, device.registers.poison, tuple(levels))
    s, ways, dpa, position = found
    levels.append(Level("device", device.name, s.number, ways, s.granularity, position, dpa))
    if not device.answers(dpa):
        return Miss(where, device.why_not(dpa), True, device.registers.poison, tuple(levels))
    return Route(device.name, dpa, tuple(levels))


def translate(registers: DecoderBlock, hpa: int) -> tuple[Settings, int, int, int] | str:
    """(decoder, ways, DPA, position) that a device's registers give for *hpa*, or why they refuse it."""
    s = registers.match(hpa)
    if isinstance(s, str):
        return s
    if s.ways is None or s.ig >= len(stripes.GRANULARITIES):
        return f"decoder {s.number} has a reserved encoding (IG {s.ig}, IW {s.iw})"
    offset = hpa - s.base
    dpa = s.dpa + stripes.dpa_offset(offset, s.ways, s.granularity)
    return s, s.ways, dpa, stripes.position(offset, s.ways, s.granularity)


def candidates(registers: DecoderBlock, dpa: int) -> Iterator[int]:
    """Every address that some position of some decoder of a device would translate to *dpa*.

    HPAs, or, below a bridge that normalizes, what that hands on; not all need route there.
    """
    for s in registers.ranges():
        if s.ways is None or s.ig >= len(stripes.GRANULARITIES) or not s.dpa <= dpa < s.dpa + s.share:
            continue
        for position in range(s.ways):
            yield s.base + stripes.hpa_offset(dpa - s.dpa, position, s.ways, s.granularity)


def denormalized(window: Window, address: int) -> Iterator[int]:
    """Every HPA that the host bridge of a normalizing *window* may have turned into *address*."""
    (bridge,) = window.targets
    for s in bridge.registers.ranges() if bridge.registers else ():
        if can_normalize(s):
            for position in range(1 << s.iw):
                yield s.base + stripes.hpa_offset(address, position, 1 << s.iw, s.granularity)
