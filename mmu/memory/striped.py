"""A window whose bytes are spread over several memories, as a route says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mmu.core import check, ffi, lib
from mmu.errors import AddressRangeError
from mmu.memory.host import HostMemory
from mmu.memory.region import SPACE_SIZE, Region
from mmu.stripes import ENCODED_GRANULARITY, ENCODED_WAYS, Miss, Route, Slot, Span
from mmu.stripes import check as check_interleave
from mmu.types import Place


@dataclass(frozen=True)
class Target:
    """Memory of one device; offset 0 is DPA 0. Two of one name and one memory are the same."""

    name: str
    memory: HostMemory


class Striped(Region):
    """A window of *size* bytes whose byte 0 has the host-physical address *base*.

    The route speaks in HPAs, so it stays right wherever the region is mapped. With no route every read errs.
    """

    def __init__(self, size: int, base: int, targets: Sequence[Target], name: str = "window") -> None:
        super().__init__(size, name)
        if base < 0 or base + size > 1 << 64:
            raise AddressRangeError(f"window {name}: {base:#x}+{size:#x} leaves the 64-bit address space")
        self.base, self.targets = base, tuple(targets)
        self._route = Route()

    @property
    def route(self) -> Route:
        return self._route

    @property
    def memories(self) -> list[HostMemory]:
        """What the route leads to: a memory as often as there are spans that do."""
        return [
            self.targets[target].memory
            for span in self._route.spans
            for target in {slot.target for slot in span.slots if isinstance(slot, Slot)}
        ]

    def set_route(self, route: Route) -> None:
        """Replace the route, all at once: an access sees the old one or the new one for the whole of a piece.

        Raises AddressRangeError when a span or a slot is out of range; nothing changes then.
        """
        self.compile(route, lambda target: 0)
        self._become(_route=route)

    def place(self, offset: int) -> Place:
        """Where byte *offset* of the window is; a miss has no device."""
        found = self._route.locate(self.base + offset)
        if isinstance(found, Miss) or found[1] >= self.targets[found[0]].memory.size:
            return Place(self.name, offset)
        return Place(self.name, offset, self.targets[found[0]].name, found[1])

    def compile(self, route: Route, number: Callable[[Target], int]) -> Any:
        """The C form of *route*; *number* tells under which number a target's traffic is counted."""
        if not isinstance(route, Route):
            raise TypeError(f"window {self.name}: a route must be a Route, not {route!r:.80}")
        slots: list[dict[str, Any]] = []
        spans = [self._span(span, slots) for span in route.spans]
        targets = [
            {"host": t.memory.address, "size": t.memory.size, "number": number(t), "places": t.memory.places}
            for t in self.targets
        ]
        wrong = f"window {self.name}: a span, a slot or a target of its route is out of range"
        out = ffi.new("mmu_route **")
        try:
            status = lib.mmu_route_create(
                self.base, ffi.new("struct mmu_span[]", spans), len(spans),
                ffi.new("struct mmu_slot[]", slots), len(slots),
                ffi.new("struct mmu_target[]", targets), len(targets), out)
        except (OverflowError, IndexError) as error:  # a number that C has no room for
            raise AddressRangeError(f"{wrong}: {error}") from None
        check(status, wrong)
        return ffi.gc(out[0], lib.mmu_route_destroy)

    def _span(self, span: Span, slots: list[dict[str, Any]]) -> dict[str, Any]:
        first = len(slots)
        if span.granule > (largest := _largest_granule(span)):
            raise AddressRangeError(
                f"window {self.name}: the granule of span {span.first:#x}..{span.last:#x} must be at most {largest}, "
                f"where its slots change, not {span.granule}")
        slots += [_slot(s) for s in span.slots]
        return {
            "first": span.first, "last": span.last, "granule": span.granule, "shift": span.shift, "bits": span.bits,
            "slot_first": first, "slot_count": len(span.slots), "map_count": len(span.maps), "maps": list(span.maps),
            "mod3_shift": span.mod3_shift or 0,
        }  # fmt: skip


def _largest_granule(span: Span) -> int:
    """Bytes of the largest aligned blocks that lie in one slot, and in one piece in its device."""
    edges = [m & -m for m in span.maps if m] + [s.granularity for s in span.slots if isinstance(s, Slot) and s.ways > 1]
    if span.bits:
        edges.append(1 << span.shift)
    if span.mod3_shift is not None:
        edges.append(1 << span.mod3_shift)
    return min(edges, default=SPACE_SIZE)


def _slot(slot: Slot | Miss) -> dict[str, Any]:
    if isinstance(slot, Miss):
        return {"kind": lib.MMU_SLOT_REFUSED if slot.at_device else lib.MMU_SLOT_NO_DEVICE}
    check_interleave(slot.ways, slot.granularity)
    code = ENCODED_WAYS[slot.ways]
    return {
        "kind": lib.MMU_SLOT_DEVICE, "base": slot.base, "dpa": slot.dpa, "target": slot.target,
        "granularity_shift": 8 + ENCODED_GRANULARITY[slot.granularity], "ways_shift": code & 7, "mod3": code >> 3,
    }  # fmt: skip
