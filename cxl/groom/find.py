"""What a guest has where: page tables, pages that can be executed, and the DMA buffers that the user names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmu.errors import AddressRangeError
from mmu.guest.trees import GuestTree, trees
from mmu.memory import AddressSpace, Striped
from mmu.scan import Flag

if TYPE_CHECKING:
    from cxl.topology import Topology
    from mmu.machine import Machine

KINDS = ("tables", "code", "dma")
GRAIN = 256  # bytes; no interleave is finer
NOBODY = ""  # in shares: bytes of a window that no device answers


@dataclass(frozen=True, slots=True)
class Found:
    """*size* bytes of physical memory at *base*, and what they are for.

    `name` is what the table is called (PML4, L2, ...), `va` the first address that it translates, or the first at
    which the page is executed; a buffer has neither. `shares`: bytes by device; empty in RAM.
    """

    kind: str
    base: int
    size: int
    va: int | None = None
    name: str = ""
    shares: Mapping[str, int] = field(default_factory=dict)

    @property
    def in_window(self) -> bool:
        return bool(self.shares)

    @property
    def last(self) -> int:
        return self.base + self.size - 1


def survey(machine: Machine, topology: Topology, dma: Iterable[tuple[int, int]] = ()) -> list[Found]:
    """Tables, then code, then buffers; each by address, in windows or not. *dma*: (base, size) in bytes.

    Raises BusError when a table cannot be read, AddressRangeError for a buffer where nothing is.
    """
    roots = trees(machine.cpu)
    found = [*_tables(machine, topology, roots), *_code(topology, machine.space, roots)]
    for base, size in dma:
        if size <= 0 or machine.space.place(base) is None or machine.space.place(base + size - 1) is None:
            raise AddressRangeError(f"there is no memory at the DMA buffer {base:#x}:{size:#x}")
        found.append(Found("dma", base, size, shares=shares(topology, machine.space, base, size)))
    return sorted(found, key=lambda f: (KINDS.index(f.kind), f.base))


def _tables(machine: Machine, topology: Topology, roots: list[GuestTree]) -> Iterator[Found]:
    names = {number: name for name, number in machine.cpu.TABLES.items()}
    seen: set[int] = set()
    for tree in roots:
        for node in tree.tables():
            if node.address in seen:
                continue
            seen.add(node.address)
            size = node.level.table_bytes
            va = _extended(tree, node.low)
            name = names.get(node.level.number, f"level {node.level.number}")
            yield Found("tables", node.address, size, va, name, shares(topology, machine.space, node.address, size))


def _extended(tree: GuestTree, low: int) -> int:
    """An address that tables are indexed by, as the program has it."""
    assert tree.form is not None
    sign, base = tree.form.sign, tree.form.base
    upper = sign and low >> sign - 1 & 1
    return (low | base | (-1 << sign if upper else 0)) & (1 << 64) - 1


def _code(topology: Topology, space: AddressSpace, roots: list[GuestTree]) -> Iterator[Found]:
    pages: dict[tuple[int, int], int] = {}
    for tree in roots:
        for record in tree.mappings():
            if int(record["flags"]) & (Flag.FETCH | Flag.USER_FETCH):
                key = int(record["pa"]), int(record["size"])
                pages[key] = min(int(record["va"]), pages.get(key, (1 << 64) - 1))
    spans = list(pages)
    for (base, size), found in zip(spans, shares_many(topology, space, spans)):
        yield Found("code", base, size, pages[base, size], shares=found)


def shares(topology: Topology, space: AddressSpace, base: int, size: int) -> dict[str, int]:
    """Bytes of base .. base+size-1 by device, NOBODY for those of a window that none answers. Empty outside windows."""
    return shares_many(topology, space, [(base, size)])[0]


def shares_many(topology: Topology, space: AddressSpace, spans: Sequence[tuple[int, int]]) -> list[dict[str, int]]:
    """`shares` of each (base, size), decoded all at once."""
    names = [*topology.devices, NOBODY]
    found: list[dict[str, int]] = [{} for _ in spans]
    for r in space.view.ranges:
        if isinstance(r.region, Striped):
            for number, device, n in _counted(topology, r.first, r.last, spans):
                out = found[number]
                out[names[device]] = out.get(names[device], 0) + n
    return found


def _counted(
    topology: Topology, first: int, last: int, spans: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int, int]]:
    """(number of a span, number of a device, bytes) of what lies in first..last; the number of no device comes last."""
    import numpy as np

    inside = [
        (i, max(first, base), min(last, base + size - 1)) for i, (base, size) in enumerate(spans)
        if base <= last and base + size > first
    ]  # fmt: skip
    if not inside:
        return
    numbers, lows, highs = (np.array(column, np.uint64) for column in zip(*inside))
    grain = np.uint64(GRAIN)
    grains = (highs // grain - lows // grain + np.uint64(1)).astype(np.int64)
    ends = np.cumsum(grains)
    which = np.repeat(np.arange(len(inside)), grains)
    offsets = np.arange(ends[-1]) - np.repeat(ends - grains, grains)
    starts = (lows // grain)[which] * grain + offsets.astype(np.uint64) * grain
    bytes_ = np.full(len(starts), GRAIN, np.int64)
    bytes_[ends - grains] -= (lows % grain).astype(np.int64)
    bytes_[ends - 1] -= GRAIN - 1 - (highs % grain).astype(np.int64)
    places = topology.decode_many(starts)
    nobody = len(topology.devices)
    devices = np.where(places["status"] == 0, places["device"], nobody).astype(np.int64)
    table = np.bincount(which * (nobody + 1) + devices, weights=bytes_, minlength=len(inside) * (nobody + 1))
    for at in np.flatnonzero(table):
        yield int(numbers[at // (nobody + 1)]), int(at % (nobody + 1)), int(table[at])
