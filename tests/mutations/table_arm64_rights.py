"""Mistakes in what arm64 instructions may do that the engine does not ask about, in C and in the twins."""

from tests.mutations import Mutation

SYSTEM, WALK, PARAMS = "csrc/guest_arm64_system.c", "csrc/walk_arm64.c", "csrc/walk_arm64_params.c"
PAR, FAULTS_C = "csrc/par_arm64.c", "csrc/faults_arm64.c"
REQUEST, FAULTS, REFERENCE = "mmu/arm64/request.py", "mmu/arm64/faults.py", "mmu/arm64/reference.py"

WALKS = ("tests/arm64/test_maintenance.py",)
TWIN = ("tests/arm64/test_twin.py",)


def maintenance(word: str) -> tuple[str, ...]:
    return ("tests/guest/test_arm64_maintenance_faults.py", "-k", word)


MUTATIONS = (
    Mutation("maintenance C: PAN is for it", PARAMS, " && !(access & MMU_ACCESS_MAINTENANCE);", ";", WALKS),
    Mutation("maintenance C: what cleans needs a right of stage 2", PARAMS,
             "kind == MMU_ACCESS_WRITE || !(access & MMU_ACCESS_MAINTENANCE)", "true", WALKS),
    Mutation("maintenance C: DC IVAC dirties", PARAMS, "q->dirties = access == MMU_ACCESS_WRITE ||",
             "q->dirties = kind == MMU_ACCESS_WRITE ||", WALKS),
    Mutation("maintenance C: STTR does not dirty", PARAMS,
             " || access == (MMU_ACCESS_WRITE | MMU_ACCESS_UNPRIVILEGED)", "", TWIN),
    Mutation("maintenance C: the syndrome has no CM", FAULTS_C, "\t\tesr |= (uint32_t)ARM64_ESR_CM;\n", "\t\t;\n",
             maintenance("nothing")),
    Mutation("maintenance C: what cleans reads", FAULTS_C, "(MMU_ACCESS_WRITE | MMU_ACCESS_MAINTENANCE)",
             "MMU_ACCESS_WRITE", maintenance("nothing")),
    Mutation("maintenance: PAN is for it", REQUEST, " and not user and not maintenance,", " and not user,", WALKS),
    Mutation("maintenance: what cleans needs a right of stage 2", REQUEST,
             "checked=user or not maintenance or bool(access & Access.WRITE)", "checked=True", WALKS),
    Mutation("maintenance: DC IVAC dirties", REQUEST, "bool(access & Access.WRITE) and not maintenance)",
             "bool(access & Access.WRITE))", WALKS),
    Mutation("maintenance: the syndrome has no CM", FAULTS, " CM=int(maintenance),", "", WALKS),
    Mutation("maintenance: what cleans reads", FAULTS, "write = maintenance or ", "write = ", WALKS),
    Mutation("maintenance: nothing faults", SYSTEM, "\tif (rc != MMU_OK)\n\t\trefuse(g, rc, va, op->access);",
             "\t(void)refuse;", maintenance("nothing")),
    Mutation("maintenance: the instruction has run", SYSTEM, "\tguest_undo(g);\n",
             "\tg->c.engine.emu_stop(g->c.engine.uc);\n", maintenance("nothing")),
    Mutation("maintenance: DC IVAC is a write", SYSTEM, "op->what != INVALIDATE && !(pstate", "!(pstate",
             maintenance("dirty")),
    Mutation("maintenance: it is subject to PAN", SYSTEM, " && !(pstate & PSTATE_PAN);", ";", maintenance("pan")),
    Mutation("maintenance: IC needs the right to read", SYSTEM, "op->what == FETCHED && g->stop", "!op && g->stop",
             maintenance("el0")),
    Mutation("maintenance: EL0 needs no UCI", SYSTEM, " && (sctlr.value & ARM64_SCTLR_UCI);", ";",
             maintenance("without_uci")),
    Mutation("maintenance: EL0 does what is EL1's", SYSTEM, "return op->op1 == OP1_EL0 && (", "return (",
             maintenance("kernels")),
    Mutation("maintenance: the second TLB is passed by", SYSTEM, "bool as_read = op->what", "bool as_read = !op->what",
             maintenance("lines")),
    Mutation("maintenance: CVAP does nothing", SYSTEM, "{ OP1_EL0, 12, 1, ", "{ OP1_EL0, 15, 1, ",
             maintenance("nothing")),
    Mutation("at: it writes the access flag", SYSTEM, "op->access, 0, &t,", "op->access, MMU_ARM64_UPDATE, &t,",
             maintenance("test_at_sets")),
    Mutation("at: a bus error is in PAR_EL1", SYSTEM, "g->stop.arm64.kind == MMU_FAULT_BUS)", "!op)",
             maintenance("external")),
    Mutation("at: PAN counts for all", SYSTEM, "regs.pan && op->pan;", "regs.pan;", maintenance("test_at_says")),
    Mutation("at: PAN counts for none", SYSTEM, "regs.pan && op->pan;", "0;", maintenance("test_at_says")),
    Mutation("at: it has the rights of EL1", SYSTEM, "\tregs.el = op->el;\n", "", maintenance("test_at_says")),
    Mutation("at: devices are shared as pages say", PAR, "!is_device(attr) && ", "", maintenance("test_at_is")),
    Mutation("at: MAIR has one entry", PAR, " >> (8 * FIELD(leaf->descriptor, ARM64_STAGE1LEAF_ATTRINDX))", "",
             maintenance("test_at_says")),
    Mutation("at: without translation memory is what table entries say", PAR,
             "leaf->level != ARM64_STAGE_OFF", "leaf", maintenance("test_at_without")),
)  # fmt: skip
