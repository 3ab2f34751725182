"""The big lock and exclusive sections, as state machines: nothing waits, what would wait for ever is raised.

One CPU runs; another one can be declared to wait for the big lock inside a block (`Switches.peer_waits_for_lock`).
Source: QEMU, system/cpus.c (bql_lock), cpu-common.c (start_exclusive, cpu_exec_start, cpu_exec_end).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmu.tcg.signals import Signal
from mmu.tcg.stops import Deadlock, EmulatorAbort
from mmu.tcg.switches import Switches
from mmu.tcg.trace import Exclusive, Lock, Recorder

TAKEN, RELEASED = Lock("lock", "+"), Lock("lock", "-")


class Hold:
    """The big lock for the length of a block. What ends the emulator ends it with the lock as it is."""

    __slots__ = ("_locks", "_take")

    def __init__(self, locks: Locks, take: bool) -> None:
        self._locks, self._take = locks, take

    def __enter__(self) -> None:
        if self._take:
            self._locks.take()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._take and (kind is None or issubclass(kind, Signal)):
            self._locks.release()


class Locks:
    """`depth`: how often the lock is held (2 is an abort), `running`: inside a block, `exclusive`: nesting."""

    def __init__(self, switches: Switches, trace: Recorder) -> None:
        self.switches, self.trace = switches, trace
        self._hold, self._pass = Hold(self, True), Hold(self, False)
        self.reset()

    def reset(self) -> None:
        """A new process."""
        self.depth, self.deepest = 0, 0
        self.running, self.exclusive = False, 0

    # -- the big lock -------------------------------------------------------------------------------

    def take(self) -> None:
        """Raises EmulatorAbort when this thread has it."""
        if self.depth >= self.deepest:
            self.deepest = self.depth + 1
        if self.depth:
            raise EmulatorAbort("bql_relock")
        self.depth = 1
        self.trace.append(TAKEN)

    def release(self) -> None:
        self.depth = 0
        self.trace.append(RELEASED)

    def held(self) -> Hold:
        """Taken by the main loop."""
        return self._hold

    def for_access(self) -> Hold:
        """As the helpers of generated code do around an access to a device."""
        return self._hold if self.switches.double_lock or not self.depth else self._pass

    def if_needed(self) -> Hold:
        """As accesses to an address space do: never twice."""
        return self._pass if self.depth else self._hold

    # -- exclusive sections -------------------------------------------------------------------------

    def start_exclusive(self) -> None:
        """Wait until no other CPU is inside a block."""
        if self.exclusive:
            self.exclusive += 1
            return
        if self.running:
            if self.switches.setl_asserts:
                raise EmulatorAbort("exclusive_running")
            raise Deadlock("exclusive_self")
        if self.depth and self.switches.peer_waits_for_lock:
            raise Deadlock("exclusive_lock")
        self.exclusive = 1
        self.trace.append(Exclusive("excl", "begin"))

    def end_exclusive(self) -> None:
        self.exclusive -= 1
        if not self.exclusive:
            self.trace.append(Exclusive("excl", "end"))

    def exec_start(self) -> None:
        """The CPU is about to run blocks: it waits for the end of an exclusive section."""
        if self.exclusive:
            raise Deadlock("exclusive_nested")
        self.running = True

    def exec_end(self) -> None:
        self.running = False

    @contextmanager
    def for_update(self) -> Iterator[None]:
        """Around the update of a table entry without a host address: the others must stand still.

        Faulty (setl_exclusive_hang): the CPU asks for that while it counts as running itself. Fixed: it pauses first.
        Inside an exclusive section of its own that pause would never end (step_atomic_setl): it is not needed there.
        The big lock, when held, is let go meanwhile (but for excl_bql_deadlock).
        """
        pauses = not self.switches.setl_exclusive_hang and (not self.exclusive or self.switches.step_atomic_setl)
        lets_go = bool(self.depth) and not self.exclusive and not self.switches.excl_bql_deadlock
        if lets_go:
            self.release()
        if pauses:
            self.exec_end()
        self.start_exclusive()
        yield
        self.end_exclusive()
        if pauses:
            self.exec_start()
        if lets_go:
            self.take()
