"""What building and scanning page tables promises about things that are easy to lose."""

import pytest

from mmu import AddressSpace, Frames, Ram, x86

K, M = 1 << 10, 1 << 20
DIRTY, RESERVED_IN_PDE_2M = 1 << 6, 1 << 13


@pytest.fixture
def tables():
    space = AddressSpace()
    space.map(0, Ram(32 * M))
    return x86.PageTables(space, Frames(M, 2 * M - 1), levels=4)


def entry_of(tables, va, depth):
    """Address of the entry of *va*, *depth* levels below the root."""
    table = tables.root
    for shift in (39, 30, 21, 12)[:depth]:
        entry = tables.space.load(table + (va >> shift & 511) * 8, 8)[0]
        table = entry & 0xF_FFFF_FFFF_F000
    return table + (va >> (39, 30, 21, 12)[depth] & 511) * 8


def flip(tables, address, bits):
    tables.space.store(address, 8, tables.space.load(address, 8)[0] ^ bits)


def test_a_merged_page_is_dirty_when_one_of_its_pages_was(tables):
    tables.map(0, 0, 2 * M, page_size=4 * K)
    flip(tables, entry_of(tables, 77 * 4 * K, 3), DIRTY)
    tables.merge(0, 2 * M)
    page = tables.find(0)
    assert (page.size, page.rights["dirty"], page.rights["accessed"]) == (2 * M, 1, 0)


def test_a_table_that_came_from_elsewhere_is_emptied_and_not_given_back(tables):
    given_back = []
    other = x86.PageTables(
        tables.space, Frames(2 * M, 3 * M - 1), levels=4, root=tables.root, free=given_back.append)
    tables.map(0, 0, 4 * K)
    entry = entry_of(tables, 0, 3)
    other.unmap(0, 4 * K)
    assert other.find(0) is None
    assert given_back == []
    assert entry_of(tables, 0, 3) == entry  # the tables above still lead there


def test_a_page_with_a_reserved_bit_is_no_page(tables):
    tables.map(0, 0, 2 * M)
    flip(tables, entry_of(tables, 0, 2), RESERVED_IN_PDE_2M)
    assert tables.find(0) is None
    with pytest.raises(ValueError, match="invalid"):
        tables.unmap(0, 2 * M)


def test_a_scan_ends_with_the_page_of_its_last_byte(tables):
    tables.map(0, 0, 64 * K)
    assert tables.scan(last=8 * K - 1)["va"].tolist() == [0, 4 * K]
    assert tables.scan(last=8 * K)["va"].tolist() == [0, 4 * K, 8 * K]
    assert tables.scan(first=8 * K - 1, last=8 * K - 1)["va"].tolist() == [4 * K]
