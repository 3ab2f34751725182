"""Memory over files that a test cuts short while it is in use."""

import os

from mmu import AddressSpace, HostMemory, Ram, Striped, Target
from mmu.stripes import Route, Slot, Span

PAGE, MIB = 4096, 1 << 20
WINDOW = 1 << 32
SIZE = 64 * PAGE  # of each file


class Files:
    """Two files, `memories` over them, and a space: RAM over the first at 0, a 2-way window over both at WINDOW.

    Every 8 bytes of file n hold n << 32 | their offset.
    """

    def __init__(self, folder, granularity=256, ram=True):
        self.paths = [folder / f"mem{n}.bin" for n in range(2)]
        self.memories = [HostMemory(SIZE) for _ in self.paths]
        for n, (path, memory) in enumerate(zip(self.paths, self.memories)):
            path.write_bytes(b"".join((n << 32 | at).to_bytes(8, "little") for at in range(0, SIZE, 8)))
            with path.open("r+b") as file:
                memory.map_file(0, SIZE, file.fileno())
        self.space = AddressSpace()
        self.ram = Ram(SIZE, memory=self.memories[0]) if ram else None
        self.window = Striped(2 * SIZE, WINDOW, [Target(f"mem{n}", m) for n, m in enumerate(self.memories)])
        slots = tuple(Slot(n, WINDOW, 0, 2, granularity) for n in range(2))
        shift = granularity.bit_length() - 1
        self.window.set_route(Route((Span(WINDOW, WINDOW + 2 * SIZE - 1, shift, 1, granularity, slots),)))
        self.granularity = granularity
        if ram:  # a memory that is RAM too is not mirrored
            self.space.map(0, self.ram)
        self.space.map(WINDOW, self.window)

    def cut(self, n=0, size=PAGE):
        os.truncate(self.paths[n], size)

    def hpa(self, n, dpa):
        g = self.granularity
        return WINDOW + dpa // g * 2 * g + n * g + dpa % g
