"""What the main loop asks of an architecture."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol

from mmu.guest.delivered import Record
from mmu.guest.stepper import Stepper
from mmu.guest.stop import Delivered, Stop
from mmu.tcg.access import Accesses, Mmu
from mmu.tcg.instruction import Decoder, Instruction
from mmu.types import Fault


class Guest(Protocol):
    """Registers, special instructions and exceptions of one CPU."""

    @property
    def decoder(self) -> Decoder: ...

    @property
    def stepper(self) -> Stepper: ...

    @property
    def mmu(self) -> Mmu: ...

    @property
    def delivered(self) -> Record:
        """The exceptions that a run delivered."""
        ...

    def mode(self) -> Hashable:
        """All state that blocks depend on. Kept until mode_changed()."""
        ...

    def mode_changed(self) -> None:
        """Registers that translate or give rights may have changed."""
        ...

    def kind(self, access: int, va: int, instruction: Instruction) -> int:
        """READ or WRITE at *va* by *instruction*, with what else is true of the access."""
        ...

    def special(self, instruction: Instruction, pc: int, code: bytes, accesses: Accesses) -> int | None:
        """What comes before a special instruction. Returns the next PC when that was all of it. Raises Signal."""
        ...

    def after(self, instruction: Instruction, accesses: Accesses) -> None:
        """What follows a special instruction that the engine has carried out."""
        ...

    def stopped(self, error: int, interrupt: int | None) -> Any:
        """The exception that the engine met."""
        ...

    def exception_of(self, fault: Fault) -> Any:
        """What the guest is told of a fault."""
        ...

    def told(self, event: Any) -> tuple[int, int, int]:
        """(syndrome, address, code) of an exception, as `mmu.tcg.trace.GuestFault` has them."""
        ...

    def enter(self, event: Any, pc: int, fault: Fault | None) -> Delivered | Stop:
        """Enter the guest's handler."""
        ...

    def interrupt_event(self, vector: int) -> Any:
        """What an external interrupt is to the CPU; None while it is masked."""
        ...

    def resume(self) -> None:
        """A run begins: forget what ended the last one."""
        ...

    def exited(self) -> int | None:
        """What a guest that ended its run by a device said to that."""
        ...

    def read_pc(self) -> int: ...

    def write_pc(self, pc: int) -> None: ...
