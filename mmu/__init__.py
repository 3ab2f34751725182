"""A software MMU: address spaces, page walkers, guests. Knows nothing of CXL (see the package `cxl`)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmu import arm64, stripes, x86
    from mmu.errors import MmuError
    from mmu.guest.result import RunResult
    from mmu.machine import Machine
    from mmu.memory import (
        AddressSpace,
        Alias,
        Container,
        Frames,
        Guard,
        HostMemory,
        Locator,
        Mmio,
        NativeMmio,
        Ram,
        RamDevice,
        Rom,
        RomDevice,
        Striped,
        Target,
    )
    from mmu.softmmu import SoftMmu
    from mmu.types import Access, Fault, FaultKind, MemTxResult, Place, Step, Translation

# Loaded on first use, so that importing one room does not cost all of them (and formats need no compiled core).
_HOME = {
    "mmu.types": ("Access", "Fault", "FaultKind", "MemTxResult", "Place", "Step", "Translation"),
    "mmu.errors": ("MmuError",),
    "mmu.guest.result": ("RunResult",),
    "mmu.machine": ("Machine",),
    "mmu.softmmu": ("SoftMmu",),
    "mmu.memory": (
        "AddressSpace", "Alias", "Container", "Frames", "Guard", "HostMemory", "Locator", "Mmio", "NativeMmio", "Ram",
        "RamDevice", "Rom", "RomDevice", "Striped", "Target",
    ),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}
_ROOMS = ("arm64", "stripes", "x86")

__all__ = [
    "Access", "AddressSpace", "Alias", "Container", "Fault", "FaultKind", "Frames", "Guard", "HostMemory", "Locator",
    "Machine", "MemTxResult", "Mmio", "MmuError", "NativeMmio", "Place", "Ram", "RamDevice", "Rom", "RomDevice",
    "RunResult", "SoftMmu", "Step", "Striped", "Target", "Translation", "arm64", "stripes", "x86",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"mmu.{name}")
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'mmu' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
