"""For tests of software on CXL memory: guests set up in a line, and what is said of them compared with `==`.

The pytest plugin (`cxl.pytest_plugin`, entry point `cxl_mmu`) hands out guests and topologies as fixtures and explains
what differs. Everything here also works without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cxl.testing.events import Trace, bus, event, in_order
    from cxl.testing.expect import aborted, crashed, delivered, faulted, halted, hung, stopped
    from cxl.testing.guest import Entry, Guest
    from cxl.testing.ran import Ran
    from cxl.testing.source import assembled
    from cxl.testing.topology import interleaved

_HOME = {
    "cxl.testing.events": ("Trace", "bus", "event", "in_order"),
    "cxl.testing.expect": ("aborted", "crashed", "delivered", "faulted", "halted", "hung", "stopped"),
    "cxl.testing.guest": ("Entry", "Guest"),
    "cxl.testing.ran": ("Ran",),
    "cxl.testing.source": ("assembled",),
    "cxl.testing.topology": ("interleaved",),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Entry", "Guest", "Ran", "Trace", "aborted", "assembled", "bus", "crashed", "delivered", "event", "faulted",
    "halted", "hung", "in_order", "interleaved", "stopped",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'cxl.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
