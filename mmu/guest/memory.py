"""What an engine has as memory: banks of host memory, plain RAM, and the mirror of windows."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from mmu.core import check, ffi, lib
from mmu.errors import FileWarning
from mmu.guest.engine import PAGE, Engine
from mmu.memory.region import Ram

if TYPE_CHECKING:
    from mmu.memory import AddressSpace, HostMemory

# How windows are served: which of their pages may be RAM for the engine.
SERVICES: dict[str, int] = {
    "exact": 0, "direct": lib.MMU_GUEST_DIRECT, "mirror": lib.MMU_GUEST_MIRROR,
    "auto": lib.MMU_GUEST_DIRECT | lib.MMU_GUEST_MIRROR,
}  # fmt: skip


class EngineMemory:
    """The memory of one guest. What it maps into *engine* is appended to *kept*, and must live as long."""

    def __init__(self, space: AddressSpace, engine: Engine, guest: Any, kept: list[Any]) -> None:
        self._space, self._engine, self._guest, self._kept = space, engine, guest, kept
        self._banks: dict[int, tuple[int, int]] = {}  # host address of a memory -> where the engine has it, size
        self._end = lib.mmu_guest_ram_base()
        self._told = 0  # banks that C knows
        self._view: Any = None
        self._has_mirror, self._full = False, 0
        self._failed: set[HostMemory] = set()  # of whose files the user was told
        kept.append(space.targets)  # a guest that goes away during a run gives their memories back what it has

    def sync(self) -> None:
        """Take over what RAM the space shows now."""
        with self._space.unchanging() as view:
            if view is not self._view:
                table = [entry for r in view.ranges if (entry := self._ram(r)) is not None]
                check(
                    lib.mmu_guest_set_ram(self._guest, ffi.new("struct mmu_guest_ram[]", table), len(table)), "RAM map")
                self._view = view

    def serve(self, dispatch: str) -> int:
        """Make ready for serving windows so; returns the services that can be had (MMU_GUEST_*)."""
        services = SERVICES[dispatch]
        if services & lib.MMU_GUEST_DIRECT:
            for target in list(self._space.targets):
                self._bank(target.memory)
        if services & lib.MMU_GUEST_MIRROR and not self._map_mirror():
            services &= ~int(lib.MMU_GUEST_MIRROR)
        if self._told < len(self._banks):
            table = [{"host": ffi.cast("uint8_t *", h), "size": s, "engine": e} for h, (e, s) in self._banks.items()]
            check(lib.mmu_guest_set_banks(self._guest, ffi.new("struct mmu_guest_bank[]", table), len(table)), "banks")
            self._told = len(table)
        return services

    def end(self) -> None:
        """After a run: say when the mirror had no room, or a file lost bytes that the guest may have used."""
        for memory in self._memories():
            self._tell(memory)
        full = lib.mmu_guest_counters(self._guest).mirror_full
        if full != self._full:
            self._full = full
            self._space.mirror_is_full()

    def _memories(self) -> set[HostMemory]:
        regions = (r.region for r in self._space.view.ranges)
        return {t.memory for t in self._space.targets.copy()} | {r.memory for r in regions if isinstance(r, Ram)}

    def _tell(self, memory: HostMemory) -> None:
        """Warn of a memory's first failure, once."""
        failure = None if memory in self._failed else memory.failure(0, memory.size)
        if failure is not None:
            self._failed.add(memory)
            warnings.warn(f"{self._space.name}: {failure}", FileWarning, stacklevel=4)

    def _map_mirror(self) -> bool:
        if not self._has_mirror:
            try:
                mirror = self._space.mirror()
            except MemoryError:
                self._space.mirror_is_full()
                return False
            self._engine.map_host(lib.mmu_guest_mirror_base(), mirror.size, mirror.address)
            self._kept.append(mirror)
            lib.mmu_guest_set_mirror(self._guest, mirror.handle)
            self._has_mirror = True
        return True

    def _ram(self, r: Any) -> dict[str, int] | None:
        """The whole pages of a range of RAM, when its pages are pages of its memory too."""
        if not isinstance(r.region, Ram) or r.region.kind != lib.MMU_RANGE_RAM or (r.first - r.offset) % PAGE:
            return None
        first, end = -(-r.first // PAGE) * PAGE, min(r.last + 1, lib.mmu_guest_bus_size()) // PAGE * PAGE
        if first >= end:
            return None
        return {
            "hpa": first, "size": end - first,
            "engine": self._bank(r.region.memory) + r.offset + (first - r.first),
        }  # fmt: skip

    def _bank(self, memory: HostMemory) -> int:
        """Where the engine has a memory. Each is mapped once: the engine tracks code by physical address."""
        host = int(ffi.cast("uintptr_t", memory.address))
        if host not in self._banks:
            size = -(-memory.size // PAGE) * PAGE
            self._engine.map_host(self._end, size, memory.address)
            self._kept.append(memory)
            self._banks[host] = self._end, size
            self._end += size
        return self._banks[host][0]
