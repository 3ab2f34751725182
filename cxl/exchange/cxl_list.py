"""A machine from `cxl list`: what is plugged where, the windows, and what its decoders are programmed to.

The JSON has no XOR maps, no granularity of one-way windows and no host bridge addresses: a CEDT of the same machine
adds them. DPA skips follow from where each decoder's DPA begins.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from cxl.blueprint import Backing, Blueprint, BridgePlan, DevicePlan, PortPlan, SwitchPlan, WindowPlan
from cxl.errors import TopologyError
from cxl.exchange import cedt
from cxl.exchange.cxl_list_read import Json, Listing, Thing, number, read
from cxl.format import DECODER_COUNTS, Restrictions

DECODER_NAME = re.compile(r"decoder([0-9]+)\.([0-9]+)")


@dataclass(frozen=True, slots=True)
class Setting:
    """What one decoder is programmed to. *part* is a bridge, switch or device; *targets* are port names in order."""

    part: str
    number: int
    base: int
    size: int
    ways: int
    granularity: int
    targets: tuple[str, ...] = ()
    dpa: int = 0


@dataclass(frozen=True, slots=True)
class Committed:
    """A region as listed: *devices* by position, *decoders* device decoders by name."""

    name: str
    base: int
    size: int
    granularity: int
    mode: str
    devices: tuple[str, ...]


@dataclass(slots=True)
class Machine:
    """All that a listing says."""

    plan: Blueprint
    settings: list[Setting]
    regions: list[Committed]


def machine(text: str | bytes, table: bytes | None = None) -> Machine:
    """Raises TopologyError, naming the object, when the listing describes no machine."""
    reader = _Reader(read(text))
    reader.bridges()
    reader.switches()
    reader.devices()
    reader.windows(None if table is None else cedt.blueprint(table))
    settings = reader.settings()
    return Machine(reader.plan, settings, reader.regions())


class _Reader:
    def __init__(self, listing: Listing) -> None:
        self.all, self.plan = listing, Blueprint()
        self._node: dict[str, str] = {}  # name of a port object -> name of the bridge or switch
        self._dports: dict[str, str] = {}  # name of a dport -> the bridge or switch that it belongs to
        self._device: dict[str, str] = {}  # endpoint -> device
        self._count: dict[str, int] = {}  # number in "decoder<number>.n" -> decoders listed
        for name in listing.decoders:
            part, n = self._decoder_name(name)
            self._count[part] = max(self._count.get(part, 0), n + 1)

    @staticmethod
    def _decoder_name(name: str) -> tuple[str, int]:
        match = DECODER_NAME.fullmatch(name)
        if match is None:
            raise TopologyError(f"cxl list: a decoder must be called decoder<port>.<number>, not {name!r}")
        return match.group(1), int(match.group(2))

    def _decoders(self, name: str) -> int:
        """A capability that has what is listed of port or endpoint *name*; the listing leaves idle ones out."""
        listed = max(4, self._count.get(_digits(name), 0))
        return next((c for c in sorted(DECODER_COUNTS.values()) if c >= listed), 32)

    def _add_ports(self, node: str, thing: Thing) -> None:
        for dport in thing.objects("dports"):
            self._add_port(node, _name(dport, "dport", thing), number(dport.get("id", 0), f"{thing.name} dport id"))

    def _add_port(self, node: str, name: str, port_number: int) -> None:
        other = self._dports.get(name)
        if other is not None:
            raise TopologyError(f"cxl list: dport {name} is listed below {other} and below {node}")
        self._dports[name] = node
        self.plan.ports.append(PortPlan(name, node, port_number))

    # -- the tree -------------------------------------------------------------------------------------

    def bridges(self) -> None:
        """One per dport of a bus; its port object, if any is enabled, has that dport as host."""
        hosts = {p.text("host"): p for p in self.all.ports.values() if self._is_bridge(p)}
        for bus in self.all.buses.values():
            for dport in bus.objects("dports"):
                host = _name(dport, "dport", bus)
                port = hosts.pop(host, None)
                uid = number(dport.get("id", 0), f"{bus.name} dport {host} id")
                self._bridge(host if port is None else port.name, host, uid, port)
        for host, port in hosts.items():
            # No -T: the bus lists no dports, and UIDs are where root decoders name this host.
            self._bridge(port.name, host, self._uid(host, len(self.plan.bridges)), port)

    def _is_bridge(self, port: Thing) -> bool:
        if "depth" in port.fields:
            return port.number("depth") == 1
        return port.parent in self.all.buses or not port.parent

    def _uid(self, host: str, otherwise: int) -> int:
        for decoder in self.all.decoders.values():
            for target in decoder.objects("targets"):
                if target.get("target") == host and "id" in target:
                    return number(target["id"], f"{decoder.name} target id")
        return otherwise

    def _bridge(self, name: str, host: str, uid: int, port: Thing | None) -> None:
        below = [] if port is None else port.objects("dports")
        idle = port is None or self._count.get(_digits(port.name), 0) == 0
        # A host bridge with one port may be a pass-through: then no decoder of it is listed.
        decoders = None if idle and len(below) <= 1 and port is not None else self._decoders(name)
        self.plan.bridges.append(BridgePlan(name, uid, decoders))
        self._node[name], self._node[host] = name, name
        if port is not None:
            self._add_ports(name, port)

    def switches(self) -> None:
        """Ports below ports. `parent_dport` says where; older listings say it by nesting alone."""
        for port in self.all.ports.values():
            if port.name not in self._node:
                self._node[port.name] = port.name
                self._add_ports(port.name, port)
        for port in self.all.ports.values():
            if not any(b.name == port.name for b in self.plan.bridges):
                self.plan.switches.append(SwitchPlan(port.name, self._slot(port), self._decoders(port.name)))

    def _slot(self, thing: Thing) -> str:
        """Name of the dport that a switch or an endpoint is in; made up where none is listed but could be none else."""
        dport = thing.text("parent_dport")
        if dport in self._dports:
            return dport
        parent = self._node.get(thing.parent) or self._node.get(dport)
        if parent is None:
            raise TopologyError(f"cxl list: {thing.name} is below {dport or thing.parent or 'nothing'}, which is not "
                                "listed (list ports with -P and dports with -T, or use -v)")
        free = [p.name for p in self.plan.ports if p.parent == parent]
        if (not dport or dport in self._node) and len(free) == 1:
            return free[0]
        if free and not dport:
            raise TopologyError(f"cxl list: {thing.name} has no parent_dport, so it could be in any of "
                                f"{', '.join(free)}")
        name = dport or f"{parent}.{thing.name}"
        used = {p.number for p in self.plan.ports if p.parent == parent}
        self._add_port(parent, name, next(n for n in range(256) if n not in used))
        return name

    def devices(self) -> None:
        for endpoint in self.all.endpoints.values():
            name = endpoint.text("host") if not isinstance(endpoint.fields.get("memdev"), dict) else str(
                endpoint.fields["memdev"].get("memdev", ""))
            memdev = self.all.memdevs.get(name)
            if memdev is None:
                raise TopologyError(f"cxl list: {endpoint.name} is {name or 'no'} memdev, which is not listed "
                                    "(list memdevs with -M, or use -v)")
            self._device[endpoint.name] = name
            ram, pmem = _sizes(memdev)
            if endpoint.parent in self.all.buses:
                self._restrict(endpoint)
            self.plan.devices.append(DevicePlan(
                name, self._slot(endpoint), Backing(f"{name}-ram", ram) if ram else None,
                Backing(f"{name}-pmem", pmem) if pmem else None, serial=memdev.number("serial", 0),
                decoders=self._decoders(endpoint.name)))

    def _restrict(self, endpoint: Thing) -> None:
        """An endpoint right below the bus: its host bridge is a CXL 1.1 host, whose one port has no name of its own."""
        host = self._node.get(endpoint.text("parent_dport"))
        for n, bridge in enumerate(self.plan.bridges):
            if bridge.name == host:
                self.plan.bridges[n] = replace(bridge, decoders=None, restricted=True)
                self._add_port(bridge.name, f"{bridge.name}:0", 0)

    # -- windows --------------------------------------------------------------------------------------

    def windows(self, table: Blueprint | None) -> None:
        """From root decoders; from the CEDT instead where there is one, which must have each of them."""
        roots = [d for d in self.all.decoders.values() if self._decoder_name(d.name)[0] in self._roots() and
                 d.number("size", 0)]
        listed = [self._window(d) for d in roots]
        if table is None:
            self.plan.windows = listed
            return
        names = {b.uid: b.name for b in self.plan.bridges}
        uids = {b.name: b.uid for b in table.bridges}
        at = {w.base: w for w in table.windows}
        for window in listed:
            if window.base not in at or len(at[window.base].targets) != len(window.targets):
                have = [f"{b:#x} x{len(w.targets)}" for b, w in at.items()]
                raise TopologyError(f"cxl list: {window.name} at {window.base:#x} x{len(window.targets)} is not in the "
                                    f"CEDT, which has {have}")
        known = {w.base: w for w in listed}
        for bridge in table.bridges:
            if bridge.uid not in names:
                self.plan.bridges.append(replace(bridge, name=f"hb{bridge.uid}"))
                names[bridge.uid] = f"hb{bridge.uid}"
            else:
                i = next(i for i, b in enumerate(self.plan.bridges) if b.uid == bridge.uid)
                self.plan.bridges[i] = replace(self.plan.bridges[i], registers=bridge.registers)
        for window in table.windows:
            same = known.get(window.base)
            self.plan.windows.append(replace(
                window, name=same.name if same else window.name, targets=tuple(names[uids[t]] for t in window.targets),
                cache=same.cache if same else 0))
        self.plan.cedt = table.cedt

    def _roots(self) -> set[str]:
        return {_digits(b) for b in self.all.buses} or {"0"}

    def _window(self, root: Thing) -> WindowPlan:
        ways = root.number("interleave_ways", 1)
        targets = _in_order(root, ways)
        names = []
        for target in targets:
            name = self._node.get(str(target.get("target")))
            if name is None:
                raise TopologyError(f"cxl list: {root.name} has target {target.get('target')}, which is no dport of "
                                    "the bus")
            names.append(name)
        bits = {"volatile_capable": "VOLATILE", "pmem_capable": "PERSISTENT", "accelmem_capable": "DEVICE_COHERENT"}
        allowed = {field: 1 for key, field in bits.items() if root.fields.get(key) is True}
        base, size = root.number("resource"), root.number("size")
        return WindowPlan(root.name, base, size, root.number("interleave_granularity", 256), tuple(names),
                          restrictions=Restrictions.make(HOST_ONLY=1, **allowed), qtg=root.number("qos_class", 0),
                          cache=self._cache(base, size))

    def _cache(self, base: int, size: int) -> int:
        for region in self.all.regions.values():
            cache = region.number("extended_linear_cache_size", 0)
            if cache and base <= region.number("resource", -1 % (1 << 64)) < base + size:
                return cache
        return 0

    # -- what is programmed ---------------------------------------------------------------------------

    def settings(self) -> list[Setting]:
        """Every committed decoder, devices first, then from the deepest switch up, each in order of number."""
        off = {r.name for r in self.all.regions.values() if r.text("decode_state") not in ("", "commit")}
        parts = {_digits(p): p for p in (*self.all.ports, *self.all.endpoints)}
        found = []
        for decoder in self.all.decoders.values():
            part, n = self._decoder_name(decoder.name)
            if part in self._roots() or not decoder.number("size", 0) or decoder.text("region") in off:
                continue
            if part not in parts:
                raise TopologyError(f"cxl list: {decoder.name} belongs to a port or endpoint {part} that is not listed")
            if (setting := self._setting(decoder, parts[part], n)) is not None:
                found.append(setting)
        depth = {s.name: self._depth(s.name) for s in self.plan.switches} | {b.name: 0 for b in self.plan.bridges}
        return sorted(found, key=lambda s: (-depth.get(s.part, 1 << 30), s.part, s.number))

    def _depth(self, switch: str) -> int:
        above = {s.name: next((p.parent for p in self.plan.ports if p.name == s.port), "") for s in self.plan.switches}
        depth = 0
        while switch in above and depth <= len(above):
            switch, depth = above[switch], depth + 1
        return depth

    def _setting(self, decoder: Thing, part: str, n: int) -> Setting | None:
        ways = decoder.number("interleave_ways", 1)
        common = (n, decoder.number("resource"), decoder.number("size"), ways,
                  decoder.number("interleave_granularity", 256))
        if part in self.all.endpoints:
            return Setting(self._device[part], *common, dpa=decoder.number("dpa_resource", 0))
        node = self._node[part]
        if any(b.name == node and b.decoders is None for b in self.plan.bridges):
            return None
        targets = tuple(str(t.get("target")) for t in _in_order(decoder, ways))
        for target in targets:
            if self._dports.get(target) != node:
                raise TopologyError(f"cxl list: {decoder.name} has target {target}, which is no dport of {part}")
        return Setting(node, *common, targets=targets)

    def regions(self) -> list[Committed]:
        out = []
        for region in self.all.regions.values():
            if region.text("decode_state") not in ("", "commit") or not region.number("size", 0):
                continue
            mappings = sorted(region.objects("mappings"), key=lambda m: number(m.get("position", 0), region.name))
            names = tuple(str(m.get("memdev")) for m in mappings)
            for name in names:
                if name not in self._device.values():
                    raise TopologyError(f"cxl list: {region.name} maps {name}, which is not listed")
            if names:
                out.append(Committed(
                    region.name, region.number("resource"), region.number("size"),
                    region.number("interleave_granularity", 256), region.text("type") or "ram", names))
        return out


def _digits(name: str) -> str:
    """The number at the end of "port1" or "endpoint12", by which decoders are named."""
    return name[len(name.rstrip("0123456789")):]


def _name(item: Json, key: str, owner: Thing) -> str:
    if not isinstance(item.get(key), str):
        raise TopologyError(f"cxl list: a {key} of {owner.name} has no name: {item!r}")
    return str(item[key])


def _in_order(decoder: Thing, ways: int) -> list[Json]:
    """Targets by position. Published listings show positions in the region there, so only their order counts."""
    targets = sorted(decoder.objects("targets"), key=lambda t: number(t.get("position", 0), decoder.name))
    if len(targets) < ways:
        raise TopologyError(f"cxl list: {decoder.name} has {ways} ways, but {len(targets)} targets "
                            "(list targets with -T, or use -v)")
    return targets[:ways]


def _sizes(memdev: Thing) -> tuple[int, int]:
    """(volatile, persistent) bytes."""
    ram, pmem = memdev.number("ram_size", 0), memdev.number("pmem_size", 0)
    info = memdev.fields.get("partition_info")
    if not ram and not pmem and isinstance(info, dict):
        part = Thing(f"{memdev.name} partition_info", info)
        ram = part.number("active_volatile_size", 0) or part.number("volatile_only_size", 0)
        pmem = part.number("active_persistent_size", 0) or part.number("persistent_only_size", 0)
    if not ram and not pmem:
        raise TopologyError(f"cxl list: memdev {memdev.name} has neither ram_size nor pmem_size")
    return ram, pmem
