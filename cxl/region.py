"""Regions: which devices share which HPAs, and the decoders that make it so. All through registers, bottom-up.

Layout: cross-link first, as Linux does it. Position p of a region sits below root target p % root ways; below that,
each bridge or switch splits on the next higher bits (granularity = that of its parent x its parent's ways).
Source: CXL 3.1, "Memory Interleaving"; Linux Documentation/driver-api/cxl.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cxl.decoder import DecoderBlock
from cxl.device.type3 import Type3
from cxl.errors import CommitError, TopologyError
from cxl.format import DECODER_GRAIN
from cxl.nodes import Node, Port
from cxl.window import Window
from mmu.stripes import ENCODED_WAYS, GRANULARITIES


@dataclass(slots=True, eq=False)
class Region:
    """HPAs `base` .. `base`+`size`-1 spread over `devices`, listed by position. `mode` is "ram", "pmem" or "dc".

    Behind an extended linear cache the first `window.cache` bytes are DRAM, and decoders cover the rest.
    """

    name: str
    window: Window
    base: int
    size: int
    granularity: int
    mode: str
    devices: tuple[Type3, ...]
    decoders: list[tuple[DecoderBlock, int]] = field(default_factory=list, repr=False)

    @property
    def ways(self) -> int:
        return len(self.devices)

    @property
    def last(self) -> int:
        """Its last HPA; beyond the window's last when that ends at the low-memory hole."""
        return self.base + self.size - 1

    @property
    def first(self) -> int:
        """Its first HPA that decoders cover."""
        return self.base + self.window.cache

    @property
    def decoded(self) -> int:
        """Bytes that decoders cover."""
        return self.size - self.window.cache

    @property
    def share(self) -> int:
        """Bytes of each device."""
        return self.decoded // self.ways


@dataclass(slots=True)
class Split:
    """What one bridge or switch must do for a region: `ports` by target index."""

    node: Node
    granularity: int
    ports: dict[int, int] = field(default_factory=dict)


class Wiring:
    """Who hangs where: `port_of` maps a device or switch to its port."""

    def __init__(self, port_of: dict[int, Port]) -> None:
        self._port_of = port_of

    def path(self, device: Type3) -> list[Port]:
        """The ports from the host bridge down to *device*."""
        ports: list[Port] = []
        part: Type3 | Node = device
        while (port := self._port_of.get(id(part))) is not None:
            ports.append(port)
            part = port.parent
        return ports[::-1]

    def splits(self, window: Window, devices: Sequence[Type3], granularity: int) -> list[Split]:
        """One Split per node above *devices*, bottom-up. Raises TopologyError when positions do not fit the wiring."""
        paths = [self.path(d) for d in devices]
        for p, (device, path) in enumerate(zip(devices, paths)):
            want = window.targets[p % window.ways]
            if not path or path[0].parent is not want:
                under = path[0].parent.name if path else "nothing"
                raise TopologyError(
                    f"device {device.name} at position {p} must be below {want.name} (root target {p % window.ways}), "
                    f"not below {under}")
        width: dict[int, set[int]] = {}
        for path in paths:
            for port in path:
                width.setdefault(id(port.parent), set()).add(port.number)
        found: dict[int, tuple[int, Split]] = {}
        for p, path in enumerate(paths):
            _take(window, p, devices[p], path, granularity, width, found)
        for _, split in found.values():
            _balanced(split, paths)
        return [split for _, split in sorted(found.values(), key=lambda v: -v[0])]


def _take(
    window: Window, position: int, device: Type3, path: list[Port], granularity: int,
    width: dict[int, set[int]], found: dict[int, tuple[int, Split]],
) -> None:  # fmt: skip
    """Enter the ports of *path* into the splits *found* so far, at the target indices that *position* has there."""
    rest, grain = position // window.ways, granularity << window.power
    for depth, port in enumerate(path):
        node, ways = port.parent, len(width[id(port.parent)])
        split = found.setdefault(id(node), (depth, Split(node, grain)))[1]
        index, rest = rest % ways, rest // ways
        if split.ports.setdefault(index, port.number) != port.number:
            raise TopologyError(
                f"device {device.name} at position {position} must be below port {split.ports[index]} of {node.name}, "
                f"not below port {port.number}")
        grain *= ways
    if rest:
        raise TopologyError(f"device {device.name} cannot have two positions in one region")


def _balanced(split: Split, paths: list[list[Port]]) -> None:
    shares = {n: sum(p.parent is split.node and p.number == n for path in paths for p in path)
              for n in split.ports.values()}  # fmt: skip
    if len(shares) != len(split.ports) or len(set(shares.values())) > 1:
        raise TopologyError(
            f"{split.node.name} must have equally many devices below each port, not {shares} (by port number)")


def natural(window: Window, mode: str, wiring: Wiring) -> list[Type3]:
    """The most devices with free *mode* memory that fit under *window*, by position; empty when there are none."""
    options = [_choices(target, window.granularity << window.power, mode) for target in window.targets]
    if len({id(t) for t in window.targets}) != window.ways:
        raise TopologyError(f"window {window.name} lists a host bridge twice; give the devices by position")
    for n in sorted(options[0], reverse=True):
        if all(n in o for o in options) and n * window.ways in ENCODED_WAYS:
            return [options[p % window.ways][n][p // window.ways] for p in range(n * window.ways)]
    return []


def _choices(node: Node, grain: int, mode: str) -> dict[int, list[Type3]]:
    """Number of devices -> devices below *node* in the order in which its decoders would take them."""
    ports = [p for _, p in sorted(node.ports.items())]
    out: dict[int, list[Type3]] = {}
    for ways in (1, 2, 4, 8):
        if ways > len(ports) or (ways > 1 and grain > GRANULARITIES[-1]) or not _can_route(node, ways):
            continue
        below = [c for p in ports if (c := _below_port(p, grain * ways, mode))]
        for n in {n for c in below for n in c}:
            able = [c[n] for c in below if n in c][:ways]
            if len(able) == ways:
                out[n * ways] = [able[q % ways][q // ways] for q in range(n * ways)]
    return out


def _below_port(port: Port, grain: int, mode: str) -> dict[int, list[Type3]]:
    if isinstance(port.device, Type3):
        device = port.device
        usable = device.free(mode) >= DECODER_GRAIN and device.registers.free_decoder() is not None
        return {1: [device]} if usable else {}
    return _choices(port.device, grain, mode) if port.device is not None else {}


def _can_route(node: Node, ways: int) -> bool:
    block = node.registers
    return ways == 1 if block is None else ways <= block.capability.targets and block.free_decoder() is not None


def lowest_base(window: Window, blocks: Sequence[DecoderBlock], regions: Sequence[Region]) -> int:
    """First HPA of *window* above all its regions and above everything that *blocks* have committed in or below it."""
    ends = [r.base + r.size for r in regions if r.window is window]
    ends += [s.end for b in blocks for s in b.committed.values() if s.base <= window.last]
    return max([window.first, *ends])


def program(region: Region, splits: Sequence[Split]) -> None:
    """Write and commit every decoder of *region*, devices first, host bridges last.

    Raises CommitError with the hardware's reason; then all decoders of the region are uncommitted again.
    """
    try:
        for device in region.devices:
            _device(region, device)
        for split in splits:
            if split.node.registers is not None:
                targets = tuple(split.ports[i] for i in range(len(split.ports)))
                # One way: no bit is looked at, and the product of granularities may have no encoding.
                grain = split.granularity if len(targets) > 1 else region.granularity
                _one(region, split.node.registers, region.first, region.decoded, len(targets), grain, targets)
    except CommitError:
        withdraw(region)
        raise


def _device(region: Region, device: Type3) -> None:
    if device.free(region.mode) < region.share:
        raise CommitError(
            f"{region.name}: device {device.name} has {device.free(region.mode):#x} free bytes of {region.mode}, "
            f"the region needs {region.share:#x} of each")
    skip = device.skip(region.mode)
    if region.window.normalized:
        _one(region, device.registers, 0, region.share, 1, 256, (), skip)
    else:
        _one(region, device.registers, region.first, region.decoded, region.ways, region.granularity, (), skip)


def _one(
    region: Region, block: DecoderBlock, base: int, size: int, ways: int, granularity: int,
    targets: tuple[int, ...], skip: int = 0,
) -> None:  # fmt: skip
    number = block.free_decoder()
    if number is None:
        raise CommitError(f"{region.name}: {block.name} has no free decoder, all {block.capability.decoders} are used")
    if ways not in ENCODED_WAYS or granularity not in GRANULARITIES or (not block.device and ways > 8):
        raise CommitError(
            f"{region.name}: {block.name} would need {ways} ways at {granularity} bytes, "
            f"it can have {'1, 2, 4, 8' if not block.device else sorted(ENCODED_WAYS)} ways at 256..16384 bytes")
    reason = block.program(number, base, size, ways, granularity, targets, skip)
    if reason:
        raise CommitError(f"{region.name}: {block.name} refused: {reason}")
    region.decoders.append((block, number))


def withdraw(region: Region) -> None:
    """Uncommit the decoders of *region*, host bridges first, and forget them."""
    while region.decoders:
        block, number = region.decoders.pop()
        block.uncommit(number)


def blockers(region: Region) -> Iterator[str]:
    """Why *region* cannot be taken down now: a higher decoder is still committed, or one of its own is locked."""
    for block, number in region.decoders:
        if (top := max(block.committed, default=number)) != number:
            yield f"{block.name}: decoder {top} above decoder {number} is still committed"
        if block.is_locked(number):
            yield f"{block.name}: decoder {number} is locked until reset"
