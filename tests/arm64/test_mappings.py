"""arm64.scan: both ranges, both stages, single-range regimes, and tables that nobody can use."""

import pytest

from mmu import AddressSpace, Frames, Ram, arm64
from mmu.scan import Flag
from tests import pagetables as raw

K, M, G = 1 << 10, 1 << 20, 1 << 30
TABLES = 0x10_0000
PRIVILEGED = Flag.READ | Flag.WRITE | Flag.FETCH | Flag.GLOBAL | Flag.ACCESSED


@pytest.fixture
def space():
    space = AddressSpace()
    space.map(0, Ram(16 * M))
    return space


@pytest.fixture
def frames():
    return Frames(TABLES, 8 * TABLES - 1)


def test_both_ranges(space, frames):
    lower, upper = arm64.PageTables(space, frames, va_bits=39), arm64.PageTables(space, frames)
    lower.map(4 * K, 8 * K, 4 * K, user=True, writable=False)
    upper.map((1 << 64) - 2 * M, 2 * M, 2 * M)
    tcr = 25 | 16 << 16 | 2 << 30 | 5 << 32
    regs = arm64.Registers(sctlr_el1=1, tcr_el1=tcr, ttbr0_el1=lower.root, ttbr1_el1=upper.root)
    low = (4 * K, 8 * K, 4 * K, PRIVILEGED & ~Flag.WRITE | Flag.USER | Flag.USER_FETCH)
    high = ((1 << 64) - 2 * M, 2 * M, 2 * M, PRIVILEGED)
    assert [low, high] == arm64.scan(space, regs).tolist()
    assert [low] == arm64.scan(space, regs, upper=False).tolist() == lower.scan().tolist()
    assert [high] == arm64.scan(space, regs, upper=True).tolist() == upper.scan().tolist()
    assert [low, high] == [r for b in arm64.scan_batches(space, regs) for r in b.tolist()]


def test_what_el0_may_write_el1_does_not_execute(space, frames):
    tables = arm64.PageTables(space, frames)
    tables.map(0, 0, 4 * K, user=True)
    assert tables.scan()["flags"].tolist() == [PRIVILEGED & ~Flag.FETCH | Flag.USER | Flag.USER_FETCH]


READ_ONLY = PRIVILEGED & ~Flag.WRITE | Flag.USER | Flag.USER_FETCH


@pytest.mark.parametrize("bits, table, plain, less", [
    (raw.AP_EL0 | raw.AP_RO, 1 << 59, READ_ONLY, READ_ONLY & ~Flag.FETCH),
    (raw.AP_EL0 | raw.AP_RO, 1 << 60, READ_ONLY, READ_ONLY & ~Flag.USER_FETCH),
    (raw.AP_EL0 | raw.AP_RO, 1 << 61, READ_ONLY, READ_ONLY & ~Flag.USER),
    (raw.AP_EL0, 1 << 62, READ_ONLY & ~Flag.FETCH | Flag.WRITE, READ_ONLY),
])  # fmt: skip
def test_table_attributes_take_away_unless_they_are_disabled(space, bits, table, plain, less):
    image = raw.arm64([(0, 0, 4 * K, raw.AF | bits)], base=TABLES, va_bits=39)
    image.set_entry(TABLES, image.entry(TABLES) | table)
    root = image.load(space)
    for hpd, want in ((0, less), (1, plain)):
        regs = arm64.Registers(sctlr_el1=1, tcr_el1=25 | 1 << 23 | hpd << 41, ttbr0_el1=root)
        assert [want] == arm64.scan(space, regs)["flags"].tolist()


def test_stage_2(space, frames):
    tables = arm64.Stage2Tables(space, frames, ipa_bits=42, start_level=1)
    tables.map((1 << 42) - G, G, G, writable=False)
    tables.map(0, 0, 4 * K, executable=False)
    regs = arm64.Registers(hcr_el2=1, vtcr_el2=22 | 1 << 6 | 5 << 16, vttbr_el2=tables.root)
    data = (0, 0, 4 * K, Flag.READ | Flag.WRITE | Flag.ACCESSED)
    code = ((1 << 42) - G, G, G, Flag.READ | Flag.FETCH | Flag.USER_FETCH | Flag.ACCESSED)
    assert [data, code] == arm64.scan(space, regs, stage=2).tolist() == tables.scan().tolist()
    with pytest.raises(ValueError, match="intermediate physical"):
        arm64.scan(space, regs)


def test_single_range(space, frames):
    tables = arm64.SingleRangeTables(space, frames, va_bits=39)
    tables.map(0, 0, 4 * K, writable=False)
    regs = arm64.Registers(el=2, sctlr_el2=1, tcr_el2=25 | 5 << 16, ttbr0_el2=tables.root)
    assert arm64.scan(space, regs).tolist() == [(0, 0, 4 * K, Flag.READ | Flag.FETCH | Flag.ACCESSED)]
    assert tables.scan().tolist() == arm64.scan(space, regs).tolist()


def test_52_bit_addresses(space):
    frames = Frames(TABLES, 8 * TABLES - 1, 64 * K)
    tables = arm64.PageTables(space, frames, 64 * K, 52, pa_bits=52)
    tables.map(0, 0xF_0000_0001_0000, 64 * K)
    assert tables.scan()["pa"].tolist() == [0xF_0000_0001_0000]
    regs = arm64.Registers(sctlr_el1=1, tcr_el1=12 | 1 << 14 | 1 << 23 | 6 << 32, ttbr0_el1=tables.root, pa_range=52)
    assert arm64.scan(space, regs)["pa"].tolist() == [0xF_0000_0001_0000]


def test_an_address_that_is_too_large_maps_nothing(space):
    image = raw.arm64([(0, 1 << 40, 4 * K, raw.AF), (4 * K, 0, 4 * K, raw.AF)], base=TABLES, va_bits=39)
    regs = arm64.Registers(sctlr_el1=1, tcr_el1=25 | 1 << 23 | 2 << 32, ttbr0_el1=image.load(space))
    assert arm64.scan(space, regs)["va"].tolist() == [4 * K]
    assert arm64.scan(space, regs, on_error="report")["va"].tolist() == [0, 4 * K]


def test_big_endian_tables(space):
    image = raw.arm64([(0, 0x5000, 4 * K, raw.AF)], base=TABLES, va_bits=39)
    for page in image.pages.values():
        page[:] = b"".join(bytes(page[i : i + 8])[::-1] for i in range(0, 4096, 8))
    regs = arm64.Registers(sctlr_el1=1 | 1 << 25, tcr_el1=25 | 1 << 23, ttbr0_el1=image.load(space))
    assert arm64.scan(space, regs)["pa"].tolist() == [0x5000]


def test_nothing_to_scan(space):
    with pytest.raises(ValueError, match="stage 1 of EL1&0 is off"):
        arm64.scan(space, arm64.Registers())
    with pytest.raises(ValueError, match="stage must be 1, or 2 where it is on"):
        arm64.scan(space, arm64.Registers(), stage=2)
