"""What a run cost: fills, walks, accesses by device. Differences of counters that only grow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmu.memory.space import Traffic
from mmu.types import Access, MemTxResult

if TYPE_CHECKING:
    from mmu.guest.cpu import Cpu

_PLAIN = (
    "fills", "walks", "faults", "bus_reads", "bus_writes", "shadows", "mirrored", "direct", "mirror_full", "steps",
    "bus_errors", "port_reads", "port_writes", "instructions", "exceptions",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BusErrorRecord:
    """An access that the bus refused: physical address, bytes (0: a page of code), kind, and what the bus said."""

    address: int
    size: int
    access: Access
    result: MemTxResult


@dataclass(frozen=True)
class Counters:
    """Of one run. Devices are those behind windows, by name.

    `data` is what the guest's own loads and stores did there, `tables` what page walks did, `code` the reading of
    pages of code before they run. Of pages that the engine has as RAM, loads, stores and code are not counted: these
    pages are counted, and `mirror` tells the blocks of 256 bytes that went to the mirror and, changed, came back.
    """

    fills: int = 0  # TLB misses of the engine
    walks: int = 0  # page walks: for fills that the second-level TLB does not answer, and for exception delivery
    faults: int = 0  # of them refused
    bus_reads: int = 0  # accesses, or pieces of them, that went to the bus: everything but plain RAM
    bus_writes: int = 0
    shadows: int = 0  # pages of code copied out of windows and devices
    mirrored: int = 0  # pages of windows that were RAM for the engine, gathered in the mirror
    direct: int = 0  # and in place
    mirror_full: int = 0  # pages that were not, for want of memory
    steps: int = 0  # stores to pages of code, each run alone
    bus_errors: int = 0
    first_bus_error: BusErrorRecord | None = None
    port_reads: int = 0  # x86 IN and OUT, those that are permitted
    port_writes: int = 0
    instructions: int = 0  # counted only under a limit
    exceptions: int = 0  # delivered to the guest's own handlers
    data: dict[str, Traffic] = field(default_factory=dict)
    tables: dict[str, Traffic] = field(default_factory=dict)
    code: dict[str, Traffic] = field(default_factory=dict)
    mirror: dict[str, Traffic] = field(default_factory=dict)


class Snapshot:
    """The counters as a run begins. The first bus error is that of the run: C keeps it until told to forget."""

    def __init__(self, cpu: Cpu) -> None:
        self._cpu = cpu
        self._plain = {name: getattr(cpu.counters, name) for name in _PLAIN}
        self._traffic = self._ports()

    def _ports(self) -> dict[str, dict[str, Traffic]]:
        return {name: self._cpu.ports[name].traffic() for name in ("data", "walk", "code", "blocks")}

    def since(self) -> Counters:
        now, ports = self._cpu.counters, self._ports()
        plain = {name: getattr(now, name) - value for name, value in self._plain.items()}
        plain["exceptions"] = self._cpu.delivered.count(self._plain["exceptions"])
        first = None
        if plain["bus_errors"]:
            first = BusErrorRecord(
                now.error_hpa, now.error_size, Access(now.error_access), MemTxResult(now.error_result))
        return Counters(
            **plain, first_bus_error=first,
            data=self._difference("data", ports), tables=self._difference("walk", ports),
            code=self._difference("code", ports), mirror=self._difference("blocks", ports))  # fmt: skip

    def _difference(self, port: str, ports: dict[str, dict[str, Traffic]]) -> dict[str, Traffic]:
        before, out = self._traffic[port], {}
        for device, t in ports[port].items():
            old = before.get(device, Traffic())
            new = Traffic(
                t.reads - old.reads, t.writes - old.writes, t.read_bytes - old.read_bytes,
                t.write_bytes - old.write_bytes)
            if new != Traffic():
                out[device] = new
        return out
