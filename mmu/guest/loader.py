"""Programs: raw code, ELF files, and assembler source, as segments to put into memory.

Assembler source is handed to GNU as for the guest's architecture, and linked by its ld where that is installed.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from mmu.errors import GuestError

TOOLS = {"x86_64": "x86_64-linux-gnu-", "aarch64": "aarch64-linux-gnu-"}
MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}
ELF_MAGIC = b"\x7fELF"
PF_X, PF_W = 1, 2
SHF_ALLOC = 2


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


@contextmanager
def _parsing(name: str) -> Iterator[None]:
    """What pyelftools lets out of a damaged file becomes one clear error."""
    from elftools.common.exceptions import ELFError

    try:
        yield
    except (ELFError, KeyError, ValueError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise GuestError(f"{name} is not a readable ELF file: {error}") from error


def _elf(data: bytes, arch: str, name: str) -> Any:
    import io

    from elftools.elf.elffile import ELFFile

    with _parsing(name):
        elf = ELFFile(io.BytesIO(data))
        machine, bits, order = elf["e_machine"], elf.elfclass, "little" if elf.little_endian else "big"
    if (machine, bits, order) != (MACHINES[arch], 64, "little"):
        raise GuestError(f"{name} is {machine}, {bits} bits, {order}-endian; the guest is {MACHINES[arch]}, 64, little")
    return elf


def elf_program(data: bytes, arch: str, name: str) -> Program:
    """The PT_LOAD segments of a linked file, at their addresses. A relocatable object (.o) is refused."""
    elf = _elf(data, arch, name)
    if elf["e_type"] not in ("ET_EXEC", "ET_DYN"):
        raise GuestError(f"{name} is {elf['e_type']}; it must be linked: ET_EXEC or ET_DYN")
    with _parsing(name):
        headers = [segment.header for segment in elf.iter_segments() if segment.header["p_type"] == "PT_LOAD"]
    segments = []
    for header in headers:
        va, start, size = header["p_vaddr"], header["p_offset"], header["p_memsz"]
        content = data[start : start + header["p_filesz"]]
        if len(content) != header["p_filesz"] or size < len(content):
            raise GuestError(
                f"{name}: the segment at {va:#x} has {len(content)} of {header['p_filesz']} bytes in the file, and "
                f"{size} in memory")
        if va + size > 1 << 64:
            raise GuestError(f"{name}: the segment of {size:#x} bytes at {va:#x} leaves the address space")
        if size:
            segments.append(Segment(va, content, size, bool(header["p_flags"] & PF_W), bool(header["p_flags"] & PF_X)))
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
        said = [line for line in done.stderr.splitlines() if "warning:" not in line and "messages:" not in line]
        more = f" (and {len(said) - 1} more)" if len(said) > 1 else ""
        raise GuestError(f"{what}: {said[0] if said else f'exit status {done.returncode}'}{more}")


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
        for section in _elf(unit.read_bytes(), arch, str(path)).iter_sections():
            if section["sh_flags"] & SHF_ALLOC and section["sh_size"] and section.name != ".text":
                raise GuestError(f"{path} has {section['sh_size']} bytes in {section.name}: put everything into .text")
        _run([linker, "-N", "-Ttext=0", "-o", str(linked), str(unit)], f"linking {path}")
        elf = _elf(linked.read_bytes(), arch, str(path))
        text = elf.get_section_by_name(".text")
        if text is None or not text["sh_size"]:
            raise GuestError(f"{path} has no code in .text")
        return Program((Segment(0, text.data(), text["sh_size"]),), elf["e_entry"], relocatable=True)
