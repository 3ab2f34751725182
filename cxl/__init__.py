"""CXL policy: registers, windows and devices that end up as striped regions on a bus."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cxl.blueprint import Backing, Blueprint, BridgePlan, DevicePlan, PortPlan, SwitchPlan, WindowPlan
    from cxl.decode import Level, Miss, Route
    from cxl.errors import CommitError, TopologyError
    from cxl.exchange.qemu import DEFAULT_QEMU_ARGS
    from cxl.linux import Problem
    from cxl.mock import cxl_test
    from cxl.region import Region
    from cxl.topology import Topology

# Loaded on first use: the formats and the command line need no compiled core.
_HOME = {
    "cxl.blueprint": ("Backing", "Blueprint", "BridgePlan", "DevicePlan", "PortPlan", "SwitchPlan", "WindowPlan"),
    "cxl.decode": ("Level", "Miss", "Route"),
    "cxl.errors": ("CommitError", "TopologyError"),
    "cxl.exchange.qemu": ("DEFAULT_QEMU_ARGS",),
    "cxl.linux": ("Problem",),
    "cxl.mock": ("cxl_test",),
    "cxl.region": ("Region",),
    "cxl.topology": ("Topology",),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "DEFAULT_QEMU_ARGS", "Backing", "Blueprint", "BridgePlan", "CommitError", "DevicePlan", "Level", "Miss", "PortPlan",
    "Problem", "Region", "Route", "SwitchPlan", "Topology", "TopologyError", "WindowPlan",
    "cxl_test",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'cxl' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
