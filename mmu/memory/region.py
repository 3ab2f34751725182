"""Kinds of memory that an address space maps. Sizes and offsets are in bytes."""

from __future__ import annotations

import threading
import weakref
from operator import index
from typing import Any

from mmu.core import lib
from mmu.errors import AddressRangeError, RegionOverlapError
from mmu.memory.host import HostMemory

SPACE_SIZE = 1 << 64

# Of changes of all trees, and held before the lock of a space. Who renders a tree needs it not: what a region shows
# changes all at once.
_changes = threading.RLock()


class Region:
    """Base of all. A change is told to every space that shows the region."""

    def __init__(self, size: int, name: str) -> None:
        if not 0 < index(size) <= SPACE_SIZE:
            raise AddressRangeError(f"region {name}: size must be 1 .. 2^64 bytes, not {size:#x}")
        self.size, self.name = size, name
        self._watchers: weakref.WeakSet[Any] = weakref.WeakSet()  # containers, aliases and spaces that show it

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.size:#x} bytes)"

    def published(self) -> dict[str, Any]:
        """What C is told of it: fields of struct mmu_range. The region keeps alive what they point to."""
        raise TypeError(f"{type(self).__name__} is not memory by itself")

    def watch(self, watcher: Any) -> None:
        """*watcher*.refresh() is called after each change of what this region shows."""
        with _changes:
            self._watchers.add(watcher)

    def unwatch(self, watcher: Any) -> None:
        with _changes:
            self._watchers.discard(watcher)

    def refresh(self) -> None:
        with _changes:
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher.refresh()

    def _become(self, **attributes: Any) -> None:
        """Set *attributes* and tell everybody. Where that cannot be published, all is as it was, and it raises."""
        with _changes:
            before = {name: getattr(self, name) for name in attributes}
            self.__dict__.update(attributes)
            try:
                self.refresh()
            except BaseException:
                self.__dict__.update(before)
                self.refresh()
                raise


# Bytes of a Ram that asks for huge pages unless told otherwise. Measured: random loads take 10 % less time at 64 MiB,
# 20 % at 128 MiB and a third at 512 MiB, but the first touch of 2 MiB takes as long as that of a hundred small pages
# or more. Above, RAM is more likely to be mostly empty, and each touch of an empty part would cost 2 MiB.
HUGE_FROM, HUGE_TO = 128 << 20, 1 << 30


class Ram(Region):
    """Plain memory, sparse: it costs what is touched. *memory* shares host memory made elsewhere.

    *huge*: touch it in huge pages of the host (2 MiB on x86-64), which is faster where all of it is used. None: from
    128 MiB to 1 GiB, but never memory made elsewhere: that of devices is as sparse as can be.
    """

    kind = lib.MMU_RANGE_RAM

    def published(self) -> dict[str, Any]:
        return {"kind": self.kind, "host": self.memory.address}

    def __init__(
        self, size: int, name: str = "ram", memory: HostMemory | None = None, huge: bool | None = None
    ) -> None:
        super().__init__(size, name)
        self.memory = HostMemory(size) if memory is None else memory
        if huge if huge is not None else memory is None and HUGE_FROM <= size <= HUGE_TO:
            self.memory.advise_huge()
        if self.memory.size < size:
            raise AddressRangeError(f"region {name}: {size:#x} bytes do not fit in a memory of {self.memory.size:#x}")
        self.memory.fix()

    @property
    def memories(self) -> list[HostMemory]:
        return [self.memory]


class Rom(Ram):
    """Memory whose writes through the bus are dropped; fill it through `memory`."""

    kind = lib.MMU_RANGE_ROM

    def __init__(self, data: bytes, name: str = "rom") -> None:
        super().__init__(memoryview(data).nbytes, name)
        self.memory.write(0, data)


class RamDevice(Ram):
    """A device's memory mapped into the host (a BAR): RAM for the CPU."""


class Alias(Region):
    """A look at *size* bytes of *target* from *offset* on."""

    def __init__(self, target: Region, offset: int, size: int, name: str | None = None) -> None:
        if not isinstance(target, Region):
            raise TypeError(f"an alias looks at a region, such as Ram, not at {target!r:.80}")
        super().__init__(size, name or f"alias of {target.name}")
        offset = index(offset)
        if offset < 0 or offset + size > target.size:
            raise AddressRangeError(
                f"alias {offset:#x}..{offset + size - 1:#x} leaves {target.name} of {target.size:#x} bytes")
        self.target, self.offset = target, offset
        target.watch(self)


class Container(Region):
    """Holds regions at offsets. Of two that overlap, the higher priority is seen."""

    def __init__(self, size: int, name: str = "container") -> None:
        super().__init__(size, name)
        self.children: tuple[tuple[int, Region, int], ...] = ()  # (offset, region, priority), highest priority first

    def map(self, base: int, region: Region, priority: int = 0) -> None:
        """Show *region* from offset *base* on.

        Raises AddressRangeError when it does not fit, RegionOverlapError when one of equal priority is there,
        ValueError when it would contain itself.
        """
        if not isinstance(region, Region):
            raise TypeError(f"{self.name} can show a region, such as Ram, not {region!r:.80}")
        with _changes:
            self._map(index(base), region, index(priority))

    def _map(self, base: int, region: Region, priority: int) -> None:
        last = base + region.size - 1
        if base < 0 or last >= self.size:
            raise AddressRangeError(
                f"region {base:#x}..{last:#x} ({region.name}) leaves {self.name} (0..{self.size - 1:#x})")
        if _reaches(region, self):
            raise ValueError(f"{region.name} contains {self.name}, so it cannot be mapped into it")
        for at, other, rank in self.children:
            if rank == priority and base < at + other.size and at < base + region.size:
                raise RegionOverlapError(
                    f"region {base:#x}..{last:#x} ({region.name}) overlaps {at:#x}..{at + other.size - 1:#x} "
                    f"({other.name}); give one of them a higher priority")
        children = (*self.children, (base, region, priority))
        self._become(children=tuple(sorted(children, key=lambda child: -child[2])))
        region.watch(self)

    def unmap(self, region: Region) -> None:
        """Take *region* out, wherever it is. Raises ValueError when it is not here."""
        with _changes:
            left = tuple(child for child in self.children if child[1] is not region)
            if len(left) == len(self.children):
                raise ValueError(f"{getattr(region, 'name', region)} is not mapped in {self.name}")
            self._become(children=left)
            region.unwatch(self)


def _reaches(start: Region, goal: Region) -> bool:
    if start is goal:
        return True
    if isinstance(start, Alias):
        return _reaches(start.target, goal)
    return isinstance(start, Container) and any(_reaches(child, goal) for _, child, _ in start.children)
