"""Addresses in and out of descriptors: in the 52-bit forms the top bits of an address lie apart from the rest."""

from __future__ import annotations

from mmu.arm64.format import ADDR_HI_SHIFT, DESCRIPTORS, FINAL_LEVEL, GRANULES, EntryKind, Form, Granule, Invalid
from mmu.layout import Layout


def granule_of(form: Form) -> Granule:
    return GRANULES[{Form.K4_DS: Form.K4, Form.K16_DS: Form.K16}.get(form, form)]


def level_shift(granule: Granule, level: int) -> int:
    """log2 of the bytes that one entry of *level* covers."""
    return granule.page_shift + (FINAL_LEVEL - level) * granule.stride


def layout_of(stage: int, form: Form, level: int, kind: EntryKind) -> type[Layout]:
    """The layout of an entry. Raises KeyError for a leaf at a level that has none."""
    row = DESCRIPTORS[stage, form]
    if kind == EntryKind.LEAF:
        return row.leaf[level]
    return row.table if kind == EntryKind.TABLE else Invalid


def output_address(form: Form, layout: type[Layout], descriptor: int) -> int:
    """The address that *descriptor* holds; *layout* is one of `DESCRIPTORS` for *form*.

    Source: DDI 0487, pseudocode AArch64.NextTableBase and AArch64.LeafBase.
    """
    address = descriptor & layout.fields["ADDR"].mask
    if "ADDR_HI" in layout.fields:
        address |= layout.fields["ADDR_HI"].get(descriptor) << ADDR_HI_SHIFT[form]
    return address


def address_bits(form: Form, layout: type[Layout], address: int) -> int:
    """The bits of a descriptor that hold *address* (bytes). Raises ValueError when they cannot hold it."""
    low = address & layout.fields["ADDR"].mask
    high = address >> ADDR_HI_SHIFT[form] if "ADDR_HI" in layout.fields else 0
    if low | high << ADDR_HI_SHIFT[form] != address:
        raise ValueError(f"{layout.__name__}: {address:#x} is not an address that the descriptor can hold")
    return low | (layout.fields["ADDR_HI"].put(high) if high else 0)
