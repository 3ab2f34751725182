"""Generated code: what a block does while it runs, instruction by instruction.

Source: QEMU, accel/tcg/translator.c (set_can_do_io), cpu-exec.c (tb_lookup).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from mmu.tcg.access import Accesses, HostPc
from mmu.tcg.blocks import NO_PAGE, Block, Blocks, Flags
from mmu.tcg.counters import Counters
from mmu.tcg.guest import Guest
from mmu.tcg.instruction import Flow, Instruction
from mmu.tcg.memory import MMIO, Memory
from mmu.tcg.softmmu import FETCH, READ, WRITE
from mmu.tcg.switches import Switches
from mmu.tcg.trace import Recorder
from mmu.tlb.table import PAGE, PAGE_MASK
from mmu.types import Access, Fault

if TYPE_CHECKING:
    from mmu.memory import AddressSpace

IMPLICIT = int(Access.IMPLICIT)

LOOKUP = -1  # how a block is left: by the helper that looks for the next one


class Execution:
    """The state of a CPU between and inside blocks. `pc` is that of the instruction that runs, or is next."""

    def __init__(self, guest: Guest, switches: Switches, space: Any, ports: Any, io: AddressSpace | None) -> None:
        """*io*: what IN and OUT reach."""
        self.guest, self.switches, self.stepper = guest, switches, guest.stepper
        self.trace = Recorder()
        self.blocks = Blocks(switches.straddle_jump_cache)
        self.accesses = Accesses(
            space, ports, switches, guest.mmu, self.trace, self.blocks.flush_jumps, self._stored)
        self.io = None if io is None else Memory(io, {"data": io.new_port()}, self.trace, False)
        self.pc, self.instructions = 0, 0
        self.accesses.tlb.now = lambda: self.instructions
        self.counts = Counters()
        self._policy = switches.policy
        self._parallel = switches.parallel and not switches.icount
        self.limit = 0  # instructions of a run
        self.inhibited = self.halted = False  # by the instruction before
        self.pending: tuple[Any, Fault | None] | None = None  # an exception to be delivered
        self._instruction = Instruction(1)
        self._place: HostPc | None = None  # of the instruction in generated code
        self._join = 0  # bytes of each of its accesses, where the engine makes parts of them
        self._loaded = self._parts = b""  # read for parts to come, written by parts so far
        self._atomic = False  # its first access is still to come

    # -- finding blocks -----------------------------------------------------------------------------

    def usual(self) -> Flags:
        return Flags(serial=not self._parallel)

    def mode(self) -> Hashable:
        return self.guest.mode(), self.inhibited

    def find(self, flags: Flags) -> Block | None:
        """A block at `pc` that exists. A fetch may walk, from nowhere in generated code. Raises GuestFault."""
        mode = self.mode()
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
            second = self.accesses.entry((self.pc & PAGE_MASK) + PAGE & (1 << 64) - 1, FETCH, None)
            if second.pa != block.page1 or second.comparators[2] & MMIO:
                return None
        self.blocks.remember(block)
        return block

    def leave(self) -> None:
        """Back in the main loop."""
        self.accesses.can_do_io, self.accesses.walking = True, None

    # -- running blocks -----------------------------------------------------------------------------

    def execute(self, block: Block) -> int | None:
        """Run *block*. Returns by which exit to a known address it was left (0, 1), LOOKUP by the helper that looks
        for the next one, None to the main loop."""
        stepper, guest, accesses = self.stepper, self.guest, self.accesses
        stepper.show(stepper.image(block.pc, block.code))
        self.inhibited = self.halted = False
        for first, count in block.segments:
            if self.limit and self.instructions + count > self.limit:
                count = self.limit - self.instructions
            self._instruction = instruction = block.instructions[first]
            self._place, self.pc = block.places[first], block.pc + block.offsets[first]
            accesses.can_do_io = self._may_io(block, first + count - 1)
            self._atomic = instruction.atomic and not block.flags.serial
            self._join = 0 if self.switches.io_halves else instruction.join
            self._loaded = self._parts = b""
            if instruction.special:
                code = block.code[block.offsets[first] : block.offsets[first + 1]]
                following = guest.special(instruction, self.pc, code, accesses)
                if following is not None:
                    self.instructions += 1
                    guest.write_pc(following)
                    return self._end(block, first + 1)
            error = stepper.run(self.pc, count)
            if error or stepper.interrupt is not None:
                self.pending = guest.stopped(error, stepper.interrupt), None
                self.pc = guest.read_pc()
                self.instructions += 1
                return None
            self.instructions += count
            if instruction.special:
                guest.after(instruction, accesses)
            if not block.valid or (self.limit and self.instructions >= self.limit):
                break
        return self._end(block, first + count)

    def _may_io(self, block: Block, n: int) -> bool:
        """May the *n*-th instruction do I/O?"""
        switches = self.switches
        if self._policy == "P0" and not switches.icount:
            return True
        if block.limit == 1:
            livelock = switches.atomic_step_livelock and block.flags.no_links
            return not livelock and block.places[n].registered
        if self._policy == "P2":
            return n == len(block.instructions) - 1
        return block.instructions[n].io or n == block.limit - 1

    def _end(self, block: Block, ran: int) -> int | None:
        """Where control goes after the first *ran* instructions."""
        self.pc = self.guest.read_pc()
        instruction = block.instructions[ran - 1]
        self.inhibited, self.halted = instruction.inhibit, instruction.flow is Flow.HALT
        if ran < len(block.instructions) or not block.valid or block.flags.no_links:
            return None
        if instruction.flow in (Flow.MAIN_LOOP, Flow.HALT):
            return None
        if instruction.flow is Flow.INDIRECT or (self.pc ^ block.pc) & PAGE_MASK:
            return LOOKUP
        return int(self.pc != block.pc + len(block.code))

    # -- what instructions do -----------------------------------------------------------------------

    def read(self, va: int, size: int) -> bytes:
        """For the stepper: a load by the instruction that runs."""
        if self._loaded:  # with the part before
            found, self._loaded = self._loaded[:size], self._loaded[size:]
            return found
        if self._atomic:
            self._atomic = False
            self.accesses.atomic(va, size, self._place)
        whole = max(size, self._join)
        access = self.guest.kind(READ, va, self._instruction)
        data = self.accesses.load(va, whole, access, self._place)
        self._loaded = data[size:]
        return data[:size]

    def touch(self, va: int) -> None:
        """Translate for a load, and no more."""
        self.accesses.entry(va, READ, self._place)

    def write(self, va: int, size: int, value: int) -> None:
        """For the stepper: a store. Parts of one are put together first."""
        if self._instruction.turns:
            value = int.from_bytes(value.to_bytes(size, "little"), "big")
        if size < self._join:
            self._parts += value.to_bytes(size, "little")
            if len(self._parts) < self._join:
                return
            va, size, value = va + size - self._join, self._join, int.from_bytes(self._parts, "little")
            self._parts = b""
        if self._atomic:
            self._atomic = False
            self.accesses.atomic(va, size, self._place)
        access = self.guest.kind(WRITE, va, self._instruction)
        self.accesses.store(va, size, value, access, self._place)

    def read_system(self, va: int, size: int) -> int:
        """A load of the CPU itself in the middle of an instruction, with a supervisor's rights."""
        return int.from_bytes(self.accesses.load(va, size, READ | IMPLICIT, self._place), "little")

    def port_in(self, port: int, size: int) -> int:
        """IN: ones where nobody answers. Its helper takes the lock where it is not held."""
        assert self.io is not None
        with self.accesses.locks.if_needed():
            value, result = self.io.dispatch(port, size, None, "data")
        self.accesses.see_changes()
        return (1 << 8 * size) - 1 if result else value

    def port_out(self, port: int, size: int, value: int) -> int:
        """OUT. Returns 0."""
        assert self.io is not None
        with self.accesses.locks.if_needed():
            self.io.dispatch(port, size, value & (1 << 8 * size) - 1, "data")
        self.accesses.see_changes()
        return 0

    def _stored(self, pa: int, size: int) -> None:
        for at in (pa, *self.accesses.memory.twins(pa)):
            if self.blocks.has_code(at):
                self.counts.invalidated += len(self.blocks.stored(at, size))
