"""The tables of bits agree with the geometry and with each other."""

import pytest

from mmu.arm64.descriptors import address_bits, granule_of, layout_of, level_shift, output_address
from mmu.arm64.format import DESCRIPTORS, FINAL_LEVEL, EntryKind, Form


def rows():
    return [(s, f, level, layout) for (s, f), row in DESCRIPTORS.items() for level, layout in row.leaf.items()]


@pytest.mark.parametrize("stage,form,level,layout", rows(), ids=str)
def test_leaf_address_starts_at_what_the_level_covers(stage, form, level, layout):
    assert level_shift(granule_of(form), level) == layout.fields["ADDR"].lo


@pytest.mark.parametrize("form", Form)
def test_levels_with_leaves_are_those_of_the_geometry(form):
    granule = granule_of(form)
    large = form not in (Form.K4, Form.K16)  # the 64K form has its large block when PARange is 52 bits
    mask = granule.block_levels | (granule.large_block_levels if large else 0) | 1 << FINAL_LEVEL
    for stage in (1, 2):
        assert {level for level in range(4) if mask >> level & 1} == set(DESCRIPTORS[stage, form].leaf)


@pytest.mark.parametrize("form", Form)
def test_table_address_is_aligned_to_the_granule(form):
    assert granule_of(form).page_shift == layout_of(1, form, 0, EntryKind.TABLE).fields["ADDR"].lo


@pytest.mark.parametrize("stage,form,level,layout", rows(), ids=str)
def test_highest_address_survives_a_descriptor(stage, form, level, layout):
    bits = 52 if form not in (Form.K4, Form.K16) else 48
    top = (1 << bits) - (1 << level_shift(granule_of(form), level))
    descriptor = address_bits(form, layout, top)
    assert top == output_address(form, layout, descriptor)
    assert descriptor & layout.reserved_mask == 0


def test_address_bits_wrong_alignment():
    with pytest.raises(ValueError, match="Page64K: 0x1000 "):
        address_bits(Form.K64, layout_of(1, Form.K64, 3, EntryKind.LEAF), 0x1000)


def test_52_bit_address_lies_where_the_manual_puts_it():
    page = layout_of(1, Form.K64, 3, EntryKind.LEAF)
    assert address_bits(Form.K64, page, 0xA_1234_5678_0000) == 0x0000_1234_5678_A000
    page = layout_of(1, Form.K4_DS, 3, EntryKind.LEAF)
    assert address_bits(Form.K4_DS, page, 0xA_1234_5678_9000) == 0x0002_1234_5678_9200
