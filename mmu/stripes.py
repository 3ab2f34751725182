"""Interleave arithmetic as plain integers: the reference for csrc/stripes.c.

Two questions are kept apart. Where does an address go? A `Route`, the product of the levels above a device
(root window, host bridge, switches). Which byte of the device is it? A `Slot`, the device's own decoder.

Sources: CXL specification, "HDM Decoder Capability Structure" and "CXL Fixed Memory Window Structure".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

GRANULARITIES = tuple(256 << n for n in range(7))  # bytes, index is the encoding eIG
WAYS = {0: 1, 1: 2, 2: 4, 3: 8, 4: 16, 8: 3, 9: 6, 10: 12}  # encoding eIW -> ways
ENCODED_WAYS = {ways: code for code, ways in WAYS.items()}
ENCODED_GRANULARITY = {size: code for code, size in enumerate(GRANULARITIES)}


def check(ways: int, granularity: int) -> None:
    """Raise ValueError unless an encoding exists for both."""
    if ways not in ENCODED_WAYS:
        raise ValueError(f"ways must be one of {sorted(ENCODED_WAYS)}, not {ways}")
    if granularity not in ENCODED_GRANULARITY:
        raise ValueError(f"granularity must be a power of two from 256 to 16384 bytes, not {granularity}")


def position(offset: int, ways: int, granularity: int) -> int:
    """Index (0 .. ways-1) of the device that holds byte *offset* (HPA minus decoder base) of a set."""
    check(ways, granularity)
    return offset // granularity % ways


def dpa_offset(offset: int, ways: int, granularity: int) -> int:
    """Offset into a device's share (bytes) of byte *offset* (HPA minus decoder base) of a set."""
    check(ways, granularity)
    chunk, within = divmod(offset, granularity)
    return chunk // ways * granularity + within


def hpa_offset(dpa_offset: int, position: int, ways: int, granularity: int) -> int:
    """Inverse of `position` and `dpa_offset`. Raises ValueError unless 0 <= position < ways."""
    check(ways, granularity)
    if not 0 <= position < ways:
        raise ValueError(f"position must be in 0..{ways - 1}, not {position}")
    chunk, within = divmod(dpa_offset, granularity)
    return (chunk * ways + position) * granularity + within


def xor_address(address: int, maps: Iterable[int]) -> int:
    """Replace, for each map in order, its lowest set bit in *address* by the parity of address & map.

    Self-inverse when no map reads another map's lowest bit. Zero maps are skipped.
    """
    for m in maps:
        if m < 0:
            raise ValueError(f"an XOR map must not be negative, not {m:#x}")
        if m:
            low = m & -m
            address = address & ~low | (low if (address & m).bit_count() & 1 else 0)
    return address


@dataclass(frozen=True, slots=True)
class Slot:
    """A device's decoder as seen from the window: *target* is the number of the device memory.

    `base` is the decoder's HPA base, `dpa` the device address of its first byte.
    """

    target: int
    base: int
    dpa: int
    ways: int
    granularity: int

    def locate(self, hpa: int) -> int:
        """Device address (bytes) of *hpa*."""
        return self.dpa + dpa_offset(hpa - self.base, self.ways, self.granularity)


@dataclass(frozen=True, slots=True)
class Miss:
    """No device answers. `at_device`: a device was reached and refused, so that a write errs as well."""

    reason: str
    at_device: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """Part `first`..`last` (inclusive HPAs) of a window in which one table of slots answers.

    The index into `slots` is made of, low to high: `bits` address bits from `shift` up, one parity bit per map
    of `maps`, and the address above `mod3_shift` modulo 3 when that is not None.
    `granule` (bytes, a power of two) is the largest aligned block that is sure to lie in one slot.
    """

    first: int
    last: int
    shift: int
    bits: int
    granule: int
    slots: tuple[Slot | Miss, ...]
    maps: tuple[int, ...] = ()
    mod3_shift: int | None = None

    def __post_init__(self) -> None:
        need = (1 << (self.bits + len(self.maps))) * (1 if self.mod3_shift is None else 3)
        if len(self.slots) != need:
            raise ValueError(
                f"a span with {self.bits} bits and {len(self.maps)} maps needs {need} slots, not {len(self.slots)}")
        if self.first > self.last:
            raise ValueError(f"a span must not end ({self.last:#x}) before it begins ({self.first:#x})")

    def index(self, hpa: int) -> int:
        index = (hpa >> self.shift) & ((1 << self.bits) - 1)
        width = self.bits
        for m in self.maps:
            index |= ((hpa & m).bit_count() & 1) << width
            width += 1
        if self.mod3_shift is not None:
            index += ((hpa >> self.mod3_shift) % 3) << width
        return index

    def locate(self, hpa: int) -> tuple[Slot, int] | Miss:
        slot = self.slots[self.index(hpa)]
        return slot if isinstance(slot, Miss) else (slot, slot.locate(hpa))


@dataclass(frozen=True, slots=True)
class Route:
    """All that decides where an HPA of one window goes: sorted spans that do not overlap. Gaps are misses."""

    spans: tuple[Span, ...] = ()

    def __post_init__(self) -> None:
        for a, b in zip(self.spans, self.spans[1:]):
            if b.first <= a.last:
                raise ValueError(
                    f"spans must be sorted and apart, not {a.first:#x}..{a.last:#x} then {b.first:#x}..{b.last:#x}")

    def locate(self, hpa: int) -> tuple[int, int] | Miss:
        """(target, DPA) of *hpa*, or why there is none."""
        for span in self.spans:
            if span.first <= hpa <= span.last:
                found = span.locate(hpa)
                return found if isinstance(found, Miss) else (found[0].target, found[1])
        return Miss("no committed decoder covers this address")

    def pieces(self, hpa: int, size: int) -> list[tuple[int, int]]:
        """(hpa, size) pieces of an access, cut wherever slots may change: granule and span edges."""
        out = []
        while size:
            span = next((s for s in self.spans if s.last >= hpa), None)
            if span is None:
                n = size
            elif hpa < span.first:
                n = min(size, span.first - hpa)
            else:
                n = min(size, span.last - hpa + 1, span.granule - hpa % span.granule)
            out.append((hpa, n))
            hpa, size = hpa + n, size - n
        return out
