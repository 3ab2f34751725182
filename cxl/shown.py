"""What a topology shows on buses: a region for each window, made when first asked for and kept up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cxl.device.type3 import Type3
from cxl.nodes import HostBridge
from cxl.registers import region as block_region
from cxl.window import Window
from mmu import Ram, Striped, Target
from mmu.memory.region import Region
from mmu.stripes import Route

if TYPE_CHECKING:
    from cxl.emulator import EmulatedWindow
    from mmu import AddressSpace
    from mmu.tcg import Switches


class ShownWindows:
    """*route* compiles what the registers say of a window now; *below* are the devices that each can reach, by name.

    `switches`: those of an emulator that shows them, chosen before any region is made.
    """

    def __init__(
        self, windows: Iterable[Window], devices: Iterable[Type3], below: dict[str, list[Type3]],
        route: Callable[[Window], Route],
    ) -> None:  # fmt: skip
        self._windows, self._below, self._route = tuple(windows), below, route
        self._targets = [Target(d.name, d.memory) for d in devices]
        self._striped: dict[str, Striped] = {}
        self._emulated: dict[str, EmulatedWindow] = {}
        self._caches: dict[str, Ram] = {}  # the DRAM half of windows with an extended linear cache
        self.switches: Switches | None = None

    @property
    def begun(self) -> bool:
        """Something was asked for already."""
        return bool(self._striped)

    def striped(self, window: Window) -> Striped:
        """The region of *window* whose route says where its bytes are."""
        if window.name not in self._striped:
            striped = Striped(window.size - window.cache, window.first, self._targets, window.name)
            self._striped[window.name] = striped
            if self.switches is not None:
                from cxl.emulator import EmulatedWindow

                self._emulated[window.name] = EmulatedWindow(
                    window, striped, self._below[window.name], self.switches)
            self._seen(window).set_route(self._route(window))
            if window.cache:
                self._caches[window.name] = Ram(window.cache, f"{window.name} cache")
        return self._striped[window.name]

    def _seen(self, window: Window) -> Striped | EmulatedWindow:
        return self._emulated.get(window.name) or self._striped[window.name]

    def publish(self, stale: Callable[[Window], bool]) -> None:
        """Give each window that is shown and *stale* its route as of now."""
        for window in self._windows:
            if window.name in self._striped and stale(window):
                self._seen(window).set_route(self._route(window))

    def regions(self) -> list[tuple[int, Region]]:
        """(HPA, region) of all that answers in windows."""
        shown: list[tuple[int, Region]] = []
        for window in self._windows:
            self.striped(window)
            shown.append((window.first, self._seen(window)))
            if window.cache:
                shown.append((window.base, self._caches[window.name]))
        return shown

    def attach(self, space: AddressSpace, bridges: Iterable[HostBridge]) -> None:
        """Map them into *space*, and the component registers of *bridges* whose address is known; all or nothing."""
        shown = self.regions()
        shown += [(b.base, block_region(b.registers, b.name)) for b in bridges
                  if b.base is not None and not b.restricted]  # fmt: skip
        done: list[Region] = []
        try:
            for base, region in shown:
                space.map(base, region)
                done.append(region)
            if self.switches is not None:
                from cxl.emulator import check_sections

                check_sections(space, self.switches)
        except BaseException:
            for region in done:
                space.unmap(region)
            raise
