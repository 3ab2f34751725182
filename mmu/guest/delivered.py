"""What a run delivered to the guest's own handlers: the first ones, and how many.

C keeps them while it delivers ("native"); what Python delivers ("reference") is kept here, by the same rules.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from mmu.core import ffi, lib
from mmu.guest.stop import Delivered

if TYPE_CHECKING:
    from mmu.guest.cpu import Cpu

DELIVER = ("native", "reference")
KEPT = 4096  # exceptions that a run remembers; DELIVERED_KEPT in csrc/guest.h


class Record:
    def __init__(self, cpu: Cpu) -> None:
        self._cpu: Cpu = weakref.proxy(cpu)  # which owns this: a CPU goes away when nobody has it any more
        self._kept = list[Delivered]()
        self._count, self._limit = 0, 0

    def begin(self, limit: int) -> None:
        """A run begins that ends after *limit* exceptions; 0: after any number."""
        self._kept.clear()
        self._count, self._limit = 0, limit

    def note(self, delivered: Delivered) -> bool:
        """Count what Python delivered; whether the run must end."""
        self._count += 1
        if len(self._kept) < KEPT:
            self._kept.append(delivered)
        return self._count == self._limit

    def count(self, before: int) -> int:
        """How many there were in this run; *before*: value of the C counter when it began."""
        native: int = self._cpu.counters.exceptions - before
        return native + self._count

    def all(self) -> tuple[Delivered, ...]:
        if self._cpu.deliver == "reference":
            return tuple(self._kept)
        count = ffi.new("uint32_t *")
        raw = lib.mmu_guest_delivered(self._cpu.guest, count)
        return tuple(Delivered(d.pc, self._cpu.event(d.event), d.handler) for d in raw[0 : count[0]])
