"""Programs: raw code, ELF files, and assembler source, as segments to put into memory.

Assembler source is handed to GNU as for the guest's architecture, and linked by its ld where that is installed.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from mmu.errors import GuestError

TOOLS = {"x86_64": "x86_64-linux-gnu-", "aarch64": "aarch64-linux-gnu-"}
MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}
ELF_MAGIC = b"\x7fELF"
PF_X, PF_W = 1, 2


@dataclass(frozen=True, slots=True)
class Segment:
    """*size* bytes at *va*: *data*, then zeroes."""

    va: int
    data: bytes
    size: int
    writable: bool = True
    executable: bool = True


@dataclass(frozen=True, slots=True)
class Program:
    """Segments in order of address. With *relocatable*, addresses count from wherever the program is put."""

    segments: tuple[Segment, ...]
    entry: int
    relocatable: bool = False


def raw_program(code: bytes) -> Program:
    """Code without addresses that starts at its first byte."""
    if not code:
        raise ValueError("a program must have at least one byte of code, not 0")
    return Program((Segment(0, code, len(code)),), 0, relocatable=True)


def read_program(program: bytes | str | PathLike[str], arch: str) -> Program:
    """Bytes (raw code, or an ELF image), or a path: .s is assembled, ELF known by its first bytes, all else raw.

    Raises GuestError when it is not for *arch* or cannot be assembled, OSError when it cannot be read.
    """
    if isinstance(program, bytes):
        return elf_program(program, arch, "the program") if program[:4] == ELF_MAGIC else raw_program(program)
    path = Path(fspath(program))
    if path.suffix in (".s", ".S"):
        return assemble(path, arch)
    data = path.read_bytes()
    return elf_program(data, arch, str(path)) if data[:4] == ELF_MAGIC else raw_program(data)


# -- ELF --------------------------------------------------------------------------------------------


def _elf(data: bytes, arch: str, name: str) -> Any:
    import io

    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        elf = ELFFile(io.BytesIO(data))
        machine, bits, little = elf["e_machine"], elf.elfclass, elf.little_endian
    except (ELFError, KeyError, ValueError) as error:
        raise GuestError(f"{name} is not a readable ELF file: {error}") from error
    if machine != MACHINES[arch] or bits != 64 or not little:
        order = "little" if little else "big"
        raise GuestError(f"{name} is {machine}, {bits} bits, {order}-endian; the guest is {MACHINES[arch]}, 64, little")
    return elf


def elf_program(data: bytes, arch: str, name: str) -> Program:
    """The PT_LOAD segments of a linked file, at their addresses. A relocatable object (.o) is refused."""
    elf = _elf(data, arch, name)
    if elf["e_type"] not in ("ET_EXEC", "ET_DYN"):
        raise GuestError(f"{name} is {elf['e_type']}; it must be linked: ET_EXEC or ET_DYN")
    segments = []
    for header in elf.iter_segments("PT_LOAD"):
        content, size = header.data(), header["p_memsz"]
        if len(content) != header["p_filesz"] or size < len(content):
            raise GuestError(
                f"{name}: a segment at {header['p_vaddr']:#x} has {len(content)} bytes of {header['p_filesz']} in the "
                f"file and {size} in memory")
        if size:
            flags = header["p_flags"]
            segments.append(Segment(header["p_vaddr"], content, size, bool(flags & PF_W), bool(flags & PF_X)))
    if not segments:
        raise GuestError(f"{name} has no segment to load")
    segments.sort(key=lambda s: s.va)
    return Program(tuple(segments), elf["e_entry"])


# -- assembler --------------------------------------------------------------------------------------


def _tool(arch: str, name: str) -> str | None:
    """The cross tool, or the host's own when the host is of that architecture."""
    import platform

    if found := shutil.which(TOOLS[arch] + name):
        return found
    return shutil.which(name) if platform.machine() == arch else None


def can_assemble(arch: str) -> bool:
    return _tool(arch, "as") is not None and _tool(arch, "ld") is not None


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise GuestError(f"{what}: {done.stderr.strip() or done.stdout.strip()}")


def assemble(path: Path, arch: str) -> Program:
    """Source to position-independent code: everything in .text, linked at 0, entry at `_start` or its first byte."""
    assembler, linker = _tool(arch, "as"), _tool(arch, "ld")
    if assembler is None or linker is None:
        missing = "as" if assembler is None else "ld"
        raise GuestError(f"assembling {path} for {arch} needs {TOOLS[arch]}{missing} (GNU binutils), which is not here")
    path.read_bytes()  # a file that cannot be read is an OSError, not a complaint of as
    with tempfile.TemporaryDirectory() as directory:
        unit, linked = Path(directory, "a.o"), Path(directory, "a.elf")
        _run([assembler, "-o", str(unit), str(path)], f"assembling {path}")
        _run([linker, "-N", "-Ttext=0", "--no-warn-mismatch", "-o", str(linked), str(unit)], f"linking {path}")
        elf = _elf(linked.read_bytes(), arch, str(path))
        text = elf.get_section_by_name(".text")
        for name in (".data", ".bss"):
            section = elf.get_section_by_name(name)
            if section is not None and section["sh_size"]:
                raise GuestError(f"{path} has {section['sh_size']} bytes in {name}: put everything into .text")
        if text is None or not text["sh_size"]:
            raise GuestError(f"{path} has no code in .text")
        return Program((Segment(0, text.data(), text["sh_size"]),), elf["e_entry"], relocatable=True)
