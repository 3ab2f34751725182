"""Mistakes in the batches: each must part them from single walks, or from a walk in numpy."""

from tests.mutations import Mutation

X86 = ("tests/x86/test_walk_many.py",)
ARM64 = ("tests/arm64/test_many.py",)

MUTATIONS = (
    Mutation(
        "x86 batch: NX of a table entry does not count",
        "csrc/walk_x86_flight.c",
        "f->rights[i] = rights;",
        "f->rights[i] = rights | X86_PTE_XD;",
        X86,
    ),
    Mutation(
        "x86 batch: a write does not wait for dirty",
        "csrc/walk_x86_flight.c",
        "uint64_t flags = X86_PTE_A | (w->wanted & MMU_ACCESS_WRITE ? X86_PTE_D : 0);",
        "uint64_t flags = X86_PTE_A;",
        X86,
    ),
    Mutation(
        "x86 batch: reserved bits of a 1 GiB page are skipped",
        "csrc/walk_x86_flight.c",
        "expect(w, X86_PDPTE1G_RESERVED, flags)",
        "expect(w, 0, flags)",
        X86,
    ),
    Mutation(
        "x86 batch: protection keys are skipped",
        "csrc/walk_x86_flight.c",
        "b->denied[page.user] |= 1u << page.key;",
        "b->denied[page.user] |= 0;",
        X86,
    ),
    Mutation(
        "x86 batch: entries behind the end of RAM are read",
        "csrc/walk_x86_flight.c",
        "if (offset > b->walk.ram.span || !b->walk.ram.host)",
        "if (!b->walk.ram.host)",
        X86,
    ),
    Mutation(
        "x86 batch: what devices are read for is not counted",
        "csrc/walk_x86_flight.c",
        "\t\t\t\tif (f->device_reads[i])\n\t\t\t\t\tcount_reads(b, f, i);\n",
        "",
        X86,
    ),
    Mutation(
        "x86 batch: the error code is lost",
        "csrc/walk_x86_many.c",
        ".error_code = event.code };",
        "};",
        X86,
    ),
    Mutation(
        "arm64 batch: AF is ignored",
        "csrc/walk_arm64_fast.c",
        "if (!(descriptor & ARM64_STAGE1LEAF_AF) || !fast->allows",
        "if (!fast->allows",
        ARM64,
    ),
    Mutation(
        "arm64 batch: a write does not wait for the dirty state",
        "csrc/walk_arm64_fast.c",
        "return !(t->hd && fast->q->access == MMU_ACCESS_WRITE && (descriptor & dirty) == dirty);",
        "return dirty != 0;",
        ARM64,
    ),
    Mutation(
        "arm64 batch: the tables' attributes do not count",
        "csrc/walk_arm64_fast.c",
        "if (!aim(g, ram, va, child, above | descriptor, i))",
        "if (!aim(g, ram, va, child, above, i))",
        ARM64,
    ),
    Mutation(
        "arm64 batch: a block is taken at every level",
        "csrc/walk_arm64_fast.c",
        "(descriptor & 3) != 1 || level < 0 || !(t->block_levels >> level & 1))",
        "(descriptor & 3) != 1)",
        ARM64,
    ),
    Mutation(
        "arm64 batch: an address that is too wide is taken",
        "csrc/walk_arm64_fast.c",
        "fits = !(base >> output_bits), used",
        "fits = output_bits != 0, used",
        ARM64,
    ),
)
