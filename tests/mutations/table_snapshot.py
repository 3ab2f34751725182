"""Mistakes in moving memory that tables refer to, and in snapshots."""

from tests.mutations import Mutation

TABLES = ("tests/test_tables_move.py",)
MACHINE = ("tests/test_machine.py", "-k", "one_level_alone")


def snapshot(word: str) -> tuple[str, ...]:
    return ("tests/test_snapshot.py", "-k", word)


def device(word: str) -> tuple[str, ...]:
    return ("tests/test_snapshot_devices.py", "-k", word)


def topology(word: str) -> tuple[str, ...]:
    return ("tests/cxl/test_snapshot.py", "-k", word)


def moving(word: str) -> tuple[str, ...]:
    return ("tests/groom/test_moving.py", "-k", word)


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
        "snapshot: a file that was cut is found out about in the midst",
        "mmu/snapshot.py",
        "memory.read(at, len(data))",
        "pass",
        ("tests/guest/test_lost_files.py", "-k", "in_part"),
    ),
    Mutation(  # one of the scan itself would not be caught where the kernel has none
        "snapshot: a kernel that cannot scan is an error",
        "mmu/memory/resident.py",
        "if error.errno not in (errno.ENOTTY, errno.EINVAL):",
        "if error:",
        snapshot("must_be_read"),
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
        "snapshot: a file opens what it names",
        "cxl/snapshot.py",
        "Topology(_anonymous(plan),",
        "Topology(plan,",
        topology("names_others"),
    ),
    Mutation(
        "snapshot: accepted capacity is forgotten",
        "cxl/snapshot.py",
        "            topology.device(name).accept(dpa, size)",
        "            topology.device(name)",
        topology("dynamic"),
    ),
    Mutation(
        "snapshot: the clock begins anew",
        "mmu/guest/state.py",
        "    lib.mmu_guest_set_time(cpu.guest, time)\n",
        "    lib.mmu_guest_set_time(cpu.guest, 0 * time)\n",
        device("clock"),
    ),
    Mutation(
        "snapshot: what waits to be received is lost",
        "csrc/uart.c",
        "\tu->given = input_size;\n",
        "\tu->given = input_size & 0;\n",
        device("goes_on"),
    ),
    Mutation(
        "snapshot: what was received comes again",
        "csrc/uart.c",
        "\treturn u->input + gone;\n",
        "\treturn u->input;\n",
        device("goes_on"),
    ),
    Mutation(
        "snapshot: a port forgets its registers",
        "csrc/uart.c",
        "\t\tu->scratch[i] = s->scratch[i];\n",
        "\t\tu->scratch[i] = 0;\n",
        device("goes_on"),
    ),
    Mutation(
        "snapshot: a port is as long as it says",
        "csrc/uart.c",
        "input_size > u->capacity ||",
        "input_size > 2 * u->capacity ||",
        device("damaged_device"),
    ),
    Mutation(
        "snapshot: devices may be at other addresses",
        "mmu/guest/devices/saved.py",
        "return str(self) == str(other)",
        "return self.kind == other.kind",
        device("other_devices"),
    ),
    Mutation(
        "snapshot: a loaded machine has no devices",
        "cxl/snapshot.py",
        "        build(machine, snapshot.devices)\n",
        "",
        topology("devices_of_the_machine"),
    ),
)  # fmt: skip
