"""Mistakes in the arm64 walkers: in the C walker, in its reference, in what both share, and in the syndrome."""

from tests.mutations import Mutation

C = "csrc/walk_arm64.c"
RIGHTS = "csrc/walk_arm64_rights.h"
PARAMS = "csrc/walk_arm64_params.c"
FAST = "csrc/walk_arm64_fast.c"
FAULTS_C = "csrc/faults_arm64.c"
REFERENCE = "mmu/arm64/reference.py"
FAULTS = "mmu/arm64/faults.py"

FORMATS = ("tests/arm64/test_formats_walked.py",)
STAGE2 = ("tests/arm64/test_stage2.py",)
REGIMES = ("tests/arm64/test_regimes.py",)
UPDATES = ("tests/arm64/test_updates.py",)
SYNDROMES = ("tests/arm64/test_faults.py",)
TABLES = ("tests/arm64/test_exhaustive.py",)
MANY = ("tests/arm64/test_many.py",)
PAR = ("tests/arm64/test_par.py",)
TWIN = ("tests/arm64/test_twin.py",)

MUTATIONS = (
    Mutation("arm64 C: PXN is ignored", RIGHTS, "!(descriptor & ARM64_STAGE1LEAF_PXN) && ", "", TABLES),
    Mutation(
        "arm64 C: EL0-writable pages are executable above",
        RIGHTS,
        "!user_write && !(s->wxn && write);",
        "!(s->wxn && write);",
        TABLES,
    ),
    Mutation(
        "arm64 C: APTable's EL0 bit is ignored",
        RIGHTS,
        "user = (ap & AP_EL0) && !(ap_table & AP_EL0);",
        "user = ap & AP_EL0;",
        TABLES,
    ),
    Mutation("arm64 C: EPAN is ignored", RIGHTS, "(s->epan ? data | MMU_ACCESS_FETCH : data)", "data", TABLES),
    Mutation(
        "arm64 C: HPD is ignored",
        C,
        "stage1_rights(s, c->descriptor, s->hpd ? 0 : c->above)",
        "stage1_rights(s, c->descriptor, c->above)",
        REGIMES,
    ),
    Mutation(
        "arm64 C: stage 2 XN[1:0] 1 and 3 are confused",
        RIGHTS,
        "return both(s2ap, xn == 0 || xn == 3, xn <= 1);",
        "return both(s2ap, xn <= 1, xn == 0 || xn == 3);",
        TABLES,
    ),
    Mutation(
        "arm64 C: a permission fault leaves AF set",
        C,
        "\tif (!(q->access & granted(q, s, lane->rights)))\n"
        "\t\treturn refuse_entry(q, f, MMU_FAULT_PERMISSION, c);\n"
        "\twanted = c->descriptor | (s->tables.ha ? ARM64_STAGE1LEAF_AF : 0);\n",
        "\twanted = c->descriptor | (s->tables.ha ? ARM64_STAGE1LEAF_AF : 0);\n"
        "\tif (!(q->access & granted(q, s, lane->rights))) {\n"
        "\t\twrite_back(q, c, wanted, f);\n"
        "\t\treturn refuse_entry(q, f, MMU_FAULT_PERMISSION, c);\n"
        "\t}\n",
        UPDATES,
    ),
    Mutation(
        "arm64 C: a read makes a page dirty",
        C,
        "(wanted & ARM64_STAGE1LEAF_DBM) && q->dirties",
        "(wanted & ARM64_STAGE1LEAF_DBM)",
        UPDATES,
    ),
    Mutation(
        "arm64 C: an entry that changed is not walked again",
        C,
        "\tif (old != expected)\n\t\treturn ARM64_MORE;\n",
        "",
        UPDATES,
    ),
    Mutation(
        "arm64 C: a stage 1 update does not ask stage 2 for a write",
        C,
        "rc = entry_address(q, c, MMU_ACCESS_WRITE, f);",
        "rc = entry_address(q, c, MMU_ACCESS_READ, f);",
        STAGE2,
    ),
    Mutation("arm64 C: S1PTW is lost", C, "\t\t.on_table = c->on_table,\n", "", STAGE2),
    Mutation(
        "arm64 C: HCR_EL2.PTW refuses every table",
        C,
        "\t\t\t FIELD(c->descriptor, ARM64_STAGE2LEAF_MEMATTR) < 4;",
        "\t\t\t true;",
        STAGE2,
    ),
    Mutation(
        "arm64 C: a table's output address is not checked",
        C,
        "\tif (c->base >> t->output_bits)\n",
        "\tif (kind == MMU_ARM64_ENTRY_LEAF && c->base >> t->output_bits)\n",
        FORMATS,
    ),
    Mutation(
        "arm64 C: bits below a block's size are kept",
        C,
        "output_address(t, c->descriptor, kind == MMU_ARM64_ENTRY_LEAF ? c->shift : 0)",
        "output_address(t, c->descriptor, 0)",
        FORMATS,
    ),
    Mutation(
        "arm64 C: the 52-bit bits lie one place off",
        PARAMS,
        "(c->ttbr >> 2 & 0xf) << 48",
        "(c->ttbr >> 1 & 0xf) << 48",
        FORMATS,
    ),
    Mutation("arm64 C: 64K blocks of 4 TiB at any PARange", PARAMS, ": c->pa_range >= 52;", ": true;", FORMATS),
    Mutation(
        "arm64 C: concatenation of 32 tables",
        PARAMS,
        "least + g->stride - 1 + 4",
        "least + g->stride - 1 + 5",
        STAGE2,
    ),
    Mutation("arm64 C: TBID is ignored", PARAMS, "if (tbid && q->access", "if (false && tbid && q->access", REGIMES),
    Mutation("arm64 C: E0PD refuses EL1 too", "csrc/walk_arm64.h", "(s->e0pd && q->user)", "s->e0pd", REGIMES),
    Mutation(
        "arm64 C: EA for nothing there",
        FAULTS_C,
        "is_external(f) && f->result != MMU_MEMTX_DECODE_ERROR",
        "is_external(f)",
        TWIN,
    ),
    Mutation("arm64 batch: an entry handed on to a lane counts twice", FAST, "used = false;", "used = true;", MANY),
    Mutation("arm64 batch: a lane forgets the tables above", C, "\tc->above = rest->above;\n", "", MANY),
    Mutation("arm64 reference: VA bits above the range are ignored", REFERENCE, "or above != expected ", "", REGIMES),
    Mutation(
        "arm64 reference: stage 2 is not asked for tables",
        REFERENCE,
        "        if self.stage2 is None:\n",
        "        if self.stage2 is None or address:\n",
        STAGE2,
    ),
    Mutation(
        "arm64 reference: AF is checked after permissions",
        REFERENCE,
        "if not (t.ha or Stage1Leaf.AF.get(descriptor)):",
        "if False and t.ha:",
        UPDATES,
    ),
    Mutation(
        "arm64 both: level 1 blocks of 16K without DS",
        "mmu/arm64/format.py",
        "block_levels=0b0100, large_block_levels=0b0010, contiguous=(0, 0, 5, 7),",
        "block_levels=0b0110, large_block_levels=0b0000, contiguous=(0, 0, 5, 7),",
        FORMATS,
    ),
    Mutation(
        "arm64: the level is missing from the fault status",
        FAULTS,
        "return code + level",
        "return int(code)",
        SYNDROMES,
    ),
    Mutation(
        "arm64: level -1 has no code of its own",
        FAULTS,
        "    return minus_1\n",
        "    return code + 3\n",
        SYNDROMES,
    ),
    Mutation(
        "arm64: an instruction abort has WnR",
        FAULTS,
        "write = maintenance or bool(fault.access & Access.WRITE)",
        "write = maintenance or not fault.access & Access.READ",
        SYNDROMES,
    ),
    Mutation(
        "arm64: HPFAR holds the IPA unshifted",
        FAULTS,
        "FIPA=fault.gpa >> 12",
        "FIPA=fault.gpa >> 8 & 0xFFFFFFFFF0",
        SYNDROMES,
    ),
    Mutation(
        "arm64: stage 2 attributes win over stage 1",
        "mmu/arm64/attributes.py",
        "    if _cacheability(two) < _cacheability(one):\n",
        "    if _cacheability(two) != _cacheability(one):\n",
        STAGE2,
    ),
    Mutation("arm64: AT minds PSTATE.PAN", "mmu/arm64/par.py", "pan=regs.pan and op.pan", "pan=regs.pan", PAR),
    Mutation(
        "arm64: AT writes access flags",
        "mmu/arm64/par.py",
        "op.access, engine, False, False,",
        "op.access, engine, True, False,",
        PAR,
    ),
)
