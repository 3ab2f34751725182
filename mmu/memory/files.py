"""Which file's failure an access to a space met. The failures themselves: `mmu.memory.host`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mmu.memory.region import Ram
from mmu.memory.striped import Striped
from mmu.stripes import Miss

if TYPE_CHECKING:
    from mmu.memory.flatview import FlatView
    from mmu.memory.host import HostMemory

GRAIN = 256  # bytes: no granule of a window is smaller
MOST_GRAINS = 1 << 16  # pieces of a window that are looked at one by one


def why(view: FlatView, address: int, size: int) -> str | None:
    """The failure of a file that bytes address .. address+size-1 of *view* met; None when they met none."""
    for memory, offset, run in _pieces(view, address, size):
        failure = memory.failure(offset, run)
        if failure is not None:
            return failure
    return None


def _pieces(view: FlatView, address: int, size: int) -> Iterator[tuple[HostMemory, int, int]]:
    """(memory, offset, bytes) behind each piece of a range that memory answers."""
    for r in view.ranges:
        first, end = max(r.first, address), min(r.last + 1, address + size)
        if first >= end:
            continue
        offset = r.offset + first - r.first
        if isinstance(r.region, Ram):
            yield r.region.memory, offset, end - first
        elif isinstance(r.region, Striped):
            yield from _granules(r.region, offset, end - first)


def _granules(window: Striped, offset: int, size: int) -> Iterator[tuple[HostMemory, int, int]]:
    if not any(t.memory.failure(0, t.memory.size) for t in window.targets):
        return
    first, end = window.base + offset, window.base + offset + size
    for at in range(first // GRAIN * GRAIN, min(end, first + MOST_GRAINS * GRAIN), GRAIN):
        low, high = max(at, first), min(at + GRAIN, end)
        found = window.route.locate(low)
        if not isinstance(found, Miss) and found[1] + high - low <= window.targets[found[0]].memory.size:
            yield window.targets[found[0]].memory, found[1], high - low
