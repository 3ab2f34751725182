"""Would Linux take this region? Each rule is a function that gives (errno, one sentence) for what it refuses.

Source: Linux 7.2, drivers/cxl/core/region.c, hdm.c and drivers/cxl/acpi.c; the function is named at each rule.
An errno of 0 marks what Linux accepts and then computes wrongly.
"""

from __future__ import annotations

import errno as codes
from collections.abc import Iterator
from dataclasses import dataclass

from cxl.decoder import DecoderBlock
from cxl.device.type3 import Type3
from cxl.format import DECODER_GRAIN, Restrictions
from cxl.nodes import HostBridge, Node
from cxl.region import Wiring
from cxl.settings import Settings
from cxl.window import Window
from mmu.stripes import ENCODED_WAYS, GRANULARITIES

Refusal = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Problem:
    """What Linux says (`errno`, positive; 0: it says nothing and is wrong) and why, in one sentence."""

    errno: int
    message: str

    def __str__(self) -> str:
        return f"{codes.errorcode[self.errno] if self.errno else 'warning'}: {self.message}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A region as Linux would see it: *devices* by position; *base* None when it is yet to be placed.

    *decoders* are what the devices' registers hold when the region is already programmed, else empty.
    """

    name: str
    window: Window
    base: int | None
    size: int
    granularity: int
    mode: str
    devices: tuple[Type3, ...]
    decoders: tuple[Settings, ...] = ()

    @property
    def ways(self) -> int:
        return len(self.devices)


def problems(candidate: Candidate, wiring: Wiring) -> list[Problem]:
    """Everything about *candidate* that Linux refuses or gets wrong, in the order in which it would notice."""
    found: list[Problem] = []
    for rule in _OWN_RULES:
        found += [Problem(number, f"{candidate.name}: {text}") for number, text in rule(candidate)]
    if found and found[-1].errno:
        return found  # the wiring cannot be judged by positions that are wrong already
    for wired in _WIRING_RULES:
        found += [Problem(number, f"{candidate.name}: {text}") for number, text in wired(candidate, wiring)]
    return found


# -- the region itself -----------------------------------------------------------------------------------


def _ways(c: Candidate) -> Iterator[Refusal]:
    """interleave_ways_store()"""
    root = c.window.ways
    if c.ways not in ENCODED_WAYS:
        yield codes.EINVAL, f"a region must have one of {sorted(ENCODED_WAYS)} ways, not {c.ways}"
    elif c.ways % root or (c.ways // root) & (c.ways // root - 1):
        yield codes.EINVAL, f"{c.ways} ways must be a power of two times the {root} ways of window {c.window.name}"


def _granularity(c: Candidate) -> Iterator[Refusal]:
    """interleave_granularity_store()"""
    if c.granularity not in GRANULARITIES:
        yield codes.EINVAL, f"the granularity must be a power of two from 256 to 16384 bytes, not {c.granularity}"
    elif c.window.ways > 1 and c.granularity != c.window.granularity:
        yield codes.EINVAL, (f"the granularity must be the {c.window.granularity} bytes of window {c.window.name}, "
                             f"which interleaves, not {c.granularity}")


def _size(c: Candidate) -> Iterator[Refusal]:
    """alloc_hpa()"""
    unit = DECODER_GRAIN * c.ways
    decoded = c.size - c.window.cache
    if decoded <= 0 or decoded % unit:
        yield codes.EINVAL, f"the size must be a multiple of {c.ways} ways x 256 MiB ({unit:#x}), not {decoded:#x}"
    elif c.size > c.window.size and not c.window.has_hole:
        yield codes.ERANGE, f"{c.size:#x} bytes do not fit in the {c.window.size:#x} bytes of window {c.window.name}"


def _mode(c: Candidate) -> Iterator[Refusal]:
    """cxl_root_decoder_visible(): without the restriction bit there is no file to create such a region with."""
    field = Restrictions.PERSISTENT if c.mode == "pmem" else Restrictions.VOLATILE
    if not field.get(c.window.restrictions):
        yield codes.ENOENT, (f"window {c.window.name} with restrictions {c.window.restrictions:#x} must allow "
                             f"{field.name.lower()} memory for a {c.mode} region")
    if not Restrictions.HOST_ONLY.get(c.window.restrictions):
        yield codes.ENXIO, (f"window {c.window.name} with restrictions {c.window.restrictions:#x} must allow "
                            "host-only (type 3) memory")


def _members(c: Candidate) -> Iterator[Refusal]:
    """cxl_region_validate_position()"""
    seen: dict[str, int] = {}
    for position, device in enumerate(c.devices):
        first = seen.setdefault(device.name, position)
        if first != position:
            yield codes.EBUSY, f"device {device.name} is at position {first} and cannot be at {position} as well"


def _capacity(c: Candidate) -> Iterator[Refusal]:
    """cxl_dpa_alloc(), cxl_region_attach()"""
    share = (c.size - c.window.cache) // c.ways
    for position, device in enumerate(c.devices):
        if c.decoders:
            s = c.decoders[position]
            if s.share != share:
                yield codes.EINVAL, (f"device {device.name} gives {s.share:#x} bytes, x {c.ways} ways must be "
                                     f"{c.size - c.window.cache:#x}")
            elif device.partition(s.dpa) != device.partition(s.dpa + s.share - 1):
                first, last = (device.partition(dpa) for dpa in (s.dpa, s.dpa + s.share - 1))
                yield codes.EINVAL, (f"decoder {s.number} of device {device.name} must stay in one partition, not "
                                     f"reach from {first} into {last}")
        elif device.free(c.mode) < share:
            yield codes.ENOSPC, (f"device {device.name} must have {share:#x} free bytes of {c.mode}, "
                                 f"it has {device.free(c.mode):#x}")


def _interleave_capability(c: Candidate) -> Iterator[Refusal]:
    """check_interleave_cap(): every interleave bit must lie in a group that the device names, 11:8 or 14:12."""
    if c.ways not in ENCODED_WAYS or c.granularity not in GRANULARITIES:
        return
    low = c.granularity.bit_length() - 1
    bits = set(range(low, low + (ENCODED_WAYS[c.ways] & 7)))
    for device in c.devices:
        cap = device.registers.capability
        able = {b for bits_, yes in zip((range(8, 12), range(12, 15)), cap.groups) if yes for b in bits_}
        if bits - able:
            yield codes.ENXIO, (f"device {device.name} must be able to interleave on address bits {sorted(bits)}, "
                                f"it cannot on {sorted(bits - able)}")
        if (c.ways % 3 == 0 and not cap.ways_3_6_12) or (c.ways == 16 and not cap.ways_16):
            yield codes.ENXIO, f"device {device.name} must have the capability for {c.ways} ways"


def _decoder_order(c: Candidate) -> Iterator[Refusal]:
    """alloc_region_ref(), cxl_num_decoders_committed(): decoders commit in order of id and of HPA."""
    for device, s in zip(c.devices, c.decoders):
        for other in device.registers.committed.values():
            if (other.number < s.number) != (other.base < s.base) and other.number != s.number:
                yield codes.EBUSY, (f"decoders of device {device.name} must be in HPA order, but {other.number} is at "
                                    f"{other.base:#x} and {s.number} at {s.base:#x}")
        missing = sorted(set(range(s.number)) - set(device.registers.committed))
        if missing:
            yield codes.EBUSY, f"decoder {missing[0]} of device {device.name} must be committed before {s.number}"


_OWN_RULES = (
    _ways, _granularity, _size, _mode, _members, _capacity, _interleave_capability, _decoder_order,
)  # fmt: skip


# -- what is above the devices ---------------------------------------------------------------------------


def _root_targets(c: Candidate, wiring: Wiring) -> Iterator[Refusal]:
    """cxl_region_validate_position(), cxl_region_attach_position()"""
    for position, device in enumerate(c.devices):
        path = wiring.path(device)
        want = c.window.targets[position % c.window.ways]
        if not path:
            yield codes.ENXIO, f"device {device.name} is not connected"
        elif path[0].parent is not want:
            yield codes.ENXIO, (f"device {device.name} at position {position} must be below {want.name}, target "
                                f"{position % c.window.ways} of window {c.window.name}, not {path[0].parent.name}")


def _hosts(c: Candidate, wiring: Wiring) -> Iterator[Refusal]:
    """cxl_region_attach(): CXL 1.1 and later hosts do not mix."""
    bridges = {p.parent for d in c.devices for p in wiring.path(d)[:1] if isinstance(p.parent, HostBridge)}
    old = sorted(b.name for b in bridges if b.restricted)
    if old and len(old) < len(bridges):
        new = sorted(b.name for b in bridges if not b.restricted)
        yield codes.ENXIO, f"CXL 1.1 host {old[0]} and {new[0]} cannot be in one region"


def _ports(c: Candidate, wiring: Wiring) -> Iterator[Refusal]:
    """cxl_port_setup_targets(), check_last_peer(): what each bridge and switch would be programmed to."""
    for node, grain, members in _nodes(c, wiring):
        numbers = list(dict.fromkeys(n for _, n in members))
        ways = len(numbers)
        if ways & (ways - 1):
            yield codes.EINVAL, f"{node.name} must use a power of two of its ports, not {ways}"
            continue
        if node.registers is not None and ways > node.registers.capability.targets:
            yield codes.ENXIO, f"{node.name} would need {ways} targets, it has {node.registers.capability.targets}"
        if grain > GRANULARITIES[-1]:
            yield codes.EINVAL, (f"{node.name} would need a granularity of {grain} bytes (its parent's times its "
                                 f"parent's ways), at most 16384 exist")
        for index, (position, number) in enumerate(members):
            if number != numbers[index % ways]:
                yield codes.ENXIO, (f"device {c.devices[position].name} at position {position} must be below port "
                                    f"{numbers[index % ways]} of {node.name}, whose ports must take turns {numbers}, "
                                    f"not below port {number}")
                break
        if c.decoders and node.registers is not None:
            yield from _programmed(c, node, node.registers, grain, ways)


def _nodes(c: Candidate, wiring: Wiring) -> Iterator[tuple[Node, int, list[tuple[int, int]]]]:
    """(bridge or switch, granularity that Linux gives it, [(position, port number)]), top down."""
    level: dict[int, tuple[Node, int, list[tuple[int, int]]]] = {}
    paths = [wiring.path(d) for d in c.devices]
    grains: dict[int, int] = {}
    for depth in range(max((len(p) for p in paths), default=0)):
        level.clear()
        for position, path in enumerate(paths):
            if depth < len(path):
                node = path[depth].parent
                above = path[depth - 1].parent if depth else None
                grain = c.granularity << c.window.power if above is None else grains[id(above)]
                level.setdefault(id(node), (node, grain, []))[2].append((position, path[depth].number))
        for node, grain, members in level.values():
            grains[id(node)] = grain * len({n for _, n in members})
            yield node, grain, members


def _programmed(c: Candidate, node: Node, block: DecoderBlock, grain: int, ways: int) -> Iterator[Refusal]:
    """match_region_by_range(), cxl_port_setup_targets() of an auto-assembled region."""
    size = c.size - c.window.cache
    first = c.decoders[0].base
    for s in block.committed.values():
        if (s.base, s.size) == (first, size):
            if s.ways != ways or (ways > 1 and s.granularity != grain):
                yield codes.ENXIO, (f"decoder {s.number} of {node.name} must have {ways} ways at {grain} bytes, "
                                    f"not {s.ways} at {s.granularity}")
            return
    yield codes.ENXIO, f"{node.name} must have a committed decoder for {first:#x}+{size:#x}, it has none"


def _translation(c: Candidate, wiring: Wiring) -> Iterator[Refusal]:
    """cxl_dpa_to_hpa(): its positions are not where the hardware routes below a 3, 6 or 12-way window."""
    if c.window.ways % 3 == 0 and c.ways > c.window.ways:
        yield 0, (f"Linux translates DPA to HPA by position, which is not where {c.ways} ways below a "
                  f"{c.window.ways}-way window are routed; data is in order, its addresses in poison and event "
                  "records are not")


_WIRING_RULES = (_root_targets, _hosts, _ports, _translation)
