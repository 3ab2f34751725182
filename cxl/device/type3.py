"""A type-3 device: memory by DPA, behind HDM decoders of its own."""

from __future__ import annotations

from cxl.blueprint import Backing
from cxl.decoder import DecoderBlock
from cxl.errors import TopologyError
from mmu import HostMemory


class Type3:
    """*volatile* bytes of DPA, then *persistent* bytes. `number` counts the devices of a topology."""

    kind = "device"

    def __init__(
        self, name: str, number: int, registers: DecoderBlock, memory: HostMemory,
        volatile: int, persistent: int, serial: int = 0, label: HostMemory | None = None,
        backings: tuple[Backing | None, Backing | None, Backing | None] = (None, None, None),
    ) -> None:  # fmt: skip
        self.name, self.number, self.registers, self.memory = name, number, registers, memory
        self.volatile_size, self.persistent_size, self.serial = volatile, persistent, serial
        self.label, self.backings = label, backings

    def __repr__(self) -> str:
        return f"Type3({self.name!r}, volatile {self.volatile_size:#x}, persistent {self.persistent_size:#x} bytes)"

    @property
    def capacity(self) -> int:
        """Bytes of DPA."""
        return self.volatile_size + self.persistent_size

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

    def partition(self, dpa: int) -> str:
        """ "ram" or "pmem", as Linux calls them."""
        return "ram" if dpa < self.volatile_size else "pmem"

    @property
    def next_dpa(self) -> int:
        """First DPA above everything committed."""
        return max((s.dpa + s.share for s in self.registers.committed.values()), default=0)

    def free(self, mode: str) -> int:
        """Bytes that a further decoder can have of partition *mode*; DPA is given out upwards only."""
        if mode == "ram":
            return max(0, self.volatile_size - self.next_dpa)
        return self.capacity - max(self.next_dpa, self.volatile_size)

    def skip(self, mode: str) -> int:
        """Bytes that a further decoder of partition *mode* must skip."""
        return 0 if mode == "ram" else max(0, self.volatile_size - self.next_dpa)

    def _check(self, dpa: int, size: int) -> None:
        if dpa < 0 or size < 0 or dpa + size > self.capacity:
            raise TopologyError(
                f"device {self.name}: {size:#x} bytes at DPA {dpa:#x} leave its {self.capacity:#x} bytes")
