"""An initiator's own way onto the bus: its counters, and a record of what it did."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mmu.core import check, ffi, lib
from mmu.memory.striped import Target
from mmu.types import MemTxResult

TARGETS = 1024  # devices whose traffic a port counts
TRACE_CAPACITY = 1 << 16
_KINDS = {lib.MMU_TRACE_READ: "read", lib.MMU_TRACE_WRITE: "write", lib.MMU_TRACE_EXCHANGE: "exchange"}


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """One access as its initiator made it. `value` is what was read or written; of an exchange it is what was there,
    `desired` what was offered and `stored` whether it took place. `initiator`: who made it, where there are several: in
    the trace of a guest "data" or "walk"."""

    kind: str
    address: int
    size: int
    value: int
    result: MemTxResult = MemTxResult.OK
    desired: int | None = None
    stored: bool | None = None
    initiator: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What reached one device through windows: accesses after splitting, and bytes."""

    reads: int = 0
    writes: int = 0
    read_bytes: int = 0
    write_bytes: int = 0


    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.reads + other.reads, self.writes + other.writes,
            self.read_bytes + other.read_bytes, self.write_bytes + other.write_bytes)  # fmt: skip


class Port:
    """An initiator's own way onto the bus, with its own counters and trace. Not for two threads at once."""

    def __init__(self, bus: Any, targets: dict[Target, int]) -> None:
        out = ffi.new("mmu_port **")
        check(lib.mmu_port_create(bus, TARGETS, out), "bus port")
        self.handle = ffi.gc(out[0], lib.mmu_port_destroy)
        self._targets = targets
        self._traced = False

    def traffic(self) -> dict[str, Traffic]:
        """Per device name, since the port was made; devices never reached are left out."""
        raw = ffi.new("struct mmu_traffic *")
        found: dict[str, Traffic] = {}
        for target, number in self._targets.copy().items():  # a thread may add some
            lib.mmu_port_traffic(self.handle, number, raw)
            if raw.reads or raw.writes:
                more = Traffic(raw.reads, raw.writes, raw.read_bytes, raw.write_bytes)
                found[target.name] = found.get(target.name, Traffic()) + more
        return found

    @contextmanager
    def trace(self, capacity: int = TRACE_CAPACITY, initiator: str = "") -> Iterator[list[TraceEntry]]:
        """The list fills when the block ends. Raises BufferError when more than *capacity* accesses were made.

        *initiator* is what the entries are to say of who made them. One trace at a time: RuntimeError within another.
        """
        if self._traced:
            raise RuntimeError("this thread's accesses, or this initiator's, are traced already: end that trace first")
        raw = ffi.new("struct mmu_trace_entry[]", capacity)
        entries: list[TraceEntry] = []
        lib.mmu_port_trace(self.handle, raw, capacity)
        self._traced = True
        try:
            yield entries
        finally:
            self._traced = False
            used = lib.mmu_port_trace_used(self.handle)
            lib.mmu_port_trace(self.handle, ffi.NULL, 0)
            entries += [_trace_entry(raw[i], initiator) for i in range(min(used, capacity))]
        if used > capacity:
            raise BufferError(f"{used} accesses were made, the trace holds {capacity}")


def _trace_entry(e: Any, initiator: str) -> TraceEntry:
    exchange = e.kind == lib.MMU_TRACE_EXCHANGE
    return TraceEntry(
        _KINDS[e.kind], e.address, e.size, e.value, MemTxResult(e.result & 7),
        e.desired if exchange else None, bool(e.stored) if exchange else None, initiator)
