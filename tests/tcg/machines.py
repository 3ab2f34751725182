"""Machines of the recipes: 64 MiB of RAM at 0, a two-way window at WINDOW, page tables whose pages lie where a test
says, level by level. Entries are written as bytes; nothing here uses the walkers."""

from mmu.machine import Machine
from mmu.memory import AddressSpace, HostMemory, Ram, Striped, Target
from mmu.tcg import EmulatorStop
from tests.guest.assembler import asm
from tests.guest.machines import route

MIB, PAGE = 1 << 20, 4096
WINDOW, SIZE = 1 << 32, 16 * MIB
CODE, DATA, STACK = 0x40_0000, 0x1000_0400_0000, 0x7FFF_FFF0_0000  # each in page tables of its own
CODE_PA, DATA_PA, STACK_PA = 0x10_0000, 0x20_0000, 0x30_0000
TABLES = 0x40_0000  # in RAM; in the window, from TABLES_WINDOW on
TABLES_WINDOW = WINDOW + 8 * MIB
X86 = {"table": 0x23, "leaf": 0x63}  # P, RW, A; and D
ARM = {"table": 3, "leaf": 0x403 | 3 << 8}  # valid, table or page; AF, inner shareable
SHIFTS = {4: 39, 3: 30, 2: 21, 1: 12}  # x86 numbers; arm64's are 4 minus these


def space_with_window(granularity=256):
    space = AddressSpace()
    space.map(0, Ram(64 * MIB))
    targets = [Target(f"mem{n}", HostMemory(SIZE // 2)) for n in range(2)]
    window = Striped(SIZE, WINDOW, targets, "window")
    window.set_route(route(granularity, base=WINDOW, size=SIZE))
    space.map(WINDOW, window)
    return space, window


class Bench:
    """A machine with code, a page of data and a page of stack mapped; *window*: levels of the data's own tables that
    lie in the window (the root, 4, is everybody's)."""

    def __init__(self, emulator, window=(), arch="x86_64", data_pa=DATA_PA, stack_pa=STACK_PA, **leaf):
        self.space, self.window = space_with_window()
        self.machine = Machine(self.space, arch, emulator=emulator)
        self.arch, self.flags = arch, X86 if arch == "x86_64" else ARM
        self._free = {False: TABLES, True: TABLES_WINDOW}
        self._tables = {}
        self.root = self._frame(4 in window)
        self.map(CODE, CODE_PA)
        self.map(STACK, stack_pa)
        self.map(DATA, data_pa, window, **leaf)
        self.machine.set(**{"cr3" if arch == "x86_64" else "ttbr0_el1": self.root})

    def _frame(self, in_window):
        self._free[in_window] += PAGE
        return self._free[in_window] - PAGE

    def entry(self, va, level):
        """Physical address of the entry of *va* at a level."""
        table = self.root
        for above in range(4, level, -1):
            table = self._tables[above, va >> SHIFTS[above]]
        return table + 8 * (va >> SHIFTS[level] & 511)

    def map(self, va, pa, window=(), leaf=None):
        for level in (4, 3, 2):
            key = level, va >> SHIFTS[level]
            if key not in self._tables:
                self._tables[key] = self._frame(level - 1 in window)
                self.put(self.entry(va, level), self._tables[key] | self.flags["table"])
        self.put(self.entry(va, 1), pa | (self.flags["leaf"] if leaf is None else leaf))

    def put(self, pa, value, size=8):
        self.space.write(pa, value.to_bytes(size, "little"))

    def get(self, pa, size=8):
        return int.from_bytes(self.space.read(pa, size), "little")

    def load(self, source, at=CODE, **registers):
        """*source*: assembler text or bytes."""
        code = source if isinstance(source, bytes) else asm(self.arch, source)
        self.machine.write(at, code)
        start = {"rip": CODE, "rsp": STACK + PAGE, "rdi": DATA} if self.arch == "x86_64" else {
            "pc": CODE, "sp": STACK + PAGE, "x0": DATA}  # fmt: skip
        self.machine.set(**{**start, **registers})
        return self

    def run(self, **kwargs):
        """(RunResult or the EmulatorStop that was raised)."""
        try:
            return self.machine.run(**kwargs)
        except EmulatorStop as end:
            return end


def bus(result, tag=None):
    """Dispatches as (rw, offset, size)."""
    return [(e.rw, e.offset, e.size) for e in result.trace if e.kind == "bus" and tag in (None, e.tag)]


def kinds(result, *wanted):
    return [e for e in result.trace if e.kind in wanted]
