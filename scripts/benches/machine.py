"""The machine that the groups measure on: RAM at 0 and a 4-way window, with what reference loops need to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmu import AddressSpace, HostMemory, Ram, Striped, Target
from mmu.core import ffi
from mmu.stripes import Route, Slot, Span

RAM_SIZE = 512 << 20
WINDOW = 4 << 30
WAYS, GRANULARITY = 4, 256


@dataclass(frozen=True)
class Machine:
    """`ram` and `devices` are host addresses, for loops that bypass the bus."""

    space: AddressSpace
    ram: int
    devices: tuple[int, ...]

    def setup(self, root: int) -> list[int]:
        """`struct setup` of the loops in walk.c."""
        return [self.ram, RAM_SIZE, root, WINDOW, RAM_SIZE, *self.devices]

    def fill(self, addresses: Any, blocks: Any) -> None:
        """Write each row of *blocks* at the bus address of the same index."""
        for address, block in zip(addresses.tolist(), blocks):
            self.space.write(address, block.tobytes())


def host(memory: HostMemory) -> int:
    return int(ffi.cast("uintptr_t", memory.address))


def machine() -> Machine:
    # In small pages, as device memory is: what differs between RAM and the window is then the window alone.
    space, ram = AddressSpace(), Ram(RAM_SIZE, huge=False)
    space.map(0, ram)
    targets = [Target(f"mem{i}", HostMemory(RAM_SIZE // WAYS)) for i in range(WAYS)]
    window = Striped(RAM_SIZE, WINDOW, targets)
    slots = tuple(Slot(i, WINDOW, 0, WAYS, GRANULARITY) for i in range(WAYS))
    window.set_route(Route((Span(
        WINDOW, WINDOW + RAM_SIZE - 1, GRANULARITY.bit_length() - 1, WAYS.bit_length() - 1, GRANULARITY, slots),)))
    space.map(WINDOW, window)
    return Machine(space, host(ram.memory), tuple(host(t.memory) for t in targets))


def own_addresses(machine: Machine, base: int, size: int) -> None:
    """Make every 8 bytes of base..base+size-1 hold their own bus address."""
    step = 1 << 20
    for at in range(base, base + size, step):
        machine.space.write(at, np.arange(at, at + min(step, base + size - at), 8, dtype=np.uint64).tobytes())
