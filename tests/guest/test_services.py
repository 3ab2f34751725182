"""Windows served exactly, in place or by the mirror: the same bytes, registers, faults and device files."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mmu.guest.memory import SERVICES
from tests.guest.machines import ARCHS, PAGE
from tests.guest.world import HOLE, World

# Few, so that accesses meet: the first blocks, the edge of the first page, the hole, the last page.
OFFSETS = st.tuples(st.sampled_from([0, 248, 256, PAGE - 8, PAGE, HOLE - 8, 2 * PAGE]), st.integers(0, 8)).map(sum)
BASES = st.sampled_from(["data", "data", "alias"])
SIZES = st.sampled_from([1, 2, 4, 8])
VALUES = st.integers(0, (1 << 64) - 1)
BYTES = st.binary(min_size=1, max_size=600)

ACTIONS = st.one_of(
    st.tuples(st.just("dpa_read"), st.integers(0, 3), OFFSETS, st.integers(1, 600)),
    st.tuples(st.just("dpa_write"), st.integers(0, 3), OFFSETS, BYTES),
    st.tuples(st.just("hpa_read"), OFFSETS, st.integers(1, 600)),
    st.tuples(st.just("hpa_write"), OFFSETS, BYTES),
    st.tuples(st.just("hpa_store"), OFFSETS, SIZES, VALUES),
    st.tuples(st.just("hpa_exchange"), OFFSETS, VALUES),
    st.tuples(st.just("alias_read"), OFFSETS, st.integers(1, 600)),
    st.tuples(st.just("alias_write"), OFFSETS, BYTES),
    st.tuples(st.just("look"), OFFSETS, st.integers(1, 600)),
    st.tuples(st.just("hole")), st.tuples(st.just("whole")), st.tuples(st.just("gone_and_back")),
)  # fmt: skip

STEPS = st.one_of(
    st.tuples(st.just("load"), BASES, SIZES, OFFSETS),
    st.tuples(st.just("store"), BASES, SIZES, OFFSETS, VALUES),
    st.tuples(st.just("add"), BASES, OFFSETS.map(lambda o: o // 8 * 8), VALUES),
    st.tuples(st.just("device"), st.integers(0, 5)),
    st.tuples(st.just("patch"), st.integers(0, 0x7FFF)),
    st.tuples(st.just("call")),
)
WILD = st.sampled_from([[], [], [("wild", 0x7777_0003)], [("wild", 1 << 60)]])  # nothing, a page fault, not canonical
PROGRAMS = st.tuples(st.lists(STEPS, min_size=1, max_size=25), WILD).map(lambda parts: parts[0] + parts[1])


@settings(max_examples=40, deadline=None)
@given(
    arch=st.sampled_from(ARCHS), ways=st.sampled_from([1, 2, 4]), granularity=st.sampled_from([256, 1024, 4096]),
    actions=st.lists(ACTIONS, min_size=6, max_size=6),
    programs=st.lists(PROGRAMS, min_size=1, max_size=2),
    between=st.lists(ACTIONS, max_size=2),
    where=st.sampled_from([{}, {"tables": "ram", "code": "ram"}]),
)
def test_all_services_do_the_same(arch, ways, granularity, actions, programs, between, where):
    if where:  # what the guest needs to go on is not in the window, so that may be programmed otherwise
        actions = [*actions[:5], ("swapped",)]
    seen = {}
    for dispatch in SERVICES:
        with World(arch, dispatch, ways, granularity, **where) as world:
            world.actions = actions
            outcomes = []
            for program in programs:
                result = world.run(*program)
                outcomes.append((result.stop, result.registers, result.delivered))
                for action in between:
                    world.do(*action)
            seen[dispatch] = (outcomes, world.log, world.everything())
    for dispatch in SERVICES:
        assert seen["exact"] == seen[dispatch], dispatch
