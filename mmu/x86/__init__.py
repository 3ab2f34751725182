"""x86 paging: registers, walks, exceptions, table builder. Names load on first use."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import mmu.x86.walk  # noqa: F401  (the reference: once loaded it does not rebind the name below)

if TYPE_CHECKING:
    from mmu.x86.faults import (
        EptMisconfiguration,
        EptViolation,
        GeneralProtection,
        MachineCheck,
        NestedPageFault,
        PageFault,
        StackFault,
        exception,
    )
    from mmu.x86.mappings import scan, scan_batches
    from mmu.x86.native import result_type, walk, walk_many
    from mmu.x86.registers import Ept, Npt, Registers
    from mmu.x86.tables import EptTables, NptTables, PageTables

_HOME = {
    "mmu.x86.faults": (
        "EptMisconfiguration", "EptViolation", "GeneralProtection", "MachineCheck", "NestedPageFault", "PageFault",
        "StackFault", "exception",
    ),
    "mmu.x86.mappings": ("scan", "scan_batches"),
    "mmu.x86.native": ("result_type", "walk", "walk_many"),
    "mmu.x86.registers": ("Ept", "Npt", "Registers"),
    "mmu.x86.tables": ("EptTables", "NptTables", "PageTables"),
}  # fmt: skip
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Ept", "EptMisconfiguration", "EptTables", "EptViolation", "GeneralProtection", "MachineCheck",
    "NestedPageFault", "Npt", "NptTables", "PageFault", "PageTables", "Registers", "StackFault", "exception",
    "result_type", "scan", "scan_batches", "walk", "walk_many",
]  # fmt: skip

# Importing a submodule binds its name here; `walk` stands for the function of that name.
delattr(sys.modules[__name__], "walk")


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'mmu.x86' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_WHERE[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
