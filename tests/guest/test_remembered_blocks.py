"""Blocks of windows that an exact guest accessed before: what it remembers of them is never out of date."""

import pytest

from mmu.machine import Machine
from mmu.memory import Ram
from tests.guest.machines import CODE, MIB, WINDOW, places
from tests.guest.world import World

IN_RAM = dict.fromkeys(("tables", "code", "stack"), "ram")
STORE, LOAD = ("store", "data", 8, 0, 0x1122_3344_5566_7788), ("load", "data", 8, 0)
AGAIN = ("store", "data", 1, 0, 0x99)


def test_a_map_that_a_device_publishes_counts_at_the_next_access():
    with World("x86_64", "exact", **IN_RAM) as world:
        world.actions = [("swapped",)]
        world.run(LOAD, STORE, ("device", 0), AGAIN)
        assert [world.dpa_read(n, 0, 1)[0] for n in range(2)] == [0x88, 0x99]


@pytest.mark.parametrize("first", [LOAD, STORE])
def test_a_block_that_another_guest_has_in_its_mirror_is_found_there(first):
    with World("x86_64", "mirror", **IN_RAM) as world, Machine(world.space, dispatch="exact") as other:
        world.space.map(16 * MIB, Ram(32 * MIB))
        other.setup(**{n: (b + 16 * MIB if b < WINDOW else b, s, v) for n, (b, s, v) in places(**IN_RAM).items()})
        other.load(world.isa.HALT)

        def run(*program):
            text = b"".join(getattr(world.isa, name)(*arguments) for name, *arguments in program) + world.isa.HALT
            other.write(CODE, text)
            return other.set(**world.isa.REGISTERS).run(start=CODE, timeout=None).stop.reason

        world.again = lambda: run(LOAD, AGAIN)
        world.actions = [("again",)]
        assert run(first) == "halt"
        result = world.run(LOAD, ("device", 0), AGAIN)
        assert (result.counters.mirrored, world.log[0]) == (1, "halt")
        assert world.log[1][0][0] == 0x99


def test_blocks_that_are_remembered_in_one_place_are_told_apart():
    far = 16 << 10
    with World("x86_64", "exact", **IN_RAM) as world:
        world.run(("store", "data", 8, 0, 1), ("store", "data", 8, far, 2), ("store", "data", 8, 0, 3))
        assert [world.hpa_read(at, 1)[0] for at in (0, far)] == [b"\3", b"\2"]


def test_accesses_to_blocks_that_are_remembered_are_traced_and_counted_all_the_same():
    with World("x86_64", "exact", **IN_RAM) as world:
        once = world.run(LOAD, STORE, LOAD).counters
        world.load(LOAD, STORE, LOAD)
        traced = world.machine.run(start=CODE, timeout=None, trace=100)
        assert [e.kind for e in traced.trace if e.address >= WINDOW] == ["read"] * 2 + ["write"] * 2 + ["read"] * 2
        assert (traced.counters.bus_reads, traced.counters.bus_writes) == (once.bus_reads, once.bus_writes) == (4, 2)
        assert traced.counters.data == once.data
