"""What a run of a guest comes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mmu.guest.counters import Counters
from mmu.guest.stop import Delivered, Stop


@dataclass(frozen=True)
class RunResult:
    """What a run did.

    `registers` by their names in small letters. `trace`: the bus accesses of data and of page walks, in order, when
    asked for; in a model of an emulator, its events. `counters` cover this run. `delivered`: the exceptions that the
    guest's own handlers got, in order; the first 4096 of them, `counters.exceptions` says how many there were.
    """

    stop: Stop
    registers: dict[str, int]
    trace: list[Any] = field(default_factory=list)
    counters: Any = field(default_factory=Counters)
    delivered: tuple[Delivered, ...] = ()
