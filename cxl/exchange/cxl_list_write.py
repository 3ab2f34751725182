"""A topology in the form of `cxl list -v`: one bus, its ports, endpoints, decoders and regions, nested."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cxl.decoder import DecoderBlock
from cxl.device.type3 import Type3
from cxl.format import Restrictions
from cxl.nodes import HostBridge, Node, Switch
from cxl.settings import Settings

if TYPE_CHECKING:
    from cxl.region import Region
    from cxl.topology import Topology
    from cxl.window import Window

Json = dict[str, Any]
_CAPABILITIES = (("pmem_capable", Restrictions.PERSISTENT), ("volatile_capable", Restrictions.VOLATILE),
                 ("accelmem_capable", Restrictions.DEVICE_COHERENT))  # fmt: skip


def listing(topo: Topology) -> str:
    """JSON text; `cxl.exchange.cxl_list` reads it back. Only committed decoders are listed, as without -vv."""
    return json.dumps([_Writer(topo).bus()], indent=2)


class _Writer:
    """Linux numbers ports and endpoints in one row; so does this: bridges, then switches, then devices."""

    def __init__(self, topo: Topology) -> None:
        self.topo = topo
        parts: list[Node | Type3] = [*topo.bridges.values(), *topo.switches.values(), *topo.devices.values()]
        self.number = {id(part): n for n, part in enumerate(parts, 1)}

    def bus(self) -> Json:
        out: Json = {"bus": "root0", "provider": "cxl-mmu", "nr_dports": len(self.topo.bridges)}
        out["dports"] = [{"dport": _host(b), "id": b.uid} for b in self.topo.bridges.values()]
        old = [b for b in self.topo.bridges.values() if b.restricted]
        ports = [self._port(b, 1, "") for b in self.topo.bridges.values() if not b.restricted]
        endpoints = [self._endpoint(p.device, 1, _host(b)) for b in old for p in b.ports.values()
                     if isinstance(p.device, Type3)]  # fmt: skip
        out |= {key: value for key, value in (("ports:root0", ports), ("endpoints:root0", endpoints)) if value}
        out["decoders:root0"] = [self._root(n, w) for n, w in enumerate(self.topo.windows)]
        return out

    def _port(self, node: Node, depth: int, parent: str) -> Json:
        name = f"port{self.number[id(node)]}"
        host = _host(node) if isinstance(node, HostBridge) else node.name
        out: Json = {"port": name, "host": host, "depth": depth}
        if parent:
            out["parent_dport"] = parent
        out["nr_dports"] = len(node.ports)
        out["dports"] = [{"dport": p.name, "id": p.number} for p in node.ports.values()]
        ports = [self._port(p.device, depth + 1, p.name) for p in node.ports.values() if isinstance(p.device, Switch)]
        endpoints = [self._endpoint(p.device, depth + 1, p.name) for p in node.ports.values()
                     if isinstance(p.device, Type3)]  # fmt: skip
        decoders = [] if node.registers is None else [
            self._switch(node, s) for s in node.registers.committed.values()]
        lists = ((f"ports:{name}", ports), (f"endpoints:{name}", endpoints), (f"decoders:{name}", decoders))
        return out | {key: value for key, value in lists if value}

    def _endpoint(self, device: Type3, depth: int, parent: str) -> Json:
        name = f"endpoint{self.number[id(device)]}"
        memdev: Json = {"memdev": device.name}
        sizes = {"pmem_size": device.persistent_size, "ram_size": device.volatile_size}
        memdev |= {key: value for key, value in sizes.items() if value}
        memdev["serial"] = device.serial
        out: Json = {"endpoint": name, "host": device.name, "parent_dport": parent, "depth": depth, "memdev": memdev}
        decoders = [self._device(device, s) for s in device.registers.committed.values()]
        return out | ({f"decoders:{name}": decoders} if decoders else {})

    # -- decoders -------------------------------------------------------------------------------------

    def _common(self, part: int, block: DecoderBlock | None, s: Settings) -> Json:
        out: Json = {"decoder": f"decoder{part}.{s.number}", "resource": s.base, "size": s.size}
        out["interleave_ways"] = s.ways
        if s.ways != 1:
            out["interleave_granularity"] = s.granularity
        region = next((r.name for r in self.topo.regions.values() if (block, s.number) in r.decoders), None)
        return out | ({"region": region} if region else {})

    def _device(self, device: Type3, s: Settings) -> Json:
        out = self._common(self.number[id(device)], device.registers, s)
        return out | {"dpa_resource": s.dpa, "dpa_size": s.share, "mode": device.partition(s.dpa)}

    def _switch(self, node: Node, s: Settings) -> Json:
        out = self._common(self.number[id(node)], node.registers, s)
        names = {p.number: p.name for p in node.ports.values()}
        targets = [{"target": names.get(t, f"port {t}"), "position": i, "id": t}
                   for i, t in enumerate(s.targets[: s.ways or 0])]  # fmt: skip
        return out | {"nr_targets": len(targets), "targets": targets}

    def _root(self, number: int, window: Window) -> Json:
        out: Json = {"decoder": f"decoder0.{number}", "resource": window.base, "size": window.size,
                     "interleave_ways": window.ways}  # fmt: skip
        if window.ways > 1:
            out["interleave_granularity"] = window.granularity
        regions = [r for r in self.topo.regions.values() if r.window is window]
        out["max_available_extent"] = window.size - sum(r.size for r in regions)
        out |= {key: True for key, field in _CAPABILITIES if field.get(window.restrictions)}
        out["qos_class"] = window.qtg
        out["nr_targets"] = window.ways
        out["targets"] = [{"target": _host(b), "position": i, "id": b.uid} for i, b in enumerate(window.targets)]
        listed = [self._region(r) for r in regions]
        return out | ({f"regions:decoder0.{number}": listed} if listed else {})

    def _region(self, region: Region) -> Json:
        out: Json = {"region": region.name, "resource": region.base, "size": region.size}
        if region.window.cache:
            out["extended_linear_cache_size"] = region.window.cache
        out |= {"type": region.mode, "interleave_ways": region.ways}
        if region.ways > 1:
            out["interleave_granularity"] = region.granularity
        numbers = {id(block): n for block, n in region.decoders}
        out["decode_state"] = "commit"
        out["mappings"] = [
            {"position": i, "memdev": d.name, "decoder": f"decoder{self.number[id(d)]}.{numbers[id(d.registers)]}"}
            for i, d in reversed(list(enumerate(region.devices)))
        ]  # fmt: skip
        return out


def _host(bridge: HostBridge) -> str:
    """The name of a bridge as a dport of the bus: bus.hb0; its port object has a name of its own."""
    return f"bus.{bridge.name}"
