"""Every combination of the flags of two neighbouring entries, against every access and control bit that matters."""

import itertools
import random
from dataclasses import dataclass, replace

import numpy as np
import pytest

from mmu import Access, AddressSpace, Fault, Ram, x86
from tests.x86.oracle import FLAGS, KEY, PS, RW, TRAP_KEY, US, A, D, Levels, P, World, combinations, predict

PAGE = 4096
OPEN = P | RW | US | A | D
UPPER, LOWER = 0x1000, 0x100000  # the varied upper table, and the lower tables, one for each upper entry
BASE = {"large": 4 << 30, "small": 0x7654_3000}  # what leaves map
PHYS_BITS = 45
ALL_DENIED = 0xFFFFFFFF  # PKRU or PKRS while the feature is off


@dataclass(frozen=True)
class Place:
    """Two levels of a mode. `above` and `below` are the shifts of the levels around them, root first."""

    upper: int  # shift
    lower: int
    above: tuple[int, ...]
    below: tuple[int, ...]
    levels: Levels
    cr4: int
    efer: int = 0x500

    @property
    def lower_flags(self):
        return tuple(f for f in FLAGS if f != PS) if self.levels.lower_only else FLAGS


LONG = 1 << 5 | 1 << 7
LA57 = LONG | 1 << 12
PLACES = {
    "PML5E PML4E": Place(48, 39, (), (30, 21, 12), Levels(False, False, False), LA57),
    "PML4E PDPTE": Place(39, 30, (), (21, 12), Levels(False, True, False), LONG),
    "PDPTE PDE": Place(30, 21, (39,), (12,), Levels(True, True, False), LONG),
    "PDE PTE": Place(21, 12, (39, 30), (), Levels(True, False, True), LONG),
    "PDE PTE, 5 levels": Place(21, 12, (48, 39, 30), (), Levels(True, False, True), LA57),
    "PAE PDE PTE": Place(21, 12, (30,), (), Levels(True, False, True, keys=False), LONG, 0),
}


def worlds():
    """All that can make a difference; what cannot is on, as a trap, in half of the worlds of a fetch."""
    yes_no = (False, True)
    for cpl, nxe, wp, smep, trap in itertools.product((0, 3), yes_no, yes_no, yes_no, yes_no):
        keys = 3 if trap else None
        yield World("fetch", cpl, nxe=nxe, wp=wp, smep=smep, smap=trap, pke=keys, pks=keys)
    keys = (None, 0, 1, 2)
    for kind, nxe, pke, pks in itertools.product(("read", "write"), yes_no, keys, keys):
        for cpl, implicit, wp in itertools.product((0, 3), yes_no, yes_no):
            for smap, ac in ((False, False), (True, False), (True, True)):
                yield World(kind, cpl, implicit, nxe=nxe, wp=wp, smep=True, smap=smap, ac=ac, pke=pke, pks=pks)
        for cpl, ac in itertools.product((0, 3), yes_no):
            yield World(kind, cpl, shadow_stack=True, nxe=nxe, smap=True, ac=ac, pke=pke, pks=pks)


class Tables:
    """The memory of a place with all combinations of flags, and a batch of addresses that reaches each of them."""

    def __init__(self, place):
        self.place = place
        keyed = place.levels.keys
        self.upper_flags, self.lower_flags = combinations(FLAGS), combinations(place.lower_flags)
        key = np.uint64(KEY << 59) if keyed else np.uint64(0)
        trap = np.uint64(TRAP_KEY << 59) if keyed else np.uint64(0)
        maps = (self.upper_flags & np.uint64(PS) != 0) & place.levels.upper_maps
        tables = LOWER + PAGE * np.arange(len(self.upper_flags), dtype=np.uint64)
        self.upper = self.upper_flags | np.where(maps, np.uint64(BASE["large"]) | key, tables | trap)
        self.next = 0x10000
        maps = (self.lower_flags & np.uint64(PS) != 0) & place.levels.lower_maps | place.levels.lower_only
        base = np.uint64(BASE["small" if place.levels.lower_only else "large"])
        self.lower = self.lower_flags | np.where(maps, base | key, np.uint64(self.next) | trap)
        self.image = np.zeros((LOWER + PAGE * len(self.upper)) // 8, np.uint64)
        self._others(int(key), int(trap))
        self.image[UPPER // 8 :][: len(self.upper)] = self.upper
        rows = self.image[LOWER // 8 :].reshape(len(self.upper), PAGE // 8)
        rows[:, : len(self.lower)] = self.lower
        self.offset = 0x123
        i, j = np.indices((len(self.upper), len(self.lower)), np.uint64)
        self.vas = i << np.uint64(place.upper) | j << np.uint64(place.lower) | np.uint64(self.offset)
        self.space = AddressSpace()
        self.space.map(0, Ram(self.image.nbytes))
        self.bytes = self.image.tobytes()
        self.reset()

    def _others(self, key, trap):
        """The entries around the two levels: entry 0 of each table, open to everything."""
        pae = self.place.efer == 0
        chain = [0x2000 + PAGE * n for n in range(len(self.place.above))] + [UPPER]
        for n, here in enumerate(chain[:-1]):
            self.image[here // 8] = chain[n + 1] | (P if pae else OPEN | trap)
        self.root = chain[0]
        for n in range(len(self.place.below)):
            last = n == len(self.place.below) - 1
            here = self.next + PAGE * n
            self.image[here // 8] = (BASE["small"] | OPEN | key) if last else here + PAGE | OPEN | trap

    def reset(self):
        self.space.write(0, self.bytes)

    def reset_entry(self, address):
        self.space.write(address, self.bytes[address : address + 8])

    def entry(self, address):
        return int.from_bytes(self.space.read(address, 8), "little") & sum(FLAGS)

    def entries(self):
        """(upper, lower) as memory has them now."""
        now = np.frombuffer(self.space.read(0, self.image.nbytes), np.uint64)
        rows = now[LOWER // 8 :].reshape(len(self.upper), PAGE // 8)
        return now[UPPER // 8 :][: len(self.upper)], rows[:, : len(self.lower)]

    def registers(self, w):
        cr0 = 0x80000001 | w.wp << 16
        cr4 = self.place.cr4 | w.smep << 20 | w.smap << 21 | (w.pke is not None) << 22 | (w.pks is not None) << 24
        pkru, pkrs = (ALL_DENIED if k is None else 3 << 2 * TRAP_KEY | k << 2 * KEY for k in (w.pke, w.pks))
        efer = self.place.efer | w.nxe << 11
        return x86.Registers(cr0, self.root, cr4, efer, pkru, pkrs, w.ac, w.cpl, PHYS_BITS)

    def physical(self, upper_leaf):
        """What a granted access reaches: the upper leaf's page, the lower one's, or the page below both."""
        place, low = self.place, self.vas
        in_upper = np.uint64(BASE["large"]) | low & np.uint64((1 << place.upper) - 1)
        large_lower = (self.lower_flags & np.uint64(PS) != 0) & place.levels.lower_maps
        in_lower = np.where(large_lower, np.uint64(BASE["large"]), np.uint64(BASE["small"])) | np.uint64(self.offset)
        return np.where(upper_leaf, in_upper, in_lower[None, :])


def access_of(w):
    kind = {"read": Access.READ, "write": Access.WRITE, "fetch": Access.FETCH}[w.kind]
    return kind | (Access.IMPLICIT if w.implicit else 0) | (Access.SHADOW_STACK if w.shadow_stack else 0)


def check_batch(tables, world):
    tables.reset()
    regs, access = tables.registers(world), access_of(world)
    expected = predict(world, tables.place.levels, tables.upper_flags, tables.lower_flags)
    actual = x86.walk_many(tables.space, regs, tables.vas, access)
    np.testing.assert_array_equal(expected.status, actual["status"], str(world))
    np.testing.assert_array_equal(expected.error_code, actual["error_code"], str(world))
    pa = np.where(expected.status == 0, tables.physical(expected.leaf_is_upper), np.uint64(0))
    np.testing.assert_array_equal(pa, actual["pa"], str(world))
    flags = np.uint64(sum(FLAGS))
    upper, lower = tables.entries()
    np.testing.assert_array_equal(expected.upper, upper & flags, str(world))
    np.testing.assert_array_equal(expected.lower, lower & flags, str(world))
    return expected


def check_single(tables, world, i, j, engine):
    where = UPPER + 8 * i, LOWER + PAGE * i + 8 * j
    for address in where:
        tables.reset_entry(address)
    regs = tables.registers(world)
    rows, columns = tables.upper_flags[i : i + 1], tables.lower_flags[j : j + 1]
    expected = predict(world, tables.place.levels, rows, columns)
    answer = x86.walk(tables.space, regs, int(tables.vas[i, j]), access_of(world), engine=engine)
    status, code = (answer.kind, x86.exception(answer, regs).error_code) if isinstance(answer, Fault) else (0, 0)
    assert (expected.status[0, 0], expected.error_code[0, 0]) == (status, code), (world, i, j)
    assert [expected.upper[0], expected.lower[0, 0]] == [tables.entry(a) for a in where], (world, i, j)


@pytest.mark.parametrize("name", PLACES)
def test_every_combination_of_flags(name):
    tables, every = Tables(PLACES[name]), list(worlds())
    some = every if name == "PDE PTE" else random.Random(name).sample(every, 120)
    statuses = set()
    for world in some:
        if not tables.place.levels.keys:
            world = replace(world, pke=3 if world.pke else None)  # without effect outside long mode
        statuses |= set(np.unique(check_batch(tables, world).status))
    assert statuses == ({0, 1, 2, 3, 6} if tables.place.levels.keys else {0, 1, 2, 3})


@pytest.mark.parametrize("engine", ["reference", "native"])
@pytest.mark.parametrize("name", PLACES)
def test_single_walks_of_random_combinations(name, engine):
    tables, every, r = Tables(PLACES[name]), list(worlds()), random.Random(name)
    for _ in range(500):
        check_single(tables, r.choice(every), r.randrange(len(tables.upper)), r.randrange(len(tables.lower)), engine)
