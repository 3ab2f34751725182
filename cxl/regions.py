"""The regions of a topology: made, listed, taken down. What a region is and how it is programmed: `cxl.region`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from cxl.decoder import DecoderBlock
from cxl.device.type3 import MODES, Type3
from cxl.errors import TopologyError
from cxl.format import DECODER_GRAIN
from cxl.linux import Candidate
from cxl.region import Region, Wiring, blockers, lowest_base, natural, program, withdraw
from cxl.window import Window
from mmu.stripes import ENCODED_WAYS, GRANULARITIES


class RegionTable:
    """*batch* makes register writes visible together, and keeps others out meanwhile."""

    def __init__(self, wiring: Wiring, batch: Callable[[], AbstractContextManager[None]]) -> None:
        self.regions: dict[str, Region] = {}
        self._wiring, self._batch = wiring, batch

    def named(self, name: str) -> Region:
        if name not in self.regions:
            raise TopologyError(f"there is no region {name}, only {', '.join(self.regions) or 'none'}")
        return self.regions[name]

    def commit(self, windows: Sequence[Window]) -> list[Region]:
        """See `Topology.commit`. Dynamic capacity is left out: it answers nothing before extents are accepted."""
        made = []
        with self._batch():
            for window in windows:
                for mode in window.modes:
                    while devices := natural(window, mode, self._wiring):
                        size = self._largest(window, devices, mode)
                        if not size:
                            break
                        made.append(self.create(window, devices, None, size, mode, None))
        return made

    def choose(
        self, windows: Sequence[Window], devices: Sequence[Type3] | None, size: int | None, mode: str
    ) -> Window:
        """The first window that a region of *size* bytes (None: any) of *mode* over *devices* fits in."""
        for window in windows:
            if mode in window.modes or mode == "dc":
                parts = natural(window, mode, self._wiring) if devices is None else devices
                bridges = [p.parent for d in parts for p in self._wiring.path(d)[:1]]
                fits = parts and set(map(id, bridges)) == set(map(id, window.targets))
                if fits and self._largest(window, parts, mode) >= (size or 1):
                    return window
        names = ", ".join(d.name for d in devices) if devices is not None else "any devices"
        raise TopologyError(
            f"no window has room for {'a region' if size is None else f'{size:#x} bytes'} of {mode} over {names}")

    def create(
        self, window: Window, devices: Sequence[Type3] | None, granularity: int | None, size: int | None,
        mode: str, name: str | None,
    ) -> Region:  # fmt: skip
        """See `Topology.create_region`."""
        if mode not in MODES:
            raise TopologyError(f"mode must be one of {MODES}, not {mode!r}")
        with self._batch():
            parts = natural(window, mode, self._wiring) if devices is None else list(devices)
            grain = _granularity(window, granularity)
            if len(parts) not in ENCODED_WAYS:
                raise TopologyError(f"a region must have one of {sorted(ENCODED_WAYS)} devices, not {len(parts)}")
            splits = self._wiring.splits(window, parts, grain)
            size = self._largest(window, parts, mode) if size is None else size
            first = self._first(window, parts)
            _check_size(window, first, size, len(parts))
            region = Region(name or self._name(), window, first - window.cache, size, grain, mode, tuple(parts))
            if region.name in self.regions:
                raise TopologyError(f"there is already a region {region.name}")
            program(region, splits)
            self.regions[region.name] = region
        return region

    def candidate(
        self, window: Window, devices: Sequence[Type3] | None, granularity: int | None, size: int | None, mode: str
    ) -> Candidate:
        """The region that `create` would make of the same arguments, unchecked."""
        if mode not in MODES:
            raise TopologyError(f"mode must be one of {MODES}, not {mode!r}")
        parts = natural(window, mode, self._wiring) if devices is None else list(devices)
        size = self._largest(window, parts, mode) if size is None else size
        return Candidate("region", window, None, size, granularity or window.granularity, mode, tuple(parts))

    def destroy(self, name: str) -> None:
        """See `Topology.destroy_region`."""
        with self._batch():
            if why := list(blockers(self.named(name))):
                raise TopologyError(f"region {name} cannot be destroyed: {why[0]}")
            withdraw(self.regions.pop(name))

    def _first(self, window: Window, devices: Sequence[Type3]) -> int:
        """First HPA that the decoders of a new region can have."""
        blocks = [] if window.normalized else self._blocks(devices)
        return lowest_base(window, blocks, list(self.regions.values()))

    def _blocks(self, devices: Sequence[Type3]) -> list[DecoderBlock]:
        """The registers of *devices* and of everything above them."""
        nodes = {id(p.parent): p.parent for d in devices for p in self._wiring.path(d)}
        return [d.registers for d in devices] + [n.registers for n in nodes.values() if n.registers is not None]

    def _largest(self, window: Window, devices: Sequence[Type3], mode: str) -> int:
        """Bytes of the largest region that *devices* can still have in *window*; 0 when there is no room."""
        first = self._first(window, devices)
        if (window.cache or window.normalized) and first != window.first:
            return 0  # such a window takes one region
        if any(s.base > window.last for b in self._blocks(devices) for s in b.committed.values()):
            return 0  # decoders commit in the order of their HPAs
        unit = DECODER_GRAIN * max(1, len(devices))
        room = window.last + 1 - first
        units = -(-room // unit) if window.has_hole else room // unit
        share = min((d.free(mode) for d in devices), default=0)
        decoded = max(0, min(units, share // DECODER_GRAIN)) * unit
        if window.cache:
            return window.size if decoded == window.cache else 0
        return decoded

    def _name(self) -> str:
        n = 0
        while f"region{n}" in self.regions:
            n += 1
        return f"region{n}"


def _granularity(window: Window, granularity: int | None) -> int:
    if granularity is None or granularity == window.granularity:
        return window.granularity
    if window.ways > 1:
        raise TopologyError(
            f"window {window.name} interleaves at {window.granularity} bytes, so must a region, not {granularity}")
    if granularity not in GRANULARITIES:
        raise TopologyError(f"granularity must be a power of two from 256 to 16384 bytes, not {granularity}")
    return granularity


def _check_size(window: Window, first: int, size: int, ways: int) -> None:
    """*first* is where decoders begin; *size* counts the DRAM of an extended linear cache."""
    unit, decoded = DECODER_GRAIN * ways, size - window.cache
    if window.cache and (first != window.first or decoded != window.cache):
        raise TopologyError(
            f"window {window.name} has an extended linear cache of {window.cache:#x} bytes: it takes one region of "
            f"{window.size:#x} bytes, not {size:#x} at {first - window.cache:#x}")
    if decoded <= 0 or decoded % unit:
        raise TopologyError(f"size must be a multiple of {ways} ways x 256 MiB ({unit:#x}), not {decoded:#x}")
    end = window.last + 1
    if first + decoded > (-(-end // unit) * unit if window.has_hole else end):
        raise TopologyError(
            f"{decoded:#x} bytes at {first:#x} leave window {window.name}, which ends at {window.last:#x}")
