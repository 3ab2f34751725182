"""How the emulator itself can end. Guest faults are no part of this: they are values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmu.errors import MmuError

if TYPE_CHECKING:
    from mmu.tcg.trace import Event
    from mmu.types import Place

# kind -> what the emulator prints. Places of source files are those of the build that was measured.
ABORTS = {
    "io_recompile": "qemu: fatal: cpu_io_recompile: could not find TB for pc={detail}",
    "bql_relock": "ERROR:../system/cpus.c:556:bql_lock_impl: assertion failed: (!bql_locked())",
    "exclusive_running":
        "ERROR:../cpu-common.c:197:start_exclusive: assertion failed: (!current_cpu->running)",
    "second_page":
        "../../accel/tcg/translator.c:175: translator_access: Assertion `phys_page != -1' failed.",
    "decoder_ways": "{detail}: the error handler ends the process",
    "sections": "phys_section_add: assertion failed: {detail}",
}  # fmt: skip
HANGS = {
    "exclusive_self": "start_exclusive: the CPU waits for itself to leave the block that it is in",
    "exclusive_nested": "cpu_exec_start: the CPU waits for the end of the exclusive section that it is in itself",
    "exclusive_lock": "start_exclusive: the CPU holds the big lock, for which the CPU that it waits for waits",
    "livelock": "no instruction is completed any more: {detail}",
}


class EmulatorStop(MmuError, RuntimeError):
    """The emulator ended, or would never go on.

    `kind` says which way, `pc` where the guest stands, on the instruction that was not completed. `level` is the level
    of the walk that it happened in, None outside one, and `place` where that table entry, or else the data, lives.
    After a run: `trace` (of mmu.tcg.trace), `counters` and `registers`.
    """

    outcome: str  # what became of the process: "abort", "hang" or "crash"

    def __init__(
        self, kind: str, message: str, pc: int | None = None, level: int | None = None, place: Place | None = None
    ) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message
        self.pc, self.level, self.place = pc, level, place
        self.trace: list[Event] = []
        self.counters: Any = None
        self.registers: dict[str, int] = {}

    def __str__(self) -> str:
        words = [self.message]
        if self.pc is not None:
            words.append(f"guest PC {self.pc:#x}")
        if self.level is not None:
            words.append(f"walk level {self.level}")
        if self.place is not None:
            words.append(f"table in {self.place}" if self.level is not None else f"access to {self.place}")
        return "; ".join(words)


class EmulatorAbort(EmulatorStop):
    """The process ends with SIGABRT. `message` is what it prints."""

    outcome = "abort"

    def __init__(
        self, kind: str, pc: int | None = None, level: int | None = None, place: Place | None = None, detail: str = ""
    ) -> None:
        super().__init__(kind, ABORTS[kind].format(detail=detail), pc, level, place)


class Deadlock(EmulatorStop):
    """The process waits for something that cannot happen, or repeats itself for ever."""

    outcome = "hang"

    def __init__(
        self, kind: str, pc: int | None = None, level: int | None = None, place: Place | None = None, detail: str = ""
    ) -> None:
        super().__init__(kind, HANGS[kind].format(detail=detail), pc, level, place)


class HostSegv(EmulatorStop):
    """The process touches host memory that is not there, at `address`."""

    outcome = "crash"

    def __init__(
        self, address: int, pc: int | None = None, level: int | None = None, place: Place | None = None
    ) -> None:
        super().__init__("host_segv", f"segmentation fault at host address {address:#x}", pc, level, place)
        self.address = address
