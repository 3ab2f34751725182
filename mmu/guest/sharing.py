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
_told: weakref.WeakSet[Cpu] = weakref.WeakSet()  # those that know that they share memory


class Observer:
    """Of the space of a CPU: what a change of it makes common is known to all when the change is made."""

    def __init__(self, cpu: Cpu) -> None:
        self._cpu = weakref.ref(cpu)

    def refresh(self) -> None:
        cpu = self._cpu()
        if cpu is None or cpu.closed:
            return
        with _lock:
            others = [] if _told.issuperset(_cpus) else _sharers(cpu)
            _tell([cpu, *others] if others else [])


def register(cpu: Cpu) -> Observer:
    """The observer lives as long as who keeps it: *cpu*."""
    with _lock:
        _cpus.add(cpu)
    observer = Observer(cpu)
    cpu.space.observe(observer)
    return observer


def announce(cpu: Cpu) -> None:
    """Tell *cpu*, which is about to run, whether it shares memory, and those that it shares it with."""
    with _lock:  # of two that come at once, the later one sees the other, and what it tells that one stands
        others = _sharers(cpu)
        lib.mmu_guest_set_shared(cpu.guest, bool(others))
        (_told.add if others else _told.discard)(cpu)
        _tell(others)


def _tell(cpus: list[Cpu]) -> None:
    """Under the lock. They may run, and C waits until they look: in the middle of that nobody waits for our lock."""
    for cpu in cpus:
        if cpu not in _told:
            lib.mmu_guest_share(cpu._guest)
            _told.add(cpu)


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
