"""Assembler source in a test, as bytes. GNU as assembles it; what was assembled once is remembered."""

from __future__ import annotations

import re
import tempfile
from functools import cache
from pathlib import Path

from mmu.errors import GuestError
from mmu.guest import loader
from mmu.guest.loader import Program

DIRECTIVES = {"x86_64": ".intel_syntax noprefix\n", "aarch64": ".arch armv8.2-a\n"}


def can_assemble(arch: str) -> bool:
    """GNU as and ld for *arch* are installed."""
    return loader.can_assemble(arch)


@cache
def assembled(arch: str, source: str) -> Program:
    """*source*: instructions one a line or separated by semicolons; x86 in Intel syntax. Raises GuestError."""
    with tempfile.TemporaryDirectory(prefix="cxl-mmu-") as folder:
        path = Path(folder, "snippet.s")
        path.write_text(DIRECTIVES[arch] + re.sub(r"\s*;\s*", "\n", source.strip()) + "\n")
        try:
            return loader.assemble(path, arch)
        except GuestError as error:
            raise type(error)(str(error).replace(str(path), "the snippet")) from None
