"""Moving a table: the translations stay, the walk reads the copy, and everything that referred to it follows."""

import pytest

from mmu import Access, AddressSpace, Frames, Ram, Rom, arm64, x86
from mmu.arm64.format import Sctlr
from mmu.errors import AlignmentError, BusError
from mmu.types import Translation

VAS = (0x4000_2000, 0x1000_0400_0000, 0x1000_0420_0000)
ELSEWHERE = 0x20_0000


def x86_walk(space, tables, va):
    regs = x86.Registers(cr0=0x8001_0033, cr3=tables.root, cr4=0x20, efer=0xD00)
    return x86.walk(space, regs, va, Access.READ, update=False)


def arm64_walk(space, tables, va):
    regs = arm64.Registers(
        sctlr_el1=Sctlr.make(M=1), tcr_el1=tables.tcr(), ttbr0_el1=tables.root, ttbr1_el1=0, mair_el1=0xFF)
    return arm64.walk(space, regs, va, Access.READ, update=False)


KINDS = {"x86_64": (x86.PageTables, x86_walk), "aarch64": (arm64.PageTables, arm64_walk)}


@pytest.fixture(params=KINDS)
def tree(request):
    """(space, tables with three pages, walk)"""
    space = AddressSpace()
    space.map(0, Ram(4 << 20))
    make, walk = KINDS[request.param]
    tables = make(space, Frames(0x10_0000, 0x11_FFFF))
    for i, va in enumerate(VAS):
        tables.map(va, 0x1_0000 + 0x1000 * i, 0x1000, page_size=0x1000)
    return space, tables, lambda va: walk(space, tables, va)


def test_nodes_are_listed_from_the_root_down_with_who_refers_to_them(tree):
    _, tables, walk = tree
    nodes = tables.nodes()
    assert nodes[0].address == tables.root
    # one root, two tables below it, two below these, and three last-level tables
    assert [len([n for n in nodes if n.level is level]) for level in tables.levels] == [1, 2, 2, 3]
    for va in VAS:
        steps = walk(va).steps
        path = [next(n for n in nodes if n.address == s.address & -4096) for s in steps]
        assert [n.level.number for n in path] == [s.level for s in steps]
        assert [n.references for n in path[1:]] == [((s.address, n.level),) for s, n in zip(steps[:-1], path[:-1])]
        assert path[-1].low == va & -(1 << 21)


@pytest.mark.parametrize("depth", range(4))
def test_a_moved_table_is_walked_where_it_is_now_and_nothing_else_changes(tree, depth):
    space, tables, walk = tree
    before = {va: walk(va) for va in VAS}
    old = before[VAS[1]].steps[depth].address & -4096
    told = []
    tables.invalidate = lambda va, size: told.append((va, size))
    tables.move(old, ELSEWHERE)
    space.write(old, b"\xff" * 4096)  # nobody looks there any more
    for va in VAS:
        found = walk(va)
        assert isinstance(found, Translation) and found == before[va]
        expected = [ELSEWHERE if s.address & -4096 == old else s.address & -4096 for s in before[va].steps]
        assert [s.address & -4096 for s in found.steps] == expected
    assert told == [(0, 1 << 48)]
    assert (tables.root == ELSEWHERE) == (depth == 0)


def test_every_reference_to_a_shared_table_follows(tree):
    space, tables, walk = tree
    shared = walk(VAS[1]).steps[3].address & -4096
    middle = walk(VAS[1]).steps[2]
    space.write(middle.address + 16, space.read(middle.address, 8))  # two entries further: one more path to it
    other = VAS[1] + (2 << 21)
    assert walk(other).pa == walk(VAS[1]).pa
    tables.move(shared, ELSEWHERE)
    for va in (VAS[1], other):
        assert walk(va).steps[3].address & -4096 == ELSEWHERE


def test_a_root_that_refers_to_itself_refers_to_its_copy(tree):
    space, tables, _ = tree
    link = tables.levels[0].table.make(tables.root, {})
    space.write(tables.root + 8 * 255, link.to_bytes(8, "little"))
    old = tables.root
    tables.move(old, ELSEWHERE)
    assert tables.levels[0].table.target(int.from_bytes(space.read(ELSEWHERE + 8 * 255, 8), "little")) == ELSEWHERE
    assert int.from_bytes(space.read(old + 8 * 255, 8), "little") == link


def test_flags_that_a_walker_set_move_along():
    space = AddressSpace()
    space.map(0, Ram(4 << 20))
    tables = x86.PageTables(space, Frames(0x10_0000, 0x11_FFFF))
    tables.map(VAS[0], 0, 0x1000)
    regs = x86.Registers(cr0=0x8001_0033, cr3=tables.root, cr4=0x20, efer=0xD00)
    steps = x86.walk(space, regs, VAS[0], Access.WRITE).steps
    tables.move(steps[3].address & -4096, ELSEWHERE)
    after = x86_walk(space, tables, VAS[0]).steps
    assert [s.flags["A"] for s in after] == [1, 1, 1, 1]
    assert after[3].flags["D"] == 1


def test_what_cannot_be_moved_is_refused_and_nothing_changes(tree):
    _, tables, walk = tree
    before = [walk(va).steps for va in VAS]
    last = before[0][3].address & -4096
    for table, to, error, message in (
        (0x3000, ELSEWHERE, ValueError, "no table at 0x3000"),
        (last, ELSEWHERE + 8, AlignmentError, "multiple"),
        (last, 1 << 52, AlignmentError, "can hold"),
        (last, tables.root, ValueError, f"a table at {tables.root:#x} already"),
        (last, 1 << 40, BusError, "write of 4096 bytes"),
    ):
        with pytest.raises(error, match=message):
            tables.move(table, to)
    assert [walk(va).steps for va in VAS] == before


def test_a_reference_in_rom_cannot_follow():
    ram = AddressSpace()
    ram.map(0, Ram(4 << 20))
    tables = x86.PageTables(ram, Frames(0x10_0000, 0x11_FFFF))
    tables.map(VAS[0], 0, 0x1000)
    space = AddressSpace()
    space.map(0, Ram(4 << 20))
    space.map(0x10_0000, Rom(ram.read(0x10_0000, 0x2_0000)), priority=1)
    fixed = x86.PageTables(space, Frames(0x10_0000, 0x11_FFFF), root=tables.root)
    last = fixed.nodes()[-1].address
    with pytest.raises(BusError, match="cannot be changed"):
        fixed.move(last, ELSEWHERE)
