"""A machine that is all in a window, with host and devices that act in the middle of its runs."""

from mmu.machine import Machine
from mmu.memory import AddressSpace, HostMemory, Mmio, Ram, Striped, Target
from mmu.stripes import Miss, Route, Slot, Span
from tests.guest.machines import CODE, DATA, MIB, PAGE, WINDOW, places
from tests.guest.programs import ALIAS, DEVICE, FUNCTION, ISAS

SIZE = 8 * MIB
ALIAS_WINDOW = WINDOW + (1 << 30)  # shows device 0 from DPA 0 on, 1 way
PAGES = 3
HOLE = PAGE + 512


def striped(slots, granularity, base=WINDOW, size=SIZE):
    shift = granularity.bit_length() - 1
    return Span(base, base + size - 1, shift, (len(slots) - 1).bit_length(), granularity, tuple(slots))


def interleaved(ways, granularity, swapped=False):
    """One region over the whole window; *swapped*: the same devices in the opposite order."""
    order = range(ways)[::-1] if swapped else range(ways)
    return Route((striped([Slot(n, WINDOW, 0, ways, granularity) for n in order], granularity),))


def with_hole(route):
    """Of the data's second page a part is no device's: HOLE and the bytes behind it."""
    (span,) = route.spans
    hole, size = WINDOW + 2 * MIB + HOLE, 1024
    middle = Span(hole, hole + size - 1, 0, 0, 256, (Miss("hole", at_device=True),))
    parts = (span.first, hole - 1), (hole + size, span.last)
    first, last = (Span(a, b, span.shift, span.bits, span.granule, span.slots) for a, b in parts)
    return Route((first, middle, last))


class World:
    """A machine that is all in a window, a second window over device 0, and a device that acts for the host."""

    def __init__(self, arch="x86_64", dispatch="mirror", ways=2, granularity=256, **where):
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
        self.machine = m = Machine(self.space, arch, dispatch).setup(**places(**where))
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

    def look(self, offset, size):
        """The guest's data, by the guest's tables: a walk by the host in the middle of the run."""
        return self.machine.read(DATA + offset, size)

    def hole(self):
        self.window.set_route(with_hole(interleaved(self.ways, self.granularity)))

    def whole(self):
        self.window.set_route(interleaved(self.ways, self.granularity))

    def swapped(self):
        self.window.set_route(interleaved(self.ways, self.granularity, swapped=True))

    def gone_and_back(self):
        self.window.set_route(Route())
        self.whole()

    # -- the guest ----------------------------------------------------------------------------------

    def load(self, *program):
        """Put a program in place: (name, arguments) of the ISA each."""
        text = b"".join(getattr(self.isa, name)(*arguments) for name, *arguments in program) + self.isa.HALT
        self.machine.write(CODE, text)
        self.machine.set(**self.isa.REGISTERS)

    def run(self, *program):
        self.load(*program)
        return self.machine.run(start=CODE, timeout=None)

    def everything(self):
        return [m.read(0, 5 * MIB // self.ways) for m in self.memories]
