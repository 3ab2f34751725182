"""Frame allocators: what page-table builders take their frames from."""

from __future__ import annotations

from collections.abc import Mapping

from mmu.errors import AddressRangeError, AlignmentError


class Frames:
    """Hands out page frames of *size* bytes from *first* to *last* (inclusive bus addresses), lowest first."""

    def __init__(self, first: int, last: int, size: int = 4096) -> None:
        if size <= 0 or size & (size - 1):
            raise AlignmentError(f"a frame must be a power of two in bytes, not {size}")
        if first % size:
            raise AlignmentError(f"the first frame must be a multiple of {size:#x}, not {first:#x}")
        self.first, self.last, self.size = first, last, size
        self._next = first
        self._free: list[int] = []

    def __call__(self) -> int:
        """Base of a fresh frame. Raises AddressRangeError when none is left."""
        if self._free:
            return self._free.pop()
        if self._next + self.size - 1 > self.last:
            raise AddressRangeError(
                f"no frame left in {self.first:#x}..{self.last:#x}: {self.used} of {self.size:#x} bytes given out")
        base, self._next = self._next, self._next + self.size
        return base

    def free(self, base: int) -> None:
        """Take a frame back. Raises ValueError when it was not given out."""
        if not self.first <= base < self._next or base % self.size or base in self._free:
            raise ValueError(f"frame {base:#x} is not one given out from {self.first:#x}..{self._next - 1:#x}")
        self._free.append(base)

    def reserve(self, base: int) -> None:
        """Never hand out the frame at *base*, which somebody else put to use. Twice is fine, and so is elsewhere."""
        if not self.first <= base <= self.last - self.size + 1 or base % self.size:
            return
        if base in self._free:
            self._free.remove(base)
        elif base >= self._next:
            self._free += range(base - self.size, self._next - self.size, -self.size)
            self._next = base + self.size

    @property
    def used(self) -> int:
        """Frames given out and not taken back."""
        return (self._next - self.first) // self.size - len(self._free)


class LevelFrames:
    """Frames by the level of the table: from the allocator in *levels* under the level's number, or from *rest*.

    An allocator may stand for several levels. ValueError when their frames differ in size.
    """

    def __init__(self, rest: Frames, levels: Mapping[int, Frames]) -> None:
        self.size, self.rest, self.levels = rest.size, rest, dict(levels)
        for number, frames in self.levels.items():
            if frames.size != self.size:
                raise ValueError(f"level {number} has frames of {frames.size:#x} bytes, and the rest {self.size:#x}")

    def __call__(self) -> int:
        return self.rest()

    def for_level(self, number: int) -> int:
        """Base of a fresh frame for a table whose entries are of level *number*."""
        return self.levels.get(number, self.rest)()

    def free(self, base: int) -> None:
        for frames in (self.rest, *self.levels.values()):
            if frames.first <= base <= frames.last:
                return frames.free(base)
        raise ValueError(f"frame {base:#x} is not one given out here")

    def reserve(self, base: int) -> None:
        for frames in {id(f): f for f in (self.rest, *self.levels.values())}.values():
            if frames.first <= base <= frames.last:
                frames.reserve(base)
