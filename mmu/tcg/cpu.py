"""The main loop of an emulator: exceptions, interrupts, the next block, and what it does.

Source: QEMU, accel/tcg/cpu-exec.c (cpu_exec_loop, cpu_tb_exec, cpu_exec_step_atomic, helper_lookup_tb_ptr).
"""

from __future__ import annotations

import time
from typing import Any

from mmu.guest.stop import Delivered, Stop
from mmu.tcg.blocks import Block, Flags
from mmu.tcg.counters import Counters
from mmu.tcg.execution import LOOKUP, Execution
from mmu.tcg.guest import Guest
from mmu.tcg.signals import AtomicRequest, GuestEvent, GuestFault, RecompileRequest
from mmu.tcg.stops import Deadlock, EmulatorStop
from mmu.tcg.switches import Switches
from mmu.tcg.trace import Abort, AtomicExit, Interrupt, Recompile, Recorder
from mmu.tcg.trace import GuestFault as GuestFaultEvent
from mmu.tcg.translator import Translator
from mmu.types import Fault

TURNS = 256  # blocks between two looks at the clock
ROUNDS = 64  # of the main loop without a completed instruction or a delivered exception: it will never go on
Exit = tuple[Block, int]  # by which a block was left for an address that its translator knew


class Emulator(Execution):
    """One CPU in the model, run by run."""

    def __init__(self, guest: Guest, switches: Switches, space: Any, ports: Any, io: Any) -> None:
        super().__init__(guest, switches, space, ports, io)
        self.translator = Translator(self.accesses, self.blocks, guest.decoder)
        self.interrupts: list[tuple[int, int]] = []  # (after so many instructions, vector), in order
        self._next: Flags | None = None  # of the next block, whatever is usual
        self._deadline: float | None = None
        self._turns = 0

    # -- a run --------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The host may have changed memory: forget code and translations, and take over the memory map."""
        accesses = self.accesses
        self.trace = accesses.trace = accesses.memory.trace = accesses.locks.trace = Recorder()
        accesses.memory.take_over()
        accesses.tlb.forget()
        accesses.locks.reset()
        self.blocks.clear()
        accesses.can_do_io, accesses.walking, accesses.touched, accesses.walks = True, None, None, 0
        self.instructions, self.counts = 0, Counters()
        self._next, self.inhibited, self.pending = None, False, None
        self.guest.mode_changed()
        self.guest.resume()
        if self.io is not None:
            self.io.trace = self.trace
            self.io.take_over()

    def run(self, pc: int, limit: int, deadline: float | None, exceptions: int) -> Stop:
        """Until something stops the guest, or so many *exceptions* were delivered (0: any number). Raises EmulatorStop
        with the state of that moment."""
        self.begin()
        self.pc = pc
        self.guest.delivered.begin(exceptions)
        self.limit, self._deadline = limit, deadline
        self.accesses.locks.exec_start()
        try:
            stop = self._loop()
        except EmulatorStop as end:
            self._explain(end)
            raise
        finally:
            self.guest.write_pc(self.pc)
        self.accesses.locks.exec_end()
        return stop

    def _explain(self, end: EmulatorStop) -> None:
        """Say where the guest was, and in whose memory."""
        place = self.accesses.memory.space.place
        end.pc = self.pc if end.pc is None else end.pc
        if self.accesses.walking is not None:
            end.level, address = self.accesses.walking
            end.place = place(address)
        elif self.accesses.touched is not None:
            end.place = place(self.accesses.touched)
        self.trace.append(Abort("abort", end.kind, end.message))

    def raise_interrupt(self, vector: int, after: int) -> None:
        """In the next run, when *after* instructions have run."""
        if not 0 <= vector < 256 or after < 0:
            raise ValueError(f"vector must be in 0..255 and after at least 0, not {vector} and {after}")
        self.interrupts.append((after, vector))
        self.interrupts.sort()

    def counters(self) -> Counters:
        """Of the run so far."""
        c, (counts, bus, refused) = self.counts, self.trace.totals()
        c.instructions, c.walks = self.instructions, self.accesses.walks
        c.blocks, c.recompiles, c.atomic_exits = counts["tb"], counts["recompile"], counts["atomic_exit"]
        c.faults, c.interrupts, c.lock_depth = counts["fault"], counts["interrupt"], self.accesses.locks.deepest
        c.reads = {tag: n for (rw, tag), n in bus.items() if rw == "r"}
        c.writes = {tag: n for (rw, tag), n in bus.items() if rw == "w"}
        c.bus_errors = refused
        return c

    # -- the main loop ------------------------------------------------------------------------------

    def _loop(self) -> Stop:
        last: Exit | None = None
        idle, done = 0, -1
        while True:
            if self.accesses.memory.changed:
                self.accesses.take_over()
            entered = self._exception() or self._interrupt()
            if isinstance(entered, Stop):
                return entered
            if entered is not None:
                last, idle = None, 0
                if self.guest.delivered.note(entered):
                    return Stop("limit", self.pc)
            if self.limit and self.instructions >= self.limit:
                return Stop("limit", self.pc)
            if self._deadline is not None and time.monotonic() > self._deadline:
                return Stop("timeout", self.pc)
            idle, done = (idle + 1 if self.instructions == done else 0), self.instructions
            if idle > ROUNDS:
                raise Deadlock("livelock", detail=f"{ROUNDS} rounds without one")
            try:
                halted, last = self._round(last)
            except GuestFault as signal:
                self.pending, last, halted = (self.guest.exception_of(signal.fault), signal.fault), None, False
            except GuestEvent as signal:
                self.pending, last, halted = (signal.event, None), None, False
            self.leave()
            if (code := self._exited()) is not None:
                return Stop("exit", self.pc, code=code)
            if halted and not self._woken():
                return Stop("halt", self.pc)

    def _exception(self) -> Delivered | Stop | None:
        """One that the last block ended with."""
        if self.pending is None:
            return None
        (event, fault), self.pending = self.pending, None
        self.trace.append(GuestFaultEvent("fault", *self.guest.told(event)))
        with self.accesses.locks.held():
            return self._enter(event, fault)

    def _enter(self, event: Any, fault: Fault | None) -> Delivered | Stop:
        found = self.guest.enter(event, self.pc, fault)
        self.guest.mode_changed()
        if isinstance(found, Delivered):
            self.pc = found.handler
        return found

    def _interrupt(self) -> Delivered | Stop | None:
        """An external interrupt that is due and not masked."""
        if not self.interrupts or self.instructions < self.interrupts[0][0]:
            return None
        if self.inhibited or (self._next is not None and self._next.no_interrupts):
            return None
        event = self.guest.interrupt_event(self.interrupts[0][1])
        if event is None:
            return None
        _, vector = self.interrupts.pop(0)
        with self.accesses.locks.held():
            self.trace.append(Interrupt("interrupt", vector, self.pc))
            return self._enter(event, None)

    def _must_leave(self) -> bool:
        """Does the main loop want to see something before the next block?"""
        self._turns += 1
        if self._turns % TURNS == 0 and self._deadline is not None and time.monotonic() > self._deadline:
            return True
        if self.accesses.asked and self.guest.exited() is not None:
            return True
        due = bool(self.interrupts) and self.instructions >= self.interrupts[0][0]
        return due or self.accesses.memory.changed or bool(self.limit and self.instructions >= self.limit)

    def _exited(self) -> int | None:
        """Has a device ended the run?"""
        asked, self.accesses.asked = self.accesses.asked, False
        return self.guest.exited() if asked else None

    def _woken(self) -> bool:
        """A halted CPU waits for its next interrupt, if there is to be one."""
        if not self.interrupts or self.guest.interrupt_event(self.interrupts[0][1]) is None:
            return False
        self.interrupts[0] = self.instructions, self.interrupts[0][1]
        return True

    def _round(self, last: Exit | None) -> tuple[bool, Exit | None]:
        """Find or translate a block, run it and those that follow from it. (Halted?, the exit to be linked.)"""
        flags, self._next = self._next or self.usual(), None
        try:
            block = self.find(flags)
            if block is None:
                block = self.translator.translate(self.pc, self.mode(), flags, self.inhibited)
                self.blocks.remember(block)
            if last is not None:
                self.blocks.link(*last, block)
            return self._chain(block)
        except RecompileRequest:
            self._recompile()
        except AtomicRequest:
            self.trace.append(AtomicExit("atomic_exit", self.pc))
            self._step_alone()
        return False, None

    # -- generated code -----------------------------------------------------------------------------

    def _chain(self, block: Block) -> tuple[bool, Exit | None]:
        """Blocks as long as each leads to the next one by itself."""
        while True:
            way = self.execute(block)
            if way is None:  # something that the main loop has to see to
                self.leave()
                return self.halted, None
            following = self._lookup() if way == LOOKUP else block.links.get(way)
            if following is None or not following.valid or self._must_leave():
                self.leave()
                return False, None if way == LOOKUP else (block, way)
            self.counts.chained += 1
            block = following

    def _lookup(self) -> Block | None:
        """The helper that looks for the next block without going back to the main loop."""
        self.counts.lookups += 1
        if not self.switches.lookup_tb_can_do_io:
            self.accesses.can_do_io = True
        self._place = None
        try:
            return self.find(self.usual())
        except GuestFault:
            self.leave()
            raise

    def _step_alone(self) -> None:
        """The instruction, while all other CPUs stand still."""
        locks = self.accesses.locks
        self.leave()
        locks.exec_end()
        locks.start_exclusive()
        locks.running = True
        flags = Flags(most=1, serial=True, no_links=True)
        try:
            block = self.find(flags)
            if block is None:
                block = self.translator.translate(self.pc, self.mode(), flags, self.inhibited)
            self.execute(block)
        except RecompileRequest:
            self._recompile()
        except GuestFault as signal:
            self.pending = self.guest.exception_of(signal.fault), signal.fault
        self.leave()
        locks.exec_end()
        locks.end_exclusive()
        locks.exec_start()

    def _recompile(self) -> None:
        self.trace.append(Recompile("recompile", self.pc, 1))
        self._next = self.usual()._replace(most=1, no_interrupts=True)

