"""Mistakes in building and scanning page tables."""

from tests.mutations import Mutation

BUILD = ("tests/test_tables_promises.py", "tests/x86/test_tables.py", "tests/test_tables.py")
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
        "noted = {name: max(r[name] for r in rights) for name in tables.hardware}",
        "noted = {name: 0 for name in tables.hardware}",
        BUILD,
    ),
    Mutation(
        "tables: a table that is not ours is freed when empty",
        "mmu/radix/edits.py",
        "if child.address in self.tables.owned and not any(plan.entries(child)):",
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
)
