"""A fixed memory window: which host bridge an absolute HPA goes to."""

from __future__ import annotations

from dataclasses import dataclass

from cxl.format import DECODER_GRAIN, Restrictions
from cxl.nodes import HostBridge
from cxl.validate import XOR_MAPS
from mmu.stripes import ENCODED_GRANULARITY


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """HPAs `base`..`last` (inclusive) over `targets` in interleave order.

    `maps` None: modulo arithmetic. Else the XOR maps that are used, bit i of the index first.
    `cache`, `normalized`: see `cxl.blueprint.WindowPlan`.
    Source: CXL 3.1, "CXL Fixed Memory Window Structure" and "CXL XOR Interleave Math Structure".
    """

    name: str
    base: int
    size: int
    granularity: int
    targets: tuple[HostBridge, ...]
    maps: tuple[int, ...] | None
    restrictions: int
    qtg: int
    cache: int = 0
    normalized: bool = False

    def __repr__(self) -> str:
        return f"Window({self.name!r}, {self.base:#x}..{self.last:#x}, {self.ways} ways @ {self.granularity})"

    @property
    def last(self) -> int:
        return self.base + self.size - 1

    @property
    def first(self) -> int:
        """First HPA that CXL answers: `base`, or what follows the DRAM of an extended linear cache."""
        return self.base + self.cache

    @property
    def has_hole(self) -> bool:
        """A window from address 0 that ends early, at the low-memory hole: decoders may reach beyond it.

        Source: Linux Documentation/driver-api/cxl/conventions/cxl-lmh.rst.
        """
        return self.base == 0 and self.size % (self.ways * DECODER_GRAIN) != 0

    @property
    def modes(self) -> tuple[str, ...]:
        """The partitions that its restrictions allow in it."""
        allowed = (("ram", Restrictions.VOLATILE), ("pmem", Restrictions.PERSISTENT))
        return tuple(mode for mode, field in allowed if field.get(self.restrictions))

    @property
    def ways(self) -> int:
        return len(self.targets)

    @property
    def power(self) -> int:
        """Exponent of the power of two in `ways`."""
        return XOR_MAPS[self.ways]

    @property
    def shift(self) -> int:
        """Lowest address bit that modulo arithmetic looks at."""
        return 8 + ENCODED_GRANULARITY[self.granularity]

    @property
    def mod3_shift(self) -> int | None:
        """The address above this bit modulo 3 is the upper part of the index; None when `ways` is a power of two."""
        return self.shift + self.power if self.ways % 3 == 0 else None

    def index(self, hpa: int) -> int:
        """Index of the target for the absolute *hpa*."""
        if self.maps is None:
            return (hpa >> self.shift) % self.ways
        index = sum(((hpa & m).bit_count() & 1) << i for i, m in enumerate(self.maps))
        if self.mod3_shift is not None:
            index += (hpa >> self.mod3_shift) % 3 << self.power
        return index
