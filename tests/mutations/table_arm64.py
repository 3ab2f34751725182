"""Mistakes in the arm64 walkers: those in C part it from the reference, those in the reference from the manual."""

from tests.mutations import Mutation

TWIN = ("tests/arm64/test_twin.py",)
UPDATES = ("tests/arm64/test_updates.py",)
STAGE2 = ("tests/arm64/test_stage2.py",)
REGIMES = ("tests/arm64/test_regimes.py",)
FORMATS = ("tests/arm64/test_formats_walked.py",)
EXHAUSTIVE = ("tests/arm64/test_exhaustive.py",)
RACE = ("tests/test_lost_race.py",)

WALK = "csrc/walk_arm64.c"
PARAMS = "csrc/walk_arm64_params.c"
FAULTS = "csrc/faults_arm64.c"
REFERENCE = "mmu/arm64/reference.py"
PERMISSIONS = "mmu/arm64/permissions.py"

MUTATIONS = (
    Mutation(
        "arm64 C: AF is ignored",
        WALK,
        "if (!t->ha && !(c->descriptor & ARM64_STAGE1LEAF_AF))",
        "if (false)",
        UPDATES,
    ),
    Mutation(
        "arm64 C: DBM is ignored at stage 1",
        WALK,
        "if (s->tables.hd && (descriptor & ARM64_STAGE1LEAF_DBM))",
        "if (false)",
        UPDATES,
    ),
    Mutation(
        "arm64 C: DBM is ignored at stage 2",
        WALK,
        "if (t->hd && (descriptor & ARM64_STAGE2LEAF_DBM))",
        "if (false)",
        STAGE2,
    ),
    Mutation(
        "arm64 C: a read makes a DBM page dirty",
        WALK,
        "if (s->tables.hd && (wanted & ARM64_STAGE1LEAF_DBM) && q->access == MMU_ACCESS_WRITE)",
        "if (s->tables.hd && (wanted & ARM64_STAGE1LEAF_DBM))",
        UPDATES,
    ),
    Mutation(
        "arm64 C: AF is set before the rights are checked",
        WALK,
        "\tif (!(q->access & granted(q, s, lane->rights)))\n",
        "\tif (s->tables.ha)\n\t\twrite_back(q, c, c->descriptor | ARM64_STAGE1LEAF_AF, f);\n"
        "\tif (!(q->access & granted(q, s, lane->rights)))\n",
        UPDATES,
    ),
    Mutation(
        "arm64 C: a leaf that lost a race is not walked again",
        WALK,
        "\tif (old != expected)\n\t\treturn ARM64_MORE;\n",
        "",
        RACE,
    ),
    Mutation(
        "arm64 C: the table's UXN does not count",
        WALK,
        "user_fetch = !(descriptor & ARM64_STAGE1LEAF_UXN) && !(table & ARM64_STAGE1TABLE_UXNTABLE) &&",
        "user_fetch = !(descriptor & ARM64_STAGE1LEAF_UXN) &&",
        EXHAUSTIVE,
    ),
    Mutation(
        "arm64 C: hierarchical attributes count although HPD is set",
        WALK,
        "stage1_rights(s, c->descriptor, s->hpd ? 0 : c->above);",
        "stage1_rights(s, c->descriptor, c->above);",
        REGIMES,
    ),
    Mutation(
        "arm64 C: what EL0 can write EL1 executes",
        WALK,
        "\t\t!user_write && !(s->wxn && write);",
        "\t\t!(s->wxn && write);",
        EXHAUSTIVE,
    ),
    Mutation(
        "arm64 C: WXN is skipped for EL0",
        WALK,
        "\t\t     !(s->wxn && user_write);",
        "\t\t     true;",
        EXHAUSTIVE,
    ),
    Mutation(
        "arm64 C: PAN is skipped",
        WALK,
        "\t\town &= ~data;",
        "\t\town &= ~(data * 0);",
        REGIMES,
    ),
    Mutation(
        "arm64 C: TBI holds for fetches although TBID is set",
        PARAMS,
        "if (tbid && q->access == MMU_ACCESS_FETCH)",
        "if (false && tbid)",
        REGIMES,
    ),
    Mutation(
        "arm64 C: a block is taken at every level",
        WALK,
        "if (level >= 0 && (t->block_levels >> level & 1))",
        "if (level >= 0)",
        FORMATS,
    ),
    Mutation(
        "arm64 C: an output address that is too wide is taken",
        WALK,
        "\tif (c->base >> t->output_bits)\n\t\treturn refuse_entry",
        "\tif (false)\n\t\treturn refuse_entry",
        STAGE2,
    ),
    Mutation(
        "arm64 C: the address of LPA2 has no high bits",
        WALK,
        "return low | (descriptor & t->high_mask) << t->high_shift;",
        "return low;",
        FORMATS,
    ),
    Mutation(
        "arm64 C: tables in big-endian order are read as little-endian",
        WALK,
        "\tif (t->big_endian)\n\t\tc->descriptor = __builtin_bswap64(c->descriptor);\n",
        "",
        UPDATES,
    ),
    Mutation(
        "arm64 C: HCR.PTW does not refuse tables in device memory",
        WALK,
        "device = on_table && q->stage2.ptw &&",
        "device = false &&",
        STAGE2,
    ),
    Mutation(
        "arm64 C: the update of a table entry asks stage 2 for a read",
        WALK,
        "rc = entry_address(q, c, MMU_ACCESS_WRITE, f);",
        "rc = entry_address(q, c, MMU_ACCESS_READ, f);",
        STAGE2,
    ),
    Mutation(
        "arm64 C: S1PTW is never set",
        FAULTS,
        "\tif (f->on_table)\n\t\tesr |= (uint32_t)ARM64_ESR_S1PTW;\n",
        "",
        TWIN,
    ),
    Mutation(
        "arm64 C: S1PTW is set for every fault of stage 2",
        FAULTS,
        "\tif (f->on_table)\n",
        "\tif (f->stage == 2)\n",
        TWIN,
    ),
    Mutation(
        "arm64 C: a fault at level -1 is reported as level 3",
        FAULTS,
        "return level < 0 ? minus_1 : code + ((uint32_t)level & 3);",
        "return code + ((uint32_t)level & 3) + 0 * minus_1;",
        TWIN,
    ),
    Mutation(
        "arm64 reference: AF is ignored",
        REFERENCE,
        "if not (t.ha or Stage1Leaf.AF.get(descriptor)):",
        "if False:",
        UPDATES,
    ),
    Mutation(
        "arm64 reference: AF is set before the rights are checked",
        REFERENCE,
        "            pan = request.pan and not request.access & Access.FETCH\n",
        "            pan = request.pan and not request.access & Access.FETCH\n"
        "            if p.tables.ha:\n"
        "                self.write_back(p.tables, leaf, leaf.descriptor | Stage1Leaf.AF.mask, None, on_table=False)\n",
        UPDATES,
    ),
    Mutation(
        "arm64 reference: a read makes a DBM page dirty",
        REFERENCE,
        "if p.tables.hd and Stage1Leaf.DBM.get(new) and request.access & Access.WRITE:",
        "if p.tables.hd and Stage1Leaf.DBM.get(new):",
        UPDATES,
    ),
    Mutation(
        "arm64 reference: PAN is skipped",
        REFERENCE,
        "user=request.user, pan=pan, epan=p.epan):",
        "user=request.user, pan=False, epan=p.epan):",
        REGIMES,
    ),
    Mutation(
        "arm64 reference: tables are read without stage 2",
        REFERENCE,
        "        if self.stage2 is None:\n            return address\n",
        "        if True:\n            return address\n",
        STAGE2,
    ),
    Mutation(
        "arm64 reference: a fault of stage 2 on a table does not say so",
        REFERENCE,
        "return self.stage2_translate(self.stage2, address, access, on_table=True).address",
        "return self.stage2_translate(self.stage2, address, access, on_table=False).address",
        STAGE2,
    ),
    Mutation(
        "arm64 reference: WXN is skipped",
        PERMISSIONS,
        "_access(user, user_write, user_fetch and not (p.wxn and user_write)),",
        "_access(user, user_write, user_fetch),",
        TWIN,
    ),
    Mutation(
        "arm64 reference: XN at stage 2 is one bit",
        PERMISSIONS,
        "return Rights(_access(read, write, xn in (0, 3)), _access(read, write, xn in (0, 1)))",
        "return Rights(_access(read, write, xn in (0, 1)), _access(read, write, xn in (0, 1)))",
        STAGE2,
    ),
    Mutation(
        "arm64 reference: S1PTW goes with stage 2",
        "mmu/arm64/faults.py",
        "S1PTW=int(fault.on_table)",
        "S1PTW=int(fault.stage == 2)",
        STAGE2,
    ),
)
