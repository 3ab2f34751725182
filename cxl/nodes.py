"""Host bridges, ports and switches: what stands between a window and a device."""

from __future__ import annotations

from dataclasses import dataclass, field

from cxl.decoder import DecoderBlock
from cxl.device.type3 import Type3


@dataclass(slots=True, eq=False)
class Port:
    """A root port or a downstream port; `number` is what target lists name, `parent` whose port it is."""

    name: str
    number: int
    parent: Node
    device: Switch | Type3 | None = None


@dataclass(slots=True, eq=False, repr=False)
class Node:
    """Routes to one of `ports` by its decoders; without `registers` it has one port, and all goes there."""

    name: str
    registers: DecoderBlock | None
    ports: dict[int, Port] = field(default_factory=dict)

    kind = "node"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, ports {sorted(self.ports)})"

    @property
    def only_port(self) -> int:
        """Number of the port of a pass-through; 0 when that has none."""
        return next(iter(self.ports), 0)


@dataclass(slots=True, eq=False, repr=False)
class HostBridge(Node):
    """`uid` is the _UID of its ACPI0016 object, `base` the HPA of its component registers where known.

    `restricted`: a CXL 1.1 host, whose registers are an RCRB.
    """

    uid: int = 0
    base: int | None = None
    restricted: bool = False

    kind = "host bridge"


@dataclass(slots=True, eq=False, repr=False)
class Switch(Node):
    """A switch with one upstream port, after which it is named, in port `port`."""

    port: Port | None = None

    kind = "switch"
