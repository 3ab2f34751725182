"""x86 walks as QEMU makes them: an entry is read by host address, or else by a load of generated code's kind.

That load may want to recompile the block that it is made in, and asks where in it: the return address. The rules of
paging are those of `mmu.x86.walk`; only how entries are reached is said here.
Source: QEMU, target/i386/tcg/system/excp_helper.c (ptw_translate, ptw_ldq, ptw_setl).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmu.tcg.memory import MMIO
from mmu.types import Access, Fault, MemTxResult, Place, Translation
from mmu.x86.descent import Entries, Entry, LostRaceError, Request
from mmu.x86.format import Level
from mmu.x86.registers import Registers
from mmu.x86.walk import undisturbed

if TYPE_CHECKING:
    from mmu.tcg.access import Accesses, HostPc

LOW = 0xFFFFFFFF


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
        return self._accesses.memory.space.place(address)

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
        self._accesses.walking = (level.number, address)
        return super().read(level, address, gpa, request)

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
    object.__setattr__(answer, "steps", tuple(entries.steps))  # our own fresh value
    accesses.walking = None
    return answer
