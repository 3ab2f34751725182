"""Mistakes in building and scanning page tables."""

from tests.mutations import Mutation

BUILD = (
    "tests/test_tables_promises.py", "tests/x86/test_tables.py", "tests/arm64/test_tables.py", "tests/test_tables.py",
)  # fmt: skip
SCAN = ("tests/test_tables_promises.py", "tests/test_scan.py")

MUTATIONS = (
    Mutation(
        "tables: what is mapped otherwise is mapped over",
        "mmu/radix/edits.py",
        "if same and form.target(entry) == pa and not forced:",
        "if same:",
        BUILD,
    ),
    Mutation(
        "tables: an unaligned physical address gets a large page",
        "mmu/radix/edits.py",
        "if form is None or not whole or level.size not in self.sizes or pa % level.size:",
        "if form is None or not whole or level.size not in self.sizes:",
        BUILD,
    ),
    Mutation(
        "tables: a page that sticks out is unmapped whole",
        "mmu/radix/edits.py",
        "return 0 if whole else None",
        "return 0",
        BUILD,
    ),
    Mutation(
        "tables: merging loses accessed and dirty",
        "mmu/radix/edits.py",
        "noted = {name: max(r[name] for r in rights) for name in tables.loose}",
        "noted = {name: 0 for name in tables.loose}",
        BUILD,
    ),
    Mutation(
        "tables: a table that is not ours is freed when empty",
        "mmu/radix/edits.py",
        "if child.address in self.tables.frames.owned and not any(plan.entries(child)):",
        "if not any(plan.entries(child)):",
        BUILD,
    ),
    Mutation(
        "tables: reserved bits do not make an entry invalid",
        "mmu/radix/form.py",
        "return Kind.INVALID if form.strict and entry & form.layout.reserved_mask else kind",
        "return kind",
        BUILD,
    ),
    Mutation(
        "tables: pages of different rights are merged",
        "mmu/radix/edits.py",
        "if any(e & leaf.ignored != kept or not tables.same(r, rights[0]) for",
        "if any(e & leaf.ignored != kept for",
        BUILD,
    ),
    Mutation(
        "tables: an empty table stays linked",
        "mmu/radix/edits.py",
        "            plan.put(parent, index, 0)\n            plan.drop.append(child)\n\n\nclass Protect",
        "            pass\n\n\nclass Protect",
        BUILD,
    ),
    Mutation(
        "tables: the pages of a split one all map its start",
        "mmu/radix/tables.py",
        "below.leaf.place(pa + i * below.size)",
        "below.leaf.place(pa)",
        BUILD,
    ),
    Mutation(
        "tables: a failure on the way is not undone",
        "mmu/radix/plan.py",
        "in reversed(self.undo):",
        "in ():",
        ("tests/test_tables.py::test_a_store_that_fails_undoes_the_whole_edit",),
    ),
    Mutation(
        "tables: a frame is not zeroed",
        "mmu/radix/plan.py",
        "            self.plan.space.write(node.address, bytes(level.table_bytes))\n",
        "",
        BUILD,
    ),
    Mutation(
        "tables: frames of dropped tables are lost",
        "mmu/radix/tables.py",
        "        self.frames.give_back(gone)\n",
        "",
        BUILD,
    ),
    Mutation(
        "tables: no break before make",
        "mmu/arm64/tables.py",
        "    BREAK_BEFORE_MAKE = True\n",
        "",
        BUILD,
    ),
    Mutation(
        "tables: a broken run keeps its contiguous hint",
        "mmu/radix/plan.py",
        "self.put(node, index, entries[index] & ~level.hint)",
        "pass",
        BUILD,
    ),
    Mutation(
        "scan: tables take no rights away",
        "csrc/scan.c",
        "slot->flags = flags_of(s, form, entry) & ~frame->denied;",
        "slot->flags = flags_of(s, form, entry);",
        SCAN,
    ),
    Mutation(
        "scan: addresses are not made canonical",
        "csrc/scan.c",
        "return (uint64_t)((int64_t)(low << unused) >> unused) + format->base;",
        "return (low << unused >> unused) + format->base;",
        SCAN,
    ),
    Mutation(
        "scan: reserved bits are skipped",
        "csrc/scan.c",
        "if ((!leaf && !is(form, entry)) || entry & form->reserved) {",
        "if (!leaf && !is(form, entry)) {",
        SCAN,
    ),
    Mutation(
        "scan: an entry that cannot be read is a hole",
        "csrc/scan.c",
        "\t\tif (rc != MMU_MEMTX_OK)\n\t\t\ttrouble(",
        "\t\tif (false)\n\t\t\ttrouble(",
        SCAN,
    ),
    Mutation(
        "scan: one page beyond the range is given",
        "csrc/scan.c",
        "frame->low + (index << level->shift) > scan->last)",
        "frame->low + (index << level->shift) > scan->last + 1)",
        SCAN,
    ),
    Mutation(
        "scan: neighbours of other rights are merged",
        "csrc/scan.c",
        "if (a->flags != b->flags || ",
        "if (",
        SCAN,
    ),
    Mutation(
        "scan: what the last page's bits meant is kept for other bits",
        "csrc/scan.c",
        "if (s->known == form && s->known_bits == bits)",
        "if (s->known == form)",
        SCAN,
    ),
)
