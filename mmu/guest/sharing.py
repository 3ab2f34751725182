"""Which CPUs may access the same memory: their atomic instructions must be atomic for each other."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from mmu.core import ffi, lib
from mmu.memory.region import Ram

if TYPE_CHECKING:
    from mmu.guest.cpu import Cpu
    from mmu.memory import AddressSpace

_lock = threading.Lock()
_cpus: weakref.WeakSet[Cpu] = weakref.WeakSet()


def register(cpu: Cpu) -> None:
    with _lock:
        _cpus.add(cpu)


def announce(cpu: Cpu) -> list[Cpu]:
    """Tell *cpu*, which is about to run, whether it shares memory. Returns those that it is to tell of itself."""
    with _lock:  # of two that come at once, the later one sees the other, and what it tells that one stands
        others = _sharers(cpu)
        lib.mmu_guest_set_shared(cpu.guest, bool(others))
    return others


def _sharers(cpu: Cpu) -> list[Cpu]:
    """The other CPUs, open now, that could access memory that *cpu* can access."""
    others = [other for other in _cpus if other is not cpu and not other.closed]
    if not others:
        return []
    mine = _memories(cpu.space)
    return [other for other in others if other.space is cpu.space or not mine.isdisjoint(_memories(other.space))]


def _memories(space: AddressSpace) -> set[int]:
    """Host addresses of RAM and of the devices behind windows."""
    found = [target.memory for target in list(space.targets)]
    found += [r.region.memory for r in space.view.ranges if isinstance(r.region, Ram)]
    return {int(ffi.cast("uintptr_t", memory.address)) for memory in found}
