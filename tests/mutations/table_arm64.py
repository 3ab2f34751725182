"""Mistakes in the arm64 walkers: those in C part it from the reference, those in the reference from the manual."""

from tests.mutations import Mutation

TWIN = ("tests/arm64/test_twin.py",)
RACE = ("tests/test_lost_race.py",)

WALK = "csrc/walk_arm64.c"
PARAMS = "csrc/walk_arm64_params.c"
FAULTS = "csrc/faults_arm64.c"

MUTATIONS = (
    Mutation(
        "arm64 C: AF is ignored",
        WALK,
        "if (!t->ha && !(c->descriptor & ARM64_STAGE1LEAF_AF))",
        "if (false)",
        TWIN,
    ),
    Mutation(
        "arm64 C: DBM is ignored at stage 1",
        WALK,
        "if (s->tables.hd && (descriptor & ARM64_STAGE1LEAF_DBM))",
        "if (false)",
        TWIN,
    ),
    Mutation(
        "arm64 C: DBM is ignored at stage 2",
        WALK,
        "if (t->hd && (descriptor & ARM64_STAGE2LEAF_DBM))",
        "if (false)",
        TWIN,
    ),
    Mutation(
        "arm64 C: a read makes a DBM page dirty",
        WALK,
        "if (s->tables.hd && (wanted & ARM64_STAGE1LEAF_DBM) && q->access == MMU_ACCESS_WRITE)",
        "if (s->tables.hd && (wanted & ARM64_STAGE1LEAF_DBM))",
        TWIN,
    ),
    Mutation(
        "arm64 C: AF is set before the rights are checked",
        WALK,
        "\tif (!(q->access & granted(q, s, lane->rights)))\n",
        "\tif (s->tables.ha)\n\t\twrite_back(q, c, c->descriptor | ARM64_STAGE1LEAF_AF, f);\n"
        "\tif (!(q->access & granted(q, s, lane->rights)))\n",
        TWIN,
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
        TWIN,
    ),
    Mutation(
        "arm64 C: hierarchical attributes count although HPD is set",
        WALK,
        "stage1_rights(s, c->descriptor, s->hpd ? 0 : c->above);",
        "stage1_rights(s, c->descriptor, c->above);",
        TWIN,
    ),
    Mutation(
        "arm64 C: what EL0 can write EL1 executes",
        WALK,
        "\t\t!user_write && !(s->wxn && write);",
        "\t\t!(s->wxn && write);",
        TWIN,
    ),
    Mutation(
        "arm64 C: WXN is skipped for EL0",
        WALK,
        "\t\t     !(s->wxn && user_write);",
        "\t\t     true;",
        TWIN,
    ),
    Mutation(
        "arm64 C: PAN is skipped",
        WALK,
        "\t\town &= ~data;",
        "\t\town &= ~(data * 0);",
        TWIN,
    ),
    Mutation(
        "arm64 C: TBI holds for fetches although TBID is set",
        PARAMS,
        "if (tbid && q->access == MMU_ACCESS_FETCH)",
        "if (false && tbid)",
        TWIN,
    ),
    Mutation(
        "arm64 C: a block is taken at every level",
        WALK,
        "if (level >= 0 && (t->block_levels >> level & 1))",
        "if (level >= 0)",
        TWIN,
    ),
    Mutation(
        "arm64 C: an output address that is too wide is taken",
        WALK,
        "\tif (c->base >> t->output_bits)\n\t\treturn refuse_entry",
        "\tif (false)\n\t\treturn refuse_entry",
        TWIN,
    ),
    Mutation(
        "arm64 C: the address of LPA2 has no high bits",
        WALK,
        "return low | (descriptor & t->high_mask) << t->high_shift;",
        "return low;",
        TWIN,
    ),
    Mutation(
        "arm64 C: tables in big-endian order are read as little-endian",
        WALK,
        "\tif (t->big_endian)\n\t\tc->descriptor = __builtin_bswap64(c->descriptor);\n",
        "",
        TWIN,
    ),
    Mutation(
        "arm64 C: HCR.PTW does not refuse tables in device memory",
        WALK,
        "device = on_table && q->stage2.ptw &&",
        "device = false &&",
        TWIN,
    ),
    Mutation(
        "arm64 C: the update of a table entry asks stage 2 for a read",
        WALK,
        "rc = entry_address(q, c, MMU_ACCESS_WRITE, f);",
        "rc = entry_address(q, c, MMU_ACCESS_READ, f);",
        TWIN,
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
)
