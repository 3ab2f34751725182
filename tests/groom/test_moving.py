"""Moving to RAM: the program computes the same, no walk reads a window any more, and what referred to it follows."""

import pytest

from cxl import Topology
from cxl.examples import NAMES, find
from cxl.groom import migrate, plan_moves, survey
from cxl.job import Job
from mmu import Access, AddressSpace, Frames, Ram, Rom, Translation, arm64, x86
from mmu.errors import AddressRangeError, BusError
from mmu.guest.trees import trees
from tests.groom.machines import DATA, MIB, REGION, ROOTS, groomed, guest
from tests.guest.machines import ARCHS

PAGE = 4096
PLACES = [
    {},
    {"code": "ram", "data": "ram", "stack": "ram"},
    {"tables": "ram"},
    {"tables": "ram", "code": "ram", "data": "ram", "stack": "ram"},
]


def walk(machine, va, access=Access.READ):
    registers = machine.walk_registers()
    return (x86 if isinstance(registers, x86.Registers) else arm64).walk(
        machine.space, registers, va, access, update=False)


@pytest.mark.parametrize("places", PLACES, ids=lambda p: ",".join(p) or "window")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arch", ARCHS)
def test_after_it_the_program_computes_the_same_and_no_walk_reads_a_window(arch, name, places):
    with guest(arch, program=find(name, arch), **places) as job:
        found = groomed(job)
        assert (found.differences, found.left, found.after.result.counters.tables) == ([], 0, {})
        assert found.after.result.counters.code == {}
        registers = [{n: v for n, v in s.result.registers.items() if n != ROOTS[arch]}
                     for s in (found.before, found.after)]  # fmt: skip
        assert registers[0] == registers[1]
        assert bool(found.moves) == (set(places.values()) != {"ram"} or len(places) < 4)
        for va in (job.machine.plan.code.va, job.machine.plan.data.va):
            steps = walk(job.machine, va).steps
            assert len(steps) == 4 and not any(step.place.device for step in steps)


@pytest.mark.parametrize("arch", ARCHS)
def test_only_what_is_asked_for_moves(arch):
    for kinds in (["tables"], ["code"]):
        with guest(arch, program=find("checksum", arch)) as job:
            found = groomed(job, kinds=kinds)
            assert (found.differences, found.left) == ([], 0)
            assert {f.kind for f in found.after.in_windows} == {"tables", "code"} - set(kinds)


def test_a_program_that_knows_where_its_tables_are_is_told_from_one_that_does_not():
    with guest(source="mov rax, cr3; mov [rdi+4096], rax") as job:
        found = groomed(job)
        before, after = (s.result.registers["rax"] for s in (found.before, found.after))
        assert found.differences == [
            f"rax: {before:#x} before, {after:#x} after", "page 0x100004001000: other contents",
        ]  # fmt: skip


def test_a_program_that_ends_elsewhere_is_told():
    with guest(source="mov rax, cr3; shr rax, 32; jz 1f; nop; hlt; 1: nop; nop") as job:
        found = groomed(job)
        assert any(line.startswith("stop: halt at ") for line in found.differences)


def test_a_buffer_moves_in_one_piece_with_what_is_in_it():
    with guest(program=find("checksum", "x86_64"), tables="ram", code="ram") as job:
        job.space.write(DATA + 0x8100, b"payload" * 1000)
        found = groomed(job, dma=[(DATA + 0x8100, 7000)])
        (move,) = found.moves
        assert (move.base, move.size) == (DATA + 0x8000, 2 * PAGE)
        (buffer,) = [f for f in found.after.found if f.kind == "dma"]
        assert (buffer.base, buffer.size, buffer.shares) == (move.to + 0x100, 7000, {})
        assert job.space.read(buffer.base, 7000) == b"payload" * 1000
        assert walk(job.machine, job.machine.plan.data.va + 0x8000).pa == move.to
        assert found.differences == []


def test_every_alias_of_a_page_follows():
    with guest(program=b"\xf4", data="ram", stack="ram") as job:
        m = job.machine
        alias = 0x5000_0000_0000
        m.tables.map(alias, m.plan.code.base, PAGE, page_size=PAGE, executable=False)
        moves = plan_moves(m, job.topology, survey(m, job.topology))
        migrate(m, moves)
        code = walk(m, m.plan.code.va, Access.FETCH)
        assert walk(m, alias).pa == code.pa < REGION
        assert not walk(m, alias).executable and code.executable


def test_a_table_that_a_page_maps_moves_with_it():
    with guest(program=b"\xf4", data="ram", stack="ram") as job:
        m = job.machine
        last = walk(m, m.plan.code.va).steps[-1].address & -PAGE
        window = 0x5000_0000_0000
        m.tables.map(window, last, PAGE, page_size=PAGE, executable=False)
        migrate(m, plan_moves(m, job.topology, survey(m, job.topology)))
        after = walk(m, m.plan.code.va).steps[-1].address & -PAGE
        assert walk(m, window).pa == after < REGION


def test_a_root_that_maps_itself_does_so_afterwards():
    with guest(program=b"\xf4") as job:
        m = job.machine
        old = m.tables.root
        m.space.write(old + 8 * 510, (old | 3).to_bytes(8, "little"))
        seen = 0xFFFF_FF7F_BFDF_E000  # PML4[510] at every level: the root itself
        assert walk(m, seen).pa == old
        migrate(m, plan_moves(m, job.topology, survey(m, job.topology)))
        (tree,) = trees(m.cpu)
        assert walk(m, seen).pa == tree.root < REGION


def test_a_large_page_moves_whole_and_to_a_place_of_its_alignment():
    with guest(program=b"\xf4", data="ram", stack="ram") as job:
        m = job.machine
        big = REGION + 32 * MIB
        m.tables.map(0x6000_0000_0000, big, 2 * MIB)  # executable, 2 MiB
        m.space.write(big + 0x1234, b"there")
        table = walk(m, m.plan.code.va).steps[-1].address & -PAGE
        moves = plan_moves(m, job.topology, survey(m, job.topology))
        migrate(m, moves)
        found = walk(m, 0x6000_0000_1234)
        assert found.page_size == 2 * MIB and found.pa % (2 * MIB) == 0x1234 and found.pa < REGION
        assert m.space.read(found.pa, 5) == b"there"
        assert table not in {node.address for node in m.tables.nodes()}


def test_a_contiguous_run_stays_one():
    with guest("aarch64", program=b"\x7f\x20\x03\xd5", data="ram", stack="ram") as job:
        m = job.machine
        run = REGION + 32 * MIB
        va = 0x6000_0000_0000
        m.tables.map(va, run, 16 * PAGE, page_size=PAGE, executable=True, contiguous=1)
        for page in range(16):
            m.space.write(run + PAGE * page, bytes([page]))
        found = [f for f in survey(m, job.topology) if f.base == run + 3 * PAGE]
        (move,) = plan_moves(m, job.topology, found)
        assert (move.base, move.size, move.to % (16 * PAGE)) == (run, 16 * PAGE, 0)
        migrate(m, [move])
        for page in range(16):
            at = walk(m, va + PAGE * page)
            assert (at.pa, m.space.read(at.pa, 1)) == (move.to + PAGE * page, bytes([page]))
            assert at.steps[-1].flags["CONTIGUOUS"] == 1


def test_both_ranges_of_arm64_move():
    with guest("aarch64", program=b"\x7f\x20\x03\xd5", data="ram", stack="ram") as job:
        m = job.machine
        frames = iter(range(REGION + 48 * MIB, REGION + 49 * MIB, PAGE))
        upper = arm64.PageTables(m.space, lambda: next(frames), upper=True)
        va = 0xFFFF_8000_0000_0000
        upper.map(va, REGION + 50 * MIB, PAGE, page_size=PAGE)
        tcr = m.cpu.read("tcr_el1") & ~(1 << 23) | upper.tcr()
        m.set(ttbr1_el1=upper.ttbr(asid=5), tcr_el1=tcr)
        assert [tree.register for tree in trees(m.cpu)] == ["ttbr0_el1", "ttbr1_el1"]
        migrate(m, plan_moves(m, job.topology, survey(m, job.topology)))
        assert m.cpu.read("ttbr1_el1") >> 48 == 5
        found = walk(m, va)
        assert isinstance(found, Translation) and found.pa < REGION
        assert not any(step.place.device for step in found.steps)


@pytest.mark.parametrize("granule, encoding", [(16384, 2), (65536, 1)])
def test_tables_of_other_granules_move(granule, encoding):
    with guest("aarch64", program=b"\x7f\x20\x03\xd5", data="ram", stack="ram") as job:
        m = job.machine
        tables = arm64.PageTables(m.space, Frames(REGION + 48 * MIB, REGION + 56 * MIB, granule), granule, 42)
        va, pa = 0x20_1234_0000, REGION + 64 * MIB
        tables.map(va, pa, 2 * granule, page_size=granule)
        m.space.write(pa + granule + 5, b"here")
        m.set(ttbr0_el1=tables.ttbr(), tcr_el1=tables.tcr() | 1 << 23)
        found = survey(m, job.topology)
        assert [f.size for f in found if f.kind == "code"] == [granule] * 2
        assert [f.size for f in found if f.kind == "tables"] == [level.table_bytes for level in tables.levels]
        migrate(m, plan_moves(m, job.topology, found))
        after = walk(m, va + granule + 5)
        assert after.page_size == granule and after.pa < REGION and m.space.read(after.pa, 4) == b"here"
        assert not any(step.place.device for step in after.steps)
        assert not any(f.in_window for f in survey(m, job.topology))


def test_the_pcid_stays_in_cr3():
    with guest(program=b"\xf4") as job:
        m = job.machine
        m.set(cr3=m.tables.root | 0x18)
        migrate(m, plan_moves(m, job.topology, survey(m, job.topology)))
        assert m.cpu.read("cr3") & 0xFFF == 0x18 and m.cpu.read("cr3") < REGION


# -- where it goes ----------------------------------------------------------------------------------


def test_it_goes_to_ram_that_is_zero_and_that_nothing_refers_to():
    with guest(program=b"\xf4", tables="ram") as job:
        m = job.machine
        end = job.topology.ram[0][1]
        m.space.write(end - PAGE, b"taken")
        (move,) = plan_moves(m, job.topology, survey(m, job.topology))
        assert move.to + move.size == end - PAGE


def test_it_goes_where_it_is_told():
    with guest(program=b"\xf4") as job:
        moves = plan_moves(job.machine, job.topology, survey(job.machine, job.topology), to=(MIB, MIB))
        assert all(move.to >= MIB and move.to + move.size <= 2 * MIB for move in moves)
        spans = sorted((move.to, move.to + move.size) for move in moves)
        assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:]))


@pytest.mark.parametrize(
    "to, message",
    [
        ((MIB, 0x8000), "must go to RAM, where 0x100000..0x107fff is free"),
        ((REGION, MIB), "is not RAM outside of windows"),
        ((1 << 40, MIB), "is not RAM outside of windows"),
        ((18 * MIB, MIB), "is in use, at 0x1200000"),
    ],
)
def test_where_it_cannot_go_is_refused_and_nothing_changes(to, message):
    with guest(program=find("checksum", "x86_64"), data="ram") as job:
        before = job.machine.snapshot()
        with pytest.raises(AddressRangeError, match=message):
            groomed(job, to=to)
        assert job.machine.snapshot() == before


def test_when_an_entry_cannot_be_changed_all_are_as_they_were():
    topology = Topology.default()
    job = Job(topology, "x86_64")
    try:
        m = job.machine
        m.load(b"\xf4")
        # The same tree with a table of the second level in ROM: what that refers to cannot follow.
        fixed = walk(m, m.plan.code.va).steps[1].address & -PAGE
        space = AddressSpace()
        space.map(0, Ram(64 * MIB))
        space.map(128 * MIB, Rom(m.space.read(fixed, PAGE)))
        topology.attach(space)
        m.space.write(m.tables.root, (128 * MIB | 7).to_bytes(8, "little"))
        other = type(m)(space)
        other.set(cr3=m.tables.root)
        before = {node.address: space.read(node.address, PAGE) for node in other_nodes(other)}
        moves = plan_moves(other, topology, survey(other, topology))
        with pytest.raises(BusError, match="cannot be changed"):
            migrate(other, moves)
        assert {node.address: space.read(node.address, PAGE) for node in other_nodes(other)} == before
        # A root outside the window: entries in place had been changed before the refusal, and are not any more.
        space.write(MIB, space.read(m.tables.root, PAGE))
        other.set(cr3=MIB)
        before = space.read(MIB, PAGE)
        with pytest.raises(BusError, match="cannot be changed"):
            migrate(other, plan_moves(other, topology, survey(other, topology)))
        assert space.read(MIB, PAGE) == before
        other.close()
    finally:
        job.close()


def other_nodes(machine):
    return [node for tree in trees(machine.cpu) for node in tree.tables()]
