"""Turns a validated blueprint into objects. The last step, after which nothing can be refused, touches the files."""

from __future__ import annotations

from collections.abc import Callable

from cxl.blueprint import Backing, Blueprint, DevicePlan
from cxl.decoder import DecoderBlock
from cxl.device.backing import Files, inspect
from cxl.device.type3 import Type3
from cxl.format import BRIDGE_CAPABILITY, DECODER_COUNTS, DEVICE_CAPABILITY, HdmCapability
from cxl.nodes import HostBridge, Node, Port, Switch
from cxl.validate import XOR_MAPS, validate
from cxl.window import Window
from mmu import HostMemory

ENCODED_COUNTS = {count: code for code, count in DECODER_COUNTS.items()}


class Parts:
    """Everything that a blueprint describes, wired up."""

    def __init__(self, plan: Blueprint, strict: bool, changed: Callable[[DecoderBlock], None]) -> None:
        validate(plan)
        inspect(b for d in plan.devices for b in d.backings)
        self._strict, self._changed = strict, changed
        self.bridges = {
            b.name: HostBridge(b.name, self._block(b.name, b.decoders), uid=b.uid, base=b.registers,
                               restricted=b.restricted)
            for b in plan.bridges
        }  # fmt: skip
        self.switches = {s.name: Switch(s.name, self._block(s.name, s.decoders)) for s in plan.switches}
        nodes: dict[str, Node] = {**self.bridges, **self.switches}
        self.ports = {p.name: Port(p.name, p.number, nodes[p.parent]) for p in plan.ports}
        for port in self.ports.values():
            port.parent.ports[port.number] = port
        self.windows = tuple(
            Window(w.name, w.base, w.size, w.granularity, tuple(self.bridges[t] for t in w.targets),
                   None if w.maps is None else w.maps[: XOR_MAPS[len(w.targets)]], w.restrictions, w.qtg,
                   w.cache, w.normalized)
            for w in sorted(plan.windows, key=lambda w: w.base)
        )  # fmt: skip
        self.devices = self._devices(plan.devices)
        for s in plan.switches:
            self.switches[s.name].port = self.ports[s.port]
            self.ports[s.port].device = self.switches[s.name]
        for d in plan.devices:
            self.ports[d.port].device = self.devices[d.name]

    def _block(self, name: str, decoders: int | None) -> DecoderBlock | None:
        return None if decoders is None else self._registers(name, BRIDGE_CAPABILITY, decoders, device=False)

    def _registers(self, name: str, capability: int, decoders: int, device: bool, capacity: int = 0) -> DecoderBlock:
        count = HdmCapability.DECODER_COUNT
        word = capability & ~count.mask | count.put(ENCODED_COUNTS[decoders])
        block = DecoderBlock(name, word, device=device, capacity=capacity, strict=self._strict)
        block.changed = lambda: self._changed(block)
        return block

    def _devices(self, plans: list[DevicePlan]) -> dict[str, Type3]:
        files = Files()
        try:
            return {plan.name: self._device(plan, number, files) for number, plan in enumerate(plans)}
        except BaseException:
            files.undo()
            raise

    def _device(self, plan: DevicePlan, number: int, files: Files) -> Type3:
        parts = (plan.volatile, plan.persistent, plan.dynamic)
        volatile, persistent, dynamic = (0 if b is None else b.size for b in parts)
        capacity = volatile + persistent + dynamic
        memory = HostMemory(capacity)
        for offset, backing in zip((0, volatile, volatile + persistent), parts):
            if backing is not None:
                files.lay(memory, offset, backing)
        registers = self._registers(plan.name, DEVICE_CAPABILITY, plan.decoders, device=True, capacity=capacity)
        sizes = volatile, persistent, dynamic
        return Type3(plan.name, number, registers, memory, sizes, plan, _label(plan.label, files))


def _label(backing: Backing | None, files: Files) -> HostMemory | None:
    if backing is None:
        return None
    memory = HostMemory(backing.size)
    files.lay(memory, 0, backing)
    return memory
