"""What every importer produces and `Topology` builds from: plain values, nothing opened, nothing checked.

Sizes and addresses are in bytes. Names are what the parts refer to each other by.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MIB = 1 << 20
GIB = 1 << 30
DEFAULT_RESTRICTIONS = 0x2F  # what QEMU writes into its CFMWS


@dataclass(frozen=True, slots=True)
class Backing:
    """Where a device's bytes live. *path* None: anonymous memory. *share* False: stores do not reach the file."""

    name: str
    size: int
    path: str | None = None
    share: bool = True


@dataclass(frozen=True, slots=True)
class BridgePlan:
    """A host bridge. *decoders* None: a pass-through, without HDM decoders. *registers* is the HPA of its block.

    *restricted*: a CXL 1.1 host (RCH), whose block is an RCRB.
    """

    name: str
    uid: int
    decoders: int | None = 4
    registers: int | None = None
    restricted: bool = False


@dataclass(frozen=True, slots=True)
class PortPlan:
    """A root port (*parent* is a bridge) or a switch's downstream port; *number* is what target lists name."""

    name: str
    parent: str
    number: int


@dataclass(frozen=True, slots=True)
class SwitchPlan:
    """A switch, named after its upstream port, in *port*."""

    name: str
    port: str
    decoders: int = 4


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """A type-3 device in *port*. DPA order: volatile, persistent, dynamic.

    *dynamic* is cut into *dynamic_regions* equal regions; none of it answers before an extent of it is accepted.
    """

    name: str
    port: str
    volatile: Backing | None = None
    persistent: Backing | None = None
    label: Backing | None = None
    serial: int = 0
    decoders: int = 4
    dynamic: Backing | None = None
    dynamic_regions: int = 0

    @property
    def backings(self) -> tuple[Backing, ...]:
        """All of them that there are."""
        return tuple(b for b in (self.volatile, self.persistent, self.dynamic, self.label) if b is not None)


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """A fixed memory window over bridges *targets*. *maps* None: modulo arithmetic, else XOR with these maps.

    *cache*: the first so many bytes are DRAM that caches the rest one to one (extended linear cache).
    *normalized*: the host bridge hands devices addresses with its interleave taken out (AMD, conventions/cxl-atl.rst).
    """

    name: str
    base: int
    size: int
    granularity: int
    targets: tuple[str, ...]
    maps: tuple[int, ...] | None = None
    restrictions: int = DEFAULT_RESTRICTIONS
    qtg: int = 0
    cache: int = 0
    normalized: bool = False


@dataclass(slots=True)
class Blueprint:
    """A whole machine. *ram* lists (first HPA, size) of its ordinary memory, as far as it is known.

    *machine*: the kind that QEMU would call it, "q35" or "virt", where it comes from there.

    *cedt* (a `cxl.exchange.cedt.Cedt`) carries what only that table says: header, XOR maps, RDPAS, CSDS.
    """

    bridges: list[BridgePlan] = field(default_factory=list)
    ports: list[PortPlan] = field(default_factory=list)
    switches: list[SwitchPlan] = field(default_factory=list)
    devices: list[DevicePlan] = field(default_factory=list)
    windows: list[WindowPlan] = field(default_factory=list)
    ram: list[tuple[int, int]] = field(default_factory=list)
    cedt: object = None
    machine: str = ""
