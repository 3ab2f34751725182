"""Compiles the decoders below a window into a `mmu.stripes.Route`.

Between two neighbouring decoder edges every block has one decoder or none, so where an address goes depends only on
some of its bits, on the parities of the XOR maps and on the address modulo 3. A span is the table of that.
The level-by-level reference is `cxl.decode`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cxl.decode import can_normalize
from cxl.device.type3 import Type3
from cxl.nodes import Node
from cxl.settings import Settings
from cxl.window import Window
from mmu.stripes import GRANULARITIES, Miss, Route, Slot, Span, dpa_offset

MAX_BITS = 16  # what a span can take
MAX_MAPS = 4
WHOLE = 1 << 63  # granule of a span that is one piece

# What a part of the window decides below one node: an answer, or (shift, bits, one entry per index).
_Tree = Slot | Miss | tuple[int, int, list["_Tree"]]


class Exit(Miss):
    """An address at which the emulator's error handler ends the process (`DecoderBlock.exits`)."""


def nodes_below(window: Window) -> tuple[list[Node], list[Type3]]:
    """Every bridge, switch and device that the window can reach, once each."""
    nodes: dict[int, Node] = {}
    devices: dict[int, Type3] = {}
    todo: list[Node] = list(window.targets)
    while todo:
        node = todo.pop()
        if id(node) not in nodes:
            nodes[id(node)] = node
            for port in node.ports.values():
                if isinstance(port.device, Type3):
                    devices[id(port.device)] = port.device
                elif port.device is not None:
                    todo.append(port.device)
    return list(nodes.values()), list(devices.values())


def compile_route(window: Window, below: tuple[list[Node], list[Type3]]) -> Route:
    """The route of *window* as the registers *below* it say now."""
    inside = {e for e in _edges(window, *below) if window.first < e <= window.last}
    edges = sorted({window.first, window.last + 1} | inside)
    spans: list[Span] = []
    for first, end in zip(edges, edges[1:]):
        span = _span(window, first, end - 1)
        if span is None:
            continue
        if spans and spans[-1].last + 1 == first and replace(spans[-1], first=first, last=end - 1) == span:
            spans[-1] = replace(spans[-1], last=end - 1)
        else:
            spans.append(span)
    return Route(tuple(spans))


def _edges(window: Window, nodes: list[Node], devices: list[Type3]) -> Iterator[int]:
    """HPAs from which on another decoder, or another part of a device, may answer."""
    for node in nodes:
        for s in node.registers.ranges() if node.registers else ():
            yield s.base
            yield s.end
    for device in devices:
        for s in device.registers.ranges():
            for edge in (s.base, s.end, *_memory_edges(s, device)):
                yield from _outside(window, edge) if window.normalized else (edge,)


def _memory_edges(s: Settings, device: Type3) -> Iterator[int]:
    """Addresses from which on decoder *s* gives DPAs of another part of the device, or of none.

    A part that ends within a granule counts to the granule's end; the bus refuses the rest of that.
    """
    ways = s.ways
    if ways is not None:
        for dpa in device.edges():
            if s.dpa < dpa < s.dpa + s.share:
                yield s.base + -(-(dpa - s.dpa) // s.granularity) * s.granularity * ways


def _outside(window: Window, address: int) -> Iterator[int]:
    """HPAs of a normalizing window from which on its bridge hands on *address* or more."""
    (bridge,) = window.targets
    for s in bridge.registers.ranges() if bridge.registers else ():
        yield s.base + (-(-address // s.granularity) * s.granularity << s.iw)


def _span(window: Window, first: int, last: int) -> Span | None:
    """The table for first..last; None when all of it is a miss before any device."""
    trees: dict[int, _Tree] = {id(t): _node(t, first, window.normalized) for t in window.targets}
    roots = [trees[id(t)] for t in window.targets]
    if all(isinstance(t, Miss) and not t.at_device for t in roots):
        return None
    used: set[int] = set()
    grain = {63}
    for tree in trees.values():
        _bits(tree, used, grain)
    maps = window.maps or ()
    if window.maps is None:
        used |= set(range(window.shift, window.shift + window.power))
    run = _cover(used, MAX_MAPS - len(maps))
    if run is None:
        return Span(first, last, 0, 0, WHOLE, (Miss("decoders use address bits too far apart"),))
    shift, bits = run
    singles = sorted(b for b in used if not shift <= b < shift + bits)
    slots = _table(window, roots, shift, bits, singles)
    grain |= used | {(m & -m).bit_length() - 1 for m in maps}
    if window.mod3_shift is not None:
        grain.add(window.mod3_shift)
    maps = (*maps, *(1 << b for b in singles))
    return Span(first, last, shift, bits, 1 << min(grain), slots, maps, window.mod3_shift)


def _table(window: Window, roots: list[_Tree], shift: int, bits: int, singles: list[int]) -> tuple[Slot | Miss, ...]:
    """One answer per index: the bit run, then parities of the maps, then single bits, then modulo 3."""
    slots: list[Slot | Miss] = []
    parities = 0 if window.maps is None else len(window.maps)
    low_mask = (1 << window.power) - 1
    for residue in range(3 if window.mod3_shift is not None else 1):
        for high in range(1 << (parities + len(singles))):
            scattered = sum((high >> parities + i & 1) << b for i, b in enumerate(singles))
            for run in range(1 << bits):
                address = run << shift | scattered
                low = high & (1 << parities) - 1 if parities else address >> window.shift & low_mask
                tree = roots[low + (residue << window.power)]
                while isinstance(tree, tuple):
                    tree = tree[2][address >> tree[0] & (1 << tree[1]) - 1]
                slots.append(tree)
    return tuple(slots)


def _cover(used: set[int], spare: int) -> tuple[int, int] | None:
    """(shift, bits) of a run that leaves at most *spare* of the *used* bits outside; None: too wide.

    The smallest table wins, then the fewest bits outside, which cost more to look at.
    """
    bits = sorted(used)
    if not bits:
        return 0, 0
    best: tuple[int, int, int, int] | None = None  # (bits in all, bits outside, shift, width)
    for low in range(len(bits)):
        for high in range(max(low, len(bits) - 1 - spare + low), len(bits)):
            outside = low + len(bits) - 1 - high
            width = bits[high] - bits[low] + 1
            cost = width + outside, outside
            if width <= MAX_BITS and outside <= spare and (best is None or cost < best[:2]):
                best = *cost, bits[low], width
    return best and best[2:]


def _bits(tree: _Tree, used: set[int], grain: set[int]) -> None:
    """Collect the address bits that *tree* looks at, and the granularity (log2) of each slot in it."""
    if isinstance(tree, tuple):
        used.update(range(tree[0], tree[0] + tree[1]))
        for child in tree[2]:
            _bits(child, used, grain)
    elif isinstance(tree, Slot) and tree.ways > 1:
        grain.add(tree.granularity.bit_length() - 1)


def _node(node: Node, hpa: int, normalized: bool) -> _Tree:
    if node.registers is None:
        return _below(node, node.only_port, hpa, None)
    s = node.registers.match(hpa)
    if isinstance(s, str):
        return Miss(f"{node.kind} {node.name}: {s}")
    shift, bits = s.selector()
    via = s if normalized else None
    done: dict[int, _Tree] = {}
    entries: list[_Tree] = []
    for index in range(1 << bits):
        if index >= len(s.targets):
            entries.append(Miss(f"{node.kind} {node.name}: decoder {s.number} has no target {index}"))
            continue
        number = s.targets[index]
        if number not in done:
            done[number] = _below(node, number, hpa, via)
        entries.append(done[number])
    return entries[0] if bits == 0 else (shift, bits, entries)


def _below(node: Node, number: int, hpa: int, via: Settings | None) -> _Tree:
    port = node.ports.get(number)
    if port is None:
        return Miss(f"{node.kind} {node.name} has no port {number}")
    if port.device is None:
        return Miss(f"port {port.name} is empty")
    if isinstance(port.device, Type3):
        return _device(port.device, hpa, via)
    return _node(port.device, hpa, normalized=False)


def _device(device: Type3, hpa: int, via: Settings | None) -> Slot | Miss:
    """*via*: the decoder of a host bridge that takes its interleave out before the device sees the address."""
    ways = 1 if via is None else 1 << via.iw
    if via is not None:
        if not can_normalize(via):
            return Miss(f"device {device.name}: its host bridge has a reserved encoding", at_device=True)
        hpa = dpa_offset(hpa - via.base, ways, via.granularity)
    s = device.registers.match(hpa)
    if isinstance(s, str):
        if device.registers.exits(hpa):
            return Exit(f"device {device.name}: {s}", at_device=True)
        return Miss(f"device {device.name}: {s}", at_device=True)
    if s.ways is None or s.ig >= len(GRANULARITIES):
        return Miss(f"device {device.name}: decoder {s.number} has a reserved encoding", at_device=True)
    first = s.dpa + dpa_offset(hpa - s.base, s.ways, s.granularity) // s.granularity * s.granularity
    if not device.answers(first):
        return Miss(f"device {device.name}: {device.why_not(first)}", at_device=True)
    if via is None:
        return Slot(device.number, s.base, s.dpa, s.ways, s.granularity)
    if s.ways != 1:
        return Miss(f"device {device.name}: decoder {s.number} interleaves again", at_device=True)
    return Slot(device.number, via.base + s.base * ways, s.dpa, ways, via.granularity)
