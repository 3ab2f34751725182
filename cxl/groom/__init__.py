"""Grooming: which tables, code and buffers of a guest are in CXL windows, what that costs, and moving them to RAM."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cxl.groom.compare import Side, differences
    from cxl.groom.cost import Usage, recorded
    from cxl.groom.find import KINDS, Found, survey
    from cxl.groom.job import Grooming, groom
    from cxl.groom.moving import migrate, plan_moves

_HOME = {
    "cxl.groom.compare": ("Side", "differences"),
    "cxl.groom.cost": ("Usage", "recorded"),
    "cxl.groom.find": ("KINDS", "Found", "survey"),
    "cxl.groom.job": ("Grooming", "groom"),
    "cxl.groom.moving": ("migrate", "plan_moves"),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "KINDS", "Found", "Grooming", "Side", "Usage", "differences", "groom", "migrate", "plan_moves", "recorded",
    "survey",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'cxl.groom' has no attribute {name!r}")
