"""Regions of memory, the address space that maps them, and what is seen through it."""

from mmu.memory.flatview import FlatRange, FlatView
from mmu.memory.frames import Frames, LevelFrames
from mmu.memory.host import HostMemory
from mmu.memory.locator import Locator
from mmu.memory.mmio import Guard, Mmio, NativeMmio, RomDevice
from mmu.memory.port import Port, TraceEntry, Traffic
from mmu.memory.region import Alias, Container, Ram, RamDevice, Region, Rom
from mmu.memory.space import AddressSpace
from mmu.memory.striped import Striped, Target

__all__ = [
    "AddressSpace", "Alias", "Container", "FlatRange", "FlatView", "Frames", "Guard", "HostMemory", "LevelFrames",
    "Locator", "Mmio", "NativeMmio", "Port", "Ram", "RamDevice", "Region", "Rom", "RomDevice", "Striped", "Target",
    "TraceEntry", "Traffic",
]
