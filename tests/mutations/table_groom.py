"""Mistakes in moving memory, in snapshots, in grooming and in the pytest plugin."""

from tests.mutations import Mutation

TABLES = ("tests/test_tables_move.py",)
MACHINE = ("tests/test_machine.py", "-k", "one_level_alone")
SAME = ("tests/groom/test_moving.py", "-k", "program_that or checksum-window")
FIND = ("tests/groom/test_find.py",)
TESTING = ("tests/plugin/test_testing.py",)


def snapshot(word: str) -> tuple[str, ...]:
    return ("tests/test_snapshot.py", "-k", word)


def topology(word: str) -> tuple[str, ...]:
    return ("tests/cxl/test_snapshot.py", "-k", word)


def moving(word: str) -> tuple[str, ...]:
    return ("tests/groom/test_moving.py", "-k", word)


def plugin(word: str) -> tuple[str, ...]:
    return ("tests/plugin/test_plugin.py", "-k", word)


MUTATIONS = (
    Mutation(
        "move: everything goes to the start of the new place",
        "mmu/radix/relocate.py",
        "return address - move.base + move.to",
        "return move.to",
        moving("buffer"),
    ),
    Mutation(
        "move: tables below a moved one are looked up in the old place",
        "mmu/radix/relocate.py",
        "rest.append((to, depth + 1))",
        "rest.append((old, depth + 1))",
        moving("alias"),
    ),
    Mutation(
        "move: pages do not follow",
        "mmu/radix/relocate.py",
        "Kind.LEAF: level.leaf if pages else None",
        "Kind.LEAF: None",
        moving("alias"),
    ),
    Mutation(
        "move: a refusal leaves the entries changed before it",
        "mmu/radix/relocate.py",
        "for slot, level, form, old in reversed(done):",
        "for slot, level, form, old in ():",
        moving("cannot_be_changed"),
    ),
    Mutation(
        "move: an entry in ROM counts as changed",
        "mmu/radix/relocate.py",
        "if result == MemTxResult.OK and form.target(self._swap(after, width)) == to:",
        "if result == MemTxResult.OK:",
        TABLES,
    ),
    Mutation(
        "move: the copy of a table that refers to itself refers to the old one",
        "mmu/radix/relocate.py",
        "root = moved(moves, self.root)",
        "root = self.root",
        TABLES,
    ),
    Mutation(
        "move: the frames of levels are all from one place",
        "mmu/memory/frames.py",
        "return self.levels.get(number, self.rest)()",
        "return self.rest()",
        MACHINE,
    ),
    Mutation(
        "move: frames are taken in another order than tables are made",
        "mmu/radix/plan.py",
        "        if node.address is None:\n            yield node\n        for child in node.children.values():\n"
        "            yield from self.missing(child)\n",
        "        for child in node.children.values():\n            yield from self.missing(child)\n"
        "        if node.address is None:\n            yield node\n",
        MACHINE,
    ),
    Mutation(
        "snapshot: what was written since stays",
        "mmu/snapshot.py",
        "            memory.write(at, bytes(n))",
        "            pass",
        snapshot("takes_back"),
    ),
    Mutation(
        "snapshot: wide registers are not restored",
        "mmu/guest/state.py",
        "        cpu.engine.transfer(_number(cpu, prefix, name), ffi.new(\"char[]\", data), write=True)",
        "        pass",
        snapshot("goes_on_from and 17"),
    ),
    Mutation(
        "snapshot: the privilege of x86 is not restored",
        "mmu/guest/state.py",
        '    put(blob, places.hflags, 4, state["mode"])\n',
        "",
        snapshot("user_level"),
    ),
    Mutation(
        "snapshot: descriptor tables are not restored",
        "mmu/guest/state.py",
        'cpu.set_structure(_number(cpu, "X86", name), X86_TABLE, *state["tables"][name])',
        "pass",
        snapshot("user_level"),
    ),
    Mutation(
        "snapshot: the block after a hole is taken for the hole",
        "mmu/memory/resident.py",
        "if size and start + size == at:",
        "if size:",
        snapshot("over_a_file or sparse"),
    ),
    Mutation(
        "snapshot: what is in files counts as untouched",
        "mmu/memory/resident.py",
        "files = sorted(memory.files, key=lambda f: f.offset)",
        "files: list[MappedFile] = []",
        snapshot("over_a_file"),
    ),
    Mutation(
        "snapshot: a file that took the name is asked for holes",
        "mmu/memory/resident.py",
        "if (info.st_dev, info.st_ino) != file.inode:",
        "if False:",
        snapshot("holes"),
    ),
    Mutation(
        "snapshot: damaged contents are taken",
        "mmu/snapshot.py",
        "if zlib.crc32(contents) != crc:",
        "if False:",
        snapshot("damaged_file"),
    ),
    Mutation(
        "snapshot: frames of tables that are there are handed out again",
        "mmu/machine.py",
        "frames.reserve(node.address)",
        "pass",
        snapshot("fresh_frames"),
    ),
    Mutation(
        "snapshot: a damaged CPU is half restored",
        "mmu/snapshot.py",
        "        state.give(machine.cpu, before)\n",
        "",
        snapshot("damaged_cpu"),
    ),
    Mutation(
        "snapshot: decoders are programmed with what was written after they committed",
        "cxl/snapshot.py",
        "if n in latched:",
        "if False:",
        topology("rewritten"),
    ),
    Mutation(
        "snapshot: the device files of the machine are written by its copy",
        "cxl/snapshot.py",
        "dataclasses.replace(backing, path=None)",
        "backing",
        topology("files"),
    ),
    Mutation(
        "snapshot: accepted capacity is forgotten",
        "cxl/snapshot.py",
        "            topology.device(name).accept(dpa, size)",
        "            topology.device(name)",
        topology("dynamic"),
    ),
    Mutation(
        "groom: the first granule counts whole",
        "cxl/groom/find.py",
        "bytes_[ends - grains] -= (lows % grain).astype(np.int64)",
        "bytes_[ends - grains] -= 0",
        FIND,
    ),
    Mutation(
        "groom: an exchange is a write only",
        "cxl/groom/cost.py",
        'entry.kind != "write"',
        'entry.kind == "read"',
        FIND,
    ),
    Mutation(
        "groom: what was not recorded is not missed",
        "cxl/groom/cost.py",
        "usage.complete = False",
        "usage.complete = True",
        FIND,
    ),
    Mutation(
        "groom: tables in RAM are dispatched",
        "cxl/groom/cost.py",
        "return sum(map(sum, self.of(found).values())) if found.in_window else 0",
        "return sum(map(sum, self.of(found).values()))",
        FIND,
    ),
    Mutation(
        "groom: a large page goes where it is not aligned",
        "cxl/groom/moving.py",
        "            base -= (base - unit.first) % unit.align\n",
        "",
        moving("large_page"),
    ),
    Mutation(
        "groom: RAM that holds something is overwritten",
        "cxl/groom/moving.py",
        "self._blank and not self._is_blank(base, size)",
        "False",
        moving("ram_that_is_zero"),
    ),
    Mutation(
        "groom: a part of a page moves without the rest",
        "cxl/groom/moving.py",
        "if any(u.first < e.end and e.first < u.end for u in units)]",
        "if False]",
        moving("large_page"),
    ),
    Mutation(
        "groom: a page of a contiguous run moves without the run",
        "cxl/groom/moving.py",
        "size = runs[size]",
        "size = size",
        moving("contiguous"),
    ),
    Mutation(
        "groom: the place that is named may be in use",
        "cxl/groom/moving.py",
        "if clash := [u for u in used if u[0] < end and first < u[1]]:",
        "if clash := [u for u in used if False]:",
        moving("cannot_go"),
    ),
    Mutation(
        "groom: the PCID is lost with the root",
        "mmu/guest/trees.py",
        "cpu.read(tree.register) - tree.root + root",
        "root",
        moving("pcid"),
    ),
    Mutation(
        "groom: registers may differ",
        "cxl/groom/compare.py",
        "if name not in roots and b.registers[name] != value:",
        "if False:",
        SAME,
    ),
    Mutation(
        "groom: memory may differ",
        "cxl/groom/compare.py",
        "if before.memory.get(va) != after.memory.get(va)",
        "if False",
        SAME,
    ),
    Mutation(
        "groom: the second run goes on where the first one ended",
        "cxl/groom/job.py",
        "    machine.restore(start)\n",
        "",
        SAME,
    ),
    Mutation(
        "plugin: a pattern matches every event of its kind",
        "cxl/testing/events.py",
        "if not (wanted(known[name]) if callable(wanted) else known[name] == wanted):",
        "if False:",
        TESTING,
    ),
    Mutation(
        "plugin: patterns may come in any order",
        "cxl/testing/events.py",
        "if rest and rest[0].matches(e):\n                rest.pop(0)",
        "rest = [p for p in rest if not p.matches(e)]",
        TESTING,
    ),
    Mutation(
        "plugin: registers are not compared",
        "cxl/testing/expect.py",
        "elif ran.registers[name] != wanted:",
        "elif False:",
        TESTING,
    ),
    Mutation(
        "plugin: any end of a run will do",
        "cxl/testing/expect.py",
        "if self.outcomes and ran.outcome not in self.outcomes:",
        "if False:",
        TESTING,
    ),
    Mutation(
        "plugin: exceptions are not compared",
        "cxl/testing/expect.py",
        "for n, v in self.members.items() if n not in known or known[n] != v",
        "for n, v in self.members.items() if n not in known",
        TESTING,
    ),
    Mutation(
        "plugin: walks write although the flags are set",
        "cxl/testing/guest.py",
        'FLAGS = ("A", "D", "AF")',
        'FLAGS = ("A", "AF")',
        TESTING,
    ),
    Mutation(
        "plugin: RAM is in the trace",
        "cxl/testing/ran.py",
        "        if found is not None and isinstance(found.region, Ram)",
        "        if found is None and isinstance(found.region, Ram)",
        TESTING,
    ),
    Mutation(
        "plugin: a test with a bug is run without it twice",
        "cxl/testing/bugs.py",
        "return bug.emulator(Mode(mode))",
        "return bug.emulator(Mode.FIXED)",
        plugin("both_ways"),
    ),
    Mutation(
        "plugin: a comparison that failed is not explained",
        "cxl/pytest_plugin.py",
        'if op != "==" or "cxl.testing" not in sys.modules:',
        "if True:",
        plugin("says_what_differs"),
    ),
    Mutation(
        "plugin: machines stay open",
        "cxl/pytest_plugin.py",
        "        guest.close()",
        "        pass",
        plugin("closed"),
    ),
    Mutation(
        "walk: the table is where its entry is",
        "cxl/cli/walk.py",
        "self.table = step.address - self.index * level.width",
        "self.table = step.address",
        ("tests/cli/test_walk.py",),
    ),
)  # fmt: skip
