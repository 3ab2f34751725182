"""The machine of the reports: RAM, a window that two devices share 256 bytes at a time, and tables laid out by hand.

Which level of which walk is in the window is the whole point of a scenario, so tables are written here entry by entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cxl import Topology
from cxl.bugs.bug import Observation, Outcome
from cxl.bugs.counts import counts_of
from mmu import AddressSpace, Machine, Ram, Rom
from mmu.arm64.format import Page4K, Table4K
from mmu.show import exception_text
from mmu.tcg import EmulatorStop
from mmu.x86.format import Pde, Pte

if TYPE_CHECKING:
    from mmu.guest.result import RunResult
    from mmu.tcg import Switches

PAGE = 4096
SHIFTS = (39, 30, 21, 12)
CODE, DATA, STACK = 0x40_0000, 0x1000_0400_0000, 0x7FFF_FFF0_0000
ROM_BASE, ROM_SIZE = 0xC000_0000, 64 << 10
RAM_FIRST = 0x10_0000
BUDGET = 2000  # instructions; a scenario needs a few dozen
# A load in mid-block, whose walk most bugs are about, and a register that tells whether the guest came past it.
X86_LOAD = """
    48 8b 07                        mov rax, qword ptr [rdi]
    48 ff c3                        inc rbx
    f4                              hlt
"""
ARM64_LOAD = """
    01 00 40 f9                     ldr x1, [x0]
    42 04 00 91                     add x2, x2, #1
    7f 20 03 d5                     wfi
"""


@dataclass(frozen=True)
class Form:
    """How an architecture writes entries: what refers to a table, and what to a page, all flags set that it has."""

    table: int
    page: int
    root: str  # the register that points to the root


FORMS = {
    "x86_64": Form(Pde.make(P=1, RW=1, US=1, A=1), Pte.make(P=1, RW=1, A=1, D=1), "cr3"),
    "aarch64": Form(Table4K.make(VALID=1, TYPE=1), Page4K.make(VALID=1, TYPE=1, AF=1, SH=3), "ttbr0_el1"),
}  # fmt: skip


def listing(text: str) -> bytes:
    """The bytes of lines such as "48 8b 07   mov rax, qword ptr [rdi]", at least three spaces between the two."""
    return b"".join(bytes.fromhex(line.strip().partition("   ")[0]) for line in text.strip().splitlines())


class Rig:
    """RAM, ROM, the window and the bridges' registers on the bus of an emulator, a root table, and a CPU.

    Places are letters: "r" RAM, "w" the window, "h" a part of the window that no decoder covers, "o" ROM.
    """

    def __init__(
        self, arch: str, switches: Switches, root: str = "r", topology: Topology | None = None,
        devices: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        self.arch, self.switches, self.form = arch, switches, FORMS[arch]
        self.topology = topology or Topology.default()
        self.topology.emulate(switches)
        self.region = self.topology.create_region(0, devices)
        self.space = AddressSpace()
        for base, size in self.topology.ram:
            self.space.map(base, Ram(size))
        self._rom = Rom(bytes(ROM_SIZE))
        self.space.map(ROM_BASE, self._rom)
        self.topology.attach(self.space, registers=True)
        hole = self.region.base + self.region.size
        self._next = {"r": RAM_FIRST, "w": self.region.base, "h": hole, "o": ROM_BASE}
        self.root = self.take(root)

    # -- memory and tables --------------------------------------------------------------------------

    def take(self, place: str) -> int:
        """The physical address of a fresh page."""
        page = self._next[place]
        self._next[place] += PAGE
        return page

    def fill(self, pa: int, data: bytes) -> None:
        """Put *data* there, ROM or not; nothing answers in a hole."""
        if ROM_BASE <= pa < ROM_BASE + ROM_SIZE:
            self._rom.memory.write(pa - ROM_BASE, data)
        else:
            self.space.access(pa, data=data)

    def word(self, pa: int) -> int:
        return int.from_bytes(self.space.access(pa, 8)[0], "little")

    def entry(self, va: int, depth: int = 3) -> int:
        """Where the entry for *va* is, 0 in the root to 3 in the last table. Those above it must be there."""
        table = self.root
        for d, shift in enumerate(SHIFTS):
            at = table + (va >> shift & 511) * 8
            if d == depth:
                return at
            table = self.word(at) & 0xFFFF_FFFF_F000
        raise ValueError(f"depth must be 0..3, not {depth}")

    def map(self, va: int, page: int | str = "r", tables: str = "rrr", clear: int = 0) -> int:
        """Map a page at *va*: the one at *page*, or a fresh one there. Its physical address.

        *tables*: where the tables of depth 1 to 3 go, those that are there already staying. *clear*: bits that the
        page's own entry is to lack.
        """
        pa = self.take(page) if isinstance(page, str) else page
        for depth, place in enumerate(tables):
            at = self.entry(va, depth)
            if not self.word(at):
                self.fill(at, (self.take(place) | self.form.table).to_bytes(8, "little"))
        self.fill(self.entry(va), (pa | self.form.page & ~clear).to_bytes(8, "little"))
        return pa

    def code(self, va: int, text: str, place: str = "r", tables: str = "rrr", clear: int = 0) -> int:
        """Map a page of code and put a listing at *va* in it. Its physical address."""
        page = self.map(va & -PAGE, place, tables, clear)
        self.fill(page + va % PAGE, listing(text))
        return page

    # -- running ------------------------------------------------------------------------------------

    @cached_property
    def machine(self) -> Machine:
        machine = Machine(self.space, self.arch, emulator=self.switches)
        return machine.set(**{self.form.root: self.root})

    def observe(
        self, start: int = CODE, registers: Mapping[str, int] | None = None, results: Mapping[str, int] | None = None,
        wrong: Callable[[], str] = lambda: "",
    ) -> Observation:  # fmt: skip
        """Run from *start* and say what came of it.

        *results*: what registers must hold when the guest halts. *wrong*: a sentence on what else is not as it must
        be, or "".
        """
        with self.machine as machine:
            machine.set(**registers or {})
            try:
                result = machine.run(start, timeout=None, limit=BUDGET)
            except EmulatorStop as stop:
                trace = tuple(stop.trace)
                counts = counts_of(trace) | {"lock_depth": stop.counters.lock_depth}
                return Observation(Outcome(stop.outcome), str(stop), stop.pc, counts, stop.registers, trace)
            return self._ended(result, results or {}, wrong)

    def _ended(self, result: RunResult, results: Mapping[str, int], wrong: Callable[[], str]) -> Observation:
        stop, counters = result.stop, result.counters
        trace: tuple[Any, ...] = tuple(result.trace)
        counts = counts_of(trace) | {"lock_depth": counters.lock_depth}
        outcome, message = Outcome.OK, ""
        if stop.reason == "halt":
            differ = [f"{n} is {result.registers[n]:#x}, not {v:#x}" for n, v in results.items()
                      if result.registers[n] != v]
            message = "; ".join(differ) or wrong()
            outcome = Outcome.WRONG_DATA if message else Outcome.OK
        elif stop.reason == "limit":
            outcome, message = Outcome.HANG, f"{BUDGET} instructions and no end"
        else:
            told = stop.reason == "fault" and stop.exception is not None
            message = exception_text(stop.exception) if told else f"{stop.reason}: {stop.detail}"
            outcome = Outcome.GUEST_FAULT
        return Observation(outcome, message, stop.pc, counts, result.registers, trace)
