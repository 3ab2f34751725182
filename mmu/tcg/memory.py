"""Physical memory as a CPU reaches it: by host address where there is one, otherwise by dispatches to a region."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from mmu.core import ffi, lib, memtx
from mmu.memory import AddressSpace, Alias, Ram, Striped
from mmu.tcg.trace import Bus, Recorder, Tag
from mmu.tlb.softmmu import page_flags
from mmu.tlb.table import Flag
from mmu.types import MemTxResult

if TYPE_CHECKING:
    from mmu.memory.flatview import FlatRange, FlatView
    from mmu.memory.space import Port

PAGE = 4096
MMIO, DISCARD_WRITE = int(Flag.MMIO), int(Flag.DISCARD_WRITE)  # plain numbers: they are looked at often
Flags = tuple[int, int, int]
NAMES = {n: MemTxResult(n).name or str(MemTxResult(n)) for n in range(8)}


class Memory:
    """What the CPU sees of *space*. It goes on seeing what was there (`view`) until it takes over a change.

    `ports`: the initiators, by tag, so that devices can tell who came. `defers`: it is used between a change and the
    next take_over().
    """

    def __init__(self, space: AddressSpace, ports: dict[Tag, Port], trace: Recorder, defers: bool) -> None:
        self.space, self.trace, self.defers = space, trace, defers
        self._ports = {tag: port.handle for tag, port in ports.items()}
        self._out = ffi.new("uint64_t *")
        self._past: AddressSpace | None = None
        self._flags: dict[int, Flags] = {}
        self._where: dict[int, tuple[str, int]] = {}  # of pages that are in one region
        self.take_over()

    # -- the memory map -----------------------------------------------------------------------------

    @property
    def changed(self) -> bool:
        """Whether the space shows something else than what the CPU sees."""
        return self.view is not self.space.view

    def take_over(self) -> None:
        """See what the space shows now."""
        self.view: FlatView = self.space.view
        self._routes = {r.region: r.region.route for r in self.view.ranges if isinstance(r.region, Striped)}
        self._past = None
        self._flags.clear()
        self._where.clear()
        self._shared = shared(self.view)

    def twins(self, pa: int) -> list[int]:
        """The other addresses that show the same byte of RAM as *pa*."""
        if not self._shared:
            return []
        hosts = {host + pa - first for host, last, first in self._shared if 0 <= pa - first <= last - host}
        return [at for host, last, first in self._shared for byte in hosts
                if host <= byte <= last and (at := first + byte - host) != pa]

    def flags(self, pa: int) -> Flags:
        """Of loads, stores and fetches at the page of *pa*. No flag: there is a host address."""
        page = pa // PAGE
        found = self._flags.get(page)
        if found is None:
            read, write, fetch = page_flags(self.view, page * PAGE)
            found = self._flags[page] = int(read), int(write), int(fetch)
        return found

    def dispatches(self, pa: int) -> bool:
        """Does a load there go to a region without host memory?"""
        return bool(self.flags(pa)[0] & MMIO)

    def _map(self) -> AddressSpace | None:
        """A space of the regions as they were, where the CPU does not see a change yet; None: ours will do."""
        if not self.changed:
            return None
        if self._past is None:
            self._past = AddressSpace("as it was")
            for r in self.view.ranges:
                self._past.map(r.first, self._as_it_was(r))
        return self._past

    def _present(self) -> AddressSpace:
        """What the CPU sees."""
        return (self._map() if self.defers else None) or self.space

    def _as_it_was(self, r: FlatRange) -> Any:
        region = r.region
        if isinstance(region, Striped):
            old = Striped(region.size, region.base, region.targets, region.name)
            old.set_route(self._routes[region])
            region = old
        return Alias(region, r.offset, r.last - r.first + 1, region.name)

    # -- accesses -----------------------------------------------------------------------------------

    def load(self, pa: int, size: int, tag: Tag) -> tuple[int, int]:
        """(value, result as a number) of one access of 1, 2, 4 or 8 bytes."""
        out = self._out
        if self.defers and (past := self._map()) is not None:
            value, result = past.load(pa, size)
            return value, result.value
        status = lib.mmu_port_load(self._ports[tag], pa, size, out)
        if status:
            status = memtx(status, f"load of {size} bytes at {pa:#x}").value
        return out[0], status

    def store(self, pa: int, size: int, value: int, tag: Tag) -> int:
        if self.defers and (past := self._map()) is not None:
            return past.store(pa, size, value).value
        status: int = lib.mmu_port_store(self._ports[tag], pa, size, value)
        return memtx(status, f"store of {size} bytes at {pa:#x}").value if status else 0

    def exchange(self, pa: int, size: int, expected: int, desired: int) -> int:
        """What was there: *desired* is there now if that was *expected*. Memory with a host address only."""
        old, _ = self._present().exchange(pa, size, expected, desired)
        return old

    def read(self, pa: int, size: int) -> bytes:
        """Bytes that have a host address, or of ROM."""
        if size in (1, 2, 4, 8):
            return self.load(pa, size, "data")[0].to_bytes(size, "little")
        data, _ = self._present().access(pa, size)
        return data

    def write(self, pa: int, data: bytes) -> None:
        if len(data) in (1, 2, 4, 8):
            self.store(pa, len(data), int.from_bytes(data, "little"), "data")
        else:
            self._present().access(pa, data=data)

    def dispatch(self, pa: int, size: int, value: int | None, tag: Tag) -> tuple[int, int]:
        """One load (*value* None) or store to a region without host memory, recorded."""
        rw: Literal["r", "w"] = "r" if value is None else "w"
        if value is None:
            value, result = self.load(pa, size, tag)
        else:
            result = self.store(pa, size, value, tag)
        found = self._where.get(pa // PAGE) or self._find(pa)
        name, offset = found[0], found[1] + pa
        self.trace.append(Bus("bus", rw, name, offset, size, value, NAMES[result], tag))
        return value, result

    def _find(self, pa: int) -> tuple[str, int]:
        """(region, what to add to *pa* for the offset in it); what is not mapped is "unassigned", at its address."""
        r, page = self.view.find(pa), pa // PAGE * PAGE
        if r is None:
            return "unassigned", 0
        found = r.region.name, r.offset - r.first
        if r.first <= page and page + PAGE - 1 <= r.last:
            self._where[pa // PAGE] = found
        return found


def shared(view: FlatView) -> list[tuple[int, int, int]]:
    """(host address, its last one, physical address) of RAM that *view* shows, in part or whole, in several places."""
    rows = []
    for r in view.ranges:
        if isinstance(r.region, Ram):
            host = r.region.memory.address + r.offset
            rows.append((host, host + r.last - r.first, r.first))
    rows.sort()
    found: set[tuple[int, int, int]] = set()
    longest = rows[0] if rows else (0, 0, 0)  # of those before, the one that ends last
    for row in rows[1:]:
        if row[0] <= longest[1]:
            found |= {row, longest}
        longest = max(longest, row, key=lambda r: r[1])
    return sorted(found)
