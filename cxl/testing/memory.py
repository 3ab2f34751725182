"""Bytes that know where they are from."""

from __future__ import annotations

from collections.abc import Iterator

ROW = 16
SHOWN = 8  # rows of a difference


class Contents(bytes):
    """Bytes from *start* of *device* (by DPA), or of the program's memory where that is ""."""

    start: int
    device: str

    def __new__(cls, data: bytes, start: int, device: str) -> Contents:
        self = super().__new__(cls, data)
        self.start, self.device = start, device
        return self

    @property
    def where(self) -> str:
        return f"{self.device} DPA {self.start:#x}" if self.device else f"{self.start:#x}"


def differences(seen: Contents, wanted: bytes) -> Iterator[str]:
    """Rows of 16 bytes that differ, both of them, with a mark below each byte that does."""
    if len(seen) != len(wanted):
        yield f"{len(seen)} bytes, not {len(wanted)}"
    rows = [at for at in range(0, max(len(seen), len(wanted)), ROW) if seen[at : at + ROW] != wanted[at : at + ROW]]
    for at in rows[:SHOWN]:
        a, b = bytes(seen[at : at + ROW]), bytes(wanted[at : at + ROW])
        marks = "".join("   " if a[i : i + 1] == b[i : i + 1] else "^^ " for i in range(max(len(a), len(b))))
        address, wants = f"{seen.start + at:#x}:", "wanted:"
        width = max(len(address), len(wants))
        yield f"{address:>{width}} {a.hex(' ')}"
        yield f"{wants:>{width}} {b.hex(' ')}"
        yield " " * (width + 1) + marks.rstrip()
    if len(rows) > SHOWN:
        yield f"and {len(rows) - SHOWN} more rows of {ROW} bytes"
