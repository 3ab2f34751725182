"""Machines with a two-way window, for the tests of guests."""

from mmu.machine import Machine
from mmu.memory import AddressSpace, HostMemory, Ram, Striped, Target
from mmu.stripes import Route, Slot, Span
from tests.guest.assembler import asm

MIB = 1 << 20
PAGE = 4096
WINDOW = 1 << 36
SIZE = 16 * MIB
CODE, DATA, STACK = 0x40_0000, 0x1000_0000, 0x7FFF_FFF0_0000
DATA_SIZE = MIB
END = {"x86_64": "hlt", "aarch64": "wfi"}
ARCHS = ("x86_64", "aarch64")


def route(granularity=256, ways=2, base=WINDOW, size=SIZE):
    shift = granularity.bit_length() - 1
    slots = tuple(Slot(n, base, 0, ways, granularity) for n in range(ways))
    return Route((Span(base, base + size - 1, shift, ways.bit_length() - 1, granularity, slots),))


def two_way(granularity=256):
    """(space, targets, window): 64 MiB of RAM at 0 and a 2-way window of 16 MiB at WINDOW."""
    space = AddressSpace()
    space.map(0, Ram(64 * MIB))
    targets = [Target(f"mem{n}", HostMemory(SIZE // 2)) for n in range(2)]
    window = Striped(SIZE, WINDOW, targets, "window")
    window.set_route(route(granularity))
    space.map(WINDOW, window)
    return space, targets, window


def places(tables="window", code="window", data="window", stack="window"):
    """Arguments of Machine.setup(): each area in the window or in RAM, at the same offsets."""
    offsets = {
        "tables": (tables, 0, 256 << 10), "code": (code, MIB, 64 << 10),
        "data": (data, 2 * MIB, DATA_SIZE), "stack": (stack, 4 * MIB, 64 << 10),
    }  # fmt: skip
    bases = {"window": WINDOW, "ram": 8 * MIB}
    vas = {"tables": 0, "code": CODE, "data": DATA, "stack": STACK}
    return {name: (bases[where] + at, size, vas[name]) for name, (where, at, size) in offsets.items()}


def machine(arch="x86_64", granularity=256, dispatch=None, deliver=None, **where):
    space, _, _ = two_way(granularity)
    chosen = {name: value for name, value in (("dispatch", dispatch), ("deliver", deliver)) if value is not None}
    return Machine(space, arch, **chosen).setup(**places(**where))


def code(arch, source):
    """*source*, then the instruction that ends a run."""
    return asm(arch, f"{source}; {END[arch]}")


def run(arch, source, registers=None, **where):
    """Load and run a snippet on a fresh machine; (machine, result)."""
    m = machine(arch, **where)
    m.load(code(arch, source)).set(**registers or {})
    return m, m.run()
