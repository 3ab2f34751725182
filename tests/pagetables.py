"""Page tables in bytes, for tests: knows neither the walkers, nor the builder, nor `mmu.*.format`.

Numbers are the manuals' (Intel SDM "4-Level Paging and 5-Level Paging"; Arm ARM "VMSAv8-64 descriptor formats").
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

P, RW, US, PWT, PCD, A, D, PS, G, XD = 1, 2, 4, 8, 16, 32, 64, 128, 256, 1 << 63  # x86
PAT_4K, PAT_LARGE = 1 << 7, 1 << 12
VALID, TABLE, AP_EL0, AP_RO, SH_INNER, AF, NG = 1, 2, 1 << 6, 2 << 6, 3 << 8, 1 << 10, 1 << 11  # arm64
PXN, UXN = 1 << 53, 1 << 54


@dataclass
class Image:
    """Tables as they lie in memory: physical address (bytes) -> contents."""

    root: int
    pages: dict[int, bytearray] = field(default_factory=dict)

    def load(self, space) -> int:
        """Write all of it to a bus; returns the root."""
        for address, data in self.pages.items():
            space.write(address, bytes(data))
        return self.root

    def entry(self, address: int, size: int = 8) -> int:
        base = max(page for page in self.pages if page <= address)
        return int.from_bytes(self.pages[base][address - base : address - base + size], "little")

    def set_entry(self, address: int, value: int) -> None:
        base = max(page for page in self.pages if page <= address)
        struct.pack_into("<Q", self.pages[base], address - base, value)


def _build(
    pages: Iterable[tuple[int, int, int, int]], base: int, page_shift: int, levels: int, va_bits: int, table_bits: int,
    large_bits: int, small_bits: int,
) -> Image:
    """Tables grow upwards from *base*, one page each, in the order in which they are first needed."""
    stride = page_shift - 3
    image = Image(base, {base: bytearray(1 << page_shift)})
    free = base + (1 << page_shift)
    for va, pa, size, bits in pages:
        va &= (1 << va_bits) - 1
        assert not va % size and not pa % size
        table = base
        for height in range(levels - 1, -1, -1):
            shift = page_shift + stride * height
            where = va >> shift & ((1 << stride) - 1)
            if size == 1 << shift:
                bits |= large_bits if height else small_bits
                struct.pack_into("<Q", image.pages[table], where * 8, pa | bits)
                break
            (below,) = struct.unpack_from("<Q", image.pages[table], where * 8)
            if not below:
                image.pages[free] = bytearray(1 << page_shift)
                below = free | table_bits
                struct.pack_into("<Q", image.pages[table], where * 8, below)
                free += 1 << page_shift
            table = below & ((1 << 52) - 1) & -(1 << page_shift)
        else:
            raise AssertionError(f"no level has pages of {size:#x} bytes")
    return image


def x86(
    pages: Iterable[tuple[int, int, int, int]], base: int = 0x10000, levels: int = 4, table_bits: int = P | RW | US
) -> Image:
    """(va, pa, size, bits) per page, size 4K, 2M or 1G; P (and PS) is added to bits."""
    return _build(pages, base, 12, levels, 12 + 9 * levels, table_bits, P | PS, P)


def arm64(
    pages: Iterable[tuple[int, int, int, int]], base: int = 0x10000, granule: int = 4096, va_bits: int = 48,
    table_bits: int = VALID | TABLE,
) -> Image:
    """(va, pa, size, bits) per page or block; VALID (and the type) is added to bits. Each table takes a granule."""
    page_shift = granule.bit_length() - 1
    levels = -(-(va_bits - page_shift) // (page_shift - 3))
    return _build(pages, base, page_shift, levels, va_bits, table_bits, VALID, VALID | 2)
