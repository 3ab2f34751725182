"""x86 walks as QEMU makes them: an entry is read by host address, or else by a load of generated code's kind.

That load may want to recompile the block that it is made in, and asks where in it: the return address. The rules of
paging are those of `mmu.x86.walk`; only how entries are reached is said here.
Source: QEMU, target/i386/tcg/system/excp_helper.c (ptw_translate, ptw_ldq, ptw_setl).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from mmu.layout import Layout
from mmu.tcg.memory import MMIO
from mmu.types import Access, Fault, MemTxResult, Place, Step, Translation
from mmu.x86.descent import Entries, Entry, LostRaceError, Request, layout_of
from mmu.x86.format import Level
from mmu.x86.registers import Registers
from mmu.x86.walk import undisturbed

if TYPE_CHECKING:
    from mmu.tcg.access import Accesses, HostPc

LOW = 0xFFFFFFFF


class Decoded(Mapping[str, int]):
    """The fields of an entry, by the manual's names."""

    __slots__ = ("_layout", "_value")

    def __init__(self, layout: type[Layout], value: int) -> None:
        self._layout, self._value = layout, value

    def __getitem__(self, name: str) -> int:
        return self._layout.fields[name].get(self._value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout.decode(self._value))

    def __len__(self) -> int:
        return len(self._layout.decode(self._value))


class Tables:
    """Table entries on the bus: what `mmu.x86` walks through. *ra*: where in generated code the walk began."""

    def __init__(self, accesses: Accesses, ra: HostPc | None) -> None:
        self._accesses = accesses
        self._ra = None if accesses.switches.ptw_retaddr else ra
        self.known: dict[int, int] = {}  # entries that a repeated walk does not read again

    def load(self, address: int, size: int, /) -> tuple[int, MemTxResult]:
        """Errors of the bus are not seen."""
        if address in self.known:
            return self.known[address], MemTxResult.OK
        if self._accesses.memory.dispatches(address):
            return self._accesses.dispatch(address, size, None, self._ra, "ptw"), MemTxResult.OK
        return self._accesses.memory.load(address, size, "ptw")[0], MemTxResult.OK

    def exchange(self, address: int, size: int, expected: int, desired: int, /) -> tuple[int, MemTxResult]:
        """The lower 4 bytes, where all flags are. Returns *expected* when it took place."""
        if self._has_host(address):
            old = self._accesses.memory.exchange(address, 4, expected & LOW, desired & LOW)
            return expected & ~LOW | old, MemTxResult.OK
        with self._accesses.locks.for_update():
            old = self._slow(address, None)
            if old == expected & LOW:
                self._slow(address, desired & LOW)
        return expected & ~LOW | old, MemTxResult.OK

    def place(self, address: int, /) -> Place | None:
        """Not asked for on the way: `walk` adds the places to a fault."""
        return None

    def _has_host(self, address: int) -> bool:
        """For writing. The memory hooks of a plugin hide it (plugin_walk)."""
        hidden = self._accesses.switches.plugin_walk and self._accesses.switches.plugins
        return not hidden and not self._accesses.memory.flags(address)[1]

    def _slow(self, address: int, value: int | None) -> int:
        """A load or store of 4 bytes through the softmmu, from nowhere in generated code."""
        memory = self._accesses.memory
        if memory.flags(address)[value is not None] & MMIO:
            return self._accesses.dispatch(address, 4, value, None, "ptw")
        if value is None:
            return memory.load(address, 4, "ptw")[0]
        memory.store(address, 4, value, "ptw")
        return value


class QemuEntries(Entries):
    """Says where a walk is, and what a lost race costs: a leaf starts again at the root, a table only at its level."""

    def __init__(self, accesses: Accesses, tables: Tables, va: int, access: Access) -> None:
        super().__init__(tables, va, access, update=True, machine_check=False)
        self._accesses, self._tables = accesses, tables

    def read(self, level: Level, address: int, gpa: int, request: Request) -> Entry | Fault:
        """As that of the base class, but the fields of the entry are decoded when somebody looks at them."""
        self._accesses.walking = (level.number, address)
        value, _ = self._tables.load(address, level.size)
        layout = layout_of(level, value)
        self.steps.append(Step(level.number, level.name, address, value, Decoded(layout, value), request.stage))
        return Entry(level, layout, address, gpa, value, request.stage)

    def set(self, entry: Entry, flags: int, request: Request) -> Fault | None:
        self._accesses.walking = (entry.level.number, entry.address)
        try:
            return super().set(entry, flags, request)
        except LostRaceError:
            above = () if entry.leaf else self.steps[:-1]
            self._tables.known = {step.address: step.value for step in above}
            raise


def walk(
    accesses: Accesses, regs: Registers, va: int, access: Access, ra: HostPc | None = None
) -> Translation | Fault:
    """Translate *va*; A and D are set. Raises EmulatorStop where this emulator does not survive it."""
    answer = undisturbed(entries := QemuEntries(accesses, Tables(accesses, ra), va, access), regs)
    steps = tuple(entries.steps)
    if isinstance(answer, Fault):
        place = accesses.memory.space.place
        steps = tuple(replace(step, flags=dict(step.flags), place=place(step.address)) for step in steps)
    object.__setattr__(answer, "steps", steps)  # our own fresh value
    accesses.walking = None
    return answer
