"""What an emulator shows of a window on its bus: mistakes of its releases included, each behind a field of `Switches`.

Registers go wrong in `cxl.decoder`; here is what goes wrong around a route. Without `Topology.emulate` nothing of
this takes part.
"""

from __future__ import annotations

from collections.abc import Iterator

from cxl.compile import Exit
from cxl.device.type3 import Type3
from cxl.nodes import Node
from cxl.window import Window
from mmu import AddressSpace, Alias, Container, Mmio, Ram, Striped
from mmu.memory.region import Region
from mmu.stripes import Route
from mmu.tcg import EmulatorAbort, Switches
from mmu.types import MemTxResult

SECTIONS = 4096  # of one flat view: section numbers shared a word with the offset in a page. One is "unassigned"


class EmulatedWindow(Container):
    """A window as the emulator's memory map has it: accesses one by one, RAM aliases over what is not interleaved."""

    def __init__(self, window: Window, striped: Striped, devices: list[Type3], switches: Switches) -> None:
        super().__init__(striped.size, f"{window.name} container")
        self._window, self._striped, self._devices, self._switches = window, striped, devices, switches
        self._bare = AddressSpace(f"{window.name} alone")
        self._bare.map(striped.base, striped)
        self._memory = {id(d): Ram(d.memory.size, f"{d.name} memory", d.memory) for d in devices}
        self.map(0, striped)

    def set_route(self, route: Route) -> None:
        """Show *route* and what follows from it, in one publication."""
        for _, child, _ in self.children[:-1]:
            child.unwatch(self)
        above = [*self._exits(route), *(() if self._switches.alias_path else self._aliases())]
        for _, child in above:
            child.watch(self)
        self.children = (*((at - self._striped.base, child, 1) for at, child in above), self.children[-1])
        self._striped.set_route(route)

    def _aliases(self) -> Iterator[tuple[int, Region]]:
        """(HPA, RAM) of every device decoder that nothing above interleaves. Source: RFC of October 2025, as merged.

        The RFC looked at the path of the window's first address, and whether it ends at a device, not at this one.
        """
        by_window = self._switches.alias_path_base
        for device in self._devices:
            for s in device.registers.ranges():
                judged = self._window.base if by_window else s.base
                found = straight_path(self._window, judged)
                if not s.committed or s.iw or found is None:
                    continue
                if found is device or by_window:
                    first, last = max(s.base, self._striped.base), min(s.end - 1, self._window.last)
                    last = min(last, s.base + device.start("dc") - s.dpa - 1)
                    if first <= last:
                        yield first, Alias(self._memory[id(device)], s.dpa + first - s.base, last - first + 1)

    def _exits(self, route: Route) -> Iterator[tuple[int, Region]]:
        for span in route.spans:
            if any(isinstance(slot, Exit) for slot in span.slots):
                yield span.first, self._exit(route, span.first, span.last - span.first + 1)

    def _exit(self, route: Route, base: int, size: int) -> Mmio:
        def check(at: int) -> None:
            found = route.locate(base + at)
            if isinstance(found, Exit):
                raise EmulatorAbort("decoder_ways", detail=found.reason)

        def read(at: int, n: int) -> int | MemTxResult:
            check(at)
            value, result = self._bare.load(base + at, n)
            return result or value

        def write(at: int, n: int, value: int) -> MemTxResult:
            check(at)
            return self._bare.store(base + at, n, value)

        return Mmio(size, read, write, name=f"{self._window.name} exits")


def straight_path(window: Window, hpa: int) -> Type3 | None:
    """The device that *hpa* reaches if nothing on its way interleaves; at most one switch is looked through."""
    if window.ways != 1:
        return None
    node: Node = window.targets[0]
    for _ in range(2):
        number = node.only_port
        if node.registers is not None:
            s = node.registers.match(hpa)
            if isinstance(s, str) or s.iw:
                return None
            number = s.targets[0]
        port = node.ports.get(number)
        if port is None or port.device is None:
            return None
        if isinstance(port.device, Type3):
            return port.device
        node = port.device
    return None


def check_sections(space: AddressSpace, switches: Switches) -> None:
    """Raises EmulatorAbort when the memory map has more sections than their numbers have room for."""
    sections = 1 + len(space.view.ranges)
    if switches.sections_limit and sections > SECTIONS:
        raise EmulatorAbort("sections", detail=f"{sections} sections, and there is room for {SECTIONS}")
