"""The public Topology: windows, host bridges, switches, devices, and where addresses go."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cxl import decode as levels
from cxl.assemble import assembled
from cxl.blueprint import Blueprint
from cxl.build import Parts
from cxl.compile import compile_route, nodes_below
from cxl.decode import Miss, Route
from cxl.decoder import DecoderBlock
from cxl.device.type3 import Type3
from cxl.errors import TopologyError
from cxl.exchange.forms import Forms
from cxl.linux import Problem, problems
from cxl.nodes import HostBridge, Node, Port, Switch
from cxl.region import Region, Wiring
from cxl.regions import RegionTable
from cxl.shown import ShownWindows
from cxl.window import Window
from mmu import Locator
from mmu.errors import AddressRangeError
from mmu.stripes import Route as Stripes
from mmu.stripes import Slot

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mmu import AddressSpace
    from mmu.tcg import Switches


class Topology(Forms):
    """A machine's CXL: built whole from a blueprint, programmed through the registers of its decoders.

    *strict* chooses how decoders answer (`cxl.decoder`). Raises TopologyError when the blueprint describes no
    possible machine; no file is created or changed then.
    """

    def __init__(self, plan: Blueprint, strict: bool = True) -> None:
        parts = Parts(plan, strict, self._changed)
        super().__init__(plan)
        self.strict, self.ram = strict, tuple(plan.ram)
        self.windows: tuple[Window, ...] = parts.windows
        self.bridges: dict[str, HostBridge] = parts.bridges
        self.switches: dict[str, Switch] = parts.switches
        self.ports: dict[str, Port] = parts.ports
        self.devices: dict[str, Type3] = parts.devices
        self._wiring = Wiring({id(p.device): p for p in self.ports.values() if p.device is not None})
        self._regions = RegionTable(self._wiring, self.batch)
        self._below = {w.name: nodes_below(w) for w in self.windows}
        self._reach: dict[int, list[Window]] = {}  # block -> the windows whose route it decides
        for window in self.windows:
            nodes, devices = self._below[window.name]
            for block in (*(n.registers for n in nodes), *(d.registers for d in devices)):
                self._reach.setdefault(id(block), []).append(window)
        self._routes: dict[str, Stripes] = {}
        self._shown = ShownWindows(
            self.windows, self.devices.values(), {name: devices for name, (_, devices) in self._below.items()},
            self.route)
        self._locator: Locator | None = None
        self._lock = threading.RLock()
        self._batches = 0

    # -- where addresses go ---------------------------------------------------------------------------

    def window_at(self, hpa: int) -> Window | None:
        return next((w for w in self.windows if w.base <= hpa <= w.last), None)

    def decode(self, hpa: int) -> Route | Miss:
        """Where *hpa* goes, every level explained. Reads the registers, level by level."""
        if not 0 <= hpa < 1 << 64:
            raise AddressRangeError(f"an HPA must be in 0..2^64-1, not {hpa:#x}")
        window = self.window_at(hpa)
        if window is None:
            return Miss("platform", f"{hpa:#x} is in no window")
        with self._lock:
            return levels.decode(window, hpa)

    def encode(self, device: str | Type3, dpa: int) -> list[int]:
        """Every HPA, ascending, that reaches byte *dpa* of *device*: each candidate is tried, none is trusted."""
        part = self.device(device)
        if not 0 <= dpa < part.capacity:
            raise AddressRangeError(f"device {part.name}: DPA must be in 0..{part.capacity - 1:#x}, not {dpa:#x}")
        out = set()
        with self._lock:
            for hpa in self._candidates(part, dpa):
                found = self.decode(hpa) if hpa < 1 << 64 else None
                if isinstance(found, Route) and (found.device, found.dpa) == (part.name, dpa):
                    out.add(hpa)
        return sorted(out)

    def _candidates(self, device: Type3, dpa: int) -> Iterator[int]:
        for address in levels.candidates(device.registers, dpa):
            yield address
            for window in self.windows:
                if window.normalized:
                    yield from levels.denormalized(window, address)

    def decode_many(self, hpas: NDArray[np.uint64], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """One row (dpa, device, status) per HPA, in C.

        `device` counts in the order of `devices`; status 0: it answers, 1: in no window, 2: no device, 3: a device
        refuses. dpa and device are 0 unless status is 0. *out* takes the rows when it is given.
        """
        return self._batch_locator().locate(hpas, out)

    def encode_many(self, device: str | Type3 | NDArray[np.uint32], dpas: NDArray[np.uint64]) -> NDArray[Any]:
        """One row (hpa, count, reserved) per DPA, in C: the lowest HPA that reaches it, and how many do (0: none).

        *device* is one device, or an array of numbers in the order of `devices`.
        """
        which = self.device(device).number if isinstance(device, str | Type3) else device
        return self._batch_locator().find(which, dpas)

    def _batch_locator(self) -> Locator:
        with self._lock:
            if self._locator is None:
                striped = [self._shown.striped(window) for window in self.windows]
                self._publish()
                self._locator = Locator(striped)
            return self._locator

    def above(self, device: Type3) -> list[Node]:
        """Bridges and switches from the host bridge down to *device*."""
        return [port.parent for port in self._wiring.path(device)]

    def device(self, device: str | Type3) -> Type3:
        name = device if isinstance(device, str) else device.name
        if name not in self.devices:
            raise TopologyError(f"there is no device {name}, only {', '.join(self.devices) or 'none'}")
        return self.devices[name]

    def window(self, window: int | str | Window) -> Window:
        """By number (ascending base), by name, or itself."""
        for number, w in enumerate(self.windows):
            if window is w or window == w.name or window == number:
                return w
        names = ", ".join(w.name for w in self.windows)
        raise TopologyError(f"there is no window {window}, only {names or 'none'}")

    def route(self, window: int | str | Window) -> Stripes:
        """The compiled form of what the registers say now."""
        w = self.window(window)
        with self._lock:
            if w.name not in self._routes:
                self._routes[w.name] = compile_route(w, self._below[w.name])
            return self._routes[w.name]

    # -- on a bus -------------------------------------------------------------------------------------

    def emulate(self, emulator: str | Switches) -> None:
        """Be this machine under a release of QEMU ("qemu-8.2"), or under one with these `mmu.tcg.Switches`: with its
        permissive decoders, its memory map, and the mistakes of both. `mmu.Machine` takes the same value.

        What is programmed stays. Raises TopologyError when the windows are on a bus already, ValueError for a release
        that is not known and for what is neither.
        """
        from mmu.tcg import switches_of

        switches = switches_of(emulator)
        with self._lock:
            if self._shown.begun:
                raise TopologyError("an emulator must be chosen before the windows are attached to a bus")
            self.strict, self._shown.switches = False, switches
            nodes: list[Node] = [*self.bridges.values(), *self.switches.values()]
            with self.batch():
                for block in (*(n.registers for n in nodes), *(d.registers for d in self.devices.values())):
                    if block is not None:
                        block.emulate(switches)

    def attach(self, space: AddressSpace, registers: bool = False) -> None:
        """Map each window into *space* at its HPA. What is committed later shows up there at once.

        *registers*: also the component registers of each host bridge whose address is known.
        """
        with self._lock:
            self._shown.attach(space, self.bridges.values() if registers else ())

    def _changed(self, block: DecoderBlock) -> None:
        with self._lock:
            self._locator = None
            for window in self._reach.get(id(block), ()):
                self._routes.pop(window.name, None)
            if not self._batches:
                self._publish()

    def _publish(self) -> None:
        """Give each attached window whose route is out of date a new one."""
        self._shown.publish(lambda window: window.name not in self._routes)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Register writes in this block become visible on the bus together, at its end."""
        with self._lock:
            self._batches += 1
            try:
                yield
            finally:
                self._batches -= 1
                if not self._batches:
                    self._publish()

    # -- regions --------------------------------------------------------------------------------------

    @property
    def regions(self) -> dict[str, Region]:
        """What `commit` and `create_region` made and nothing has destroyed, by name."""
        return self._regions.regions

    def commit(self, window: int | str | Window | None = None) -> list[Region]:
        """Create and commit regions in *window*, or in every window in ascending order; returns the new ones.

        In each window, as long as memory, addresses and decoders last: the most devices that fit at once, taken in
        port order, with the window's granularity, volatile memory first, then persistent, as its restrictions allow.
        Raises TopologyError when *window* is given and nothing below it is left.
        """
        if window is None:
            return self._regions.commit(self.windows)
        chosen = self.window(window)
        if not (made := self._regions.commit((chosen,))):
            raise TopologyError(f"window {chosen.name}: nothing below it is left to commit")
        return made

    def create_region(
        self, window: int | str | Window | None = None, devices: Sequence[str | Type3] | None = None, *,
        granularity: int | None = None, size: int | None = None, mode: str = "ram", name: str | None = None,
    ) -> Region:  # fmt: skip
        """Program a region over *devices*, listed by position; default: the most that fit, all that they have free.

        *window* None: the first that allows *mode*, is over the bridges of *devices*, and has room.
        *size* and *granularity* are in bytes; the granularity must be the window's unless that has one target.
        Raises TopologyError when it cannot be, CommitError when a decoder refuses; nothing is left programmed then.
        """
        parts = None if devices is None else [self.device(d) for d in devices]
        chosen = self._regions.choose(self.windows, parts, size, mode) if window is None else self.window(window)
        return self._regions.create(chosen, parts, granularity, size, mode, name)

    def destroy_region(self, region: str | Region) -> None:
        """Uncommit the decoders of *region*.

        Raises TopologyError when a decoder above one of them is still committed, or one is locked.
        """
        self._regions.destroy(region if isinstance(region, str) else region.name)

    def check(
        self, for_linux: bool = True, *, window: int | str | Window | None = None,
        devices: Sequence[str | Type3] | None = None, granularity: int | None = None, size: int | None = None,
        mode: str = "ram",
    ) -> list[Problem]:  # fmt: skip
        """What is wrong with what is programmed; or, given *window* and *devices* by position, with such a region.

        *for_linux*: what Linux would refuse, with its errno, or translate wrongly (errno 0). In any case: bytes of a
        device that two addresses reach. An empty list: nothing.
        """
        with self._lock:
            if window is not None:
                parts = None if devices is None else [self.device(d) for d in devices]
                planned = self._regions.candidate(self.window(window), parts, granularity, size, mode)
                return problems(planned, self._wiring) if for_linux else []
            found = self._collisions()
            if for_linux:
                for region in assembled(self.windows, list(self.devices.values()), self._wiring):
                    found += [region] if isinstance(region, Problem) else problems(region, self._wiring)
            return found

    def _collisions(self) -> list[Problem]:
        """Bytes that two HPAs reach, one for each device and span: hardware does not check that levels fit."""
        found: dict[tuple[str, int], Problem] = {}
        for window in self.windows:
            for number, span in enumerate(self.route(window).spans):
                step = min((s.granularity for s in span.slots if isinstance(s, Slot)), default=span.last)
                for hpa in range(span.first, min(span.last, span.first + 64 * step), step):
                    place = self.decode(hpa)
                    if isinstance(place, Route) and len(both := self.encode(place.device, place.dpa)) > 1:
                        found.setdefault((place.device, number), Problem(
                            0, f"{both[0]:#x} and {both[1]:#x} both reach DPA {place.dpa:#x} of {place.device}"))
        return list(found.values())

    def locate(self, region: str | Region, offset: int) -> Route:
        """Where byte *offset* of *region* is. Raises TopologyError outside of what its decoders cover."""
        r = self._regions.named(region if isinstance(region, str) else region.name)
        if not r.window.cache <= offset < r.size:
            raise TopologyError(
                f"region {r.name}: the offset must be in {r.window.cache:#x}..{r.size - 1:#x}, not {offset:#x}")
        found = self.decode(r.base + offset)
        if isinstance(found, Miss):
            raise TopologyError(f"region {r.name}: {found.level}: {found.reason}")
        return found
