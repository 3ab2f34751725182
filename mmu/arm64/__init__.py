"""arm64 (VMSAv8-64) paging."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmu.arm64.tables import PageTables, SingleRangeTables, Stage2Tables

_HOME = {
    "mmu.arm64.tables": ("PageTables", "SingleRangeTables", "Stage2Tables"),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = ["PageTables", "SingleRangeTables", "Stage2Tables"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'mmu.arm64' has no attribute {name!r}")
