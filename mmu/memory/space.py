"""An address space: regions at addresses, and the accesses that an initiator makes."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, overload

from mmu.core import check, ffi, lib, memtx, unset_bytes
from mmu.errors import AddressRangeError, BusError, MirrorWarning
from mmu.memory import files
from mmu.memory.flatview import FlatRange, FlatView
from mmu.memory.host import HostMemory
from mmu.memory.mirror import Mirror
from mmu.memory.port import TRACE_CAPACITY, Port, TraceEntry, Traffic
from mmu.memory.region import SPACE_SIZE, Container, Ram, Region
from mmu.memory.striped import Striped, Target
from mmu.stripes import Route
from mmu.types import MemTxResult, Place

__all__ = ["AddressSpace", "Port", "TraceEntry", "Traffic"]

MIRROR_PAGES, MIRROR_PAGES_MAX = 1 << 20, (1 << 32) - 2

# Looked up once: a single access from Python costs hardly more than its call into C.
_load, _store, _exchange = lib.mmu_port_load, lib.mmu_port_store, lib.mmu_port_exchange
_read, _write = lib.mmu_port_read, lib.mmu_port_write
_new, _unpack, _WORD, _CHARS = ffi.new, ffi.unpack, ffi.typeof("uint64_t *"), ffi.typeof("char[]")
_new_unset = ffi.new_allocator(should_clear_after_alloc=False)
_OK = MemTxResult.OK
LARGE = 4096  # bytes from which on a read goes straight into the result


class AddressSpace:
    """64 bits of addresses, empty at first. Changes may be made while other threads read."""

    def __init__(self, name: str = "space") -> None:
        out = ffi.new("mmu_bus **")
        check(lib.mmu_bus_create(out), "bus")
        self.bus = ffi.gc(out[0], lib.mmu_bus_destroy)
        self.name = name
        self.targets: dict[Target, int] = {}  # the number under which ports count a device
        self._lock = threading.RLock()
        self._kept: deque[tuple[int, Any]] = deque()  # (generation, what its map points to), newest last
        self._own = threading.local()  # each thread's port
        self._ports: list[tuple[threading.Thread, Port]] = []
        self._past: dict[str, Traffic] = {}  # traffic of threads that ended
        self._routes: dict[Striped, tuple[Route, Any]] = {}  # of the windows in view, and what C made of them
        self._mirror_pages = MIRROR_PAGES
        self._mirror: Mirror | None = None
        self._said_full = False
        self._observers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._root = Container(SPACE_SIZE, name)
        self._root.watch(self)
        self._view = FlatView(self._root)

    @property
    def view(self) -> FlatView:
        """What is seen at each address, as of now."""
        return self._view

    @contextmanager
    def unchanging(self) -> Iterator[FlatView]:
        """The view, which no thread changes meanwhile (internal)."""
        with self._lock:
            yield self._view

    @property
    def port(self) -> Any:
        """This thread's mmu_port (cdata, internal)."""
        try:
            return self._own.handle
        except AttributeError:
            return self._port().handle

    def _port(self) -> Port:
        port: Port | None = getattr(self._own, "port", None)
        if port is None:
            port = self._own.port = self.new_port()
            self._own.handle = port.handle
            with self._lock:
                self._past = _total([self._past, *(p.traffic() for t, p in self._ports if not t.is_alive())])
                self._ports = [(t, p) for t, p in self._ports if t.is_alive()]
                self._ports.append((threading.current_thread(), port))
        return port

    def new_port(self) -> Port:
        """A port for another initiator, such as a guest's CPU."""
        return Port(self.bus, self.targets)

    @property
    def mirror_pages(self) -> int:
        """Pages of 4 KiB that the mirror of guests may have. To be set before the first of them needs it."""
        return self._mirror_pages

    @mirror_pages.setter
    def mirror_pages(self, value: int) -> None:
        if not 1 <= value <= MIRROR_PAGES_MAX:
            raise AddressRangeError(f"mirror_pages must be in 1..{MIRROR_PAGES_MAX}, not {value}")
        if self._mirror is not None:
            raise ValueError(f"the mirror of {self.name} is there already, with room for {self._mirror_pages} pages")
        self._mirror_pages = value

    def mirror(self) -> Mirror:
        """The mirror of this space's guests (internal), made when first asked for. Raises MemoryError."""
        with self._lock:
            if self._mirror is None:
                self._mirror = Mirror(self.mirror_pages)
            return self._mirror

    def mirror_is_full(self) -> None:
        """Warn, once, that there is no memory for pages of windows (internal)."""
        if not self._said_full:
            self._said_full = True
            warnings.warn(
                f"{self.name}: no memory to mirror more pages of windows; the rest is served access by access",
                MirrorWarning, stacklevel=4)

    def map(self, base: int, region: Region, priority: int = 0) -> None:
        """Show *region* at addresses base .. base+size-1. See `Container.map` for what it raises."""
        self._root.map(base, region, priority)

    def unmap(self, region: Region) -> None:
        self._root.unmap(region)

    def refresh(self) -> None:
        """Render the tree anew and publish it: one store, so that readers see the old map or the new one."""
        with self._lock:
            view = FlatView(self._root)
            routes = self._compiled(view)
            ranges = ffi.new("struct mmu_range[]", [_range(r, routes) for r in view.ranges])
            generation = ffi.new("uint64_t *")
            if aliased := _aliased(view):
                lib.mmu_bus_set_aliased(self.bus, True)
            status = lib.mmu_bus_publish(self.bus, ranges, len(view.ranges), generation)
            check(status, f"publishing {self.name}")
            if not aliased:
                lib.mmu_bus_set_aliased(self.bus, False)
            self._view, self._routes = view, routes
            self._kept.append((generation[0], (view, routes)))
            # A reader may still be in an old map: what it points to goes when the one after it is all that is left.
            oldest = lib.mmu_bus_reclaim(self.bus)
            while len(self._kept) > 1 and self._kept[1][0] <= oldest:
                self._kept.popleft()
            for observer in self._observers:
                observer.refresh()

    def observe(self, observer: Any) -> None:
        """*observer*.refresh() is called after each change of what is seen, before the change returns (internal)."""
        with self._lock:
            self._observers.add(observer)

    def _compiled(self, view: FlatView) -> dict[Striped, tuple[Route, Any]]:
        """The routes of the windows in *view*; only those that are new since the last view are compiled."""
        routes = {}
        for window in (r.region for r in view.ranges if isinstance(r.region, Striped)):
            route, known = window.route, self._routes.get(window)
            routes[window] = known if known and known[0] is route else (route, window.compile(route, self._number))
        return routes

    def _number(self, target: Target) -> int:
        return self.targets.setdefault(target, len(self.targets))

    def place(self, address: int) -> Place | None:
        """The region, and behind a window the device, that answers at *address*; None where nothing is mapped."""
        found = self._view.find(address)
        if found is None:
            return None
        offset = found.offset + address - found.first
        return found.region.place(offset) if isinstance(found.region, Striped) else Place(found.region.name, offset)

    # -- single accesses, as an initiator makes them ------------------------------------------------

    def load(self, address: int, size: int) -> tuple[int, MemTxResult]:
        """(value, result) of one little-endian access of 1, 2, 4 or 8 bytes; bytes that nobody answered are 0."""
        out = _new(_WORD)
        try:
            status = _load(self.port, address, size, out)
        except OverflowError:
            status = lib.MMU_ERANGE
        return out[0], _single(status, "load", address, size) if status else _OK

    def store(self, address: int, size: int, value: int) -> MemTxResult:
        """Of 1, 2, 4 or 8 bytes. Raises AddressRangeError, and stores nothing, when *value* does not fit in them."""
        try:
            status = _store(self.port, address, size, value) if value >> 8 * size == 0 else lib.MMU_ERANGE
        except (OverflowError, ValueError):
            status = lib.MMU_ERANGE
        return _single(status, "store", address, size, value) if status else _OK

    def exchange(self, address: int, size: int, expected: int, desired: int) -> tuple[int, MemTxResult]:
        """Compare and exchange of 4 or 8 aligned bytes: (what was there, result).

        It took place when what was there equals *expected* and the result is OK. Raises AddressRangeError when one of
        the values does not fit.
        """
        out = _new(_WORD)
        try:
            fits = (expected | desired) >> 8 * size == 0
            status = _exchange(self.port, address, size, expected, desired, out) if fits else lib.MMU_ERANGE
        except (OverflowError, ValueError):
            status = lib.MMU_ERANGE
        return out[0], _single(status, "exchange", address, size, expected, desired) if status else _OK

    # -- blocks, as the host reads and writes them --------------------------------------------------

    @overload
    def access(self, address: int, size: int) -> tuple[bytes, MemTxResult]: ...
    @overload
    def access(self, address: int, *, data: bytes) -> MemTxResult: ...
    def access(
        self, address: int, size: int = 0, *, data: bytes | None = None
    ) -> tuple[bytes, MemTxResult] | MemTxResult:
        """Read *size* bytes or write *data*, and say how it ended; bytes that nobody answered read as 0."""
        if data is not None:
            return self._write(address, data)
        if address < 0 or size < 0 or address + size > SPACE_SIZE:
            raise AddressRangeError(f"{size} bytes at {address:#x} leave the 64-bit address space")
        # Not shared: a callback may read as well before this read ends. Not cleared: C writes all of it.
        if size < LARGE:
            buffer = _new_unset(_CHARS, size)
            status = _read(self.port, address, buffer, size)
            found: bytes = _unpack(buffer, size)
        else:
            found = unset_bytes(size)
            status = _read(self.port, address, ffi.from_buffer(found), size)
        return found, memtx(status, f"read at {address:#x}") if status else _OK

    def read(self, address: int, size: int) -> bytes:
        """Bytes address .. address+size-1. Raises BusError when any part of it is refused."""
        # As access() does, without the call of it: this is what Python programs do all the time.
        if address < 0 or size < 0 or address + size > SPACE_SIZE:
            raise AddressRangeError(f"{size} bytes at {address:#x} leave the 64-bit address space")
        if size < LARGE:
            buffer = _new_unset(_CHARS, size)
            status = _read(self.port, address, buffer, size)
            data: bytes = _unpack(buffer, size)
        else:
            data = unset_bytes(size)
            status = _read(self.port, address, ffi.from_buffer(data), size)
        if status:
            raise self._error("read", address, size, memtx(status, f"read at {address:#x}"))
        return data

    def write(self, address: int, data: bytes) -> None:
        """Raises BusError when any part of it is refused."""
        result = self._write(address, data)
        if result:
            raise self._error("write", address, len(ffi.from_buffer(data)), result)

    def _error(self, what: str, address: int, size: int, result: MemTxResult) -> BusError:
        failure = files.why(self._view, address, size) if MemTxResult.ERROR in result else None
        reason = f": {failure}" if failure else ""
        return BusError(f"{what} of {size} bytes at {address:#x} ended with {result.name}{reason}", result)

    def _write(self, address: int, data: bytes) -> MemTxResult:
        buffer = ffi.from_buffer(data)
        size = len(buffer)  # bytes: an array may have wider items
        if address < 0 or address + size > SPACE_SIZE:
            raise AddressRangeError(f"{size} bytes at {address:#x} leave the 64-bit address space")
        status = _write(self.port, address, buffer, size)
        return memtx(status, f"write at {address:#x}") if status else _OK

    def trace(self, capacity: int = TRACE_CAPACITY) -> Any:
        """Context manager: the single accesses that this thread makes through this object, as a list of TraceEntry."""
        return self._port().trace(capacity)

    def traffic(self) -> dict[str, Traffic]:
        """Per device name, what all threads made through this object; other initiators have ports of their own."""
        with self._lock:
            return _total([self._past, *(p.traffic() for _, p in self._ports)])


def _single(status: int, what: str, address: int, size: int, *values: int) -> MemTxResult:
    """How a single access ended; raises when there was none, and says what was wrong with it."""
    if status != lib.MMU_ERANGE:
        return memtx(status, f"{what} of {size} bytes at {address:#x}")
    sizes = (4, 8) if what == "exchange" else (1, 2, 4, 8)
    if size not in sizes:
        raise AddressRangeError(f"{what} at {address:#x}: its size must be one of {sizes} bytes, not {size}")
    if not 0 <= address <= SPACE_SIZE - size:
        raise AddressRangeError(f"{what}: {size} bytes at {address:#x} leave the 64-bit address space")
    largest = (1 << 8 * size) - 1
    for value in values:
        if not 0 <= value <= largest:
            raise AddressRangeError(
                f"{what} of {size} bytes at {address:#x}: a value must be in 0..{largest:#x}, not {value:#x}")
    raise AddressRangeError(f"{what} of {size} bytes at {address:#x}: the address must be a multiple of the size")


def _aliased(view: FlatView) -> bool:
    """Whether the view may show some memory at more than one place."""
    seen: set[HostMemory] = set()
    for region in {r.region for r in view.ranges}:
        for memory in region.memories if isinstance(region, Striped | Ram) else ():
            if memory in seen:
                return True
            seen.add(memory)
    return False


def _range(r: FlatRange, routes: dict[Striped, tuple[Route, Any]]) -> dict[str, Any]:
    where: dict[str, Any] = {"first": r.first, "last": r.last, "offset": r.offset}
    if isinstance(r.region, Striped):
        return where | {"kind": lib.MMU_RANGE_STRIPED, "route": routes[r.region][1]}
    return where | r.region.published()


def _total(parts: list[dict[str, Traffic]]) -> dict[str, Traffic]:
    out: dict[str, Traffic] = {}
    for part in parts:
        for name, traffic in part.items():
            out[name] = out.get(name, Traffic()) + traffic
    return out


