"""x86-64 paging."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmu.x86.tables import EptTables, NptTables, PageTables

_HOME = {
    "mmu.x86.tables": ("EptTables", "NptTables", "PageTables"),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = ["EptTables", "NptTables", "PageTables"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'mmu.x86' has no attribute {name!r}")
