"""The arm64 builder: what it writes, by granule and stage, and what it refuses."""

import pytest

from mmu import Access, AddressSpace, Frames, Ram, arm64
from mmu.errors import AlignmentError
from tests import pagetables as raw

K, M, G, T = 1 << 10, 1 << 20, 1 << 30, 1 << 40
TABLES = 0x10_0000


@pytest.fixture
def space():
    space = AddressSpace()
    space.map(0, Ram(16 * M))
    return space


def frames_of(size):
    return Frames(TABLES, 16 * TABLES - 1, size)


def in_memory(space, frames):
    return space.read(TABLES, frames.used * frames.size)


@pytest.mark.parametrize("granule, size, va_bits", [
    (4 * K, 4 * K, 48), (4 * K, 2 * M, 48), (4 * K, G, 48), (4 * K, 4 * K, 39), (4 * K, 2 * M, 36), (4 * K, 4 * K, 25),
    (16 * K, 16 * K, 48), (16 * K, 32 * M, 47), (16 * K, 16 * K, 36),
    (64 * K, 64 * K, 48), (64 * K, 512 * M, 42), (64 * K, 64 * K, 52),
])  # fmt: skip
def test_one_page_is_what_the_manual_says(space, granule, size, va_bits):
    frames = frames_of(granule)
    va, pa = (1 << va_bits) - size, 13 << 30 if size <= G else size
    tables = arm64.PageTables(space, frames, granule, va_bits)
    tables.map(va, pa, size, writable=False, user=True, executable=False)

    bits = raw.AF | raw.SH_INNER | raw.AP_RO | raw.AP_EL0 | raw.PXN | raw.UXN
    want = raw.arm64([(va, pa, size, bits)], base=TABLES, granule=granule, va_bits=va_bits)
    assert (want.root, b"".join(want.pages.values())) == (tables.root, in_memory(space, frames))


@pytest.mark.parametrize("rights, bits", [
    ({}, raw.UXN),
    ({"user": True}, raw.AP_EL0),
    ({"executable": False}, raw.PXN | raw.UXN),
    ({"user": True, "executable": False}, raw.AP_EL0 | raw.PXN | raw.UXN),
    ({"user": True, "pxn": 1}, raw.AP_EL0 | raw.PXN),
    ({"writable": False}, raw.AP_RO | raw.UXN),
    ({"attr_index": 5, "not_global": 1}, 5 << 2 | raw.NG | raw.UXN),
    ({"dbm": 1, "guarded": 1}, 1 << 51 | 1 << 50 | raw.UXN),
])  # fmt: skip
def test_keywords_set_their_fields(space, rights, bits):
    tables = arm64.PageTables(space, frames_of(4 * K), va_bits=39)
    tables.map(0, 0x5000, 4 * K, **rights)
    assert 0x5000 | raw.VALID | raw.TABLE | raw.AF | raw.SH_INNER | bits == space.load(TABLES + 0x2000, 8)[0]


def test_protect_executable_depends_on_user(space):
    tables = arm64.PageTables(space, frames_of(4 * K))
    tables.map(0, 0, 4 * K, user=True, executable=False)
    tables.protect(0, 4 * K, executable=True)
    assert (tables.find(0).rights["pxn"], tables.find(0).rights["uxn"]) == (0, 0)
    tables.protect(0, 4 * K, writable=False)
    assert tuple(tables.find(0).rights[name] for name in ("writable", "pxn", "uxn")) == (0, 0, 0)


def test_52_bit_forms_hold_the_whole_address(space):
    lpa = arm64.PageTables(space, frames_of(64 * K), 64 * K, 52, pa_bits=52)
    lpa.map(0, 0xF_0000_0001_0000, 64 * K)
    assert lpa.find(0).pa == 0xF_0000_0001_0000
    lpa.map(4 * T, 8 * T | 5 << 48, 4 * T)
    assert (lpa.find(4 * T).size, lpa.find(4 * T).pa) == (4 * T, 8 * T | 5 << 48)
    lpa2 = arm64.PageTables(space, frames_of(4 * K), 4 * K, 52, pa_bits=52)
    lpa2.map(512 * G, 3 << 50, 512 * G)
    assert (lpa2.levels[0].number, lpa2.find(512 * G).size, lpa2.find(512 * G).pa) == (-1, 512 * G, 3 << 50)
    with pytest.raises(TypeError, match="'shareability' is not a right"):
        lpa2.map(0, 0, 4 * K, shareability=2)


def test_the_first_address_decides_the_range(space):
    tables = arm64.PageTables(space, frames_of(4 * K))
    tables.map(0xFFFF_0000_0000_0000, 0, 4 * K)
    with pytest.raises(ValueError, match="0x0 is not in the upper range of 48-bit addresses"):
        tables.map(0, 0, 4 * K)
    with pytest.raises(ValueError, match=r"0xffff000000000000\.\.0xffff000000000fff cannot be mapped"):
        tables.map(0xFFFF_0000_0000_0000, 4 * K, 4 * K)


@pytest.mark.parametrize("arguments, says", [
    ({"va": 1 << 48, "pa": 0, "size": 4 * K}, "0x1000000000000 is not in the lower or upper range of 48-bit addresses"),
    ({"va": (1 << 48) - 4 * K, "pa": 0, "size": 8 * K}, "is not in the lower or upper range"),
    ({"va": 0, "pa": 1 << 40, "size": 4 * K}, "physical addresses must be in 0..0xffffffffff, not 0x10000000000"),
    ({"va": 0, "pa": 0, "size": 4 * K, "page_size": 64 * K}, "one of 0x40000000, 0x200000, 0x1000 bytes, not 0x10000"),
    ({"va": 0, "pa": 0, "size": 4 * K, "attr_index": 8}, "ATTRINDX: 0x8 does not fit in 3 bits"),
])  # fmt: skip
def test_map_wrong_arguments(space, arguments, says):
    frames = frames_of(4 * K)
    tables = arm64.PageTables(space, frames, pa_bits=40)
    with space.trace() as entries, pytest.raises(ValueError, match=says):
        tables.map(**arguments)
    assert (frames.used, entries) == (1, [])


@pytest.mark.parametrize("arguments, says", [
    ({"granule": 8 * K}, "granule must be one of"),
    ({"va_bits": 49, "granule": 64 * K, "pa_bits": 47}, "pa_bits must be one of"),
    ({"va_bits": 53}, "addresses must have 16 to 52 bits"),
    ({"va_bits": 15}, "addresses must have 16 to 48 bits"),
    ({"granule": 64 * K}, "a table needs a frame of 0x10000 bytes, not 0x1000"),
])  # fmt: skip
def test_wrong_geometry(space, arguments, says):
    with pytest.raises(ValueError, match=says):
        arm64.PageTables(space, frames_of(4 * K), **arguments)


def test_break_before_make(space):
    seen = []
    frames = frames_of(4 * K)
    note = lambda va, size: seen.append((va, size, tables.find(va)))  # noqa: E731
    tables = arm64.PageTables(space, frames, va_bits=39, invalidate=note)
    tables.map(0, 0, 2 * M)
    with space.trace() as entries:
        tables.protect(0, 4 * K, writable=False)
    block = TABLES + 0x1000
    stores = [e.value & 3 for e in entries if e.kind == "write" and e.address == block]
    assert stores == [0, 3]
    assert seen[0] == (0, 2 * M, None)
    assert seen[1][:2] == (0, 4 * K)


def test_single_range(space):
    tables = arm64.SingleRangeTables(space, frames_of(4 * K), va_bits=39)
    tables.map(0, 0, 4 * K, executable=False, writable=False)
    assert space.load(TABLES + 0x2000, 8)[0] == 1 << 54 | raw.AF | raw.SH_INNER | raw.AP_RO | raw.AP_EL0 | 3


def test_stage2_concatenates_tables(space):
    frames = Frames(TABLES + 4 * K, 2 * TABLES)
    tables = arm64.Stage2Tables(space, frames, ipa_bits=42, start_level=1)
    tables.map((1 << 42) - G, 0, G, writable=False, executable=False)
    assert (frames.used, tables.root % (8 * 4 * K)) == (8, 0)
    assert space.load(tables.root + 8 * 4096 - 8, 8)[0] == 2 << 53 | raw.AF | raw.SH_INNER | 1 << 6 | 15 << 2 | 1
    with pytest.raises(ValueError, match="level 2 cannot resolve"):
        arm64.Stage2Tables(space, frames, ipa_bits=42, start_level=2)
    given = iter([TABLES * 2, TABLES * 3])
    with pytest.raises(AlignmentError, match="2 frames in a row"):
        arm64.Stage2Tables(space, lambda: next(given, TABLES * 4), ipa_bits=40, start_level=1)


HINT = 1 << 52


def hints(space, table, count):
    return [index for index in range(count) if space.load(table + 8 * index, 8)[0] & HINT]


def test_the_contiguous_hint_stays_on_whole_runs(space):
    tables = arm64.PageTables(space, frames_of(4 * K), va_bits=39)
    tables.map(0x8000, 0x8000, 40 * 4 * K, contiguous=True)  # entries 8..47: runs 16..31 and 32..47 are whole
    table = TABLES + 0x2000
    assert list(range(16, 48)) == hints(space, table, 64)
    tables.protect(0x14000, 4 * K, writable=False)
    assert list(range(32, 48)) == hints(space, table, 64)
    tables.unmap(0x2F000, 4 * K)
    assert hints(space, table, 64) == []
    tables.map(0x2F000, 0x2F000, 4 * K, contiguous=True)
    assert hints(space, table, 64) == []  # its neighbours say nothing


def test_the_contiguous_hint_needs_an_aligned_target(space):
    tables = arm64.PageTables(space, frames_of(4 * K), va_bits=39)
    tables.map(0, 0x1000, 64 * K, contiguous=True)
    assert hints(space, TABLES + 0x2000, 64) == []


@pytest.mark.parametrize("granule, page, run", [(4 * K, 2 * M, 16), (16 * K, 16 * K, 128), (64 * K, 64 * K, 32)])
def test_the_contiguous_run_by_granule(space, granule, page, run):
    tables = arm64.PageTables(space, frames_of(granule), granule)
    tables.map(0, 0, run * page, contiguous=True)
    assert all(tables.find(n * page).rights["contiguous"] for n in range(run))
    tables.unmap(0, granule)
    assert not any(tables.find(n * page).rights["contiguous"] for n in range(1, run))


@pytest.mark.parametrize("granule, va_bits, pa_bits", [
    (4 * K, 39, 40), (16 * K, 47, 48), (64 * K, 52, 52), (4 * K, 52, 52),
])  # fmt: skip
@pytest.mark.parametrize("upper", [False, True])
def test_registers_that_select_the_tables(space, granule, va_bits, pa_bits, upper):
    tables = arm64.PageTables(space, frames_of(granule), granule, va_bits, pa_bits=pa_bits, upper=upper)
    va = -granule % (1 << 64) if upper else 0
    tables.map(va, granule, granule)
    base = {"ttbr1_el1" if upper else "ttbr0_el1": tables.ttbr(asid=7)}
    regs = arm64.Registers(sctlr_el1=1, tcr_el1=tables.tcr() | 1 << (7 if upper else 23), pa_range=pa_bits, **base)
    assert granule == arm64.walk(space, regs, va, Access.READ).pa


@pytest.mark.parametrize("granule, ipa_bits, pa_bits, start", [
    (4 * K, 40, 40, 1), (4 * K, 48, 48, None), (16 * K, 40, 48, 2), (64 * K, 48, 48, None), (4 * K, 52, 52, None),
])  # fmt: skip
def test_registers_that_select_stage_2_tables(space, granule, ipa_bits, pa_bits, start):
    tables = arm64.Stage2Tables(space, frames_of(granule), granule, ipa_bits, pa_bits=pa_bits, start_level=start)
    ipa = (1 << ipa_bits) - granule
    tables.map(ipa, granule, granule)
    regs = arm64.Registers(hcr_el2=1, vtcr_el2=tables.vtcr(), vttbr_el2=tables.vttbr(3), pa_range=pa_bits)
    assert granule == arm64.walk(space, regs, ipa, Access.READ).pa
    assert [ipa] == arm64.scan(space, regs, stage=2)["va"].tolist()
