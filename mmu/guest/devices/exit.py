"""A register whose write ends the run: what kernels under test report their result with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmu.core import ffi, lib
from mmu.memory.mmio import NativeMmio

if TYPE_CHECKING:
    from mmu.machine import Machine


class DebugExit(NativeMmio):
    """Ends the run of *machine* with reason "exit" and `Stop.code`, the value written. Reads give 0.

    It may be in memory or in `machine.io`, where emulators have it at 0xf4. The guest stops at the next jump behind the
    store or OUT, and can go on. Of a device that several machines see, it is always the run of *machine* that ends.
    """

    def __init__(self, machine: Machine, size: int = 4, name: str = "debug-exit") -> None:
        write = int(ffi.cast("uintptr_t", ffi.addressof(lib, "mmu_guest_exit")))
        context = int(ffi.cast("uintptr_t", machine.cpu.guest))
        super().__init__(size, write=write, context=context, name=name, valid=(1, 4), keep=machine.cpu)

    def take_state(self) -> dict[str, Any]:
        """That it is there; it remembers nothing. See `mmu.snapshot`."""
        return {"size": self.size}

    def give_state(self, state: Mapping[str, Any]) -> None:
        if state["size"] != self.size:
            raise ValueError(f"it had {state['size']:#x} bytes, and has {self.size:#x}")
