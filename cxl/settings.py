"""What the registers of a decoder and of its capability say, in plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from cxl import format as fmt
from mmu.stripes import WAYS


class Settings(NamedTuple):
    """What the registers of decoder *number* say. `dpa` (bytes) is where a device's share begins; bytes, HPAs."""

    number: int
    base: int
    size: int
    ig: int
    iw: int
    targets: tuple[int, ...]
    skip: int
    committed: bool
    dpa: int = 0

    @property
    def end(self) -> int:
        """First HPA behind the range."""
        return self.base + self.size

    @property
    def ways(self) -> int | None:
        """None for a reserved encoding."""
        return WAYS.get(self.iw)

    @property
    def granularity(self) -> int:
        """Bytes; beyond 16 KiB for a reserved encoding."""
        return 256 << self.ig

    @property
    def share(self) -> int:
        """Bytes of device memory behind the range."""
        return self.size // (self.ways or 1)

    def selector(self) -> tuple[int, int]:
        """(shift, bits) of the address bits that choose a target in a bridge or a switch."""
        return 8 + self.ig, self.iw


@dataclass(frozen=True, slots=True)
class Capability:
    """The capability register in plain numbers."""

    decoders: int
    targets: int
    groups: tuple[bool, bool]  # interleave on bits 11:8, on bits 14:12
    ways_3_6_12: bool
    ways_16: bool
    poison: bool

    @classmethod
    def of(cls, word: int) -> Capability:
        c = fmt.HdmCapability
        return cls(
            fmt.DECODER_COUNTS[c.DECODER_COUNT.get(word)], c.TARGET_COUNT.get(word),
            (bool(c.INTERLEAVE_11_8.get(word)), bool(c.INTERLEAVE_14_12.get(word))),
            bool(c.INTERLEAVE_3_6_12.get(word)), bool(c.INTERLEAVE_16.get(word)), bool(c.POISON_ON_ERROR.get(word)),
        )  # fmt: skip
