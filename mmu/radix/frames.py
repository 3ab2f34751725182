"""Frames for tables, from whatever allocator the caller has, checked before anything is written to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import index as integer
from typing import TYPE_CHECKING

from mmu.errors import AlignmentError

if TYPE_CHECKING:
    from mmu.memory import AddressSpace


class FramePool:
    """Frames of *unit* bytes below 1 << *bits*.

    `owned` are those that are tables now. A frame that is not needed after all goes to *free* (default: `frames.free`
    where that exists), or is kept for the next time. An allocator that has `for_level` is asked by the number of the
    level that a table is for (`mmu.memory.LevelFrames`).
    """

    def __init__(
        self,
        space: AddressSpace,
        frames: Callable[[], int],
        free: Callable[[int], None] | None,
        unit: int,
        bits: int,
    ) -> None:
        if (given := getattr(frames, "size", unit)) < unit:
            raise AlignmentError(f"a table needs a frame of {unit:#x} bytes, not {given:#x}")
        self.owned: set[int] = set()
        self._space, self._frames, self._free = space, frames, free or getattr(frames, "free", None)
        self._for_level: Callable[[int], int] | None = getattr(frames, "for_level", None)
        self._unit, self._bits = unit, bits
        self._spare: list[int] = []

    def _next(self, level: int) -> int:
        if self._for_level is not None:
            return integer(self._for_level(level))
        return self._spare.pop() if self._spare else integer(self._frames())

    def take(self, levels: Sequence[int]) -> list[int]:
        """A frame for a table of each of *levels*, in that order, or none and what the allocator raised."""
        taken: list[int] = []
        try:
            for level in levels:
                frame = self._next(level)
                if frame in self.owned or frame in taken:
                    raise ValueError(f"the frame allocator gave {frame:#x}, which is a table in use")
                taken.append(frame)
                if frame % self._unit:
                    raise AlignmentError(f"a table needs a frame at a multiple of {self._unit:#x}, not {frame:#x}")
                if not 0 <= frame < 1 << self._bits:
                    raise ValueError(f"a table must lie in 0..{(1 << self._bits) - 1:#x}, not at {frame:#x}")
        except BaseException:
            self.give_back(taken)
            raise
        return taken

    def take_root(self, level: int, size: int, bits: int) -> int:
        """A zeroed root of *size* bytes below 1 << *bits*; a large one takes frames that follow each other."""
        unit = self._unit
        count = -(-size // unit)
        taken = sorted(self.take([level] * (2 * count - 1)))  # enough for one aligned run when they are consecutive
        runs = (i for i, base in enumerate(taken) if base % (count * unit) == 0)
        try:
            at = next((i for i in runs if taken[i : i + count] == [taken[i] + n * unit for n in range(count)]), None)
            if at is None:
                given = ", ".join(map(hex, taken))
                raise AlignmentError(f"the root needs {count} frames in a row at a multiple of {size:#x}: {given}")
            root = taken[at]
            if root + size - 1 >> bits:
                raise ValueError(f"the root must lie in 0..{(1 << bits) - 1:#x}, not at {root:#x}")
            self._space.write(root, bytes(count * unit))
        except BaseException:
            self.give_back(taken)
            raise
        self.owned.update(taken[at : at + count])
        self.give_back(taken[:at] + taken[at + count :])
        return root

    def give_back(self, frames: list[int]) -> None:
        for frame in reversed(frames):
            if self._free is not None:
                self._free(frame)
            else:
                self._spare.append(frame)
