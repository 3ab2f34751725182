"""The main loop of an emulator: exceptions, interrupts, the next block, and what it does.

Source: QEMU, accel/tcg/cpu-exec.c (cpu_exec_loop, cpu_tb_exec, cpu_exec_step_atomic, helper_lookup_tb_ptr).
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import Any

from mmu.guest.stop import Delivered, Stop
from mmu.tcg.access import Accesses, HostPc
from mmu.tcg.blocks import NO_PAGE, Block, Blocks, Flags
from mmu.tcg.counters import Counters
from mmu.tcg.guest import Guest
from mmu.tcg.instruction import Flow, Instruction
from mmu.tcg.memory import MMIO
from mmu.tcg.signals import AtomicRequest, GuestEvent, GuestFault, RecompileRequest, Unsupported
from mmu.tcg.softmmu import FETCH, READ, WRITE
from mmu.tcg.stops import Deadlock, EmulatorStop
from mmu.tcg.switches import Switches
from mmu.tcg.trace import Abort, AtomicExit, Interrupt, Recompile, Recorder
from mmu.tcg.trace import GuestFault as GuestFaultEvent
from mmu.tcg.translator import Translator
from mmu.tlb.table import PAGE_MASK
from mmu.types import Fault

LOOKUP = -1  # how a block is left
TURNS = 256  # blocks between two looks at the clock
ROUNDS = 64  # of the main loop without a completed instruction or a delivered exception: it will never go on
Exit = tuple[Block, int]  # by which a block was left for an address that its translator knew


class Emulator:
    """One CPU in the model. `pc` is that of the instruction that runs, or is next."""

    def __init__(self, guest: Guest, switches: Switches, space: Any, ports: Any) -> None:
        self.guest, self.switches = guest, switches
        self.trace = Recorder()
        self.blocks = Blocks(switches.straddle_jump_cache)
        self.accesses = Accesses(
            space, ports, switches, guest.mmu, self.trace, self.blocks.flush_jumps, self._stored)
        self.translator = Translator(self.accesses, self.blocks, guest.decoder)
        self.pc = 0
        self.interrupts: list[tuple[int, int]] = []  # (after so many instructions, vector), in order
        self.instructions = 0
        self._counts = Counters()
        self._policy = "P0" if switches.io_must_be_last else switches.can_do_io
        self._parallel = switches.parallel and not switches.icount
        self._next: Flags | None = None  # of the next block, whatever is usual
        self._inhibited = False
        self._instruction = Instruction(1)
        self._place: HostPc | None = None  # of the instruction in generated code
        self._halted = False
        self._atomic = False  # its first access is still to come
        self._limit, self._turns = 0, 0
        self._deadline: float | None = None
        self._pending: tuple[Any, Fault | None] | None = None

    # -- a run --------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The host may have changed memory: forget code and translations, and take over the memory map."""
        accesses = self.accesses
        self.trace = accesses.trace = accesses.memory.trace = accesses.locks.trace = Recorder()
        accesses.memory.take_over()
        accesses.tlb.flush()
        accesses.locks.reset()
        self.blocks.clear()
        accesses.can_do_io, accesses.walking, accesses.touched, accesses.walks = True, None, None, 0
        self.instructions, self._counts = 0, Counters()
        self._next, self._inhibited, self._pending = None, False, None
        self.guest.mode_changed()

    def run(self, pc: int, limit: int, deadline: float | None) -> tuple[Stop, list[Delivered]]:
        """Until something stops the guest. Raises EmulatorStop with the state of that moment."""
        self.begin()
        self.pc = pc
        delivered: list[Delivered] = []
        self._limit, self._deadline = limit, deadline
        self.accesses.locks.exec_start()
        try:
            stop = self._loop(delivered)
        except EmulatorStop as end:
            self._explain(end)
            raise
        finally:
            self.guest.write_pc(self.pc)
        self.accesses.locks.exec_end()
        return stop, delivered

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
        c, counts, bus = self._counts, self.trace.counts, self.trace.bus
        c.instructions, c.walks = self.instructions, self.accesses.walks
        c.blocks, c.recompiles, c.atomic_exits = counts["tb"], counts["recompile"], counts["atomic_exit"]
        c.faults, c.interrupts, c.lock_depth = counts["fault"], counts["interrupt"], self.accesses.locks.deepest
        c.reads = {tag: n for (rw, tag), n in bus.items() if rw == "r"}
        c.writes = {tag: n for (rw, tag), n in bus.items() if rw == "w"}
        c.bus_errors = self.trace.bus_errors
        return c

    # -- the main loop ------------------------------------------------------------------------------

    def _loop(self, delivered: list[Delivered]) -> Stop:
        last: Exit | None = None
        idle, done = 0, -1
        while True:
            if self.accesses.memory.changed:
                self.accesses.take_over()
            if self._pending is not None:
                entered: Delivered | Stop | None = self._exception()
            else:
                entered = self._interrupt()
            if isinstance(entered, Stop):
                return entered
            if entered is not None:
                delivered.append(entered)
                last, idle = None, 0
            if self._limit and self.instructions >= self._limit:
                return Stop("limit", self.pc)
            if self._deadline is not None and time.monotonic() > self._deadline:
                return Stop("timeout", self.pc)
            idle, done = (idle + 1 if self.instructions == done else 0), self.instructions
            if idle > ROUNDS:
                raise Deadlock("livelock", detail=f"{ROUNDS} rounds without one")
            try:
                halted, last = self._round(last)
            except GuestFault as signal:
                self._pending, last, halted = (self.guest.exception_of(signal.fault), signal.fault), None, False
            except GuestEvent as signal:
                self._pending, last, halted = (signal.event, None), None, False
            except Unsupported as signal:
                self.pc = signal.pc
                return Stop("unsupported", self.pc, detail=signal.detail)
            self._leave()
            if halted and not self._woken():
                return Stop("halt", self.pc)

    def _exception(self) -> Delivered | Stop:
        assert self._pending is not None
        (event, fault), self._pending = self._pending, None
        self.trace.append(GuestFaultEvent("fault", *self.guest.told(event)))
        with self.accesses.locks.held():
            found = self.guest.enter(event, self.pc, fault)
        self.guest.mode_changed()
        if isinstance(found, Delivered):
            self.pc = found.handler
        return found

    def _interrupt(self) -> Delivered | Stop | None:
        """An external interrupt that is due and not masked."""
        if not self.interrupts or self.instructions < self.interrupts[0][0]:
            return None
        if self._inhibited or (self._next is not None and self._next.no_interrupts):
            return None
        event = self.guest.interrupt_event(self.interrupts[0][1])
        if event is None:
            return None
        _, vector = self.interrupts.pop(0)
        with self.accesses.locks.held():
            self.trace.append(Interrupt("interrupt", vector, self.pc))
            found = self.guest.enter(event, self.pc, None)
        self.guest.mode_changed()
        if isinstance(found, Delivered):
            self.pc = found.handler
        return found

    def _must_leave(self) -> bool:
        """Does the main loop want to see something before the next block?"""
        self._turns += 1
        if self._turns % TURNS == 0 and self._deadline is not None and time.monotonic() > self._deadline:
            return True
        due = bool(self.interrupts) and self.instructions >= self.interrupts[0][0]
        return due or self.accesses.memory.changed or bool(self._limit and self.instructions >= self._limit)

    def _woken(self) -> bool:
        """A halted CPU waits for its next interrupt, if there is to be one."""
        if not self.interrupts or self.guest.interrupt_event(self.interrupts[0][1]) is None:
            return False
        self.interrupts[0] = self.instructions, self.interrupts[0][1]
        return True

    def _round(self, last: Exit | None) -> tuple[bool, Exit | None]:
        """Find or translate a block, run it and those that follow from it. (Halted?, the exit to be linked.)"""
        flags, self._next = self._next or self._usual(), None
        try:
            block = self._find(flags)
            if block is None:
                block = self.translator.translate(self.pc, self._mode(), flags, self._inhibited)
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

    def _usual(self) -> Flags:
        return Flags(serial=not self._parallel)

    def _mode(self) -> Hashable:
        return self.guest.mode(), self._inhibited

    def _find(self, flags: Flags) -> Block | None:
        """A block at `pc` that exists. A fetch may walk, from nowhere in generated code. Raises GuestFault."""
        mode = self._mode()
        block = self.blocks.by_address(self.pc, mode, flags)
        if block is not None:
            return block
        entry = self.accesses.entry(self.pc, FETCH, None)
        if entry.comparators[2] & MMIO:
            return None
        block = self.blocks.by_page(self.pc, entry.pa, mode, flags)
        if block is None:
            return None
        if block.page1 != NO_PAGE:
            second = self.accesses.entry((self.pc & PAGE_MASK) + 4096 & (1 << 64) - 1, FETCH, None)
            if second.pa != block.page1 or second.comparators[2] & MMIO:
                return None
        self.blocks.remember(block)
        return block

    # -- generated code -----------------------------------------------------------------------------

    def _leave(self) -> None:
        """Back in the main loop."""
        self.accesses.can_do_io = True

    def _chain(self, block: Block) -> tuple[bool, Exit | None]:
        """Blocks as long as each leads to the next one by itself."""
        while True:
            way = self._execute(block)
            if way is None:  # something that the main loop has to see to
                self._leave()
                return self._halted, None
            following = self._lookup() if way == LOOKUP else block.links.get(way)
            if following is None or not following.valid or self._must_leave():
                self._leave()
                return False, None if way == LOOKUP else (block, way)
            self._counts.chained += 1
            block = following

    def _lookup(self) -> Block | None:
        """The helper that looks for the next block without going back to the main loop."""
        self._counts.lookups += 1
        if not self.switches.lookup_tb_can_do_io:
            self.accesses.can_do_io = True
        self._place = None
        try:
            return self._find(self._usual())
        except GuestFault:
            self._leave()
            raise

    def _execute(self, block: Block) -> int | None:
        """Run *block*. Returns by which exit to a known address it was left (0, 1), LOOKUP by the helper that looks
        for the next one, None to the main loop."""
        stepper, guest, accesses = self.guest.stepper, self.guest, self.accesses
        stepper.show(stepper.image(block.pc, block.code))
        self._inhibited = self._halted = False
        for first, count in block.segments:
            if self._limit and self.instructions + count > self._limit:
                count = self._limit - self.instructions
            self._instruction = instruction = block.instructions[first]
            self._place, self.pc = block.places[first], block.pc + block.offsets[first]
            accesses.can_do_io = self._may_io(block, first + count - 1)
            self._atomic = instruction.atomic and not block.flags.serial
            if instruction.special:
                code = block.code[block.offsets[first] : block.offsets[first + 1]]
                following = guest.special(instruction, self.pc, code, accesses)
                if following is not None:
                    guest.write_pc(following)
                    return self._end(block, first + 1)
            error = stepper.run(self.pc, count)
            if error or stepper.interrupt is not None:
                self._pending = guest.stopped(error, stepper.interrupt), None
                self.pc = guest.read_pc()
                self.instructions += 1
                return None
            self.instructions += count
            if instruction.special:
                guest.after(instruction, accesses)
            if not block.valid or (self._limit and self.instructions >= self._limit):
                break
        return self._end(block, first + count)

    def _may_io(self, block: Block, n: int) -> bool:
        """May the *n*-th instruction do I/O?"""
        switches = self.switches
        if self._policy == "P0" and not switches.icount:
            return True
        if block.limit == 1:
            livelock = switches.atomic_step_livelock and block.flags.no_links
            return not livelock and not (block.oneshot and switches.oneshot_unregistered)
        if self._policy == "P2":
            return n == len(block.instructions) - 1
        return block.instructions[n].io or n == block.limit - 1

    def _end(self, block: Block, ran: int) -> int | None:
        """Where control goes after the first *ran* instructions."""
        self.pc = self.guest.read_pc()
        instruction = block.instructions[ran - 1]
        self._inhibited, self._halted = instruction.inhibit, instruction.flow is Flow.HALT
        if ran < len(block.instructions) or not block.valid or block.flags.no_links:
            return None
        if instruction.flow in (Flow.MAIN_LOOP, Flow.HALT):
            return None
        if instruction.flow is Flow.INDIRECT or (self.pc ^ block.pc) & PAGE_MASK:
            return LOOKUP
        return int(self.pc != block.pc + len(block.code))

    def _step_alone(self) -> None:
        """The instruction, while all other CPUs stand still."""
        locks = self.accesses.locks
        self._leave()
        locks.exec_end()
        locks.start_exclusive()
        locks.running = True
        flags = Flags(most=1, serial=True, no_links=True)
        try:
            block = self._find(flags)
            if block is None:
                block = self.translator.translate(self.pc, self._mode(), flags, self._inhibited)
            self._execute(block)
        except RecompileRequest:
            self._recompile()
        except GuestFault as signal:
            self._pending = self.guest.exception_of(signal.fault), signal.fault
        self._leave()
        locks.exec_end()
        locks.end_exclusive()
        locks.exec_start()

    def _recompile(self) -> None:
        self.trace.append(Recompile("recompile", self.pc, 1))
        self._next = self._usual()._replace(most=1, no_interrupts=True)

    # -- what instructions do -----------------------------------------------------------------------

    def read(self, va: int, size: int) -> bytes:
        """For the stepper: a load by the instruction that runs."""
        if self._atomic:
            self._atomic = False
            self.accesses.atomic(va, size, self._place)
        access = self.guest.kind(READ, va, self._instruction)
        return self.accesses.load(va, size, access, self._place)

    def write(self, va: int, size: int, value: int) -> None:
        if self._atomic:
            self._atomic = False
            self.accesses.atomic(va, size, self._place)
        access = self.guest.kind(WRITE, va, self._instruction)
        self.accesses.store(va, size, value, access, self._place)

    def _stored(self, pa: int, size: int) -> None:
        if self.blocks.has_code(pa):
            self._counts.invalidated += len(self.blocks.stored(pa, size))
