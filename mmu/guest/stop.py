"""Why a guest stopped, and what its CPU reported. Frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmu.types import Fault

REASONS = {
    "halt": "HLT or WFI",
    "fault": "an exception that the guest has no handler for",
    "triple-fault": "x86: no exception could be delivered any more",
    "bus-error": "x86: an instruction that the bus does not give",
    "timeout": "the time was up",
    "limit": "the instructions were used up",
    "exit": "the guest wrote to a DebugExit",
}


@dataclass(frozen=True, slots=True)
class Interrupt:
    """An x86 exception or software interrupt that no page walk caused."""

    vector: int
    error_code: int | None = None
    software: bool = False  # INT n, INT3: the saved RIP is that of the next instruction


@dataclass(frozen=True, slots=True)
class External(Interrupt):
    """An interrupt that comes from outside, between two instructions."""


@dataclass(frozen=True, slots=True)
class Synchronous:
    """An arm64 synchronous exception that no translation caused: SVC, BRK, an undefined or unaligned instruction."""

    esr: int
    far: int | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """How a run ended.

    `reason` is one of REASONS. `pc` is where the guest stands: after HLT or WFI, on an instruction that faulted.
    With reason "fault", `exception` is what the CPU reports (mmu.x86.PageFault, mmu.arm64.Abort, Interrupt, ...)
    and `fault` the walk behind it, if it was one; its `va` is exact to the byte. `code` goes with reason "exit": what
    was written.
    """

    reason: str
    pc: int
    exception: Any = None
    fault: Fault | None = None
    detail: str = ""
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Delivered:
    """An exception that the guest's own handler got. `pc` is that of the instruction it belongs to."""

    pc: int
    exception: Any
    handler: int
