"""What a guest has where: page tables, pages that can be executed, and the DMA buffers that the user names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
    for (base, size), va in pages.items():
        yield Found("code", base, size, va, shares=shares(topology, space, base, size))


def shares(topology: Topology, space: AddressSpace, base: int, size: int) -> dict[str, int]:
    """Bytes of base .. base+size-1 by device, NOBODY for those of a window that none answers. Empty outside windows."""
    import numpy as np

    found: dict[str, int] = {}
    names = list(topology.devices)
    for r in space.view.ranges:
        low, high = max(r.first, base), min(r.last, base + size - 1)
        if low > high or not isinstance(r.region, Striped):
            continue
        starts = np.arange(low // GRAIN * GRAIN, high + 1, GRAIN, dtype=np.uint64)
        counts = np.full(len(starts), GRAIN, np.int64)
        counts[0] -= low % GRAIN
        counts[-1] -= GRAIN - 1 - high % GRAIN
        places = topology.decode_many(starts)
        for number in range(len(names)):
            if n := int(counts[(places["status"] == 0) & (places["device"] == number)].sum()):
                found[names[number]] = found.get(names[number], 0) + n
        if n := int(counts[places["status"] != 0].sum()):
            found[NOBODY] = found.get(NOBODY, 0) + n
    return found
