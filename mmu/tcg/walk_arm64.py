"""arm64 walks as QEMU makes them: what has no host address is read as by a device, never as by generated code.

So they know no return address and never recompile. The rules of translation are those of `mmu.arm64.reference`.
Source: QEMU, target/arm/ptw.c (S1_ptw_translate, arm_ldq_ptw, arm_casq_ptw).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmu.arm64.format import EntryKind
from mmu.arm64.reference import Leaf, Walker
from mmu.arm64.regime import Tables as TableShape
from mmu.arm64.registers import Registers
from mmu.arm64.request import request_of
from mmu.types import Access, Fault, FaultKind, MemTxResult, Place, Translation

if TYPE_CHECKING:
    from mmu.tcg.access import Accesses


class UnsupportedUpdateError(Exception):
    """A descriptor in device memory was to be updated. Never leaves this file."""


class Tables:
    """Descriptors on the bus: what `mmu.arm64.reference` walks through."""

    def __init__(self, accesses: Accesses) -> None:
        self._accesses = accesses
        self.refuses_updates = accesses.switches.arm_hafdbs_mmio  # of device memory
        self.known: dict[int, int] = {}  # descriptors that a repeated walk does not read again

    def load(self, address: int, size: int, /) -> tuple[int, MemTxResult]:
        if address in self.known:
            return self.known[address], MemTxResult.OK
        memory = self._accesses.memory
        if not memory.dispatches(address):
            return memory.load(address, size, "ptw")[0], MemTxResult.OK
        with self._accesses.locks.if_needed():
            value, result = memory.dispatch(address, size, None, "ptw")
        return value, MemTxResult(result)

    def exchange(self, address: int, size: int, expected: int, desired: int, /) -> tuple[int, MemTxResult]:
        """A compare-and-exchange by host address; else a load, and a store if nothing has changed, under the lock."""
        memory = self._accesses.memory
        if not memory.dispatches(address):
            return memory.exchange(address, size, expected, desired), MemTxResult.OK
        if self.refuses_updates:
            raise UnsupportedUpdateError
        with self._accesses.locks.if_needed():
            old, result = memory.dispatch(address, size, None, "ptw")
            if not result and old == expected:
                result = memory.dispatch(address, size, desired, "ptw")[1]
        self.known[address] = old
        return old, MemTxResult(result)

    def place(self, address: int, /) -> Place | None:
        return self._accesses.memory.space.place(address)


class QemuWalker(Walker):
    """After a lost race the walk goes on with what it found: nothing is read again."""

    def __init__(self, accesses: Accesses, regs: Registers, va: int, access: Access) -> None:
        self._accesses, self._tables = accesses, Tables(accesses)
        super().__init__(self._tables, regs, request_of(regs, va, access, update=True))  # type: ignore[arg-type]

    def read(
        self, t: TableShape, level: int, at: int, ipa: int | None, on_table: bool
    ) -> tuple[int, EntryKind]:
        self._accesses.walking = (level, at)
        found = super().read(t, level, at, ipa, on_table)
        return found

    def write_back(self, t: TableShape, leaf: Leaf, new: int, ipa: int | None, *, on_table: bool) -> bool:
        self._tables.known = {step.address: step.value for step in self.steps}
        try:
            done = super().write_back(t, leaf, new, ipa, on_table=on_table)
        except UnsupportedUpdateError:
            at = leaf.entry_address
            self.stop(FaultKind.UNSUPPORTED_ATOMIC, leaf.level, at, leaf.descriptor, ipa=ipa, on_table=on_table)
        if done:
            self._tables.known = {}
        return done

    def table_address(self, address: int, access: Access) -> int:
        """Where a descriptor lies. Whether stage 2 lets it be written is asked for host memory only (stage2_ro_update;
        before there were updates of others, these were refused first: arm_hafdbs_mmio).
        """
        unasked = self._accesses.switches.stage2_ro_update or self._tables.refuses_updates
        if access is Access.WRITE and unasked:
            at = super().table_address(address, Access.READ)
            if self._accesses.memory.dispatches(at):
                return at
        return super().table_address(address, access)


def walk(accesses: Accesses, regs: Registers, va: int, access: Access) -> Translation | Fault:
    """Translate *va*; AF and dirty state are written where TCR tells hardware to."""
    answer = QemuWalker(accesses, regs, va, access).run()
    accesses.walking = None
    return answer
