"""A guest for a test: a topology with RAM, a CPU, and tables, code, data and stack each in RAM or in the window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cxl.errors import TopologyError
from cxl.job import programmed
from cxl.testing.memory import Contents
from cxl.testing.ran import Ran, emulator_ended, ended, plain_trace
from cxl.testing.source import assembled
from mmu.guest.plan import PAGE, REST, level_number
from mmu.machine import Machine
from mmu.memory import AddressSpace, Ram
from mmu.radix.form import Kind
from mmu.types import Access, Place, Translation

if TYPE_CHECKING:
    from cxl.topology import Topology
    from mmu.tcg import Switches

MIB = 1 << 20
SIDES = ("ram", "window")
SIZES = {"tables": 256 << 10, "code": 256 << 10, "data": 256 << 10, "stack": 64 << 10}
START = {"ram": 16 * MIB, "window": 0}  # of the areas, from the start of RAM and of the region
FRESH = 8 * MIB  # from START: pages for `map` and `move_table`
FRESH_SIZE = 8 * MIB
FLAGS = ("A", "D", "AF")  # what a walker may set
TRACE = 1 << 17  # accesses that a plain machine records
WALKS = {"x86_64": "mmu.x86", "aarch64": "mmu.arm64"}
Side = str
Sides = str | Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """A table entry, or another place in physical memory: its address and where that is."""

    address: int
    place: Place
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name + ' ' if self.name else ''}{self.address:#x} ({self.place})"


class Guest:
    """One CPU with its program.

    Args:
        topology: programmed with all it has when nothing in it is committed.
        arch: "x86_64" or "aarch64".
        tables, code, data, stack: "ram" or "window"; tables also by level, {"PT": "window"}, the rest in RAM.
        emulator: None, a release of QEMU such as "8.2", or `mmu.tcg.Switches`.
        source: the program, as of `load`.

    `code`, `data` and `stack` are the addresses where the program sees these areas; it starts with the data's in RDI
    or X0. close() it.
    Raises ValueError, TopologyError or AddressRangeError for what cannot be placed.
    """

    def __init__(
        self, topology: Topology, arch: str = "x86_64", *, tables: Sides = "ram", code: Side = "ram",
        data: Side = "ram", stack: Side = "ram", emulator: str | Switches | None = None,
        source: str | bytes | None = None,
    ) -> None:  # fmt: skip
        self.topology, self.arch, self.switches = topology, arch, _switches(emulator)
        if self.switches is not None:
            topology.emulate(self.switches)
        programmed(topology)
        self.space = AddressSpace()
        for i, (base, size) in enumerate(topology.ram):
            self.space.map(base, Ram(size, f"ram{i}"))
        topology.attach(self.space)
        self.machine = Machine(self.space, arch, "exact", self.switches)
        try:
            self._setup(tables, {"code": code, "data": data, "stack": stack})
            if source is not None:
                self.load(source)
        except BaseException:
            self.close()
            raise

    def _setup(self, tables: Sides, others: Mapping[str, Side]) -> None:
        self._fresh = {side: self._base(side) + FRESH for side in SIDES if self._has(side)}
        sides = tables if isinstance(tables, str) else {REST: "ram", **tables}
        levels: Any = self._area("tables", sides) if isinstance(sides, str) else {
            level: self._area("tables", side) for level, side in sides.items()}  # fmt: skip
        areas = {name: self._area(name, side) for name, side in others.items()}
        self.machine.setup(tables=levels, code=areas["code"], data=areas["data"], stack=areas["stack"])
        plan = self.machine.plan
        assert plan is not None
        self.code, self.data, self.stack = plan.code.va, plan.data.va, plan.stack.va

    def close(self) -> None:
        self.machine.close()

    # -- places -------------------------------------------------------------------------------------

    def _has(self, side: Side) -> bool:
        return bool(self.topology.regions if side == "window" else self.topology.ram)

    def _base(self, side: Side) -> int:
        """Where the areas of a side begin."""
        if side not in SIDES:
            raise ValueError(f"a place must be one of {', '.join(SIDES)}, not {side!r}")
        if not self._has(side):
            raise TopologyError(f"this topology has no {'region' if side == 'window' else 'RAM'} to put things in")
        first = next(iter(self.topology.regions.values())).base if side == "window" else self.topology.ram[0][0]
        return first + START[side]

    def _area(self, name: str, side: Side) -> tuple[int, int]:
        return self._base(side) + list(SIZES).index(name) * MIB, SIZES[name]

    def page(self, side: Side, count: int = 1) -> int:
        """The physical address of *count* pages in a row that nothing uses yet."""
        end = self._base(side) + FRESH + FRESH_SIZE
        page = self._fresh[side]
        if count < 1 or page + count * PAGE > end:
            raise ValueError(f"{count} pages of {side} are wanted, and {(end - page) // PAGE} are left")
        self._fresh[side] += count * PAGE
        return page

    def map(self, va: int, side: Side | int, pages: int = 1, **rights: int) -> int:
        """Map fresh pages of a side, or the physical address given, at *va*. Returns the first physical address.

        *rights*: as of mmu.x86.PageTables.map or mmu.arm64.PageTables.map. Tables go where setup put their level.
        """
        first = side if isinstance(side, int) else self.page(side, pages)
        self.machine.tables.map(va, first, pages * PAGE, page_size=PAGE, **rights)
        return first

    def move_table(self, va: int, level: str, side: Side) -> Entry:
        """Let the table of *level* that translates *va* be a fresh page of *side*. Returns the entry for *va* there."""
        self.machine.tables.move(self.entry(va, level).address & -PAGE, self.page(side))
        self.machine.cpu.set_tables(self.machine.tables.root)
        return self.entry(va, level)

    def touch(self) -> Guest:
        """Set accessed and dirty in every entry, as if all pages had been used: then walks only read."""
        tables = self.machine.tables
        for node in tables.nodes():
            for index, entry in enumerate(tables.tree().entries(node.address, node.level)):
                form = {Kind.TABLE: node.level.table, Kind.LEAF: node.level.leaf}.get(node.level.kind(entry))
                known = {} if form is None else form.layout.fields
                flags = sum(known[name].mask for name in FLAGS if name in known)
                slot = node.address + index * node.level.width
                if entry | flags != entry:
                    self.space.write(slot, (entry | flags).to_bytes(node.level.width, "little"))
        return self

    def entry(self, va: int, level: str) -> Entry:
        """The entry that translates *va* in its table of *level* ("PT", "PTE", "L3", ...), present or not."""
        number = level_number(level, self.machine.cpu.TABLES)
        for step in self.walk(va).steps:
            if step.level == number:
                return self._entry(step.address, f"{level} entry for {va:#x}")
        raise ValueError(f"the walk of {va:#x} ends above level {level}")

    def place(self, va: int) -> Entry:
        """Where the byte at *va* is. ValueError when it is not mapped."""
        found = self.walk(va)
        if not isinstance(found, Translation):
            raise ValueError(f"{va:#x} is not mapped: {found.kind.name} at level {found.level}")
        return self._entry(found.pa, f"{va:#x} at")

    def _entry(self, address: int, name: str) -> Entry:
        return Entry(address, self.space.place(address) or Place("nothing", address), name)

    def walk(self, va: int, access: Access = Access.READ) -> Any:
        """The walk of *va* by the registers as they are: Translation or Fault, with steps. Sets no flag."""
        from importlib import import_module

        registers = self.machine.walk_registers()
        return import_module(WALKS[self.arch]).walk(self.space, registers, va, access, update=False)

    # -- memory -------------------------------------------------------------------------------------

    def read(self, va: int, size: int) -> Contents:
        """What the program would read there, with nothing counted."""
        return Contents(self.machine.read(va, size), va, "")

    def write(self, va: int, data: bytes) -> Guest:
        self.machine.write(va, data)
        return self

    def memory(self, device: str, dpa: int, size: int) -> Contents:
        """What a device holds, by DPA, past every decoder."""
        return Contents(self.topology.device(device).read(dpa, size), dpa, device)

    # -- running ------------------------------------------------------------------------------------

    def load(self, source: str | bytes, at: int | None = None) -> Guest:
        """Bytes, or assembler source (x86: Intel syntax; instructions separated by semicolons or lines), as program.

        *at*: a virtual address where code is mapped already; the program before stays then.
        Raises GuestError when it does not assemble, or GNU as is not installed.
        """
        program = assembled(self.arch, source) if isinstance(source, str) else source
        if at is None:
            self.machine.load(program)
        else:
            self.machine.write(at, program if isinstance(program, bytes) else program.segments[0].data)
        return self

    def set(self, **registers: int) -> Guest:
        self.machine.set(**registers)
        return self

    def run(self, start: int | None = None, timeout: float = 10.0, limit: int | None = None) -> Ran:
        """Run until the guest stops, or the emulator ends."""
        if self.switches is None:
            result = self.machine.run(start, timeout, limit, trace=TRACE)
            return ended(result, plain_trace(self.machine, result.trace), len(result.trace) < TRACE)
        from cxl.testing.events import Trace
        from mmu.tcg import EmulatorStop
        from mmu.tcg.trace import CAPACITY

        try:
            result = self.machine.run(start, timeout, limit)
        except EmulatorStop as stop:
            names = {number: name for name, number in self.machine.cpu.TABLES.items()}
            return emulator_ended(stop, names, self.machine.cpu.pc)
        events: Any = result.trace
        return ended(result, Trace(events), len(events) < CAPACITY)


def _switches(emulator: str | Switches | None) -> Switches | None:
    if emulator is None:
        return None
    from mmu.tcg import switches_of

    return switches_of(emulator)
