"""The execution model of a translating emulator: what QEMU's TCG does around each instruction, release by release.

Deterministic: a hang is a raised `Deadlock`, an abort an `EmulatorAbort`, a host crash a `HostSegv`. Nothing of this
room is loaded until `mmu.Machine` is given `emulator=`.

An engine (unicorn) computes; everything around it is here: which bytes an instruction was when its block was
translated, the TLB, walks, dispatches, the lock. What QEMU does by helpers of many accesses (FXSAVE) comes in the
engine's order, and vector operands of x86 instructions that compute by halves of 8 bytes. Host addresses of generated
code are made up. One CPU runs; another one can only wait for the lock. MOV to control registers and WRMSR refuse what
a CPU refuses, where QEMU 7.2 and 10.0 run for ever at a reserved bit of CR4.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmu.tcg.releases import RELEASES, release, reverted, switches_of
    from mmu.tcg.stops import Deadlock, EmulatorAbort, EmulatorStop, HostSegv
    from mmu.tcg.switches import BUGS, Switches
    from mmu.tcg.trace import Event

_HOME = {
    "mmu.tcg.switches": ("BUGS", "Switches"),
    "mmu.tcg.releases": ("RELEASES", "release", "reverted", "switches_of"),
    "mmu.tcg.stops": ("Deadlock", "EmulatorAbort", "EmulatorStop", "HostSegv"),
    "mmu.tcg.trace": ("Event",),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "BUGS", "RELEASES", "Deadlock", "EmulatorAbort", "EmulatorStop", "Event", "HostSegv", "Switches", "release",
    "reverted", "switches_of",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'mmu.tcg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
