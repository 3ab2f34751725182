"""Any tables, wherever: after moving, every address means the same, and nothing that was to move is in a window."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxl import Topology
from cxl.groom import KINDS, migrate, plan_moves, survey
from cxl.job import space_of
from mmu import Machine
from mmu.guest.trees import trees
from mmu.radix.relocate import moved
from tests.guest.machines import ARCHS

MIB = 1 << 20
PAGE = 4096
REGION = 0x2F0000000
# Places that mappings may refer to: (first, bytes), some of them shared by several mappings.
WINDOW, RAM = (REGION + 64 * MIB, 32 * MIB), (64 * MIB, 32 * MIB)
SIZES = (PAGE, 16 * PAGE, 2 * MIB)


@pytest.fixture(scope="module")
def topology():
    topology = Topology.default()
    topology.commit()
    return topology


@st.composite
def layouts(draw):
    """Where each level of the tables is, and mappings: (va, pa, size, page size, executable, contiguous)."""
    sides = [draw(st.booleans()) for _ in range(4)]
    found = []
    for i in range(draw(st.integers(1, 8))):
        first, room = draw(st.sampled_from([WINDOW, RAM]))
        size = draw(st.sampled_from(SIZES))
        align = size if size > PAGE else PAGE
        pa = first + draw(st.integers(0, min(room // align - 1, 3))) * align
        contiguous = size == 16 * PAGE and draw(st.booleans())
        found.append((0x1000_0000_0000 + i * (1 << draw(st.sampled_from([30, 39]))) * 2 + 0x40_0000, pa, size,
                      2 * MIB if size == 2 * MIB else PAGE, draw(st.booleans()), contiguous))
    return sides, found


def set_up(topology, arch, sides, mappings):
    """A machine with these tables; every page of the places holds its own address."""
    space = space_of(topology)
    m = Machine(space, arch, "exact")
    window, ram = (REGION, MIB), (16 * MIB, MIB)
    names = list(m.cpu.TABLES)
    m.setup(
        tables={**dict(zip(names, (window if side else ram for side in sides))), "rest": ram},
        code=(20 * MIB, PAGE), data=(21 * MIB, PAGE), stack=(22 * MIB, PAGE))  # fmt: skip
    for va, pa, size, page, executable, contiguous in mappings:
        hint = {"contiguous": 1} if contiguous and arch == "aarch64" else {}
        m.tables.map(va, pa, size, page_size=page, executable=executable, **hint)
        for at in range(pa, pa + size, PAGE):
            space.write(at + 8, at.to_bytes(8, "little"))
    return m


def meaning(m):
    """va -> (size, flags, what the pages hold)"""
    out = {}
    for tree in trees(m.cpu):
        for record in tree.mappings():
            va, pa, size, flags = (int(record[n]) for n in ("va", "pa", "size", "flags"))
            out[va] = size, flags, [m.space.read(pa + at, 16) for at in range(0, size, PAGE)]
    return out


@pytest.mark.parametrize("arch", ARCHS)
@settings(max_examples=30)
@given(layout=layouts(), kinds=st.sets(st.sampled_from(KINDS), min_size=1), dma=st.integers(0, 8190))
def test_moving_changes_no_meaning_and_leaves_nothing_in_a_window(topology, arch, layout, kinds, dma):
    with set_up(topology, arch, *layout) as m:
        before = meaning(m)
        buffer = (WINDOW[0] + dma, 5000)
        content = m.space.read(*buffer)
        found = survey(m, topology, [buffer])
        moves = plan_moves(m, topology, [f for f in found if f.kind in kinds])
        spans = sorted((v, v + move.size) for move in moves for v in (move.base, move.to))
        assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:]))
        migrate(m, moves)
        assert meaning(m) == before
        to = moved(moves, buffer[0])
        assert m.space.read(to, buffer[1]) == content
        assert [f for f in survey(m, topology, [(to, buffer[1])]) if f.in_window and f.kind in kinds] == []
