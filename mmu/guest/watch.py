"""What goes on beside a run: the clock that ends it, and the record of its accesses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from mmu.core import ffi, lib

if TYPE_CHECKING:
    from mmu.guest.cpu import Cpu
    from mmu.memory import TraceEntry


@contextmanager
def watchdog(cpu: Cpu, timeout: float | None) -> Iterator[None]:
    """Interrupt *cpu* after *timeout* seconds (None: never), until the block ends."""
    if timeout is None:
        yield
        return
    timer = threading.Timer(timeout, cpu.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


@contextmanager
def traced(cpu: Cpu, capacity: int) -> Iterator[list[TraceEntry]]:
    """The list fills when the block ends: what the ports of data and of walks recorded, merged in order."""
    merged: list[TraceEntry] = []
    if not capacity:
        yield merged
        return
    marks = ffi.new("struct mmu_guest_mark[]", capacity)
    lib.mmu_guest_trace(cpu.guest, marks, capacity)
    recorders = [cpu.ports[name].trace(capacity, name) for name in ("data", "walk")]
    data, walks = (recorder.__enter__() for recorder in recorders)
    try:
        yield merged
    finally:
        for recorder in recorders:
            with suppress(BufferError):  # more accesses than asked for: the first ones are there
                recorder.__exit__(None, None, None)
        used = lib.mmu_guest_trace(cpu.guest, ffi.NULL, 0)
        at, walked = 0, 0
        for mark in marks[0 : min(used, capacity)]:
            merged += data[at : mark.data]
            merged += walks[walked : mark.walk]
            at, walked = max(at, mark.data), mark.walk
        merged += data[at:]
        del merged[capacity:]
