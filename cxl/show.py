"""A topology as a tree of text, and as SVG. Pure: a topology in, text out."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from cxl.device.type3 import MODES, Type3
from mmu.show import size_text

if TYPE_CHECKING:
    from cxl.decoder import DecoderBlock
    from cxl.nodes import Node
    from cxl.topology import Topology


@dataclass(slots=True)
class Item:
    """A line of the tree; `kind` names the part."""

    kind: str
    name: str
    notes: list[str] = field(default_factory=list)
    below: list[Item] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" + (f": {', '.join(self.notes)}" if self.notes else "")


def items(topology: Topology) -> list[Item]:
    """Windows, regions and host bridges, with what hangs below them."""
    found = []
    for w in topology.windows:
        how = "modulo" if w.maps is None else f"XOR {' '.join(map(hex, w.maps))}"
        targets = ", ".join(b.name for b in w.targets)
        found.append(Item("window", w.name, [
            f"{w.base:#x}..{w.last:#x}", f"{w.ways} ways at {size_text(w.granularity)}, {how}", f"over {targets}"]))
    for r in topology.regions.values():
        found.append(Item("region", r.name, [
            f"{r.base:#x}..{r.last:#x} in {r.window.name}", f"{r.ways} ways at {size_text(r.granularity)}", r.mode,
            f"over {', '.join(d.name for d in r.devices)}"]))
    return found + [_node(b, f"uid {b.uid}") for b in topology.bridges.values()]


def _node(node: Node, *notes: str) -> Item:
    item = Item(node.kind, node.name, [*notes, *_decoders(node.registers)])
    for number, port in sorted(node.ports.items()):
        below = Item("port", port.name, [f"number {number}"])
        if isinstance(port.device, Type3):
            below.below.append(_device(port.device))
        elif port.device is not None:
            below.below.append(_node(port.device))
        item.below.append(below)
    return item


def _device(device: Type3) -> Item:
    sizes = [f"{size_text(size)} {mode}" for mode, size in zip(MODES, device.sizes) if size]
    return Item("device", device.name, [*sizes, *_decoders(device.registers)])


def _decoders(block: DecoderBlock | None) -> list[str]:
    if block is None:
        return ["pass-through"]
    return [
        f"decoder {n}: {s.base:#x}..{s.base + s.size - 1:#x} {s.ways} ways at {size_text(s.granularity)}"
        for n, s in sorted(block.committed.items())
    ]


def tree(topology: Topology) -> str:
    """One line a part, indented below what it hangs on."""
    lines: list[str] = []

    def add(item: Item, depth: int) -> None:
        lines.append("  " * depth + str(item))
        for below in item.below:
            add(below, depth + 1)

    for item in items(topology):
        add(item, 0)
    return "\n".join(lines)


BOX, GAP, INDENT, CHARACTER = 26, 10, 28, 7.3  # pixels


def svg(topology: Topology) -> str:
    """The same tree as boxes joined by lines."""
    shapes: list[str] = []
    width = 0.0

    def add(item: Item, depth: int, y: int) -> int:
        nonlocal width
        text, x = str(item), 10 + depth * INDENT
        w = len(text) * CHARACTER + 16
        width = max(width, x + w + 10)
        shapes.append(
            f'<g class="{escape(item.kind)}"><rect x="{x}" y="{y}" width="{w:.0f}" height="{BOX}" rx="4"/>'
            f'<text x="{x + 8}" y="{y + 17}">{escape(text)}</text></g>')
        bottom = y + BOX + GAP
        for below in item.below:
            shapes.append(f'<path d="M{x + 12} {y + BOX}V{bottom + BOX // 2}H{x + INDENT}"/>')
            bottom = add(below, depth + 1, bottom)
        return bottom

    y = 10
    for item in items(topology):
        y = add(item, 0, y)
    style = (
        "text{font:12px monospace}rect{fill:#f4f6f8;stroke:#556}path{fill:none;stroke:#889}"
        ".window rect{fill:#e3eefc}.region rect{fill:#e6f5e6}.device rect{fill:#fdf1dc}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{y}"><style>{style}</style>'
        + "".join(shapes) + "</svg>\n"
    )  # fmt: skip
