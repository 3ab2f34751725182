"""Translating: which instructions a block has, and how their bytes are read.

Source: QEMU, accel/tcg/translator.c (translator_loop, translator_ld), target/i386/tcg/translate.c.
"""

from __future__ import annotations

from collections.abc import Hashable

from mmu.tcg.access import Accesses
from mmu.tcg.blocks import NO_PAGE, Block, Blocks, Flags, segments
from mmu.tcg.instruction import Decoder, Flow, Instruction
from mmu.tcg.memory import MMIO
from mmu.tcg.softmmu import FETCH
from mmu.tcg.stops import EmulatorAbort
from mmu.tcg.trace import Block as BlockEvent
from mmu.tlb.table import PAGE, PAGE_MASK

MOST = 512  # instructions of a block
FETCHES = 2  # their comparator


class _CrossesPage(Exception):
    """An instruction that is not the block's first one reaches into the next page. Never leaves this file."""


class Reading:
    """The bytes of one block, from *pc* on, as they are read. `page0` and `page1` as of `Block`."""

    def __init__(self, accesses: Accesses, decoder: Decoder, pc: int) -> None:
        self.accesses, self.decoder, self.pc = accesses, decoder, pc
        self.first = pc & PAGE_MASK
        self._entry = entry = accesses.entry(pc, FETCH, None)
        self.page0 = NO_PAGE if entry.comparators[FETCHES] & MMIO else entry.pa
        self.page1 = NO_PAGE
        self.straddles = False  # from RAM into device memory
        self.final = False  # the instruction that does is the block's last one
        self._host = b"" if self.page0 == NO_PAGE else accesses.memory.read(self.page0 + pc % PAGE, PAGE - pc % PAGE)

    def instruction(self, va: int, number: int) -> tuple[bytes, Instruction]:
        """The instruction at *va*, the *number*-th from 0. Raises _CrossesPage, GuestFault, EmulatorStop."""
        at = va - self.pc
        if self.page0 != NO_PAGE and at + self.decoder.longest <= len(self._host):
            code = self._host[at : at + self.decoder.longest]
            found = self.decoder.decode(code)
            return code[: found.length], found
        known = b""
        while size := self.decoder.unit(known):
            if number and va + len(known) + size - 1 & PAGE_MASK != va & PAGE_MASK:
                raise _CrossesPage
            known += self._unit(va + len(known), size)
        return known, self.decoder.decode(known)

    def _unit(self, va: int, size: int) -> bytes:
        at = va - self.pc
        if self.page0 == NO_PAGE:
            if self.straddles or (va + size - 1 ^ self.pc) & PAGE_MASK:
                return self.accesses.load(va, size, FETCH, None, "fetch")
            return self.accesses.fetch(va, size, self._entry)
        if at + size <= len(self._host):
            return self._host[at : at + size]
        return self._second_page(va, size)

    def _second_page(self, va: int, size: int) -> bytes:
        """A unit that reaches into the next page; in device memory, all of it is read the slow way."""
        accesses = self.accesses
        entry = accesses.entry(self.first + PAGE & (1 << 64) - 1, FETCH, None)
        if not entry.comparators[FETCHES] & MMIO:
            self.page1 = entry.pa
            self._host += accesses.memory.read(entry.pa, PAGE)
            return self._unit(va, size)
        if accesses.switches.second_page_mmio:
            accesses.touched = entry.pa
            raise EmulatorAbort("second_page")
        self.page0, self.straddles = NO_PAGE, True
        self.final = not accesses.switches.straddle_final_insn
        return self._unit(va, size)


class Translator:
    def __init__(self, accesses: Accesses, blocks: Blocks, decoder: Decoder) -> None:
        self.accesses, self.blocks, self.decoder = accesses, blocks, decoder

    def translate(self, pc: int, mode: Hashable, flags: Flags, alone: bool) -> Block:
        """A new block at *pc*, in every place where it will be looked for. *alone*: of one instruction, since the one
        before put off interrupts."""
        reading = Reading(self.accesses, self.decoder, pc)
        oneshot = reading.page0 == NO_PAGE
        if oneshot:
            flags = flags._replace(most=1)
        limit = flags.most or MOST
        instructions, code = self._instructions(reading, 1 if alone else limit)
        if reading.final:
            limit = 1
        registered = not (oneshot and self.accesses.switches.oneshot_unregistered)
        block = self._block(reading, mode, flags, limit, registered, instructions, code)
        self.blocks.add(block)
        self.accesses.trace.append(
            BlockEvent("tb", pc, len(instructions), block.page0, block.page1, block.in_ram))
        return block

    def _block(
        self, reading: Reading, mode: Hashable, flags: Flags, limit: int, registered: bool,
        instructions: tuple[Instruction, ...], code: bytes,
    ) -> Block:  # fmt: skip
        offsets, at = [], 0
        for i in instructions:
            offsets.append(at)
            at += i.length
        return Block(
            reading.pc, mode, flags, instructions, code, reading.page0, reading.page1, limit,
            self.blocks.new_places(len(instructions), registered), (*offsets, at), segments(instructions))

    def _instructions(self, reading: Reading, limit: int) -> tuple[tuple[Instruction, ...], bytes]:
        found: list[Instruction] = []
        code = b""
        while len(found) < limit:
            try:
                more, instruction = reading.instruction(reading.pc + len(code), len(found))
            except _CrossesPage:
                break
            code += more
            found.append(instruction)
            if self._ends(reading, instruction, reading.pc + len(code)):
                break
        return tuple(found), code

    def _ends(self, reading: Reading, instruction: Instruction, following: int) -> bool:
        """Is *instruction* the block's last one, whatever the limit?"""
        switches = self.accesses.switches
        if instruction.flow is not Flow.NEXT or (instruction.io and io_ends(switches.policy, switches.icount)):
            return True
        if reading.straddles:
            return reading.final or following & PAGE_MASK != reading.first + PAGE
        return following & PAGE_MASK != reading.first


def io_ends(policy: str, icount: bool) -> bool:
    """Must an instruction that is marked as I/O be the last of its block?"""
    return policy != "P0" or icount
