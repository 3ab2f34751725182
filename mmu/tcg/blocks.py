"""Translation blocks: runs of instructions that are translated together, and the places where they are found again.

Source: QEMU, accel/tcg/cpu-exec.c (tb_lookup, tb_add_jump), translate-all.c (tb_gen_code), tb-maint.c.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

from mmu.tcg.access import HostPc
from mmu.tcg.instruction import Instruction
from mmu.tlb.table import PAGE, PAGE_MASK

NO_PAGE = -1  # device memory, or no second page
HOST_CODE = 0x7F00_0000_0000  # made up: where the code that blocks become begins


class Flags(NamedTuple):
    """How a block is translated. `most`: its instructions, 0: as many as fit. `serial`: no other CPU runs meanwhile."""

    most: int = 0
    serial: bool = False
    no_interrupts: bool = False
    no_links: bool = False


@dataclass(eq=False, slots=True)
class Block:
    """`page0`, `page1`: physical pages of its code, NO_PAGE: device memory, or no second page.

    `limit`: how many instructions it could have had. `links`: blocks that its two exits to known addresses jump to.
    `code` is what was read when it was translated.
    """

    pc: int
    mode: Hashable
    flags: Flags
    instructions: tuple[Instruction, ...]
    code: bytes
    page0: int
    page1: int
    limit: int
    places: tuple[HostPc, ...]
    offsets: tuple[int, ...]
    segments: tuple[tuple[int, int], ...] = ()
    valid: bool = True
    links: dict[int, Block] = field(default_factory=dict)

    @property
    def in_ram(self) -> bool:
        return self.page0 != NO_PAGE


def segments(instructions: tuple[Instruction, ...]) -> tuple[tuple[int, int], ...]:
    """(first, count) of instructions to run at a time: those that need attention alone, the others together."""
    out: list[tuple[int, int]] = []
    for n, i in enumerate(instructions):
        if out and not i.alone and not instructions[n - 1].alone:
            out[-1] = out[-1][0], out[-1][1] + 1
        else:
            out.append((n, 1))
    return tuple(out)


class Blocks:
    """All blocks that can be found: by physical address, and quickly by virtual address."""

    def __init__(self, keep_all: bool) -> None:
        """*keep_all*: blocks of device memory are kept in the jump cache and linked (straddle_jump_cache)."""
        self._keep_all = keep_all
        self._table: dict[tuple[int, int, Hashable, Flags], Block] = {}
        self._jumps: dict[int, Block] = {}
        self._pages: dict[int, set[Block]] = {}  # physical page -> blocks with code there
        self.translated = 0

    def reachable(self, block: Block) -> bool:
        """May it be entered without looking at its code again?"""
        return block.in_ram or self._keep_all

    # -- finding ------------------------------------------------------------------------------------

    def by_address(self, pc: int, mode: Hashable, flags: Flags) -> Block | None:
        """From the jump cache."""
        block = self._jumps.get(pc)
        if block is None or not block.valid or block.mode != mode or block.flags != flags:
            return None
        return block

    def by_page(self, pc: int, page: int, mode: Hashable, flags: Flags) -> Block | None:
        """By physical page; the second page of what is found is still to be compared."""
        return self._table.get((pc, page, mode, flags))

    def remember(self, block: Block) -> None:
        """In the jump cache."""
        if self.reachable(block):
            self._jumps[block.pc] = block

    def link(self, block: Block, way: int, to: Block) -> None:
        """From now on the exit *way* of *block* goes to *to* directly. Not when that spans two pages: the second may
        be mapped anew."""
        if block.valid and to.page1 == NO_PAGE and self.reachable(to):
            block.links[way] = to

    # -- adding and removing ------------------------------------------------------------------------

    def new_places(self, count: int, registered: bool) -> tuple[HostPc, ...]:
        """Where the code of *count* instructions is on the host."""
        self.translated += 1
        base = HOST_CODE + self.translated * 0x10000
        return tuple(HostPc(base + n * 0x40, registered) for n in range(count))

    def add(self, block: Block) -> None:
        if block.in_ram:
            self._table[block.pc, block.page0, block.mode, block.flags] = block
            for page in {block.page0, block.page1} - {NO_PAGE}:
                self._pages.setdefault(page, set()).add(block)

    def has_code(self, pa: int) -> bool:
        return pa & PAGE_MASK in self._pages

    def stored(self, pa: int, size: int) -> list[Block]:
        """Blocks whose code a store to physical *pa*..*pa*+*size*-1, in one page, has changed. They are gone."""
        page = pa & PAGE_MASK
        gone = [b for b in self._pages.get(page, ()) if self._overlaps(b, page, pa % PAGE, size)]
        for block in gone:
            self._remove(block)
        return gone

    def _overlaps(self, block: Block, page: int, at: int, size: int) -> bool:
        start = block.pc % PAGE if page == block.page0 else block.pc % PAGE - PAGE
        return start < at + size and at < start + len(block.code)

    def _remove(self, block: Block) -> None:
        block.valid = False
        self._table.pop((block.pc, block.page0, block.mode, block.flags), None)
        for page in {block.page0, block.page1} - {NO_PAGE}:
            left = self._pages[page]
            left.discard(block)
            if not left:
                del self._pages[page]

    def flush_jumps(self, page: int | None) -> None:
        """Forget the jump cache; of a *page*, those that begin there or in the page before, which may reach into it."""
        if page is None:
            self._jumps.clear()
            return
        near = (page, page - PAGE & PAGE_MASK)
        self._jumps = {pc: block for pc, block in self._jumps.items() if pc & PAGE_MASK not in near}

    def clear(self) -> None:
        for blocks in self._pages.values():
            for block in blocks:
                block.valid = False
        self._table.clear()
        self._pages.clear()
        self._jumps.clear()
