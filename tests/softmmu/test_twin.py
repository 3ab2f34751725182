"""The TLB in C and its reference: the same answers, entries, victims, counters and bus accesses, whatever happens."""

from contextlib import nullcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mmu
from mmu.tlb import softmmu as reference
from tests.softmmu.machines import (
    BASES,
    FAR,
    LARGE,
    NEAR,
    NOFLUSH,
    PAE,
    PAGE,
    PAGES,
    PCIDE,
    PGE,
    READ,
    ROUTES,
    SHARED,
    SHOWN,
    SMAP,
    SMEP,
    TAGS,
    WP,
    WRITE,
    Arm64Board,
    EptBoard,
    M,
    NptBoard,
    Stage2Board,
    X86Board,
    load_many,
    store_many,
)

LAST = (1 << 64) - 1
TAG_BYTE = 0xA5 << 56
CR4S = (PAE | PGE | PCIDE, PAE | PGE | PCIDE | SMEP, PAE | PGE | PCIDE | SMAP, PAE | PCIDE, PAE | PGE)

crowd = st.sampled_from([(base, 0) for base in BASES])
pages = st.one_of(crowd, crowd, st.sampled_from(PAGES))
edges = st.sampled_from([0, 8, 0x7F8, 0x7FC, 0xFF8, 0xFFC, 0xFFF])
offsets = st.one_of(edges, st.integers(0, PAGE - 1))
places = st.one_of(
    *[pages.map(lambda page: page[0] + page[1] * PAGE)] * 6,
    st.sampled_from([LARGE, LARGE + PAGE, LARGE + 500 * PAGE, 0, 1 << 47, NEAR | TAG_BYTE, SHARED | TAG_BYTE]),
)
anywhere = st.one_of(
    st.builds(int.__add__, places, offsets), st.sampled_from([NEAR - 1, (1 << 64) - 4, LARGE + 2 * M - 3]))
sizes = st.sampled_from([1, 2, 3, 4, 8, 8, 8, 13, 16, 2 * PAGE + 5])
access_sizes = st.sampled_from([1, 2, 4, 8])
edits = st.sampled_from(["protect", "unprotect", "unmap", "move"])

changes = [
    st.tuples(st.just("flush"), st.one_of(st.none(), anywhere), st.one_of(st.none(), st.integers(1, 70 * PAGE)),
              st.one_of(st.none(), st.integers(0, 3)), st.one_of(st.none(), st.sampled_from(TAGS)), st.booleans()),
    st.tuples(st.just("edit"), st.sampled_from(TAGS), pages, edits),
    st.tuples(st.just("show"), st.booleans()),
    st.tuples(st.just("readable"), st.booleans()),
    st.tuples(st.just("route"), st.integers(0, len(ROUTES) - 1)),
    st.tuples(st.just("watch"), anywhere, st.integers(1, 16), st.sampled_from([READ, WRITE, READ | WRITE])),
    st.tuples(st.just("unwatch")),
]  # fmt: skip


def strided(addresses):
    """Long enough for groups, here and there with something else in it."""
    steady = st.builds(
        lambda first, stride, count: [first + n * stride % PAGE & LAST for n in range(count)],
        st.one_of(places, addresses), st.sampled_from([8, 8, 264, 0, 3]), st.sampled_from([32, 40, 64, 100]))
    return st.builds(
        lambda one, other, at: one[:at] + other + one[at:],
        steady, st.lists(addresses, max_size=2), st.sampled_from([0, 31, 33, 64]))


def accesses(addresses):
    batches = st.one_of(st.lists(addresses, min_size=1, max_size=12), strided(addresses))
    return [
        st.tuples(st.just("read"), addresses, sizes),
        st.tuples(st.just("write"), addresses, sizes, st.integers(0, 255)),
        st.tuples(st.just("fetch"), addresses, sizes),
        st.tuples(st.just("load_many"), batches, access_sizes, st.booleans()),
        st.tuples(st.just("store_many"), batches, access_sizes, st.booleans(), st.integers(0, (1 << 64) - 1)),
    ]


x86_registers = st.builds(
    lambda tag, cr4, cpl, wp, ac, keep: ("x86", tag, cr4, cpl, wp, ac, keep),
    st.sampled_from(TAGS), st.sampled_from(CR4S), st.sampled_from([0, 3]), st.booleans(), st.booleans(), st.booleans())
arm64_registers = st.builds(
    lambda tag, el, pan: ("arm64", tag, el, pan), st.sampled_from(TAGS), st.sampled_from([0, 1]), st.booleans())


@st.composite
def scripts(draw, registers):
    """Phases: in each a few pages are used again and again, then something changes."""
    script = []
    for _ in range(draw(st.integers(1, 4))):
        pool = st.builds(int.__add__, st.sampled_from(draw(st.lists(places, min_size=1, max_size=14))), edges)
        one = st.one_of(*accesses(st.one_of(pool, pool, pool, pool, anywhere)))
        script += draw(st.lists(one, min_size=3, max_size=16))
        script += draw(st.lists(st.one_of(*changes, registers, registers), max_size=3))
    return script


class Side:
    """A machine with one implementation, driven step by step."""

    def __init__(self, board, implementation):
        self.board, self.watches = board(), []
        self.tlb = implementation(self.board.space, self.board.regs(), 64)

    def __call__(self, step):
        name, *arguments = step
        return getattr(self, "do_" + name)(*arguments)

    def do_read(self, va, size):
        return self.tlb.read(va, size)

    def do_write(self, va, size, value):
        return self.tlb.write(va, bytes((value + i) & 0xFF for i in range(size)))

    def do_fetch(self, va, size):
        return self.tlb.fetch(va, size)

    def do_load_many(self, vas, size, status):
        return load_many(self.tlb, vas, size, status)

    def do_store_many(self, vas, size, status, value):
        return store_many(self.tlb, vas, [value + i & (1 << 64) - 1 for i in range(len(vas))], size, status)

    def do_flush(self, va, size, index, space, global_too):
        size = None if va is None else size
        return self.tlb.flush(va, size, index=index, space=space, global_too=global_too)

    def do_edit(self, tag, page, what):
        self.board.edit(tag, page, what)

    def do_show(self, on):
        self.board.show(on)

    def do_readable(self, on):
        self.board.flash.readable = on

    def do_route(self, number):
        self.board.window.set_route(ROUTES[number])

    def do_watch(self, *watch):
        if len(self.watches) < 8:
            self.tlb.watch(*watch)
            self.watches.append(watch)

    def do_unwatch(self):
        if self.watches:
            self.tlb.unwatch(*self.watches.pop(0))

    def do_x86(self, tag, cr4, cpl, wp, ac, keep):
        regs = self.board.regs(tag, cr4, cpl=cpl, ac=ac)
        cr3 = regs.cr3 | (NOFLUSH if keep and cr4 & PCIDE else 0)
        self.tlb.set_registers(self.board.regs(tag, cr4, cpl=cpl, ac=ac, cr0=regs.cr0 & ~(0 if wp else WP), cr3=cr3))
        return self.tlb.index

    def do_arm64(self, tag, el, pan):
        self.tlb.set_registers(self.board.regs(tag, el=el, pan=pan))
        return self.tlb.index

    def state(self):
        tlb, board = self.tlb, self.board
        return tlb.entries(), tlb.stats, tlb.watched(), board.space.traffic(), board.seen


def compare(board, script, traced):
    ours, theirs = Side(board, mmu.SoftMmu), Side(board, reference.SoftMmu)
    for step in script:
        with ours.board.space.trace() if traced else nullcontext([]) as one:
            left = ours(step)
        with theirs.board.space.trace() if traced else nullcontext([]) as two:
            right = theirs(step)
        assert right == left, step
        assert two == one, step
        assert theirs.state() == ours.state(), step
    for base, size in ((0, 4 * M), (SHOWN[4], 2048)):
        assert theirs.board.space.read(base, size) == ours.board.space.read(base, size)
    assert theirs.board.cover.memory.read(0, PAGE) == ours.board.cover.memory.read(0, PAGE)
    for one, two in zip(ours.board.memories, theirs.board.memories):
        assert two.read(0, 16 * PAGE) == one.read(0, 16 * PAGE)


@settings(max_examples=40)
@given(scripts(x86_registers), st.booleans())
def test_x86(script, traced):
    compare(X86Board, script, traced)


@settings(max_examples=30)
@given(scripts(arm64_registers), st.booleans())
def test_arm64(script, traced):
    compare(Arm64Board, script, traced)


@pytest.mark.parametrize("board", [NptBoard, EptBoard, Stage2Board])
@settings(max_examples=8)
@given(st.data(), st.booleans())
def test_behind_stage_2(board, data, traced):
    registers = arm64_registers if board is Stage2Board else x86_registers
    compare(board, data.draw(scripts(registers)), traced)


@pytest.mark.parametrize("order", [range(12), [0, *range(1, 12), 0, 1, 5, 11, 0], [*range(9), *range(9)]])
def test_a_crowded_slot(order):
    """Victims come and go in the same places."""
    script = [("read", BASES[n], 8) for n in order]
    script += [("write", BASES[n], 8, n) for n in order]
    compare(X86Board, script, traced=True)


@pytest.mark.parametrize("number", range(len(ROUTES)))
def test_every_kind_of_route(number):
    """Batches over two pages of the window, long enough for groups, with what is no hit in between."""
    first = NEAR + 5 * PAGE
    vas = [[first + n * stride % (2 * PAGE) for n in range(240)] for stride in (8, 264, 1032)]
    mixed = [*vas[1][:80], NEAR, *vas[1][80:], first + 3, FAR + PAGE, *vas[1]]
    beyond = [*vas[0][:190], first + PAGE + 8, *vas[0]]  # one of a group is in the next page
    second = [*vas[0][:150], first + PAGE + 264, *vas[0]]  # and on the second device, which may end before
    script = [("route", number)]
    for batch in (*vas, mixed, beyond, second):
        for size in (8, 4, 1):
            script += [("load_many", batch, size, True), ("store_many", batch, size, True, size * 0x0101010101010101)]
    compare(X86Board, script, traced=False)
    compare(X86Board, script, traced=True)


def test_more_contexts_than_indexes():
    """The index that was selected longest ago is emptied."""
    script = []
    for n in range(40):
        script += [("x86", 1, CR4S[0], 0, True, False, True), ("key", n * 7 % 23), ("read", NEAR, 8), ("fetch", FAR, 4)]

    class Keyed(Side):
        def do_key(self, n):
            self.tlb.set_registers(self.board.regs(1, pkru=n << 2))
            return self.tlb.index

    ours, theirs = Keyed(X86Board, mmu.SoftMmu), Keyed(X86Board, reference.SoftMmu)
    for step in script:
        assert theirs(step) == ours(step)
        assert theirs.state() == ours.state()
    assert {e.index for e in ours.tlb.entries()} == set(range(16))

