"""What a translator must know of an instruction."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol


class Flow(Enum):
    """How control leaves an instruction."""

    NEXT = auto()
    DIRECT = auto()  # to an address that the translator knows, or to the next instruction
    INDIRECT = auto()  # by the helper that looks for the next block
    MAIN_LOOP = auto()  # something changed that blocks depend on
    HALT = auto()


@dataclass(frozen=True, slots=True)
class Instruction:
    """`alone`: it may access memory or raise an exception, so that the model has to look at it by itself.

    `io`: it is marked as I/O. `atomic`: a read-modify-write that other CPUs must not see halves of. `special`: the name
    of what an architecture does about it ("" nothing). `inhibit`: no interrupt before the next instruction has run.
    `join`: bytes of each of its accesses, which the engine makes by halves or quarters; 0: as the engine makes them.
    `turns`: the engine tells of what it stores before it turns the bytes round.
    """

    length: int
    flow: Flow = Flow.NEXT
    alone: bool = True
    io: bool = False
    atomic: bool = False
    special: str = ""
    inhibit: bool = False
    join: int = 0
    turns: bool = False


class Decoder(Protocol):
    """Of one architecture. `longest`: of an instruction, in bytes."""

    longest: int

    def decode(self, code: bytes) -> Instruction:
        """The instruction that *code* begins with, which is long enough. One that does not exist takes all of it."""
        ...

    def unit(self, known: bytes) -> int:
        """How many bytes a translator reads next when it has read *known* of an instruction; 0: it has all."""
        ...
