"""What a tree of regions shows at each address: sorted ranges that do not overlap.

Rules of the memory API: children before their container, higher priority first, what is rendered first stays;
an alias shows its target; neighbours that continue one another are merged.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from mmu.memory.region import Alias, Container, Region


@dataclass(frozen=True, slots=True)
class FlatRange:
    """Addresses `first`..`last` (inclusive) show `region` from `offset` on."""

    first: int
    last: int
    region: Region
    offset: int


class FlatView:
    """The immutable result of rendering *root* from address 0."""

    def __init__(self, root: Region) -> None:
        self._ranges: list[FlatRange] = []
        self._render(root, 0, 0, root.size - 1)
        self.ranges: tuple[FlatRange, ...] = tuple(self._merged())

    def find(self, address: int) -> FlatRange | None:
        i = bisect_left(self.ranges, address, key=lambda r: r.last)
        return self.ranges[i] if i < len(self.ranges) and self.ranges[i].first <= address else None

    def _render(self, region: Region, base: int, first: int, last: int) -> None:
        """Render *region*, whose byte 0 stands at *base* (may be negative), clipped to first..last."""
        first, last = max(first, base), min(last, base + region.size - 1)
        if first > last:
            return
        if isinstance(region, Alias):
            self._render(region.target, base - region.offset, first, last)
        elif isinstance(region, Container):
            for offset, child, _ in region.children:
                self._render(child, base + offset, first, last)
        else:
            self._fill(region, base, first, last)

    def _fill(self, region: Region, base: int, first: int, last: int) -> None:
        """Put *region* into the gaps that earlier ranges left in first..last."""
        low = bisect_left(self._ranges, first, key=lambda r: r.last)
        high = bisect_right(self._ranges, last, key=lambda r: r.first)
        filled: list[FlatRange] = []
        for r in self._ranges[low:high]:
            if first < r.first:
                filled.append(FlatRange(first, r.first - 1, region, first - base))
            filled.append(r)
            first = r.last + 1
        if first <= last:
            filled.append(FlatRange(first, last, region, first - base))
        self._ranges[low:high] = filled

    def _merged(self) -> list[FlatRange]:
        out: list[FlatRange] = []
        for r in self._ranges:
            if out and out[-1].region is r.region and out[-1].last + 1 == r.first and (
                out[-1].offset + (r.first - out[-1].first) == r.offset
            ):
                out[-1] = FlatRange(out[-1].first, r.last, r.region, out[-1].offset)
            else:
                out.append(r)
        return out
