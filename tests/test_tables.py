"""Properties of the builder on both architectures: against a model in plain arrays, the scan, and the walkers."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmu import Access, AddressSpace, Fault, Frames, Ram, Translation, arm64, x86
from mmu.scan import Flag

K, M, G = 1 << 10, 1 << 20, 1 << 30
TABLES = 0x100_0000

BASIC = [{}, {"writable": 0}, {"user": 1}, {"executable": 0}, {"user": 1, "writable": 0, "executable": 0}]


class X86:
    """How the tests address one x86 paging mode. The arena is some large pages long and crosses an upper entry."""

    unit, large, pages_per_frame = 4 * K, 2 * M, 4 * K
    rights = [*BASIC, {"global_": 1}]

    def __init__(self, levels=4, cr4=0x20, efer=0xD00, base=-(1 << 46) % (1 << 64) + G - 2 * M):
        self.levels, self.cr4, self.efer, self.base = levels, cr4, efer, base
        if not efer:
            self.rights = [r for r in self.rights if "executable" not in r]
        if levels == 2:
            self.large = 4 * M

    def make(self, space, frames):
        return x86.PageTables(space, frames, levels=self.levels)

    def walk(self, space, tables, va, access):
        regs = x86.Registers(cr0=0x80010001, cr3=tables.root, cr4=self.cr4, efer=self.efer)
        return x86.walk(space, regs, va, access, update=False)

    def scan(self, space, tables, **options):
        regs = x86.Registers(cr0=0x80010001, cr3=tables.root, cr4=self.cr4, efer=self.efer)
        return x86.scan(space, regs, **options)

    def flags(self, rights):
        on = {"writable": 1, "user": 0, "executable": 1, "global_": 0, **rights}
        flags = Flag.READ
        names = {"writable": Flag.WRITE, "user": Flag.USER, "executable": Flag.FETCH, "global_": Flag.GLOBAL}
        for name, flag in names.items():
            flags |= flag if on[name] else 0
        return flags | (Flag.USER_FETCH if on["user"] and on["executable"] else 0)


class Arm64:
    """The same for one granule, in the upper range."""

    rights = BASIC

    def __init__(self, unit, large, crossing, tg1, tg0):
        self.unit = self.pages_per_frame = unit
        self.large, self.tcr = large, 16 | tg0 << 14 | 16 << 16 | tg1 << 30 | 5 << 32
        self.base = -(1 << 48) % (1 << 64) + crossing - large

    def make(self, space, frames):
        return arm64.PageTables(space, frames, self.unit)

    def registers(self, tables):
        other = 0x1F0_0000  # an empty table for the lower range
        return arm64.Registers(sctlr_el1=1, tcr_el1=self.tcr, ttbr0_el1=other, ttbr1_el1=tables.root)

    def walk(self, space, tables, va, access):
        return arm64.walk(space, self.registers(tables), va, access, update=False)

    def scan(self, space, tables, **options):
        return arm64.scan(space, self.registers(tables), **options)

    def flags(self, rights):
        on = {"writable": 1, "user": 0, "executable": 1, **rights}
        flags = Flag.READ | Flag.GLOBAL | Flag.ACCESSED
        flags |= (Flag.WRITE if on["writable"] else 0) | (Flag.USER if on["user"] else 0)
        if on["executable"]:
            flags |= Flag.USER_FETCH if on["user"] else 0
            flags |= 0 if on["user"] and on["writable"] else Flag.FETCH
        return flags


MODES = {
    "4-level": X86(),
    "5-level": X86(5, cr4=0x1020, base=(1 << 55) + G - 2 * M),
    "PAE": X86(3, cr4=0x20, efer=0x800, base=3 * G - 2 * M),
    "32-bit": X86(2, cr4=0x10, efer=0, base=2 * G - 4 * M),
    "4K granule": Arm64(4 * K, 2 * M, G, 2, 0),
    "16K granule": Arm64(16 * K, 32 * M, 64 * G, 1, 2),
    "64K granule": Arm64(64 * K, 512 * M, 4096 * G, 3, 1),
}
ARENA = 2  # large pages


class Model:
    """What is mapped, page by page: physical address (-1: nothing) and number of the rights."""

    def __init__(self, mode):
        self.mode, count = mode, ARENA * mode.large // mode.unit
        self.pa, self.rights = np.full(count, -1), np.zeros(count, int)

    def cut(self, first, count):
        return slice(first, min(first + count, len(self.pa)))

    def map(self, where, pa, rights):
        """False when something else is there."""
        wanted = pa + np.arange(where.stop - where.start) * self.mode.unit
        old, there = self.pa[where], self.pa[where] != -1
        if (there & ((old != wanted) | (self.rights[where] != rights))).any():
            return False
        self.pa[where], self.rights[where] = wanted, rights
        return True

    def records(self):
        there = np.flatnonzero(self.pa != -1).astype(np.uint64)
        flags = np.array([self.mode.flags(r).value for r in self.mode.rights], np.uint64)
        va = np.uint64(self.mode.base) + there * np.uint64(self.mode.unit)
        return np.stack([va, self.pa[there].astype(np.uint64), flags[self.rights[there]]])

    def runs(self):
        """(first page, how many) of what is mapped."""
        edges = np.flatnonzero(np.diff(np.concatenate([[False], self.pa != -1, [False]]).astype(int)))
        return [(int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2])]


def pages(found, unit):
    """Scan records cut into pages of *unit* bytes."""
    count = (found["size"] // np.uint64(unit)).astype(int)
    inside = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    inside = inside.astype(np.uint64) * np.uint64(unit)
    return np.stack([np.repeat(found["va"], count) + inside, np.repeat(found["pa"], count) + inside,
                     np.repeat(found["flags"], count)])  # fmt: skip


def edits(mode):
    large = mode.large // mode.unit
    edge = st.one_of(st.integers(0, ARENA * large - 1), st.integers(0, ARENA - 1).map(lambda n: n * large))
    length = st.one_of(st.integers(1, 9), st.sampled_from([large, 2 * large, large + 1, ARENA * large]))
    target = st.sampled_from([16 * mode.large, 16 * mode.large + mode.unit, 40 * mode.large])
    rights = st.integers(0, len(mode.rights) - 1)
    kind = st.sampled_from(["map", "map", "map small", "unmap", "protect", "split", "merge"])
    return st.lists(st.tuples(kind, edge, length, target, rights), min_size=1, max_size=12)


def apply(mode, model, tables, kind, first, count, target, rights):
    """One edit of both; what the builder must refuse, it must refuse without a trace."""
    where = model.cut(first, count)
    va, size = mode.base + first * mode.unit, (where.stop - where.start) * mode.unit
    pa = target + first * mode.unit  # neighbouring edits are contiguous, so that merging finds something
    full = (model.pa[where] != -1).all()
    if kind == "map small" and (model.pa[where] != -1).any():
        kind = "map"
    if kind in ("map", "map small"):
        forced = {} if kind == "map" else {"page_size": mode.unit}
        done, run = model.map(where, pa, rights), lambda: tables.map(va, pa, size, **forced, **mode.rights[rights])
    elif kind == "unmap":
        done, run = full, lambda: tables.unmap(va, size)
        if full:
            model.pa[where] = -1
    elif kind == "protect":
        named = ("writable", "user", "global_")
        reset = {name: right.default for name, right in tables.RIGHTS.items() if name in named}
        if any("executable" in r for r in mode.rights):
            reset["executable"] = 1
        done, run = full, lambda: tables.protect(va, size, **{**reset, **mode.rights[rights]})
        if full:
            model.rights[where] = rights
    else:
        done, run = True, lambda: getattr(tables, kind)(va, size)
    if done:
        run()
    else:
        before = tables.space.read(TABLES, 64 * K)
        with pytest.raises(ValueError, match=r"cannot be mapped|must be mapped"):
            run()
        assert before == tables.space.read(TABLES, 64 * K)


@pytest.fixture(params=MODES)
def mode(request):
    return MODES[request.param]


def machine(mode):
    space = AddressSpace()
    space.map(0, Ram(32 * M))
    frames = Frames(TABLES, 2 * TABLES - 1, mode.pages_per_frame)
    return space, frames, mode.make(space, frames)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_edits_do_what_they_say(mode, data):
    space, frames, tables = machine(mode)
    model = Model(mode)
    for edit in data.draw(edits(mode)):
        apply(mode, model, tables, *edit)
        assert np.array_equal(model.records(), pages(tables.scan(), mode.unit))
    assert np.array_equal(model.records(), pages(mode.scan(space, tables, merge=True), mode.unit))

    at = data.draw(st.lists(st.integers(0, len(model.pa) - 1), min_size=8, max_size=8))
    for page in {0, len(model.pa) - 1, *at}:
        va = mode.base + page * mode.unit + 0x123
        answer = mode.walk(space, tables, va, Access.READ)
        if model.pa[page] == -1:
            assert isinstance(answer, Fault)
            assert tables.find(va) is None
        else:
            want = mode.flags(mode.rights[model.rights[page]])
            rights = (Flag.WRITE in want, Flag.USER in want, Flag.FETCH in want)
            assert isinstance(answer, Translation)
            assert (model.pa[page] + 0x123, *rights) == (answer.pa, answer.writable, answer.user, answer.executable)
            assert tables.find(va).size == answer.page_size

    for first, count in model.runs():
        tables.unmap(mode.base + first * mode.unit, count * mode.unit)
    assert (1, bytes(mode.unit)) == (frames.used, space.read(tables.root, mode.unit))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), refused=st.integers(0, 40))
def test_a_store_that_fails_undoes_the_whole_edit(mode, data, refused):
    space, frames, tables = machine(mode)
    model = Model(mode)
    script = data.draw(edits(mode))
    for edit in script[:-1]:
        apply(mode, model, tables, *edit)
    before, used, found = model.records(), frames.used, tables.scan().tolist()
    real, left = space.store, [refused]

    def store(*arguments):
        left[0] -= 1
        if left[0] == -1:
            raise KeyboardInterrupt
        return real(*arguments)

    space.store = store
    try:
        apply(mode, model, tables, *script[-1])
    except KeyboardInterrupt:
        assert np.array_equal(before, pages(tables.scan(), mode.unit))
        assert (used, found) == (frames.used, tables.scan().tolist())
