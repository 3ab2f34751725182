"""Windows served exactly, in place or by the mirror: the same bytes, registers, faults and device files."""


from hypothesis import given, settings
from hypothesis import strategies as st

from mmu.guest.memory import SERVICES
from mmu.machine import Machine
from mmu.memory import AddressSpace, HostMemory, Mmio, Ram, Striped, Target
from mmu.stripes import Miss, Route, Slot, Span
from tests.guest.machines import ARCHS, CODE, DATA, MIB, PAGE, WINDOW, places
from tests.guest.programs import ALIAS, DEVICE, FUNCTION, ISAS

SIZE = 8 * MIB
ALIAS_WINDOW = WINDOW + (1 << 30)  # shows device 0 from DPA 0 on, 1 way
PAGES = 3
MOVED = ("mirror", "auto")


def striped(slots, granularity, base=WINDOW, size=SIZE):
    shift = granularity.bit_length() - 1
    return Span(base, base + size - 1, shift, (len(slots) - 1).bit_length(), granularity, tuple(slots))


def interleaved(ways, granularity, swapped=False):
    """One region over the whole window; *swapped*: the same devices in the opposite order."""
    order = range(ways)[::-1] if swapped else range(ways)
    return Route((striped([Slot(n, WINDOW, 0, ways, granularity) for n in order], granularity),))


def with_hole(route):
    """The data's second page is no device's."""
    (span,) = route.spans
    hole = WINDOW + 2 * MIB + PAGE
    middle = Span(hole, hole + PAGE - 1, 0, 0, PAGE, (Miss("hole", at_device=True),))
    parts = (span.first, hole - 1), (hole + PAGE, span.last)
    first, last = (Span(a, b, span.shift, span.bits, span.granule, span.slots) for a, b in parts)
    return Route((first, middle, last))


class World:
    """A machine that is all in a window, a second window over device 0, and a device that acts for the host."""

    def __init__(self, arch, dispatch, ways=2, granularity=256):
        self.ways, self.granularity = ways, granularity
        self.space = AddressSpace()
        self.space.map(0, Ram(16 * MIB))
        self.memories = [HostMemory(SIZE) for _ in range(ways)]
        targets = [Target(f"mem{n}", m) for n, m in enumerate(self.memories)]
        self.window = Striped(SIZE, WINDOW, targets)
        self.window.set_route(interleaved(ways, granularity))
        self.space.map(WINDOW, self.window)
        alias = Striped(SIZE, ALIAS_WINDOW, targets[:1], "alias")
        alias.set_route(Route((striped([Slot(0, ALIAS_WINDOW, 0, 1, 256)], 256, ALIAS_WINDOW),)))
        self.space.map(ALIAS_WINDOW, alias)
        self.actions, self.log = [], []
        self.space.map(0xF000_0000, Mmio(PAGE, write=self.act))
        self.isa = ISAS[arch]
        self.machine = m = Machine(self.space, arch, dispatch).setup(**places())
        m.load(self.isa.HALT)
        m.tables.map(DEVICE, 0xF000_0000, PAGE)
        m.tables.map(ALIAS, ALIAS_WINDOW + 2 * MIB // ways, PAGES * PAGE, page_size=PAGE)
        for n, memory in enumerate(self.memories):  # the data, so that every byte differs from its neighbours
            memory.write(2 * MIB // ways, bytes((7 * i + n) % 251 for i in range(PAGES * PAGE)))
        m.write(FUNCTION, self.isa.FUNCTION)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.machine.close()

    def act(self, offset, size, number):
        """One of the actions; the log then shows what all ways in tell of the data."""
        self.do(*self.actions[number])
        self.do("hpa_read", 0, PAGES * PAGE)
        self.log += [self.dpa_read(n, 0, PAGES * PAGE) for n in range(self.ways)]

    def do(self, what, *arguments):
        self.log.append(getattr(self, what)(*arguments))

    # -- what the host's side may do at any time ----------------------------------------------------

    def dpa_read(self, device, offset, size):
        return self.memories[device % self.ways].read(2 * MIB // self.ways + offset, size)

    def dpa_write(self, device, offset, data):
        self.memories[device % self.ways].write(2 * MIB // self.ways + offset, data)

    def hpa_read(self, offset, size):
        return self.space.access(WINDOW + 2 * MIB + offset, size)

    def hpa_write(self, offset, data):
        return self.space.access(WINDOW + 2 * MIB + offset, data=data)

    def hpa_store(self, offset, size, value):
        return self.space.store(WINDOW + 2 * MIB + offset, size, value & (1 << 8 * size) - 1)

    def hpa_exchange(self, offset, value):
        return self.space.exchange(WINDOW + 2 * MIB + offset // 8 * 8, 8, value, value ^ 1)

    def alias_write(self, offset, data):
        return self.space.access(ALIAS_WINDOW + 2 * MIB // self.ways + offset, data=data)

    def alias_read(self, offset, size):
        return self.space.access(ALIAS_WINDOW + 2 * MIB // self.ways + offset, size)

    def look(self, size):
        """The guest's data, by the guest's tables: a walk by the host in the middle of the run."""
        return self.machine.read(DATA, size)

    def hole(self):
        self.window.set_route(with_hole(interleaved(self.ways, self.granularity)))

    def whole(self):
        self.window.set_route(interleaved(self.ways, self.granularity))

    def gone_and_back(self):
        self.window.set_route(Route())
        self.whole()

    # -- the guest ----------------------------------------------------------------------------------

    def run(self, program):
        """(stop, registers) of a program: a list of (name, arguments) of the ISA."""
        text = b"".join(getattr(self.isa, name)(*arguments) for name, *arguments in program) + self.isa.HALT
        self.machine.write(CODE, text)
        self.machine.set(**self.isa.REGISTERS)
        result = self.machine.run(start=CODE, timeout=None)
        return result.stop, result.registers

    def everything(self):
        return [m.read(0, 5 * MIB // self.ways) for m in self.memories]


# -- programs ---------------------------------------------------------------------------------------

# Few, so that accesses meet: the first blocks, the edge of the first page, the last page.
OFFSETS = st.tuples(st.sampled_from([0, 248, 256, PAGE - 8, PAGE, 2 * PAGE]), st.integers(0, 8)).map(sum)
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
)
def test_all_services_do_the_same(arch, ways, granularity, actions, programs, between):
    seen = {}
    for dispatch in SERVICES:
        with World(arch, dispatch, ways, granularity) as world:
            world.actions = actions
            outcomes = []
            for program in programs:
                outcomes.append(world.run(program))
                for action in between:
                    world.do(*action)
            seen[dispatch] = (outcomes, world.log, world.everything())
    for dispatch in SERVICES:
        assert seen["exact"] == seen[dispatch], dispatch
