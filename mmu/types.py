"""Frozen values that every room shares. A guest fault is one of them; misuse is in `mmu.errors`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Flag, IntEnum, IntFlag
from typing import Any


class Access(IntFlag):
    """What the CPU wants: exactly one of READ, WRITE, FETCH, plus what kind of access it is."""

    READ = 1
    WRITE = 2
    FETCH = 4
    IMPLICIT = 8  # x86: made by the CPU itself (GDT, IDT, TSS): supervisor at any CPL
    STACK = 16  # x86: through SS: a non-canonical address is #SS, not #GP
    SHADOW_STACK = 32  # x86 CET
    UNPRIVILEGED = 64  # arm64: LDTR/STTR: EL0 rights at EL1 or EL2
    MAINTENANCE = 128  # arm64: of a cache, by address: with READ what cleans (DC CVAC), with WRITE DC IVAC


class MemTxResult(Flag):
    """How a bus access ended. A set, because the pieces of one access may end differently."""

    OK = 0
    ERROR = 1  # a device or a decoder refused
    DECODE_ERROR = 2  # nothing there, or an access that the region does not take
    ACCESS_ERROR = 4  # a device re-entered itself


class FaultKind(IntEnum):
    """Why a walk stopped. What the guest sees follows from it in x86/faults.py and arm64/faults.py."""

    NONE = 0
    NOT_PRESENT = 1  # x86 P=0; arm64 an invalid descriptor (Translation fault)
    RESERVED_BIT = 2  # x86
    PERMISSION = 3
    BUS = 4  # the bus answered a table read or write with an error
    NON_CANONICAL = 5  # x86: refused before any read
    PROTECTION_KEY = 6  # x86: PKRU or IA32_PKRS
    ADDRESS_SIZE = 7  # arm64
    ACCESS_FLAG = 8  # arm64
    ALIGNMENT = 9  # arm64
    UNSUPPORTED_ATOMIC = 10  # arm64: hardware update in memory that cannot do it
    MISCONFIGURATION = 11  # EPT


@dataclass(frozen=True, slots=True)
class Place:
    """Where an address of a space ends: the mapped region and, behind interleave, the device.

    `offset` is in bytes from the start of `region`; for a device (`device` not None) `dpa` is the address inside it.
    """

    region: str
    offset: int
    device: str | None = None
    dpa: int | None = None

    def __str__(self) -> str:
        return f"{self.region}+{self.offset:#x}" if self.device is None else f"{self.device} DPA {self.dpa:#x}"


@dataclass(frozen=True, slots=True)
class Step:
    """One table entry read by a walk.

    `address` is the physical address of the entry, `flags` its fields by the manual's names, `stage` 1 or 2
    (stage 2: NPT, EPT, or arm64 stage 2), `place` where the entry came from.
    """

    level: int
    name: str
    address: int
    value: int
    flags: Mapping[str, int] = field(default_factory=dict, compare=False)
    stage: int = 1
    place: Place | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Translation:
    """A walk that succeeded. `pa` and `page_size` are in bytes; `pa` includes the offset in the page.

    `writable`, `user` and `executable` say what the tables grant over all levels, whatever the access was.
    `attributes` holds what only one architecture has (arm64: MAIR index, shareability, ...).
    """

    pa: int
    page_size: int
    writable: bool
    user: bool
    executable: bool
    attributes: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[Step, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Fault:
    """A walk that failed: why, at which level, for what access.

    Levels carry the architecture's own number (x86: 5..1 with 1 the PTE; arm64: -1..3 with 3 the page);
    None means that no entry was at fault. `entry_address` is the physical address of the entry at fault, `entry` its
    value.
    Nested walks: `stage` 2 with `gpa` the guest-physical (intermediate) address, and `on_table` True when stage 2
    refused the address of a stage-1 entry and not the final page.
    """

    kind: FaultKind
    level: int | None
    va: int
    access: Access
    entry_address: int | None = None
    entry: int | None = None
    stage: int = 1
    gpa: int | None = None
    on_table: bool = False
    detail: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[Step, ...] = field(default=(), compare=False)
