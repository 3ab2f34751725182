"""An image as a file, for peers that take no memory of ours: raw, or with the head of a Linux crash dump before it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from scripts.benches.image import Image

KERNEL_MAP = 0xFFFFFFFF80000000  # where Linux on x86-64 sees its own image, and so its swapper_pg_dir
ET_CORE, EM_X86_64, PT_LOAD, PT_NOTE, RWX = 4, 62, 1, 4, 7
EHDR, PHDR, PAGE_SIZE = 64, 56, 4096


def write(path: Path, image: Image, size: int, marks: Any, head: bytes = b"") -> None:
    """*head*, then physical memory 0..size-1: the tables, and at each of *marks* (multiples of 8) its own address.

    Tables win over marks. The rest is a hole in the file. Raises OSError where it does not fit.
    """
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)
        for mark in marks.tolist():
            file.seek(len(head) + mark)
            file.write(mark.to_bytes(8, "little"))
        for address, table in zip(image.addresses.tolist(), image.tables):
            file.seek(len(head) + address)
            file.write(table.tobytes())


def vmcore(image: Image, size: int) -> bytes:
    """The head of an ELF core as kdump leaves it: a VMCOREINFO note, and one segment for memory 0..size-1.

    It is as long as one page. The segment's virtual addresses are a part of the lower half where the image maps
    nothing: a reader may take what the segment covers from the file without a walk. The root must lie below 2 GiB,
    for the note tells it as an address of the kernel's own map.
    Source: ELF-64 Object File Format 1.5, "ELF Header", "Program Header Table", "Note Sections"; Linux
    Documentation/admin-guide/kdump/vmcoreinfo.rst.
    """
    info = (
        f"OSRELEASE=6.1.0-bench\nPAGESIZE={PAGE_SIZE}\nSYMBOL(swapper_pg_dir)={KERNEL_MAP + image.root:x}\n"
        "KERNELOFFSET=0\nNUMBER(phys_base)=0\nNUMBER(pgtable_l5_enabled)=0\n").encode()
    name = b"VMCOREINFO\0"
    note = struct.pack("<3I", len(name), len(info), 0) + _words(name) + _words(info)
    ident = b"\x7fELF" + bytes((2, 1, 1))  # 64 bits, little-endian, version 1
    head = struct.pack("<16s2HI3QI6H", ident, ET_CORE, EM_X86_64, 1, 0, EHDR, 0, 0, EHDR, PHDR, 2, 0, 0, 0)
    at = EHDR + 2 * PHDR
    head += struct.pack("<2I6Q", PT_NOTE, 0, at, 0, 0, len(note), len(note), 4)
    head += struct.pack("<2I6Q", PT_LOAD, RWX, PAGE_SIZE, image.free_slot() << 39, 0, size, size, PAGE_SIZE)
    return (head + note).ljust(PAGE_SIZE, b"\0")


def _words(text: bytes) -> bytes:
    """Padded to whole words of 4 bytes, as notes are."""
    return text.ljust(-(-len(text) // 4) * 4, b"\0")
