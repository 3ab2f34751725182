"""How generated code is left in the middle of an instruction. They never leave this room."""

from __future__ import annotations

from mmu.types import Fault


class Signal(Exception):
    """Nothing of the instruction took effect but what it had stored before."""


class GuestFault(Signal):
    """The guest gets an exception for *fault*, met at the instruction that runs."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


class GuestEvent(Signal):
    """The guest gets an exception that no walk caused."""

    def __init__(self, event: object) -> None:
        super().__init__(event)
        self.event = event


class RecompileRequest(Signal):
    """The instruction must run again, alone in its block."""


class AtomicRequest(Signal):
    """The instruction must run while all other CPUs stand still."""
