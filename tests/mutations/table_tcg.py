"""Mistakes in the model of an emulator: blocks, its TLB, pieces, the lock, walks. For switches: table_switches."""

from tests.mutations import Mutation

WALKS = ("tests/tcg/test_x86_walks.py",)
FETCH = ("tests/tcg/test_x86_fetch.py",)
UPDATES = ("tests/tcg/test_x86_updates.py",)
INTERRUPTS = ("tests/tcg/test_x86_interrupts.py",)
STRADDLE = ("tests/tcg/test_straddle.py",)
ATOMICS = ("tests/tcg/test_atomics.py",)
ARM = ("tests/tcg/test_arm64.py",)
IO = ("tests/tcg/test_io.py",)
TLB = ("tests/tcg/test_softmmu.py",)
TWIN = ("tests/tcg/test_twin.py",)
RELEASES = ("tests/tcg/test_releases.py",)
BLOCKS = ("tests/tcg/test_blocks.py",)

MUTATIONS = (
    Mutation(
        "tcg: a block goes on over the end of its page",
        "mmu/tcg/translator.py",
        "        return following & PAGE_MASK != reading.first\n",
        "        return False\n",
        FETCH,
    ),
    Mutation(
        "tcg: an instruction in mid-block crosses into the next page",
        "mmu/tcg/translator.py",
        "                raise _CrossesPage\n",
        "                pass\n",
        STRADDLE,
    ),
    Mutation(
        "tcg: a block of device memory has as many instructions as fit",
        "mmu/tcg/translator.py",
        "            flags = flags._replace(most=1)\n",
        "            flags = flags._replace(most=0)\n",
        STRADDLE,
    ),
    Mutation(
        "tcg: a page of device memory is found among the victims",
        "mmu/tlb/table.py",
        "victim.comparators[kind] == page:\n",
        "victim.comparators[kind] & HIT == page:\n",
        TLB,
    ),
    Mutation(
        "tcg: a flush of a page leaves the blocks that begin before it",
        "mmu/tcg/blocks.py",
        "        near = (page, page - PAGE & PAGE_MASK)\n",
        "        near = (page,)\n",
        ("tests/tcg/test_blocks.py",),
    ),
    Mutation(
        "tcg: a block that spans two pages is linked",
        "mmu/tcg/blocks.py",
        "        if block.valid and to.page1 == NO_PAGE and self.reachable(to):\n",
        "        if block.valid and self.reachable(to):\n",
        ("tests/tcg/test_blocks.py",),
    ),
    Mutation(
        "tcg: the second page of a block is not compared",
        "mmu/tcg/execution.py",
        "            if second.pa != block.page1 or second.comparators[2] & MMIO:\n",
        "            if second.comparators[2] & MMIO:\n",
        ("tests/tcg/test_blocks.py",),
    ),
    Mutation(
        "tcg: a store to code leaves its blocks",
        "mmu/tcg/execution.py",
        "            if self.blocks.has_code(at):\n",
        "            if False and self.blocks.has_code(at):\n",
        STRADDLE,
    ),
    Mutation(
        "tcg: a recompiled instruction keeps its block",
        "mmu/tcg/cpu.py",
        "        self._next = self.usual()._replace(most=1, no_interrupts=True)\n",
        "        self._next = self.usual()\n",
        WALKS,
    ),
    Mutation(
        "tcg: I/O is asked for before the block's last instruction",
        "mmu/tcg/execution.py",
        "            return n == len(block.instructions) - 1\n",
        "            return n == len(block.instructions) - 2\n",
        WALKS,
    ),
    Mutation(
        "tcg: an interrupt comes right after STI",
        "mmu/tcg/cpu.py",
        "        if self.inhibited or (self._next",
        "        if (self._next",
        INTERRUPTS,
    ),
    Mutation(
        "tcg: the lock is let go after an access that did not take it",
        "mmu/tcg/locks.py",
        "        if self._take and (kind is None",
        "        if (kind is None",
        INTERRUPTS,
    ),
    Mutation(
        "tcg: a lock stays held after a bus error",
        "mmu/tcg/locks.py",
        " or issubclass(kind, Signal)):",
        "):",
        ARM,
    ),
    Mutation(
        "tcg: an unaligned access is one piece",
        "mmu/tcg/access.py",
        " if size in NATURAL and not va % size else ",
        " if size in NATURAL else ",
        IO,
    ),
    Mutation(
        "tcg: the second page of an access is translated when its turn comes",
        "mmu/tcg/access.py",
        "        return [(va, first, room), (at, self.entry(at, access, ra), size - room)]\n",
        "        return ((a, self.entry(a, access, ra), n) for a, n in ((va, room), (at, size - room)))\n",
        IO,
    ),
    Mutation(
        "tcg: an unaligned access of 7.2 comes in pieces",
        "mmu/tcg/access.py",
        "        if not self.switches.io_around or not va % size:\n",
        "        if True:\n",
        IO,
    ),
    Mutation(
        "tcg: a TLB shrinks by what the last flush found",
        "mmu/tcg/softmmu.py",
        "        self._most = max(self._most, used)\n",
        "        self._most = used\n",
        TLB,
    ),
    Mutation(
        "tcg: a pair of registers is two accesses",
        "mmu/tcg/execution.py",
        "            self._join = 0 if self.switches.io_halves else instruction.join\n",
        "            self._join = 0\n",
        IO,
    ),
    Mutation(
        "tcg: 16 bytes are cut from the first byte on",
        "mmu/tcg/access.py",
        "    first = max(size - 8, 0)\n",
        "    first = size\n",
        IO,
    ),
    Mutation(
        "tcg: a misaligned atomic is made in place",
        "mmu/tcg/access.py",
        "        if va % size:\n",
        "        if False and va % size:\n",
        ATOMICS,
    ),
    Mutation(
        "tcg: a lost race for a table starts at the root",
        "mmu/tcg/walk_x86.py",
        "            above = () if entry.leaf else self.steps[:-1]\n",
        "            above = ()\n",
        UPDATES,
    ),
    Mutation(
        "tcg: a lost race for a leaf starts at its level",
        "mmu/tcg/walk_x86.py",
        "            above = () if entry.leaf else self.steps[:-1]\n",
        "            above = self.steps[:-1]\n",
        UPDATES,
    ),
    Mutation(
        "tcg: the flags of a leaf are written with 8 bytes",
        "mmu/tcg/walk_x86.py",
        "            return self._accesses.dispatch(address, 4, value, None, \"ptw\")\n",
        "            return self._accesses.dispatch(address, 8, value, None, \"ptw\")\n",
        UPDATES,
    ),
    Mutation(
        "tcg: an arm64 walk asks whether I/O is allowed",
        "mmu/tcg/walk_arm64.py",
        "            value, result = memory.dispatch(address, size, None, \"ptw\")\n",
        "            self._accesses._prepare(None)\n"
        "            value, result = memory.dispatch(address, size, None, \"ptw\")\n",
        ARM,
    ),
    Mutation(
        "tcg: a repeated arm64 walk reads all again",
        "mmu/tcg/walk_arm64.py",
        "        self.known[address] = old\n",
        "        self.known.clear()\n",
        ARM,
    ),
    Mutation(
        "tcg: TLBI by address does nothing",
        "mmu/tcg/arm64.py",
        "            accesses.tlb.flush_page(page | ",
        "            (page | ",
        ARM,
    ),
    Mutation(
        "tcg: code is looked for only where it is stored to",
        "mmu/tcg/execution.py",
        "for at in (pa, *self.accesses.memory.twins(pa)):",
        "for at in (pa,):",
        BLOCKS,
    ),
    Mutation(
        "tcg: MOVBE stores its bytes as they are",
        "mmu/tcg/decode_x86.py",
        'name == "movbe")',
        "False)",
        ("tests/tcg/test_twin.py", "-k", "movbe"),
    ),
    Mutation(
        "tcg: the old memory map is not kept for the rest of a block",
        "mmu/tcg/access.py",
        "        if memory.view is not memory.space.view and not memory.defers:\n",
        "        if memory.view is not memory.space.view:\n",
        IO,
    ),
    Mutation(
        "tcg: a page of code is its data too",
        "mmu/guest/stepper.py",
        "READ_WRITE, EXECUTE = 3, 4",
        "READ_WRITE, EXECUTE = 3, 5",
        TWIN,
    ),
    Mutation(
        "tcg: what an instruction did before it was left stays done",
        "mmu/guest/stepper.py",
        "            self._restore(uc, self._context)\n",
        "",
        ARM,
    ),
    Mutation(
        "tcg: 7.2 has the policy of 8.2",
        "mmu/tcg/releases.py",
        "    Change(\"can_do_io\", \"P1\", (8, 1, 2), (9, 1),",
        "    Change(\"can_do_io\", \"P1\", FIRST, (9, 1),",
        ("tests/tcg/test_switches.py",),
    ),
)
