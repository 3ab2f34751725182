"""Serial ports in C: what a guest sends is kept, what it receives is given beforehand. For guests that poll."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmu.core import check, ffi, lib
from mmu.memory.mmio import NativeMmio


class _Serial(NativeMmio):
    """*capacity*: bytes of output that are kept, and of input that may wait; 1 .. 2^26."""

    def __init__(self, size: int, read: Any, write: Any, name: str, capacity: int, **options: Any) -> None:
        out = ffi.new("mmu_uart **")
        check(lib.mmu_uart_create(capacity, out), f"{name}: capacity must be 1 .. 2^26 bytes, not {capacity}")
        self._uart = ffi.gc(out[0], lib.mmu_uart_destroy)
        context = int(ffi.cast("uintptr_t", self._uart))
        super().__init__(size, _address(read), _address(write), context, name, keep=self._uart, **options)

    @property
    def output(self) -> bytes:
        """What was sent so far; the first bytes, when they were more than the capacity."""
        count, lost = ffi.new("uint32_t *"), ffi.new("uint64_t *")
        data = lib.mmu_uart_output(self._uart, count, lost)
        return bytes(ffi.buffer(data, count[0]))

    @property
    def lost(self) -> int:
        """How many bytes were sent that there was no room for."""
        count, lost = ffi.new("uint32_t *"), ffi.new("uint64_t *")
        lib.mmu_uart_output(self._uart, count, lost)
        number: int = lost[0]
        return number

    def clear(self) -> None:
        """Forget the output."""
        lib.mmu_uart_clear(self._uart)

    def feed(self, data: bytes) -> int:
        """Let the guest receive *data*; how many bytes of it there was room for. Not during a run."""
        taken: int = lib.mmu_uart_feed(self._uart, data, len(data))
        return taken

    def take_state(self) -> dict[str, Any]:
        """What the port is now, in what JSON can hold; see `mmu.snapshot`."""
        state, count = ffi.new("struct mmu_uart_state *"), ffi.new("uint32_t *")
        lib.mmu_uart_save(self._uart, state)
        data = lib.mmu_uart_input(self._uart, count)
        found = {name: getattr(state, name) for name in NUMBERS} | {name: list(getattr(state, name)) for name in LISTS}
        return found | {"output": self.output.hex(), "input": bytes(ffi.buffer(data, count[0])).hex()}

    def give_state(self, state: Mapping[str, Any]) -> None:
        """Become what `take_state` found. ValueError, and nothing changed, when that was a port of another capacity."""
        record = ffi.new("struct mmu_uart_state *", {name: state[name] for name in (*NUMBERS, *LISTS)})
        output, data = bytes.fromhex(state["output"]), bytes.fromhex(state["input"])
        mine = ffi.new("struct mmu_uart_state *")
        lib.mmu_uart_save(self._uart, mine)
        if record.capacity != mine.capacity:
            raise ValueError(f"it had room for {record.capacity} bytes, and has room for {mine.capacity}")
        check(
            lib.mmu_uart_restore(self._uart, record, output, len(output), data, len(data)),
            f"{self.name}: {record.sent} bytes were sent, {len(output)} are there, and {len(data)} to be received")


NUMBERS = ("sent", "capacity", "fifo")  # of struct mmu_uart_state
LISTS = ("stored", "scratch", "divisor")


def _address(function: Any) -> int:
    return int(ffi.cast("uintptr_t", function))


class Serial16550(_Serial):
    """A 16550 of 8 single-byte registers, for `machine.io` (COM1 is at 0x3f8) or anywhere in memory."""

    def __init__(self, name: str = "serial", capacity: int = 1 << 20) -> None:
        super().__init__(
            8, ffi.addressof(lib, "mmu_uart_16550_read"), ffi.addressof(lib, "mmu_uart_16550_write"), name, capacity,
            implemented=(1, 1))


class Pl011(_Serial):
    """A PL011 of 4 KiB, as arm64 machines have at 0x09000000."""

    def __init__(self, name: str = "pl011", capacity: int = 1 << 20) -> None:
        super().__init__(
            4096, ffi.addressof(lib, "mmu_uart_pl011_read"), ffi.addressof(lib, "mmu_uart_pl011_write"), name, capacity,
            valid=(1, 4), implemented=(4, 4))
