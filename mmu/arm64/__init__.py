"""arm64 (VMSAv8-64) paging: walk, walk_many, exception, at, table builders; the formats are in `mmu.arm64.format`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmu.arm64.faults import Abort, exception
    from mmu.arm64.many import result_type, walk_many
    from mmu.arm64.mappings import scan, scan_batches
    from mmu.arm64.par import at
    from mmu.arm64.registers import Registers
    from mmu.arm64.tables import PageTables, SingleRangeTables, Stage2Tables
    from mmu.arm64.walker import walk

_HOME = {
    "mmu.arm64.faults": ("Abort", "exception"),
    "mmu.arm64.mappings": ("scan", "scan_batches"),
    "mmu.arm64.many": ("result_type", "walk_many"),
    "mmu.arm64.par": ("at",),
    "mmu.arm64.registers": ("Registers",),
    "mmu.arm64.tables": ("PageTables", "SingleRangeTables", "Stage2Tables"),
    "mmu.arm64.walker": ("walk",),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Abort", "PageTables", "Registers", "SingleRangeTables", "Stage2Tables", "at", "exception", "result_type", "scan",
    "scan_batches", "walk", "walk_many",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        found = globals()[name] = getattr(import_module(_WHERE[name]), name)
        return found
    raise AttributeError(f"module 'mmu.arm64' has no attribute {name!r}")
