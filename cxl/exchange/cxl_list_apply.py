"""Programs a fresh topology to what a listing says, through the registers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.decoder import DecoderBlock
from cxl.errors import CommitError, TopologyError
from cxl.exchange.cxl_list import Committed, Setting
from cxl.nodes import Node
from cxl.region import Region
from mmu.stripes import ENCODED_GRANULARITY, ENCODED_WAYS

if TYPE_CHECKING:
    from cxl.topology import Topology


def apply(topo: Topology, settings: list[Setting], regions: list[Committed]) -> dict[str, Region]:
    """Commit *settings* in order; the regions whose decoders are all there.

    Raises CommitError with the hardware's reason when a decoder refuses.
    """
    with topo.batch():
        for setting in settings:
            _program(topo, setting)
    made = (_region(topo, r) for r in regions)
    return {r.name: r for r in made if r is not None}


def _block(topo: Topology, part: str) -> DecoderBlock:
    node: Node | None = topo.bridges.get(part) or topo.switches.get(part)
    block = topo.devices[part].registers if node is None else node.registers
    assert block is not None
    return block


def _program(topo: Topology, s: Setting) -> None:
    what = f"cxl list: decoder {s.number} of {s.part}"
    if s.ways not in ENCODED_WAYS or s.granularity not in ENCODED_GRANULARITY:
        raise TopologyError(f"{what}: no encoding exists for {s.ways} ways at {s.granularity} bytes")
    block = _block(topo, s.part)
    if s.number >= block.capability.decoders:
        raise TopologyError(f"{what}: there are {block.capability.decoders} decoders at most")
    node = topo.bridges.get(s.part) or topo.switches.get(s.part)
    numbers = {} if node is None else {p.name: p.number for p in node.ports.values()}
    targets = tuple(numbers[t] for t in s.targets)
    if len(targets) > 8:
        raise TopologyError(f"{what}: a target list has 8 entries, not {len(targets)}")
    skip = 0
    if node is None:
        before = block.next_dpa(s.number)
        if s.dpa < before:
            raise TopologyError(f"{what}: its DPA must begin at {before:#x} or above, not at {s.dpa:#x}")
        skip = s.dpa - before
    if reason := block.program(s.number, s.base, s.size, s.ways, s.granularity, targets, skip):
        raise CommitError(f"{what}: {reason}")


def _region(topo: Topology, listed: Committed) -> Region | None:
    """None when the listing does not show its decoders."""
    window = topo.window_at(listed.base)
    if window is None:
        raise TopologyError(f"cxl list: {listed.name} at {listed.base:#x} is in no window")
    devices = tuple(topo.device(d) for d in listed.devices)
    region = Region(listed.name, window, listed.base, listed.size, listed.granularity, listed.mode, devices)
    blocks = [d.registers for d in devices]
    nodes = {id(n): n for d in devices for n in topo.above(d)}
    blocks += [n.registers for n in nodes.values() if n.registers is not None]
    for block in blocks:
        found = [s.number for s in block.committed.values() if s.base == region.first and s.size == region.decoded]
        if len(found) != 1:
            return None
        region.decoders.append((block, found[0]))
    return region
