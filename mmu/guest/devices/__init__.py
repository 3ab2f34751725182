"""Devices for guests that need no Python while they run: serial ports, and one to end a run with.

They are regions: map them into `machine.space`, or (x86) into `machine.io`, the space of IN and OUT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmu.guest.devices.exit import DebugExit
    from mmu.guest.devices.serial import Pl011, Serial16550

_WHERE = {
    "DebugExit": "mmu.guest.devices.exit",
    "Pl011": "mmu.guest.devices.serial", "Serial16550": "mmu.guest.devices.serial",
}  # fmt: skip
__all__ = ["DebugExit", "Pl011", "Serial16550"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_WHERE[name]), name)
