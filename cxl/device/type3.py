"""A type-3 device: memory by DPA, behind HDM decoders of its own."""

from __future__ import annotations

from cxl.blueprint import DevicePlan
from cxl.decoder import DecoderBlock
from cxl.errors import TopologyError
from mmu import HostMemory

MODES = ("ram", "pmem", "dc")  # partitions in DPA order, by Linux' names
EXTENT_GRAIN = 2 << 20  # bytes; dynamic capacity is accepted in such blocks


class Type3:
    """Volatile ("ram"), then persistent ("pmem"), then dynamic ("dc") bytes of DPA.

    *sizes* are those of the three partitions. `number` counts the devices of a topology.
    """

    kind = "device"

    def __init__(
        self, name: str, number: int, registers: DecoderBlock, memory: HostMemory, sizes: tuple[int, int, int],
        plan: DevicePlan, label: HostMemory | None = None,
    ) -> None:  # fmt: skip
        self.name, self.number, self.registers, self.memory = name, number, registers, memory
        self.sizes, self.plan, self.label = sizes, plan, label
        self.extents: list[tuple[int, int]] = []  # accepted dynamic capacity: (first DPA, end), sorted

    def __repr__(self) -> str:
        return f"Type3({self.name!r}, " + ", ".join(f"{m} {n:#x}" for m, n in zip(MODES, self.sizes)) + " bytes)"

    @property
    def volatile_size(self) -> int:
        return self.sizes[0]

    @property
    def persistent_size(self) -> int:
        return self.sizes[1]

    @property
    def dynamic_size(self) -> int:
        return self.sizes[2]

    @property
    def serial(self) -> int:
        return self.plan.serial

    @property
    def capacity(self) -> int:
        """Bytes of DPA."""
        return sum(self.sizes)

    def read(self, dpa: int, size: int) -> bytes:
        """Bytes dpa .. dpa+size-1, past every decoder. Raises TopologyError when they leave the device."""
        self._check(dpa, size)
        return self.memory.read(dpa, size)

    def write(self, dpa: int, data: bytes) -> None:
        self._check(dpa, len(data))
        self.memory.write(dpa, data)

    def sync(self) -> None:
        """Wait until what is backed by files is in the files."""
        self.memory.sync()

    # -- partitions -----------------------------------------------------------------------------------

    def start(self, mode: str) -> int:
        """First DPA of partition *mode*."""
        return sum(self.sizes[: MODES.index(mode)])

    def end(self, mode: str) -> int:
        return self.start(mode) + self.sizes[MODES.index(mode)]

    def partition(self, dpa: int) -> str:
        """"ram", "pmem" or "dc"."""
        return next((m for m in MODES if dpa < self.end(m)), MODES[-1])

    @property
    def next_dpa(self) -> int:
        """First DPA above everything committed."""
        return max((s.dpa + s.share for s in self.registers.committed.values()), default=0)

    def free(self, mode: str) -> int:
        """Bytes that a further decoder can have of partition *mode*; DPA is given out upwards only."""
        return max(0, self.end(mode) - max(self.next_dpa, self.start(mode)))

    def skip(self, mode: str) -> int:
        """Bytes that a further decoder of partition *mode* must skip."""
        return max(0, self.start(mode) - self.next_dpa)

    # -- dynamic capacity -----------------------------------------------------------------------------

    def accept(self, dpa: int, size: int) -> None:
        """Put the extent dpa .. dpa+size-1 of dynamic capacity to use. Raises TopologyError when it cannot be."""
        first, end = self.start("dc"), self.end("dc")
        if size <= 0 or dpa % EXTENT_GRAIN or size % EXTENT_GRAIN or not first <= dpa < dpa + size <= end:
            raise TopologyError(
                f"device {self.name}: an extent must be whole blocks of 2 MiB in {first:#x}..{end:#x}, "
                f"not {dpa:#x}+{size:#x}")
        for a, b in self.extents:
            if a < dpa + size and dpa < b:
                raise TopologyError(f"device {self.name}: extent {dpa:#x}+{size:#x} overlaps {a:#x}..{b - 1:#x}")
        self.extents = sorted([*self.extents, (dpa, dpa + size)])
        self.registers.changed()

    def release(self, dpa: int, size: int) -> None:
        """Take an accepted extent out of use, whole. Its bytes stay."""
        if (dpa, dpa + size) not in self.extents:
            raise TopologyError(f"device {self.name}: {dpa:#x}+{size:#x} is no accepted extent")
        self.extents.remove((dpa, dpa + size))
        self.registers.changed()

    def edges(self) -> list[int]:
        """DPAs from which on `answers` may change."""
        return [self.start("dc"), *(e for extent in self.extents for e in extent)]

    def answers(self, dpa: int) -> bool:
        """There is memory at *dpa* that may be used now."""
        return 0 <= dpa < self.start("dc") or any(a <= dpa < b for a, b in self.extents)

    def why_not(self, dpa: int) -> str:
        """Why `answers` said no."""
        if dpa >= self.capacity:
            return f"DPA {dpa:#x} is beyond its {self.capacity:#x} bytes"
        return f"DPA {dpa:#x} is dynamic capacity of which no extent is accepted"

    def _check(self, dpa: int, size: int) -> None:
        if dpa < 0 or size < 0 or dpa + size > self.capacity:
            raise TopologyError(
                f"device {self.name}: {size:#x} bytes at DPA {dpa:#x} leave its {self.capacity:#x} bytes")
