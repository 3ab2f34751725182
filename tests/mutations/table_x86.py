"""Mistakes in the x86 walkers: those in C part it from the reference, those in the reference from the manual."""

from tests.mutations import Mutation

RULES = ("tests/x86/test_rules.py",)
NESTED_RULES = ("tests/x86/test_nested.py",)
EVENT = ("tests/x86/test_event_twin.py",)
RACE = ("tests/test_lost_race.py",)

DESCENT = "csrc/walk_x86_descent.c"
WALK = "csrc/walk_x86.c"
RIGHTS = "csrc/walk_x86_rights.c"
NESTED = "csrc/walk_x86_nested.c"
FAULTS = "csrc/walk_x86_faults.c"

MUTATIONS = (
    Mutation(
        "x86 C: NX is skipped",
        DESCENT,
        "leaf->executable &= !(entry->value & f->xd);",
        "",
        RULES,
    ),
    Mutation(
        "x86 C: NX of the leaf alone counts",
        DESCENT,
        "leaf->executable &= !(entry->value & f->xd);",
        "leaf->executable = !(entry->value & f->xd);",
        RULES,
    ),
    Mutation(
        "x86 C: reserved bits are skipped",
        DESCENT,
        "\t\tif (entry->value & x86_reserved(paging, f))\n",
        "\t\tif (false)\n",
        RULES,
    ),
    Mutation(
        "x86 C: NX is not reserved while EFER.NXE is 0",
        WALK,
        "p->no_xd = efer & X86_EFER_NXE ? 0 : UINT64_MAX;",
        "p->no_xd = efer & 0;",
        RULES,
    ),
    Mutation(
        "x86 C: bits above MAXPHYADDR are not reserved",
        WALK,
        "p->beyond = phys_bits >= 52 ? 0 : PHYSICAL >> phys_bits << phys_bits;",
        "p->beyond = 0 * phys_bits;",
        RULES,
    ),
    Mutation(
        "x86 C: a non-canonical address is walked",
        WALK,
        "if (!x86_canonical(&w->linear, rq.address))",
        "if (false && !x86_canonical(&w->linear, rq.address))",
        RULES,
    ),
    Mutation(
        "x86 C: a page lands in its table's frame, without the offset",
        WALK,
        "host.pa = pa_of(x86_frame(&leaf->entry) | (rq->address & (size - 1)));",
        "host.pa = pa_of(x86_frame(&leaf->entry) | (rq->address & 4095));",
        RULES,
    ),
    Mutation(
        "x86 C: an entry that lost a race is not read again",
        DESCENT,
        "\tif (old != entry->value)\n\t\treturn X86_LOST;\n",
        "",
        RACE,
    ),
    Mutation(
        "x86 C: accessed is not set in table entries",
        DESCENT,
        "rc = x86_entry_mark(w, entry, &leaf->host, f->accessed & ~entry->value, rq);",
        "rc = 0;",
        RULES,
    ),
    Mutation(
        "x86 C: a read sets dirty",
        WALK,
        "uint64_t flags = f->accessed | (w->wanted & MMU_ACCESS_WRITE ? f->dirty : 0);",
        "uint64_t flags = f->accessed | f->dirty;",
        RULES,
    ),
    Mutation(
        "x86 C: a faulting access sets accessed in the leaf",
        WALK,
        "\tif (!(rights & ~denied & w->wanted)) {\n",
        "\tif (!(rights & ~denied & w->wanted)) {\n"
        "\t\tx86_entry_mark(w, &leaf.entry, &leaf.host, leaf.entry.format->accessed & ~leaf.entry.value, &rq);\n",
        RULES,
    ),
    Mutation(
        "x86 C: accessed and dirty are written although update is off",
        DESCENT,
        "\tif (!w->update)\n\t\treturn MMU_OK;\n",
        "",
        RULES,
    ),
    Mutation(
        "x86 C: CR0.WP is skipped",
        RIGHTS,
        "r->obey_rw = r->user || r->wp;",
        "r->obey_rw = r->user;",
        RULES,
    ),
    Mutation(
        "x86 C: SMAP does not look at EFLAGS.AC",
        RIGHTS,
        "(regs->cr4 & X86_CR4_SMAP) && (implicit || !regs->ac);",
        "(regs->cr4 & X86_CR4_SMAP);",
        RULES,
    ),
    Mutation(
        "x86 C: EFLAGS.AC opens SMAP to implicit accesses",
        RIGHTS,
        "(regs->cr4 & X86_CR4_SMAP) && (implicit || !regs->ac);",
        "(regs->cr4 & X86_CR4_SMAP) && !regs->ac;",
        RULES,
    ),
    Mutation(
        "x86 C: SMEP is skipped",
        RIGHTS,
        "r->no_user_fetch = !r->user && (regs->cr4 & X86_CR4_SMEP);",
        "r->no_user_fetch = false;",
        RULES,
    ),
    Mutation(
        "x86 C: a key's write-disable stops the supervisor although CR0.WP is 0",
        RIGHTS,
        "return (bits & 2) && (r->wp || (page->user && r->user)) ? MMU_ACCESS_WRITE : 0;",
        "return bits & 2 ? MMU_ACCESS_WRITE : 0;",
        RULES,
    ),
    Mutation(
        "x86 C: the error code has no PK bit",
        FAULTS,
        "\tif (f->protection_key)\n\t\tcode |= X86_PAGEFAULTCODE_PK;\n",
        "",
        EVENT,
    ),
    Mutation(
        "x86 C: a nested walk reads guest tables as reads",
        NESTED,
        "\tif (regs->stage2 == MMU_X86_STAGE2_NPT)\n\t\treturn MMU_ACCESS_WRITE;\n",
        "\tif (regs->stage2 == MMU_X86_STAGE2_NPT)\n\t\treturn MMU_ACCESS_READ;\n",
        NESTED_RULES,
    ),
    Mutation(
        "x86 C: an EPT entry that is writable and not readable is taken",
        NESTED,
        "if ((e->value & (X86_EPTPTE_R | X86_EPTPTE_W)) == X86_EPTPTE_W)",
        "if (false)",
        NESTED_RULES,
    ),
    Mutation(
        "x86 reference: accessed is set in a leaf that faults",
        "mmu/x86/walk.py",
        "    by_key = key_denies(regs, leaf.page, access)\n",
        '    mark(entries, leaf.entry, leaf.host, ("A",), request)\n    by_key = key_denies(regs, leaf.page, access)\n',
        RULES,
    ),
    Mutation(
        "x86 reference: a key forbids fetches",
        "mmu/x86/rights.py",
        "if access & Access.FETCH or not regs.long_mode:",
        "if not regs.long_mode:",
        RULES,
    ),
    Mutation(
        "x86 reference: the error code has no PK bit beside other reasons",
        "mmu/x86/walk.py",
        "return entries.fault(FaultKind.PERMISSION, request, leaf.entry, **detail)",
        "return entries.fault(FaultKind.PERMISSION, request, leaf.entry)",
        RULES,
    ),
    Mutation(
        "x86 reference: I is reported without NXE and SMEP",
        "mmu/x86/faults.py",
        "fetch = fault.access & Access.FETCH and (nxe or regs.cr4 & Cr4.SMEP.mask)",
        "fetch = fault.access & Access.FETCH",
        RULES,
    ),
    Mutation(
        "x86 reference: nested tables are read as supervisor reads",
        "mmu/x86/nested.py",
        "    if isinstance(stage2, Npt):\n        return Access.WRITE\n",
        "    if isinstance(stage2, Npt):\n        return Access.READ\n",
        NESTED_RULES,
    ),
    Mutation(
        "x86 reference: an EPT entry that is writable and not readable is taken",
        "mmu/x86/nested.py",
        'if entry.has("W") and not entry.has("R"):',
        "if False:",
        NESTED_RULES,
    ),
)
