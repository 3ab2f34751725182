"""Where a guest's things are: physical areas that the caller chooses, and where the guest sees them."""

from __future__ import annotations

from dataclasses import dataclass, fields
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
    """The four areas of a guest. `tables` is not mapped for the guest; its `va` means nothing."""

    tables: Area
    code: Area
    data: Area
    stack: Area

    def __post_init__(self) -> None:
        areas = [(f.name, getattr(self, f.name)) for f in fields(self)]
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


def plan(tables: Place, code: Place, data: Place, stack: Place) -> Plan:
    """A plan from (base, size) or (base, size, va); the virtual addresses default to CODE_VA, DATA_VA, STACK_VA."""

    def area(place: Place, va: int) -> Area:
        return Area(place[0], place[1], place[2] if len(place) == 3 else va)

    return Plan(area(tables, 0), area(code, CODE_VA), area(data, DATA_VA), area(stack, STACK_VA))


def default_plan(space: AddressSpace) -> Plan:
    """Everything in the first megabyte of the first RAM that has one: 256 KiB each, 64 KiB of stack."""
    for r in space.view.ranges:
        first = -(-r.first // PAGE) * PAGE
        if isinstance(r.region, Ram) and r.last - first >= sum(_DEFAULT.values()) - 1:
            places = {}
            for name, size in _DEFAULT.items():
                places[name] = (first, size)
                first += size
            return plan(**places)
    raise AddressRangeError(
        f"no RAM of {sum(_DEFAULT.values()):#x} bytes to put the guest in: call setup() and say where things are")
