"""Where a guest's things are: physical areas that the caller chooses, and where the guest sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmu.errors import AddressRangeError, AlignmentError
from mmu.memory.region import Ram

if TYPE_CHECKING:
    from mmu.memory import AddressSpace

PAGE = 4096

# In different subtrees of the tables, so that every level of a walk matters. The indices of the data are 32, 0, 32, 0:
# at 256 bytes its entries alternate between the devices of a 2-way window.
CODE_VA = 0x40_0000
DATA_VA = 0x1000_0400_0000
STACK_VA = 0x7FFF_FFF0_0000

_DEFAULT = {"tables": 0x40000, "code": 0x40000, "data": 0x40000, "stack": 0x10000}

Place = tuple[int, int] | tuple[int, int, int]  # (base, size) or (base, size, virtual address), in bytes
REST = "rest"  # in places by level: those that are not named


@dataclass(frozen=True, slots=True)
class Area:
    """*size* bytes of physical memory from *base* on, which the guest sees at *va*. All whole pages."""

    base: int
    size: int
    va: int

    @property
    def last(self) -> int:
        return self.base + self.size - 1


@dataclass(frozen=True, slots=True)
class Plan:
    """The four areas of a guest. `tables` is not mapped for the guest; its `va` means nothing.

    `levels`: areas of tables of one level, by the level's number; several may share one, or `tables`.
    """

    tables: Area
    code: Area
    data: Area
    stack: Area
    levels: Mapping[int, Area] = field(default_factory=dict)

    def __post_init__(self) -> None:
        areas = [(name, getattr(self, name)) for name in ("tables", "code", "data", "stack")]
        own = {area for area in self.levels.values() if area != self.tables}
        areas += [("tables of a level", area) for area in sorted(own, key=lambda area: area.base)]
        for name, area in areas:
            for what, value in ("base", area.base), ("size", area.size), ("va", area.va):
                if value < 0 or value % PAGE:
                    raise AlignmentError(f"{name}: {what} must be whole pages of {PAGE} bytes, not {value:#x}")
            if not area.size or area.last >= 1 << 52:
                raise AddressRangeError(
                    f"{name}: {area.size:#x} bytes at {area.base:#x} must be at least a page and end below 2^52")
        for i, (name, area) in enumerate(areas):
            for other_name, other in areas[:i]:
                if area.base <= other.last and other.base <= area.last:
                    raise AddressRangeError(
                        f"{name} {area.base:#x}..{area.last:#x} overlaps {other_name} {other.base:#x}..{other.last:#x}")


def plan(
    tables: Place | Mapping[str, Place], code: Place, data: Place, stack: Place, names: Mapping[str, int] | None = None
) -> Plan:
    """A plan from (base, size) or (base, size, va); the virtual addresses default to CODE_VA, DATA_VA, STACK_VA.

    *tables* may be places by level, under *names* (name of a table -> number of its level, root first) and REST.
    """

    def area(place: Place, va: int) -> Area:
        return Area(place[0], place[1], place[2] if len(place) == 3 else va)

    rest, levels = _by_level(tables, names or {}) if isinstance(tables, Mapping) else (tables, {})
    return Plan(
        Area(rest[0], rest[1], 0), area(code, CODE_VA), area(data, DATA_VA), area(stack, STACK_VA),
        {number: Area(place[0], place[1], 0) for number, place in levels.items()})


def level_number(name: str, names: Mapping[str, int]) -> int:
    """The level of "PT", of "pt", and of "PTE", which is what an entry of a PT is called. ValueError for others."""
    found = name.upper()
    found = found if found in names else found.removesuffix("E")
    if found not in names:
        raise ValueError(f"there is no level {name!r}: levels are {', '.join(names)}, and {REST} for all others")
    return names[found]


def _by_level(places: Mapping[str, Place], names: Mapping[str, int]) -> tuple[Place, dict[int, Place]]:
    """What is for the rest, and what for single levels. When every level is named, the rest is as the root."""
    levels = {level_number(name, names): place for name, place in places.items() if name != REST}
    if len(levels) != len(places) - (REST in places):
        raise ValueError(f"a level is named twice: {', '.join(places)}")
    missing = [name for name, number in names.items() if number not in levels]
    if REST not in places and missing:
        raise ValueError(f"tables: no place for {', '.join(missing)}, and none for the {REST}")
    return (places[REST] if REST in places else levels[next(iter(names.values()))]), levels


def default_plan(space: AddressSpace) -> Plan:
    """Everything in the first megabyte of the first RAM that has one: 256 KiB each, 64 KiB of stack."""
    for r in space.view.ranges:
        first = -(-r.first // PAGE) * PAGE
        if isinstance(r.region, Ram) and r.last - first >= sum(_DEFAULT.values()) - 1:
            places: dict[str, Place] = {}
            for name, size in _DEFAULT.items():
                places[name] = (first, size)
                first += size
            return plan(places["tables"], places["code"], places["data"], places["stack"])
    raise AddressRangeError(
        f"no RAM of {sum(_DEFAULT.values()):#x} bytes to put the guest in: call setup() and say where things are")
