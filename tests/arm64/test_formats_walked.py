"""Address formats by hand: granules, 52-bit addresses, small ranges, blocks where they are legal and where not."""

import pytest

from mmu import arm64
from mmu.types import Translation
from tests.arm64.hand import (
    AF,
    BLOCK,
    CONTIGUOUS,
    DS,
    EPD1,
    IPS_52,
    PAGE,
    SH_INNER,
    TABLE,
    R,
    bits,
    el1,
    four_levels,
    memory,
    status,
)  # fmt: skip

HIGH = 0xA_0000_0000_0000  # PA[51:48] = 0b1010


def test_4k_page_through_four_levels(engine):
    words, regs = four_levels(0x1234_5000 | PAGE | AF)
    found = arm64.walk(memory(words), regs, 0x12_3456_7ABC, R, engine=engine)
    assert isinstance(found, Translation)
    assert (found.pa, found.page_size) == (0x1234_5ABC, 4096)
    assert [s.name for s in found.steps] == ["L0 table", "L1 table", "L2 table", "L3 page"]
    assert [s.address for s in found.steps] == [0x1000, 0x2000 + 8 * 0x48, 0x3000 + 8 * 0x1A2, 0x4000 + 8 * 0x167]


def test_16k_page_through_four_levels_of_which_the_first_has_two_entries(engine):
    va = 0x8765_4321_9ABC
    words = {
        0x4000 + 8 * 1: 0x8000 | TABLE,
        0x8000 + 8 * bits(va, 46, 36): 0xC000 | TABLE,
        0xC000 + 8 * bits(va, 35, 25): 0x1_0000 | TABLE,
        0x1_0000 + 8 * bits(va, 24, 14): 0x4000_8000 | PAGE | AF,
    }
    found = arm64.walk(memory(words), el1("16K", 16, 0x4000), va, R, engine=engine)
    assert (found.pa, found.page_size) == (0x4000_9ABC, 16384)


def test_64k_page_through_three_levels(engine):
    va = 0x8765_4321_9ABC
    words = {
        0x1_0000 + 8 * bits(va, 47, 42): 0x2_0000 | TABLE,
        0x2_0000 + 8 * bits(va, 41, 29): 0x3_0000 | TABLE,
        0x3_0000 + 8 * bits(va, 28, 16): 0x4321_0000 | PAGE | AF,
    }
    found = arm64.walk(memory(words), el1("64K", 16, 0x1_0000), va, R, engine=engine)
    assert (found.pa, found.page_size) == (0x4321_9ABC, 65536)


def test_64k_52_bit_virtual_and_physical_addresses(engine):
    """FEAT_LVA, FEAT_LPA: VA[51:42] at level 1, PA[51:48] in bits 15:12, TTBR bits 5:2 are table address bits 51:48."""
    va = 0xF_8765_4321_9ABC
    table = HIGH + 0x1_0000
    words = {
        table + 8 * bits(va, 51, 42): 0x2_0000 | 0xA << 12 | TABLE,
        HIGH + 0x2_0000 + 8 * bits(va, 41, 29): 0x3_0000 | 0xA << 12 | TABLE,
        HIGH + 0x3_0000 + 8 * bits(va, 28, 16): 0x5_4321_0000 | 0xC << 12 | PAGE | AF,
    }
    regs = el1("64K", 12, 0x1_0000 | 0xA << 2, IPS_52, pa_range=52)
    found = arm64.walk(memory(words, HIGH), regs, va, R, engine=engine)
    assert found.pa == 0xC_0005_4321_9ABC


def test_64k_52_bit_form_is_off_below_a_52_bit_parange(engine):
    """Bits 15:12 are then ignored, as are TTBR bits 5:2."""
    words = {0x1_0000: 0x2_F000 | TABLE, 0x2_0000: 0x3_F000 | TABLE, 0x3_0000: 0x4_F000 | PAGE | AF}
    regs = el1("64K", 16, 0x1_0000 | 0xF << 2, IPS_52, pa_range=48)
    assert status(memory(words), regs, 0, R, engine) == ("", 3, 0x4_0000)


def test_4k_52_bit_addresses_begin_at_level_minus_1(engine):
    """FEAT_LPA2: VA[51:48] at level -1; PA[49:48] in bits 49:48, PA[51:50] in bits 9:8; shareability from TCR.SH0."""
    va = 0xF_8765_4321_9ABC
    far = 2 << 48 | 2 << 8  # PA[51:48] = 0b1010
    words = {
        HIGH + 0x1000 + 8 * 0xF: 0x2000 | far | TABLE,
        HIGH + 0x2000 + 8 * bits(va, 47, 39): 0x3000 | far | TABLE,
        HIGH + 0x3000 + 8 * bits(va, 38, 30): 0x4000 | far | TABLE,
        HIGH + 0x4000 + 8 * bits(va, 29, 21): 0x5000 | far | TABLE,
        HIGH + 0x5000 + 8 * bits(va, 20, 12): 0x7_1234_5000 | 3 << 48 | 1 << 8 | PAGE | AF,
    }
    regs = el1("4K", 12, 0x1000 | 0xA << 2, IPS_52 | DS | 3 << 12, pa_range=52, mair_el1=0xFF)
    found = arm64.walk(memory(words, HIGH), regs, va, R, engine=engine)
    assert found.pa == 0x7_0007_1234_5ABC
    assert found.attributes["sh"] == 3
    assert [s.level for s in found.steps] == [-1, 0, 1, 2, 3]


def test_16k_52_bit_addresses_begin_at_level_0_with_32_entries(engine):
    va = 0xF_8765_4321_9ABC
    far = 2 << 48 | 2 << 8
    words = {
        HIGH + 0x4000 + 8 * bits(va, 51, 47): 0x8000 | far | TABLE,
        HIGH + 0x8000 + 8 * bits(va, 46, 36): 0xC000 | far | TABLE,
        HIGH + 0xC000 + 8 * bits(va, 35, 25): 0x1_0000 | far | TABLE,
        HIGH + 0x1_0000 + 8 * bits(va, 24, 14): 0x7_1234_4000 | 1 << 48 | 3 << 8 | PAGE | AF,
    }
    regs = el1("16K", 12, 0x4000 | 0xA << 2, IPS_52 | DS, pa_range=52)
    found = arm64.walk(memory(words, HIGH), regs, va, R, engine=engine)
    assert found.pa == 0xD_0007_1234_5ABC


# Granule, T0SZ, the bits of the VA that the one table resolves, the alignment of the table that follows from it.
SMALL = [
    ("4K", 48, (15, 12), 0x80),
    ("4K", 39, (24, 21), 0x80),
    ("4K", 43, (20, 12), 0x1000),
    ("16K", 48, (15, 14), 0x20),
    ("64K", 47, (16, 16), 0x10),
    ("16K", 39, (24, 14), 0x4000),
]


@pytest.mark.parametrize("granule,t0sz,index,align", SMALL)
def test_small_ranges_begin_at_a_late_level_with_a_small_table(engine, granule, t0sz, index, align):
    va = (1 << 64 - t0sz) - 8  # the last entry
    table = 0x10_0000 + align
    page = {12: PAGE, 14: PAGE, 16: PAGE, 21: BLOCK}[index[1]]
    words = {table + 8 * bits(va, *index): 0x8000_0000 | page | AF}
    regs = el1(granule, t0sz, table + align // 2)  # a base in the middle is rounded down
    level = 2 if page == BLOCK else 3
    assert ("", level, 0x8000_0000 + (va & (1 << index[1]) - 1)) == status(memory(words), regs, va, R, engine)
    assert status(memory(words), regs, 1 << 64 - t0sz, R, engine) == ("NOT_PRESENT", 0, 0x9600_0004)


def test_small_range_of_the_upper_half(engine):
    words = {0x1080: 0x8000_0000 | PAGE | AF}
    tcr = 48 << 16 | 2 << 30 | 1 << 7 | 5 << 32
    regs = arm64.Registers(sctlr_el1=1, tcr_el1=tcr, ttbr1_el1=0x1080)
    assert status(memory(words), regs, 0xFFFF_FFFF_FFFF_0008, R, engine) == ("", 3, 0x8000_0008)
    assert status(memory(words), regs, 0xFFFF_FFFF_FFFE_0008, R, engine) == ("NOT_PRESENT", 0, 0x9600_0004)


# Granule, T0SZ, further TCR bits, PARange, level of the entry, its size in bits, whether a block is legal there.
BLOCKS = [
    ("4K", 12, DS | IPS_52, 52, -1, 48, False),
    ("4K", 16, 0, 48, 0, 39, False),
    ("4K", 16, DS | IPS_52, 52, 0, 39, True),
    ("4K", 16, 0, 48, 1, 30, True),
    ("4K", 16, 0, 48, 2, 21, True),
    ("4K", 16, 0, 48, 3, 12, False),
    ("16K", 16, 0, 48, 0, 47, False),
    ("16K", 12, DS | IPS_52, 52, 0, 47, False),
    ("16K", 16, 0, 48, 1, 36, False),
    ("16K", 16, DS | IPS_52, 52, 1, 36, True),
    ("16K", 16, 0, 48, 2, 25, True),
    ("16K", 16, 0, 48, 3, 14, False),
    ("64K", 16, 0, 48, 1, 42, False),
    ("64K", 16, IPS_52, 52, 1, 42, True),
    ("64K", 16, 0, 48, 2, 29, True),
    ("64K", 16, 0, 48, 3, 16, False),
]


@pytest.mark.parametrize("granule,t0sz,more,pa_range,level,shift,legal", BLOCKS)
def test_blocks_are_legal_at_some_levels_only(engine, granule, t0sz, more, pa_range, level, shift, legal):
    page = {"4K": 0x1000, "16K": 0x4000, "64K": 0x1_0000}[granule]
    start = {("4K", 12): -1, ("4K", 16): 0, ("16K", 12): 0, ("16K", 16): 0, ("64K", 16): 1}[granule, t0sz]
    words = {page * (n + 1): page * (n + 2) | TABLE for n in range(level - start)}
    words[page * (level - start + 1)] = 1 << shift if shift < 48 else 0
    words[page * (level - start + 1)] |= BLOCK | AF
    regs = el1(granule, t0sz, page, more, pa_range=pa_range)
    fsc = 0x2B if level < 0 else 4 | level
    expected = ("", level, 1 << shift | 0x123) if legal else ("NOT_PRESENT", level, 0x9600_0000 | fsc)
    assert expected == status(memory(words), regs, 0x123, R, engine)


def test_block_ignores_the_address_bits_below_its_size(engine):
    words = {0x1000: 0x2000 | TABLE, 0x2000: 0x4000_0000 | 0x3FFF_F000 | BLOCK | AF}
    assert status(memory(words), el1("4K", 16, 0x1000), 0x123, R, engine) == ("", 1, 0x4000_0123)


@pytest.mark.parametrize("kind", (0b00, 0b10))
@pytest.mark.parametrize("level", range(4))
def test_entry_without_bit_0_is_a_translation_fault_of_its_level(engine, level, kind):
    words = {0x1000 * (n + 1): 0x1000 * (n + 2) | TABLE for n in range(level)}
    words[0x1000 * (level + 1)] = 0x9000 | AF | kind
    assert ("NOT_PRESENT", level, 0x9600_0004 | level) == status(
        memory(words), el1("4K", 16, 0x1000), 0, R, engine
    )


# Granule, VTCR-independent: the leaf's level and how many bytes the Contiguous bit spans there.
RUNS = [
    ("4K", 0, DS, 39, 0), ("4K", 1, 0, 30, 16 << 30), ("4K", 2, 0, 21, 32 << 20), ("4K", 3, 0, 12, 64 << 10),
    ("16K", 1, DS, 36, 0), ("16K", 2, 0, 25, 1 << 30), ("16K", 3, 0, 14, 2 << 20),
    ("64K", 1, 0, 42, 0), ("64K", 2, 0, 29, 16 << 30), ("64K", 3, 0, 16, 2 << 20),
]  # fmt: skip


@pytest.mark.parametrize("granule,level,ds,shift,span", RUNS)
def test_contiguous_bit_is_reported_and_changes_nothing_else(engine, granule, level, ds, shift, span):
    page = {"4K": 0x1000, "16K": 0x4000, "64K": 0x1_0000}[granule]
    start = 1 if granule == "64K" else 0
    words = {page * (n + 1): page * (n + 2) | TABLE for n in range(level - start)}
    at = page * (level - start + 1)
    words[at] = 1 << shift | AF | CONTIGUOUS | (PAGE if level == 3 else BLOCK)
    regs = el1(granule, 16, page, IPS_52 | ds, pa_range=52)
    found = arm64.walk(memory(words), regs, 0, R, engine=engine)
    assert (1 << shift, 1 << shift) == (found.pa, found.page_size)
    assert span == found.attributes["contiguous"]


def test_output_address_beyond_ips_is_an_address_size_fault_of_its_level(engine):
    ips_36 = EPD1 | 16 | 1 << 32
    regs = arm64.Registers(sctlr_el1=1, tcr_el1=ips_36, ttbr0_el1=0x1000)
    far = 1 << 36
    chain = [0x2000 | TABLE, 0x3000 | TABLE, 0x4000 | TABLE, 0x5000 | PAGE | AF]
    for level in range(4):
        words = {0x1000 * (n + 1): entry | (far if n == level else 0) for n, entry in enumerate(chain)}
        assert ("ADDRESS_SIZE", level, 0x9600_0000 | level) == status(memory(words), regs, 0, R, engine)


def test_output_address_beyond_parange_is_an_address_size_fault(engine):
    words, regs = four_levels(1 << 40 | PAGE | AF, va=0)
    assert status(memory(words), regs, 0, R, engine) == ("", 3, 1 << 40)
    narrow = el1("4K", 16, 0x1000, pa_range=40)
    assert status(memory(words), narrow, 0, R, engine) == ("ADDRESS_SIZE", 3, 0x9600_0003)


def test_table_base_beyond_ips_is_an_address_size_fault_at_level_0(engine):
    regs = arm64.Registers(sctlr_el1=1, tcr_el1=EPD1 | 16 | 0 << 32, ttbr0_el1=1 << 32)
    assert status(memory({}), regs, 0, R, engine) == ("ADDRESS_SIZE", 0, 0x9600_0000)


def test_address_size_fault_at_level_minus_1_has_its_own_code(engine):
    words = {0x1000: 0x2000 | 2 << 48 | TABLE}
    regs = el1("4K", 12, 0x1000, DS, pa_range=52)  # IPS: 48 bits
    assert status(memory(words), regs, 0, R, engine) == ("ADDRESS_SIZE", -1, 0x9600_0029)


def test_shareability_of_device_and_non_cacheable_memory_is_outer(engine):
    for index, attr, sh in ((0, 0x04, 2), (1, 0x44, 2), (2, 0xFF, 3)):
        words, _ = four_levels(0x5000 | PAGE | AF | SH_INNER | index << 2, va=0)
        regs = el1("4K", 16, 0x1000, mair_el1=0xFF_44_04)
        found = arm64.walk(memory(words), regs, 0, R, engine=engine).attributes
        assert (found["attr_index"], found["attr"], found["sh"]) == (index, attr, sh)


def test_big_endian_tables(engine):
    words, regs = four_levels(0x1234_5000 | PAGE | AF, va=0)
    swapped = {at: int.from_bytes(w.to_bytes(8, "little"), "big") for at, w in words.items()}
    big = arm64.Registers(sctlr_el1=1 | 1 << 25, tcr_el1=regs.tcr_el1, ttbr0_el1=0x1000)
    found = arm64.walk(memory(swapped), big, 0, R, engine=engine)
    assert found.pa == 0x1234_5000
    assert words == {s.address: s.value for s in found.steps}
