"""Refuses a blueprint that no machine can have, before anything is built or opened."""

from __future__ import annotations

from collections.abc import Iterable

from cxl.blueprint import Backing, Blueprint, BridgePlan, DevicePlan, PortPlan, SwitchPlan, WindowPlan
from cxl.errors import TopologyError
from cxl.format import DECODER_COUNTS, DECODER_GRAIN
from mmu.stripes import ENCODED_GRANULARITY, ENCODED_WAYS

XOR_MAPS = {1: 0, 2: 1, 3: 0, 4: 2, 6: 1, 8: 3, 12: 2, 16: 4}  # ways -> maps used: one per power of two
HPA_BITS = 52


def validate(plan: Blueprint) -> None:
    """Raise TopologyError, naming both sides, unless *plan* can be built."""
    _unique_names(plan)
    _bridges(plan)
    _ports(plan)
    _occupants(plan)
    _reachable(plan)
    _decoders(plan)
    for device in plan.devices:
        _memory(device)
    _backings_once(plan)
    for window in plan.windows:
        _window(window, {b.name for b in plan.bridges})
        _kind(window, plan)
    _window_overlap(plan.windows)


def _unique_names(plan: Blueprint) -> None:
    seen: dict[str, str] = {}
    kinds = {
        "host bridge": plan.bridges, "port": plan.ports, "switch": plan.switches, "device": plan.devices,
    }  # fmt: skip
    for kind, items in kinds.items():
        for item in items:  # type: ignore[attr-defined]
            if item.name in seen:
                raise TopologyError(f"{kind} {item.name}: the name is already that of a {seen[item.name]}")
            seen[item.name] = kind
    windows: set[str] = set()
    for window in plan.windows:
        if window.name in windows:
            raise TopologyError(f"window {window.name}: the name is already that of a window")
        windows.add(window.name)


def _bridges(plan: Blueprint) -> None:
    seen: dict[int, str] = {}
    for bridge in plan.bridges:
        if bridge.uid in seen:
            raise TopologyError(f"host bridges {seen[bridge.uid]} and {bridge.name} both have UID {bridge.uid}")
        seen[bridge.uid] = bridge.name


def _ports(plan: Blueprint) -> None:
    parents = {b.name for b in plan.bridges} | {s.name for s in plan.switches}
    seen: dict[tuple[str, int], str] = {}
    for port in plan.ports:
        if port.parent not in parents:
            raise TopologyError(f"port {port.name} is on {port.parent}, but there is {_only(parents)}")
        if not 0 <= port.number <= 255:
            raise TopologyError(f"port {port.name}: the port number must be in 0..255, not {port.number}")
        other = seen.setdefault((port.parent, port.number), port.name)
        if other != port.name:
            raise TopologyError(f"ports {other} and {port.name} of {port.parent} both have port number {port.number}")


def _occupants(plan: Blueprint) -> None:
    ports = {p.name for p in plan.ports}
    seen: dict[str, str] = {}
    parts: list[SwitchPlan | DevicePlan] = [*plan.switches, *plan.devices]
    for part in parts:
        if part.port not in ports:
            raise TopologyError(f"{part.name} is in port {part.port}, but there is {_only(ports)}")
        other = seen.setdefault(part.port, part.name)
        if other != part.name:
            raise TopologyError(f"port {part.port} cannot hold both {other} and {part.name}")


def _reachable(plan: Blueprint) -> None:
    """Every switch must hang below a host bridge: walks up, at most as many steps as there are switches."""
    port_of: dict[str, PortPlan] = {p.name: p for p in plan.ports}
    switch_of = {s.name: s for s in plan.switches}
    for switch in plan.switches:
        path = [switch.name]
        while (parent := port_of[switch_of[path[-1]].port].parent) in switch_of:
            if parent in path:
                raise TopologyError(f"switches form a cycle: {' -> '.join([*path, parent])}")
            path.append(parent)


def _decoders(plan: Blueprint) -> None:
    parts: list[BridgePlan | SwitchPlan | DevicePlan] = [*plan.bridges, *plan.switches, *plan.devices]
    for part in parts:
        if part.decoders is not None and part.decoders not in DECODER_COUNTS.values():
            raise TopologyError(
                f"{part.name}: the number of decoders must be one of {sorted(DECODER_COUNTS.values())}, "
                f"not {part.decoders}")
    for bridge in plan.bridges:
        below = [p.name for p in plan.ports if p.parent == bridge.name]
        if bridge.decoders is None and len(below) > 1:
            raise TopologyError(
                f"host bridge {bridge.name} has no decoders, so it can have one port, not {len(below)}: {below}")


def _memory(device: DevicePlan) -> None:
    if device.volatile is None and device.persistent is None and device.dynamic is None:
        raise TopologyError(f"device {device.name} must have volatile, persistent or dynamic memory, not none")
    for backing in device.backings:
        if not 0 < backing.size < 1 << HPA_BITS:
            raise TopologyError(
                f"memory {backing.name} of {device.name}: size must be 1 .. 2^{HPA_BITS}-1 bytes, not {backing.size}")
    if device.dynamic is not None:
        _dynamic(device, device.dynamic)


def _dynamic(device: DevicePlan, dynamic: Backing) -> None:
    """Regions of dynamic capacity begin and end at multiples of 256 MiB."""
    count = device.dynamic_regions
    if not 1 <= count <= 8:
        raise TopologyError(f"device {device.name}: dynamic capacity must have 1..8 regions, not {count}")
    start = sum(b.size for b in (device.volatile, device.persistent) if b is not None)
    if start % DECODER_GRAIN or dynamic.size % (count * DECODER_GRAIN):
        raise TopologyError(
            f"device {device.name}: each of {count} dynamic regions must begin and end at a multiple of 256 MiB, "
            f"not {dynamic.size:#x} bytes from DPA {start:#x}")


def _backings_once(plan: Blueprint) -> None:
    seen: dict[str, str] = {}
    for device in plan.devices:
        for backing in device.backings:
            if backing.name in seen:
                raise TopologyError(f"memory {backing.name} is used by {seen[backing.name]} and by {device.name}")
            seen[backing.name] = device.name


def _window(window: WindowPlan, bridges: set[str]) -> None:
    what = f"window {window.name}"
    if len(window.targets) not in ENCODED_WAYS:
        raise TopologyError(f"{what}: the number of targets must be one of {sorted(ENCODED_WAYS)}, "
                            f"not {len(window.targets)}")
    for target in window.targets:
        if target not in bridges:
            raise TopologyError(f"{what}: target {target} is no host bridge; there is {_only(bridges)}")
    if window.granularity not in ENCODED_GRANULARITY:
        raise TopologyError(f"{what}: granularity must be a power of two from 256 to 16384 bytes, "
                            f"not {window.granularity}")
    if window.size <= 0 or window.size % DECODER_GRAIN:
        raise TopologyError(f"{what}: size must be a multiple of 256 MiB ({DECODER_GRAIN:#x}), not {window.size:#x}")
    if window.base % DECODER_GRAIN:
        raise TopologyError(f"{what}: base must be a multiple of 256 MiB ({DECODER_GRAIN:#x}), not {window.base:#x}")
    if window.base < 0 or window.base + window.size > 1 << HPA_BITS:
        raise TopologyError(f"{what}: {window.base:#x}+{window.size:#x} leaves {HPA_BITS} bits of address")
    need = XOR_MAPS[len(window.targets)]
    if window.maps is not None and len(window.maps) < need:
        raise TopologyError(f"{what}: XOR over {len(window.targets)} targets needs {need} maps, "
                            f"not {len(window.maps)}")
    if window.maps is not None and not all(0 < m < 1 << 64 and not m & 0xFF for m in window.maps[:need]):
        raise TopologyError(f"{what}: XOR maps must be nonzero, in bits 63:8, not {[hex(m) for m in window.maps]}")


def _kind(window: WindowPlan, plan: Blueprint) -> None:
    """What an extended linear cache and normalized addresses ask for."""
    if window.cache and 2 * window.cache != window.size:
        raise TopologyError(
            f"window {window.name}: only a cache of half the window is supported, not {window.cache:#x} of "
            f"{window.size:#x} bytes")
    if not window.normalized:
        return
    if len(window.targets) != 1 or window.cache:
        raise TopologyError(f"window {window.name}: normalized addresses need one target and no cache, "
                            f"not {len(window.targets)} targets")
    (bridge,) = (b for b in plan.bridges if b.name == window.targets[0])
    below = {p.name for p in plan.ports if p.parent == bridge.name}
    if bridge.decoders is None or any(s.port in below for s in plan.switches):
        raise TopologyError(
            f"window {window.name}: normalized addresses need decoders in {bridge.name} and no switches")


def _window_overlap(windows: Iterable[WindowPlan]) -> None:
    ordered = sorted(windows, key=lambda w: w.base)
    for a, b in zip(ordered, ordered[1:]):
        if a.base + a.size > b.base:
            raise TopologyError(
                f"window {a.name} {a.base:#x}..{a.base + a.size - 1:#x} overlaps "
                f"window {b.name} {b.base:#x}..{b.base + b.size - 1:#x}")


def _only(names: Iterable[str]) -> str:
    return "only " + ", ".join(sorted(names)) if names else "none"
