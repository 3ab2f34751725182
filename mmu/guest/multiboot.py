"""Multiboot kernels (version 1): 32-bit entry with paging off, physical addresses, and a map of memory.

Source: Multiboot Specification version 0.6.96, '3.1 OS image format', '3.2 Machine state', '3.3 Boot information
format'.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmu.errors import AddressRangeError, GuestError
from mmu.memory.region import Ram

if TYPE_CHECKING:
    from mmu.memory import AddressSpace

HEADER_MAGIC, BOOT_MAGIC = 0x1BADB002, 0x2BADB002
SEARCHED = 8192  # the header ends in the first bytes of the image
HAS_ADDRESSES, REQUIRED = 1 << 16, 0xFFFF  # flags; of the lower 16 all that are set must be understood
UNDERSTOOD = 1 | 2  # page-aligned modules (there are none), memory information
MEMORY, COMMAND_LINE, MEMORY_MAP = 1, 4, 64  # flags of the information
KIB, LOW_END, AVAILABLE = 1024, 640 << 10, 1
INFO = 0x9000  # where the boot information is put: RAM that no kernel is linked to


@dataclass(frozen=True, slots=True)
class Part:
    """*size* bytes at physical address *pa*: *data*, then zeroes."""

    pa: int
    data: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Kernel:
    parts: tuple[Part, ...]
    entry: int


def read_kernel(image: bytes) -> Kernel:
    """Raises GuestError for an image without a valid header, or one that asks for what there is not."""
    at, flags = _header(image)
    if flags & REQUIRED & ~UNDERSTOOD:
        raise GuestError(f"the multiboot header asks for {flags & REQUIRED:#x}; known are the bits {UNDERSTOOD:#x}")
    return _by_header(image, at) if flags & HAS_ADDRESSES else _by_elf(image)


def _header(image: bytes) -> tuple[int, int]:
    """(offset, flags) of the header."""
    for at in range(0, min(len(image), SEARCHED) - 11, 4):
        magic, flags, checksum = struct.unpack_from("<3I", image, at)
        if magic == HEADER_MAGIC and (magic + flags + checksum) & 0xFFFF_FFFF == 0:
            if flags & HAS_ADDRESSES and at + 32 > len(image):
                raise GuestError(f"the multiboot header at {at:#x} ends behind the image of {len(image):#x} bytes")
            return at, flags
    raise GuestError(f"there is no multiboot header (magic {HEADER_MAGIC:#x}) in the first {SEARCHED} bytes")


def _by_header(image: bytes, at: int) -> Kernel:
    header, load, load_end, bss_end, entry = struct.unpack_from("<5I", image, at + 12)
    start = at - (header - load)
    end = start + (load_end - load) if load_end else len(image)
    if not 0 <= start <= at or not start <= end <= len(image):
        raise GuestError(
            f"the multiboot header loads bytes {start:#x}..{end:#x} of the image, which has {len(image):#x}")
    size = max(end - start, bss_end - load if bss_end else 0)
    return Kernel((Part(load, image[start:end], size),), entry)


def _by_elf(image: bytes) -> Kernel:
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        elf = ELFFile(io.BytesIO(image))
        headers = [s.header for s in elf.iter_segments() if s.header["p_type"] == "PT_LOAD" and s.header["p_memsz"]]
        entry = elf["e_entry"]
    except (ELFError, KeyError, ValueError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise GuestError(f"the multiboot header gives no addresses, and the image is no ELF file: {error}") from error
    parts = []
    for h in headers:
        data = image[h["p_offset"] : h["p_offset"] + h["p_filesz"]]
        if len(data) != h["p_filesz"] or h["p_memsz"] < len(data):
            raise GuestError(f"the segment at {h['p_paddr']:#x} has {len(data)} of {h['p_filesz']} bytes in the image")
        parts.append(Part(h["p_paddr"], data, h["p_memsz"]))
        if h["p_vaddr"] <= entry < h["p_vaddr"] + h["p_memsz"]:
            entry = entry - h["p_vaddr"] + h["p_paddr"]
    return Kernel(tuple(parts), entry)


def information(space: AddressSpace, command_line: bytes) -> bytes:
    """The boot information as it lies at INFO: the structure, the memory map, the command line."""
    ram = [(r.first, r.last - r.first + 1) for r in space.view.ranges if isinstance(r.region, Ram)]
    entries = b"".join(struct.pack("<IQQI", 20, first, size, AVAILABLE) for first, size in ram)
    upper = next((first + size for first, size in ram if first <= 1 << 20 < first + size), 1 << 20) - (1 << 20)
    tables = INFO + 120
    fixed = struct.pack(
        "<5I", MEMORY | COMMAND_LINE | MEMORY_MAP, LOW_END // KIB, min(upper // KIB, 0xFFFF_FFFF), 0,
        tables + len(entries))  # fmt: skip
    fixed = fixed.ljust(44, b"\0") + struct.pack("<2I", len(entries), tables)
    return fixed.ljust(120, b"\0") + entries + command_line + b"\0"


def place(space: AddressSpace, kernel: Kernel, command_line: bytes) -> None:
    """Write kernel and information into memory. AddressRangeError when they overlap or leave 4 GiB."""
    info = information(space, command_line)
    for part in kernel.parts:
        if part.pa + part.size > 1 << 32:
            raise AddressRangeError(f"{part.size:#x} bytes at {part.pa:#x} are not below 4 GiB")
        if part.pa < INFO + len(info) and part.pa + part.size > INFO:
            raise AddressRangeError(f"the kernel at {part.pa:#x} overlaps the boot information at {INFO:#x}")
    for part in kernel.parts:
        space.write(part.pa, part.data + bytes(part.size - len(part.data)))
    space.write(INFO, info)
