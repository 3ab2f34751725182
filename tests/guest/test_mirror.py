"""Pages of windows as RAM for the guest: who else sees its bytes, when, and what is left after a run."""

import threading
import warnings

import numpy as np
import pytest

from mmu import Frames, SoftMmu, x86
from mmu.errors import MirrorWarning
from mmu.machine import Machine
from mmu.memory import Alias, HostMemory, Mmio, Ram, Striped, Target
from mmu.stripes import Route, Slot, Span
from mmu.types import MemTxResult
from tests.guest.machines import ARCHS, CODE, DATA, MIB, PAGE, WINDOW, asm, code, machine, places, two_way
from tests.guest.world import HOLE, SIZE, World

IN_RAM = dict.fromkeys(("tables", "code", "stack"), "ram")
STORE, LOAD = ("store", "data", 8, 0, 0x1122_3344_5566_7788), ("load", "data", 8, 0)
OK = MemTxResult.OK
BYTES = (0x1122_3344_5566_7788).to_bytes(8, "little")


@pytest.fixture
def world():
    with World(**IN_RAM) as w:
        yield w


@pytest.mark.parametrize(
    "dispatch, granularity, mirrored, direct",
    [("exact", 256, 0, 0), ("direct", 256, 0, 0), ("mirror", 256, 1, 0), ("auto", 256, 1, 0),
     ("direct", 4096, 0, 1), ("mirror", 4096, 1, 0), ("auto", 4096, 0, 1), ("auto", 2048, 1, 0)],
)  # fmt: skip
def test_counters_say_how_pages_were_served(dispatch, granularity, mirrored, direct):
    with World("x86_64", dispatch, 2, granularity, **IN_RAM) as world:
        counters = world.run(STORE, LOAD).counters
    assert (counters.mirrored, counters.direct) == (mirrored, direct)
    assert counters.bus_reads + counters.bus_writes == (0 if mirrored or direct else 4)
    assert bool(counters.data) == (not mirrored and not direct)


def test_the_mirror_counts_the_blocks_that_moved_and_those_that_came_back_changed(world):
    moved = world.run(STORE, LOAD).counters.mirror
    assert {n: (t.reads, t.read_bytes, t.writes, t.write_bytes) for n, t in moved.items()} == {
        "mem0": (8, 2048, 1, 256), "mem1": (8, 2048, 0, 0)}  # fmt: skip


def test_a_traced_run_is_exact_unless_it_was_told_otherwise():
    for dispatch, mirrored in ("auto", 0), ("mirror", 1):
        with World("x86_64", dispatch, **IN_RAM) as world:
            world.load(STORE)
            result = world.machine.run(start=CODE, trace=1000)
            assert result.counters.mirrored == mirrored
            assert any(e.address == WINDOW + 2 * MIB for e in result.trace) == (not mirrored)


# -- everybody sees the guest's bytes ---------------------------------------------------------------


@pytest.mark.parametrize(
    "action, expected",
    [(("dpa_read", 0, 0, 8), BYTES), (("hpa_read", 0, 8), (BYTES, OK)), (("alias_read", 0, 8), (BYTES, OK)),
     (("look", 0, 8), BYTES), (("hpa_exchange", 0, 1), (0x1122_3344_5566_7788, OK))],
)  # fmt: skip
def test_the_host_sees_what_the_guest_stored_a_moment_ago(world, action, expected):
    world.actions = [action]
    assert world.run(STORE, ("device", 0)).counters.mirrored == 1
    assert world.log[0] == expected


@pytest.mark.parametrize(
    "action",
    [("dpa_write", 0, 0, BYTES), ("hpa_write", 0, BYTES), ("alias_write", 0, BYTES),
     ("hpa_store", 0, 8, 0x1122_3344_5566_7788)],
)  # fmt: skip
def test_the_guest_sees_what_the_host_stores(world, action):
    world.actions = [action]
    result = world.run(LOAD, ("device", 0), LOAD, LOAD, LOAD)
    with World(**IN_RAM) as other:
        expected = other.run(LOAD, STORE, LOAD, LOAD, LOAD)
    assert result.registers["r8"] == expected.registers["r8"]


def test_a_device_file_has_the_bytes_after_a_sync_in_the_middle_of_a_run(tmp_path):
    path = tmp_path / "mem0"
    path.write_bytes(bytes(SIZE))
    with World(**IN_RAM) as world, path.open("r+b") as file:
        memory = world.memories[0]
        memory.map_file(0, SIZE, file.fileno())
        seen = []

        def look(*_):
            memory.sync()
            file.seek(MIB)
            seen.append(file.read(8))

        world.act = look  # too late for the device: it has its callback
        world.actions, world.dpa_read = [("dpa_read", 0, 0, 8)], lambda *_: look()
        world.run(STORE, ("device", 0))
        assert seen[0] == BYTES


def test_a_walk_in_the_middle_of_a_run_sees_an_entry_that_the_guest_wrote():
    """The tables are data of the guest too: its own walks and those of others read where they are now."""
    with machine(dispatch="mirror") as m:
        leaf = next(s for s in _walk(m, DATA).steps if s.name == "PTE").address
        m.tables.map(0x5000_0000, leaf & -PAGE, PAGE)
        other = WINDOW + 8 * MIB
        m.space.write(other, b"other pa")
        m.load(asm("x86_64", "mov [rsi], rax; invlpg [rdi]; mov rbx, [rdi]; hlt"))
        m.set(rsi=0x5000_0000 | leaf % PAGE, rax=other | 0x63)
        result = m.run()
        assert result.registers["rbx"].to_bytes(8, "little") == b"other pa"
        assert result.counters.mirrored >= 3
        assert _walk(m, DATA).pa == other


def _walk(m, va):
    from mmu import Access, x86

    return x86.walk(m.space, m.walk_registers(), va, Access.READ, update=False)


@pytest.mark.parametrize("how", ["hpa", "dpa", "machine"])
def test_a_guest_that_waits_for_a_flag_sees_it_change(how):
    """From another thread, while the guest spins on its mirrored page."""
    with World("x86_64", "mirror", **IN_RAM) as world:
        world.space.store(WINDOW + 2 * MIB, 8, 0)
        m = world.machine
        m.write(CODE, asm("x86_64", "1: mov rax, [rdi]; test rax, rax; jz 1b; mov [rdi+8], rax; hlt"))
        m.set(rdi=DATA)
        spin = threading.Thread(target=lambda: found.append(m.run(start=CODE, timeout=20)))
        found = []
        spin.start()
        while not world.space.mirror().used:
            assert spin.is_alive()
        if how == "hpa":
            world.space.store(WINDOW + 2 * MIB, 8, 7)
        elif how == "dpa":
            world.memories[0].write(MIB, b"\7")
        else:
            setter = Machine(world.space, dispatch="mirror")
            moved = {n: (b + 16 * MIB if b < WINDOW else b, s, v) for n, (b, s, v) in places(**IN_RAM).items()}
            world.space.map(16 * MIB, Ram(32 * MIB))
            with setter.setup(**moved).load(asm("x86_64", "mov dword ptr [rdi], 7; hlt")):
                assert setter.run().counters.mirrored == 1
        spin.join()
        assert found[0].stop.reason == "halt"
        assert world.space.load(WINDOW + 2 * MIB + 8, 8)[0] == 7


def writers(world):
    """Ways to write a word of the page that the guest uses, and to read it back: by name, (write, read)."""
    space, memory, hpa, va = world.space, world.memories[0], WINDOW + 2 * MIB + 64, 0x7000_0040
    tables = x86.PageTables(space, Frames(0, MIB - 1))
    tables.map(va - 64, hpa - 64, PAGE, page_size=PAGE, dirty=1, accessed=1)
    tlb = SoftMmu(space, x86.Registers(cr0=0x8001_0001, cr3=tables.root, cr4=1 << 5, efer=0xD00))
    vas = va + np.arange(0, 128, 8, dtype=np.uint64)
    return {
        "hpa": (lambda n: space.store(hpa, 8, n), lambda: space.load(hpa, 8)[0]),
        "block": (lambda n: space.write(hpa - 8, n.to_bytes(8, "little") * 32),
                  lambda: int.from_bytes(space.read(hpa, 8), "little")),
        "dpa": (lambda n: memory.write(MIB + 64, n.to_bytes(8, "little")),
                lambda: int.from_bytes(memory.read(MIB + 64, 8), "little")),
        "tlb": (lambda n: tlb.write(va, n.to_bytes(8, "little")), lambda: int.from_bytes(tlb.read(va, 8), "little")),
        "tlb batch": (lambda n: tlb.store_many(np.repeat(vas, 8), np.full(128, n, np.uint64)),
                      lambda: int(tlb.load_many(np.full(64, va, np.uint64), 8)[-1])),
    }  # fmt: skip


@pytest.mark.parametrize("way", ["hpa", "block", "dpa", "tlb", "tlb batch"])
def test_no_store_is_lost_while_pages_come_and_go(way):
    """Each of them is the only writer of its bytes, on the page that the guest takes and gives back all the time."""
    with World("x86_64", "mirror", **IN_RAM) as world:
        done, wrong, count = threading.Event(), [], 0
        write, read = writers(world)[way]

        def store():
            nonlocal count
            while not done.is_set():
                count += 1
                write(count)
                if (seen := read()) != count:
                    wrong.append((count, seen))

        thread = threading.Thread(target=store)
        world.load(("add", "data", 0, 1))
        world.space.store(WINDOW + 2 * MIB, 8, 0)
        thread.start()
        for _ in range(200):
            world.machine.run(start=CODE, timeout=None)
        done.set()
        thread.join()
        assert count > 100
        assert not wrong
        assert world.space.load(WINDOW + 2 * MIB, 8)[0] == 200


# -- nothing is left behind -------------------------------------------------------------------------


def test_after_a_run_everything_is_at_home(world):
    world.run(STORE)
    assert world.space.mirror().used == 0
    world.memories[0].fix()


def test_an_exception_in_a_device_leaves_the_devices_with_what_was_stored(world):
    world.actions = []
    with pytest.raises(IndexError):
        world.run(STORE, ("device", 0))
    assert world.space.mirror().used == 0
    assert world.dpa_read(0, 0, 8) == BYTES


def test_memory_behind_a_window_in_use_cannot_become_ram(world):
    refused = []

    def become_ram():
        with pytest.raises(ValueError, match="a guest uses now"):
            Ram(PAGE, memory=world.memories[0])
        refused.append(True)

    world.actions, world.become_ram = [("become_ram",)], become_ram
    world.run(STORE, ("device", 0))
    assert refused
    Ram(PAGE, memory=world.memories[0])
    assert world.run(STORE, LOAD).counters.mirrored == 0  # it must stay where RAM shows it


def test_memory_that_is_ram_as_well_is_served_exactly():
    space, targets, window = two_way()
    shared = Ram(SIZE)
    window = Striped(2 * SIZE, 1 << 40, [targets[0], Target("shared", shared.memory)])
    from tests.guest.machines import route

    window.set_route(route(base=1 << 40, size=2 * SIZE))
    space.map(1 << 40, window)
    where = places(**IN_RAM) | {"data": (1 << 40, PAGE, DATA)}
    with Machine(space).setup(**where).load(asm("x86_64", "mov rax, [rdi]; hlt")) as m:
        counters = m.run().counters
    assert (counters.mirrored, counters.mirror_full, counters.bus_reads) == (0, 0, 2)


def test_one_page_at_two_addresses_is_one_page(world):
    world.space.map(1 << 45, Alias(world.window, 2 * MIB, PAGE))
    world.machine.tables.map(0x5000_0000, 1 << 45, PAGE)
    world.machine.write(CODE, asm("x86_64", "mov [rdi], rax; mov rbx, [rsi]; mov [rsi+8], rbx; mov rcx, [rdi+8]; hlt"))
    result = world.machine.set(rdi=DATA, rsi=0x5000_0000, rax=77).run(start=CODE)
    assert (result.registers["rbx"], result.registers["rcx"]) == (77, 77)
    assert sum(t.reads for t in result.counters.mirror.values()) == 16
    assert world.space.mirror().used == 0
    assert world.space.read(WINDOW + 2 * MIB, 16) == (77).to_bytes(8, "little") * 2


# -- when there is no memory ------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ARCHS)
def test_a_mirror_that_is_full_is_said_once_and_changes_nothing(arch):
    program = [("store", "data", 8, PAGE * n, n + 5) for n in range(3)] + [("load", "data", 4, PAGE * 2)]
    with World(arch, "exact", **IN_RAM) as world:
        expected = world.run(*program).registers, world.everything()
    with World(arch, "mirror", **IN_RAM) as world:
        world.space.mirror_pages = 1
        with pytest.warns(MirrorWarning, match="no memory to mirror more pages") as said:
            result = world.run(*program)
            again = world.run(*program)
        assert len(said) == 1
        assert [(c.mirrored, c.mirror_full) for c in (result.counters, again.counters)] == [(1, 2)] * 2
        assert (result.registers, world.everything()) == expected


def test_without_any_memory_for_a_mirror_the_run_is_exact(world, monkeypatch):
    def none():
        raise MemoryError

    monkeypatch.setattr(world.space, "mirror", none)
    with pytest.warns(MirrorWarning):
        counters = world.run(STORE, LOAD).counters
    assert (counters.mirrored, counters.bus_writes, counters.bus_reads) == (0, 2, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        world.run(STORE)


# -- decoders that change ---------------------------------------------------------------------------


def test_decoders_that_another_thread_changes_all_the_time_crash_nothing():
    """Code, tables, data and stack are in the window that comes and goes."""
    with World("x86_64", "mirror") as world:
        done = threading.Event()

        def change():
            while not done.is_set():
                world.window.set_route(Route())
                world.whole()

        thread = threading.Thread(target=change)
        world.load(*[("add", "data", 8 * n, 1) for n in range(50)])
        thread.start()
        reasons = {world.machine.run(start=CODE, timeout=5).stop.reason for _ in range(100)}
        done.set()
        thread.join()
        assert reasons <= {"halt", "triple-fault", "fault", "bus-error"}
        world.whole()
        assert world.run(STORE).stop.reason == "halt"
        assert world.dpa_read(0, 0, 8) == BYTES


@pytest.mark.parametrize("ways", [1, 2])
def test_bytes_that_a_device_takes_away_are_gone_at_the_next_access(ways):
    with World("x86_64", "auto", ways, **IN_RAM) as world:
        world.actions = [("hole",)]
        world.space.store(WINDOW + 2 * MIB + HOLE, 8, 5)
        there, beside = ("load", "data", 8, HOLE), ("load", "data", 8, PAGE)
        counters = world.run(there, ("device", 0), there, beside).counters
        assert counters.mirrored + counters.direct == 1
        assert counters.bus_errors == 2  # the second load, in two pieces
        assert counters.bus_reads == 4  # the page is not a device's as a whole any more
        world.whole()
        assert world.space.load(WINDOW + 2 * MIB + HOLE, 8)[0] == 5


def test_a_machine_that_is_closed_in_the_middle_of_a_run_gives_everything_back():
    world = World(**IN_RAM)
    world.machine.load(asm("x86_64", "hlt"))
    world.load(STORE)
    world.machine.cpu.begin(0, "mirror")
    world.machine.cpu.run(CODE)
    assert world.space.mirror().used == 1
    world.machine.close()
    assert world.space.mirror().used == 0
    assert world.dpa_read(0, 0, 8) == BYTES


def test_device_memory_of_a_terabyte_costs_what_is_touched():
    from tests.guest.machines import route

    space, _, _ = two_way()
    targets = [Target(f"large{n}", HostMemory(1 << 39)) for n in range(2)]
    window = Striped(1 << 40, 1 << 41, targets)
    window.set_route(route(base=1 << 41, size=1 << 40))
    space.map(1 << 41, window)
    where = places(**IN_RAM) | {"data": ((3 << 40) - MIB, MIB, DATA)}
    with Machine(space).setup(**where).load(asm("x86_64", "mov [rdi], rdi; mov rax, [rdi]; hlt")) as m:
        result = m.run()
    assert (result.registers["rax"], result.counters.mirrored) == (DATA, 1)
    assert space.load((3 << 40) - MIB, 8)[0] == DATA


def test_a_page_of_which_a_block_is_away_is_not_had_in_place():
    """One machine has a block in its mirror; for another the page lies in one piece, in a window of its own."""
    alias, value, seen = 1 << 37, 0x1122_3344_5566_7788, []
    space, targets, _ = two_way()
    window = Striped(SIZE // 2, alias, targets[:1], "alias")
    window.set_route(Route((Span(alias, alias + SIZE // 2 - 1, 8, 0, 256, (Slot(0, alias, 0, 1, 256),)),)))
    space.map(alias, window)
    areas = places(tables="ram", code="ram", data="window", stack="ram")
    other = {name: (base % WINDOW + 20 * MIB, size, va) for name, (base, size, va) in places().items()}
    with Machine(space, dispatch="mirror") as one, Machine(space, dispatch="direct") as two:
        one.setup(**areas)
        two.setup(**other)
        two.tables.map(0x2000_0000, alias + MIB, PAGE, page_size=PAGE, executable=False)
        two.load(code("x86_64", "mov rax, [rsi]")).set(rsi=0x2000_0000)

        def read(offset, size):
            seen.append(two.run(start=CODE, timeout=None).registers["rax"])
            return 0

        space.map(0xF000_0000, Mmio(PAGE, read, lambda offset, size, value: None))
        one.tables.map(0x3000_0000, 0xF000_0000, PAGE, page_size=PAGE, executable=False)
        one.load(code("x86_64", "mov [rsi], rbx; mov eax, [r12]")).set(rsi=DATA, rbx=value, r12=0x3000_0000)
        assert one.run(timeout=None).stop.reason == "halt"
        assert seen == [value]
        assert two.run(start=CODE).counters.direct == 1


@pytest.mark.parametrize("arch", ARCHS)
def test_two_pages_that_begin_with_the_same_block_are_two(arch):
    """One through the window, in the order of both devices, the other through the second window, of one device."""
    program = ("load", "data", 8, 0), ("load", "alias", 8, 256), ("load", "data", 8, 256)
    found = []
    for service in "exact", "mirror":
        with World(arch, service) as world:
            found.append(world.run(*program).registers[world.isa.RESULT])
    assert found[0] == found[1]


@pytest.mark.parametrize("arch", ARCHS)
def test_a_page_in_place_keeps_its_blocks_when_another_page_that_shows_them_is_touched(arch):
    """The second window's pages lie in one piece in device 0: the engine has them there, and stores there."""
    value = 0x1122_3344_5566_7788
    program = ("load", "alias", 8, 0), ("load", "data", 8, 0), ("store", "alias", 8, 8, value), ("load", "data", 8, 8)
    found = []
    for service in "exact", "auto":
        with World(arch, service) as world:
            found.append(world.run(*program).registers[world.isa.RESULT])
            assert world.memories[0].read(MIB + 8, 8) == value.to_bytes(8, "little")
    assert found[0] == found[1]
