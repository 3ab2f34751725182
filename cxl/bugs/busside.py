"""Scenarios without a guest: accesses on the bus of an emulator, and what the devices hold afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cxl import Topology
from cxl.bugs.bug import Observation, Outcome
from cxl.bugs.counts import counts_of
from mmu import AddressSpace, Ram
from mmu.tcg import EmulatorAbort, Event
from mmu.tcg.trace import Bus
from mmu.types import MemTxResult, Place

if TYPE_CHECKING:
    from mmu.memory.space import TraceEntry
    from mmu.tcg import Switches


def several(ways: int, size: str = "256M", granularity: int = 256) -> Topology:
    """*ways* devices of *size* behind as many root ports of one host bridge with decoders, and a window of 4 GiB."""
    words = ["-M q35,cxl=on -m 512M,maxmem=8G,slots=4 -device pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.0"]
    for i in range(ways):
        words.append(
            f"-object memory-backend-ram,id=m{i},size={size} -device cxl-rp,port={i},bus=cxl.0,id=rp{i},chassis=0,"
            f"slot={i + 2} -device cxl-type3,bus=rp{i},volatile-memdev=m{i},id=mem{i}")
    words.append(f"-M cxl-fmw.0.targets.0=cxl.0,cxl-fmw.0.size=4G,cxl-fmw.0.interleave-granularity={granularity}")
    return Topology.from_qemu(" ".join(words), strict=False)


@dataclass
class Look:
    """What was seen so far: `wrong` and `refused` are sentences."""

    space: AddressSpace
    wrong: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    aborted: EmulatorAbort | None = None
    entries: list[TraceEntry] = field(default_factory=list)

    def load(self, hpa: int, size: int = 8) -> int:
        value, result = self.space.load(hpa, size)
        self._note("load", hpa, result)
        return value

    def store(self, hpa: int, value: int, size: int = 8) -> None:
        self._note("store", hpa, self.space.store(hpa, size, value))

    def _note(self, what: str, hpa: int, result: MemTxResult) -> None:
        if result:
            self.refused.append(f"a {what} at {hpa:#x} ends with {result.name}")

    def same(self, what: str, seen: int, expected: int) -> None:
        if seen != expected:
            self.wrong.append(f"{what} holds {seen:#x}, not {expected:#x}")

    def observation(self) -> Observation:
        trace = tuple(map(self._event, self.entries))
        counts = counts_of(trace)
        if self.aborted is not None:
            return Observation(Outcome.ABORT, str(self.aborted), counts=counts, trace=trace)
        for outcome, words in (Outcome.ERROR, self.refused), (Outcome.WRONG_DATA, self.wrong):
            if words:
                return Observation(outcome, words[0], counts=counts, trace=trace)
        return Observation(Outcome.OK, counts=counts, trace=trace)

    def _event(self, entry: TraceEntry) -> Event:
        place = self.space.place(entry.address) or Place("nothing", entry.address)
        rw: Literal["r", "w"] = "r" if entry.kind == "read" else "w"
        result = entry.result.name or "ERROR"
        return Bus("bus", rw, place.region, place.offset, entry.size, entry.value, result, "data")


@contextmanager
def looking(topology: Topology, switches: Switches) -> Iterator[Look]:
    """The bus of *topology* under QEMU with *switches*. An abort ends the block, and is noted."""
    topology.emulate(switches)
    space = AddressSpace()
    for base, size in topology.ram:
        space.map(base, Ram(size))
    look = Look(space)
    try:
        topology.attach(space)
        with space.trace() as look.entries:
            yield look
    except EmulatorAbort as abort:
        look.aborted = abort
