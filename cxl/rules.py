"""What a decoder must satisfy to commit, one function per rule of the specification.

Source: CXL specification, "CXL HDM Decoder Capability Structure", "Committing Decoder Programming" and
"Decoder Protection". Each function gives "" or one sentence with both sides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.format import DECODER_GRAIN
from mmu.stripes import GRANULARITIES

if TYPE_CHECKING:
    from cxl.decoder import DecoderBlock
    from cxl.settings import Settings


def _order(block: DecoderBlock, s: Settings) -> str:
    if s.number and s.number - 1 not in block.committed:
        return f"decoder {s.number} must commit after decoder {s.number - 1}, which is not committed"
    return ""


def _range(block: DecoderBlock, s: Settings) -> str:
    if s.size == 0:
        return f"decoder {s.number} must have a size, not 0"
    if s.end > 1 << 64:
        return f"decoder {s.number}: {s.base:#x}+{s.size:#x} leaves the 64-bit address space"
    return ""


def _encodings(block: DecoderBlock, s: Settings) -> str:
    if s.ways is None:
        return f"decoder {s.number}: interleave ways encoding {s.iw} is reserved"
    if s.ig >= len(GRANULARITIES):
        return f"decoder {s.number}: interleave granularity encoding {s.ig} is reserved"
    return ""


def _ways(block: DecoderBlock, s: Settings) -> str:
    cap, ways = block.capability, s.ways or 0
    if not block.device:
        if ways > cap.targets or s.iw > 7:
            return f"decoder {s.number}: {ways} ways need {ways} targets, a power of two; it has {cap.targets}"
    elif s.iw > 7 and not cap.ways_3_6_12:
        return f"decoder {s.number}: {ways} ways need the 3, 6, 12-way capability"
    elif ways == 16 and not cap.ways_16:
        return f"decoder {s.number}: 16 ways need the 16-way capability"
    return ""


def _groups(block: DecoderBlock, s: Settings) -> str:
    """Interleave bits must lie in the groups that the capability names; bits above 14 are in none of them."""
    width = s.iw & 7
    used = set(range(8 + s.ig, 8 + s.ig + width))
    for bits, able in zip((range(8, 12), range(12, 15)), block.capability.groups):
        if used.intersection(bits) and not able:
            return f"decoder {s.number}: bits {8 + s.ig}..{7 + s.ig + width} need interleave on {bits[-1]}:{bits[0]}"
    return ""


def _multiple(block: DecoderBlock, s: Settings) -> str:
    unit = (s.ways or 1) * DECODER_GRAIN
    if s.size % unit:
        return f"decoder {s.number}: size {s.size:#x} must be a multiple of {s.ways} ways x 256 MiB ({unit:#x})"
    return ""


def _overlap(block: DecoderBlock, s: Settings) -> str:
    below, above = block.committed.get(s.number - 1), block.committed.get(s.number + 1)
    if below and s.base < below.end:
        return f"decoder {s.number} begins at {s.base:#x}, below the end {below.end:#x} of decoder {below.number}"
    if above and s.end > above.base:
        return f"decoder {s.number} ends at {s.end:#x}, above the base {above.base:#x} of decoder {above.number}"
    return ""


def _capacity(block: DecoderBlock, s: Settings) -> str:
    if not block.device:
        return ""
    end = s.dpa + s.share
    if end > block.capacity:
        return f"decoder {s.number} ends at DPA {end:#x}, beyond the capacity {block.capacity:#x}"
    above = block.committed.get(s.number + 1)
    if above and above.dpa != end + above.skip:
        return f"decoder {s.number} ends at DPA {end:#x}, which moves decoder {above.number} from {above.dpa:#x}"
    return ""


RULES = (_order, _range, _encodings, _ways, _groups, _multiple, _overlap, _capacity)


def refusal(block: DecoderBlock, wanted: Settings) -> str:
    """The first rule that *wanted* breaks, as a sentence; "" when it may commit."""
    return next((reason for rule in RULES if (reason := rule(block, wanted))), "")
