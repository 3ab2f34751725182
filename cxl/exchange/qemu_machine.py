"""-M, -m and the map of addresses: where QEMU puts host bridge registers and fixed memory windows.

Sources: QEMU hw/i386/pc.c and pc_q35.c (q35), hw/arm/virt.c (virt), hw/cxl/cxl-host.c; measured on q35 in 7.2 and 10.0:
`-m 512M,maxmem=4G,slots=4` has registers at 0x2e0000000 and the first window at 0x2f0000000.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from cxl.blueprint import GIB, MIB
from cxl.errors import TopologyError
from cxl.exchange.options import Options, boolean, comma_list, size
from cxl.format import COMPONENT_BLOCK_SIZE, DECODER_GRAIN
from mmu.stripes import ENCODED_GRANULARITY, ENCODED_WAYS

HOST_REGION = 16 * COMPONENT_BLOCK_SIZE  # bytes for the registers of all host bridges
WINDOW_KEY = re.compile(r"cxl-fmw\.([0-9]+)\.(?:(targets)\.([0-9]+)|(size|interleave-granularity))")


@dataclass(slots=True)
class Fmw:
    """One `cxl-fmw.N`: host bridge ids by index, bytes."""

    targets: dict[int, str] = field(default_factory=dict)
    size: int | None = None
    granularity: int = 256


@dataclass(slots=True)
class Machine:
    """What -M and -m say. `ram`, `max_ram` in bytes."""

    kind: str
    options: Options
    windows: list[Fmw]
    ram: int
    max_ram: int
    slots: int

    @property
    def cxl(self) -> bool:
        return boolean(self.options.get("cxl", "off"), "-machine cxl")


def machine_options(texts: list[str]) -> Options:
    """Every -M/-machine together; a later one wins."""
    options: Options = {}
    for text in texts:
        options.update(comma_list(text, "type", "-machine", short_booleans=False))
    return options


def machine(options: Options, memory_texts: list[str], backend_size: int | None) -> Machine:
    """The machine; *backend_size* is that of the memory-backend that -M names as its RAM, if it names one."""
    memory: Options = {}
    for text in memory_texts:
        memory.update(comma_list(text, "size", "-m"))
    ram = size(memory["size"], "-m size", "m") if "size" in memory else backend_size or 128 * MIB
    ram = -(-ram // 8192) * 8192
    max_ram = size(memory["maxmem"], "-m maxmem") if "maxmem" in memory else ram
    if max_ram < ram:
        raise TopologyError(f"-m maxmem must be at least the size {ram:#x}, not {max_ram:#x}")
    slots = int(memory.get("slots", "0"), 0) if re.fullmatch(r"(0x)?[0-9a-fA-F]+", memory.get("slots", "0")) else -1
    if not 0 <= slots <= 256:
        raise TopologyError(f"-m slots must be in 0..256, not {memory['slots']!r}")
    return Machine(_kind(options.get("type", "")), options, _windows(options), ram, max_ram, slots)


def _kind(name: str) -> str:
    """ "q35", "virt", or "" for a machine without CXL."""
    if name == "q35" or name.startswith("pc-q35-"):
        return "q35"
    return "virt" if name == "virt" or name.startswith("virt-") else ""


def _windows(options: Options) -> list[Fmw]:
    found: dict[int, Fmw] = {}
    for key, value in options.items():
        if not key.startswith("cxl-fmw"):
            continue
        match = WINDOW_KEY.fullmatch(key)
        if match is None:
            raise TopologyError(
                f"-machine {key}: must be cxl-fmw.N.targets.K, cxl-fmw.N.size or cxl-fmw.N.interleave-granularity")
        number, _, index, name = match.groups()
        window = found.setdefault(int(number), Fmw())
        if index is not None:
            window.targets[int(index)] = value
        elif name == "size":
            window.size = size(value, f"-machine {key}")
        else:
            window.granularity = _granularity(value, f"-machine {key}")
    _complete(found)
    return [found[n] for n in sorted(found)]


def _granularity(text: str, what: str) -> int:
    value = size(text, what)
    if value not in ENCODED_GRANULARITY:
        raise TopologyError(f"{what}: must be a power of two from 256 to 16384 bytes, not {text}")
    return value


def _complete(found: dict[int, Fmw]) -> None:
    """Windows and their targets are numbered without holes, and each has a size."""
    for expected, number in enumerate(sorted(found)):
        if number != expected:
            raise TopologyError(f"-machine cxl-fmw.{number} is given, but cxl-fmw.{expected} is missing")
    for number, window in found.items():
        what = f"-machine cxl-fmw.{number}"
        for expected, index in enumerate(sorted(window.targets)):
            if index != expected:
                raise TopologyError(f"{what}.targets.{index} is given, but targets.{expected} is missing")
        if len(window.targets) not in ENCODED_WAYS:
            raise TopologyError(f"{what}: the number of targets must be one of {sorted(ENCODED_WAYS)}, "
                                f"not {len(window.targets)}")
        if window.size is None:
            raise TopologyError(f"{what}: size is missing, it must be a multiple of 256M")
        if window.size <= 0 or window.size % DECODER_GRAIN:
            raise TopologyError(f"{what}.size must be a multiple of 256M ({DECODER_GRAIN:#x}), not {window.size:#x}")


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def ram_ranges(m: Machine) -> list[tuple[int, int]]:
    """(first address, bytes) of the machine's ordinary memory."""
    if m.kind == "virt":
        return [(GIB, m.ram)]
    low = _q35_low(m)
    return [(0, low)] + ([(4 * GIB, m.ram - low)] if m.ram > low else [])


def _q35_low(m: Machine) -> int:
    """Bytes of RAM below 4 GiB."""
    limit = 0x8000_0000 if m.ram >= 0xB000_0000 else 0xB000_0000
    if "max-ram-below-4g" in m.options:
        limit = min(limit, size(m.options["max-ram-below-4g"], "-machine max-ram-below-4g"))
    return min(limit, m.ram)


def place(m: Machine) -> tuple[int, int]:
    """(HPA of the host bridge registers, HPA of the first window)."""
    if m.kind == "virt":
        return _place_virt(m)
    registers = 4 * GIB + m.ram - _q35_low(m)
    if m.max_ram > m.ram:
        # The area for hot-plugged memory, with room to align each slot.
        registers = _up(registers, GIB) + (m.max_ram - m.ram) + m.slots * GIB
    return registers, _up(registers + MIB, DECODER_GRAIN)


def _place_virt(m: Machine) -> tuple[int, int]:
    """The high regions follow RAM, each aligned to its own size; a region that is off takes no room."""
    hotplug = _up(GIB + m.ram, GIB)
    base = max(256 * GIB, hotplug + _up(m.max_ram - m.ram + m.slots * GIB, GIB))
    mmio = size(m.options.get("highmem-mmio-size", "512G"), "-machine highmem-mmio-size")
    registers = 0
    for name, length in (("highmem-redists", 64 * MIB), ("cxl", HOST_REGION), ("highmem-ecam", 256 * MIB),
                         ("highmem-mmio", mmio)):
        at = _up(base, length)
        if name == "cxl":
            registers = at
        if boolean(m.options.get(name, "on"), f"-machine {name}"):
            base = at + length
    return registers, _up(base, DECODER_GRAIN)
