"""Mistakes in what arm64 instructions may do that the engine does not ask about, in C and in the twins."""

from tests.mutations import Mutation

SYSTEM, WALK, PARAMS = "csrc/guest_arm64_system.c", "csrc/walk_arm64.c", "csrc/walk_arm64_params.c"
PAR, FAULTS_C = "csrc/par_arm64.c", "csrc/faults_arm64.c"
REQUEST, FAULTS, REFERENCE = "mmu/arm64/request.py", "mmu/arm64/faults.py", "mmu/arm64/reference.py"

STRICT, DECODE, DELIVER = "csrc/guest_strict.c", "csrc/decode_arm64.c", "csrc/deliver_arm64.c"
HOST = "csrc/guest_host.c"
FILL, RUN, GUEST = "csrc/guest_fill.c", "csrc/guest_run.c", "mmu/guest/arm64.py"

WALKS = ("tests/arm64/test_maintenance.py",)
TWIN = ("tests/arm64/test_twin.py",)


def maintenance(word: str) -> tuple[str, ...]:
    return ("tests/guest/test_arm64_maintenance_faults.py", "-k", word)


def strict(word: str) -> tuple[str, ...]:
    return ("tests/guest/test_arm64_strict_faults.py", "-k", word)


FP, SP, LEFT = strict("test_fp"), strict("through_an_sp"), strict("leaves_unaligned")
ALIGNED = strict("alignment_checks")
RIGHTS = ("tests/guest/test_arm64_rights_faults.py",)
NEXT_PAGE = strict("page_that_ran_before or on_the_next_one")

ZVA = ("tests/guest/test_bus_errors.py", "-k", "zeroing")

MUTATIONS = (
    Mutation("zva: the engine goes on behind a block that the bus refuses", SYSTEM,
             "\tif (place.plain || guest_code_find(g, &place.key))\n", "\tif (1)\n", ZVA),
    Mutation("zva: the block begins at the address", SYSTEM, "(GUEST_PAGE - 1) & ~(block - 1))",
             "(GUEST_PAGE - 1))", ZVA),
    Mutation("zva: a block is twice as large", SYSTEM, "UINT64_C(4) << (dczid", "UINT64_C(8) << (dczid", ZVA),
    Mutation("zva: a device that raises is a bus error", SYSTEM, "rc < 0 ? MMU_GUEST_CALLBACK :", "", ZVA),
    Mutation("zva: EL0 needs UCI", SYSTEM, "(op->what == ZERO ? ARM64_SCTLR_DZE : ARM64_SCTLR_UCI)", "ARM64_SCTLR_UCI",
             maintenance("only_with_dze")),
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
    Mutation("maintenance: the instruction has run", SYSTEM,
             "| MMU_ACCESS_MAINTENANCE;\n\tguest_undo(g);\n",
             "| MMU_ACCESS_MAINTENANCE;\n\tg->c.engine.emu_stop(g->c.engine.uc);\n", maintenance("nothing")),
    Mutation("maintenance: DC IVAC is a write", SYSTEM, "op->what != INVALIDATE && !(pstate", "!(pstate",
             maintenance("dirty")),
    Mutation("maintenance: it is subject to PAN", SYSTEM, " && !(pstate & PSTATE_PAN);", ";", maintenance("pan")),
    Mutation("maintenance: IC needs the right to read", SYSTEM, "op->what == FETCHED && g->stop", "!op && g->stop",
             maintenance("el0")),
    Mutation("maintenance: EL0 needs no UCI", SYSTEM, ": ARM64_SCTLR_UCI));", ": UINT64_MAX));",
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
    Mutation("strict: FP is always on", STRICT, "!= FPEN_NONE)\n\t\twatch |= WATCH_FLOATING;",
             "> FPEN_NONE)\n\t\twatch |= 1;", FP),
    Mutation("strict: FPEN 1 is for all", STRICT, "(fpen != FPEN_EL1 || at_el0(g))", "fpen < FPEN_NONE", FP),
    Mutation("strict: FPEN 2 traps nobody", STRICT, "return fpen != FPEN_NONE && (", "return !(fpen & 2) && (", FP),
    Mutation("strict: FP that is trapped has another class", DELIVER, "(UINT64_C(0x07) << 26",
             "(UINT64_C(0x00) << 26", FP),
    Mutation("strict: the twin has another class for FP", GUEST, "FLOATING: 0x07 << 26", "FLOATING: 0x00 << 26", FP),
    Mutation("strict: the twin has another class for SP", GUEST, "STACK: 0x26 << 26", "STACK: 0x22 << 26", SP),
    Mutation("strict: FP is checked after SP", STRICT, "if (arm64_is_floating(word) && floating",
             "if (!arm64_through_sp(word) && arm64_is_floating(word) && floating", strict("before_all_else")),
    Mutation("strict: loads of FP registers are no FP", DECODE,
             "\t       (word & 0x0e000000) == 0x0c000000 ||\t/* loads and stores */\n", "", FP),
    Mutation("strict: FPCR is no FP", DECODE, "(word & 0xffdfffc0) == 0xd51b4400", "word == 0xd51b4400", FP),
    Mutation("strict: NZCV is FP", DECODE, "(word & 0xffdfffc0) == 0xd51b4400", "(word & 0xffdff0c0) == 0xd51b4000",
             strict("no_fp")),
    Mutation("strict: MSR of CPACR_EL1 is not seen", DECODE, "(word & 0xffffffe0) == 0xd5181040", "!word",
             strict("turns_fp_on")),
    Mutation("strict: MSR of SCTLR_EL1 is not seen", DECODE, "(word & 0xffffffe0) == 0xd5181000", "!word",
             strict("turns_the_check_on")),
    Mutation("strict: what is not to be watched any more is not noticed", STRICT, "guest_arm64_watch(g) != g->watch",
             "guest_arm64_watch(g) < g->watch", strict("again_and_again or on_and_off")),
    Mutation("strict: a hook on the next page comes late", STRICT, "\treturn !late;", "\treturn true;", NEXT_PAGE),
    Mutation("strict: code is not translated anew", FILL, "return all || g->phase == GUEST_PROBING;",
             "return all || g;",
             NEXT_PAGE),
    Mutation("strict: what is behind is not hooked", STRICT, "at + 4, at + 7,", "at, at + 3,", NEXT_PAGE),
    Mutation("strict: a prefetch accesses memory", DECODE, " && !is_literal(word) && !is_prefetch(word);",
             " && !is_literal(word);", strict("accesses_nothing")),
    Mutation("strict: a literal is addressed by SP", DECODE, " && !is_literal(word) && !is_prefetch(word);",
             " && !is_prefetch(word);", strict("accesses_nothing")),
    Mutation("strict: SP is checked without SA", STRICT, "at_el0(g) ? ARM64_SCTLR_SA0 : ARM64_SCTLR_SA)",
             "at_el0(g) ? ARM64_SCTLR_SA0 : ~0u)", strict("need_not")),
    Mutation("strict: SA is for EL0 too", STRICT, "at_el0(g) ? ARM64_SCTLR_SA0 : ARM64_SCTLR_SA)", "ARM64_SCTLR_SA)",
             strict("bit_of_its_own")),
    Mutation("strict: only SP itself may be odd", STRICT,
             " | guest_register(g, id->sp_el0) | guest_register(g, id->sp_el1)) & SP_BITS", ") & SP_BITS", LEFT),
    Mutation("strict: post-indexed accesses do not move SP", DECODE, "(word & 0x3b200400) == 0x38000400",
             "(word & 0x3b200c00) == 0x38000c00", LEFT),
    Mutation("strict: structures do not move SP", DECODE, "return (word & 0xbe800000) == 0x0c800000;",
             "return 0;", LEFT),
    Mutation("strict: what is added to another register is aligned", DECODE, "return !from_sp || (", "return (", LEFT),
    Mutation("strict: an extended register is not added", DECODE, "(word & 0x3fe00000) == 0x0b200000 ||", "", LEFT),
    Mutation("strict: AND is not seen", DECODE, "== 0x12000000 &&", "== 0x12000001 &&", LEFT),
    Mutation("strict: SP_EL0 is written unseen", DECODE, "(word & 0xffffffe0) == 0xd5184100", "!word", LEFT),
    Mutation("strict: addresses need not be aligned", STRICT, "(sctlr & ARM64_SCTLR_A) ? WATCH_ACCESSES : 0;",
             "0;", ALIGNED),
    Mutation("strict: offsets count for nothing", STRICT, "base + (uint64_t)o->offset + ", "base + ", ALIGNED),
    Mutation("strict: an index is never signed", STRICT, "o->option & 4 ? (uint64_t)(int64_t)(int32_t)value :",
             "!value ? 0 :",
             ALIGNED),
    Mutation("strict: an index is not shifted", STRICT, "return value << o->shift;", "return value;", ALIGNED),
    Mutation("strict: post-indexed accesses are pre-indexed", DECODE, "kind == 1 ? 0 : signed_field",
             "signed_field", ALIGNED),
    Mutation("strict: post-indexed pairs are pre-indexed", DECODE, "field(word, 24, 23) == 1 ? 0 : signed_field",
             "signed_field", ALIGNED),
    Mutation("strict: Q registers have 8 bytes", DECODE, "| (vector ? (opc & 2) << 1 : 0);", ";", ALIGNED),
    Mutation("strict: the elements of a structure are bytes", DECODE,
             "\to->size = (uint8_t)(1u << scale);\n\to->write = "
             "!field(word, 22, 22);\n\treturn true;\n}\n\nbool", "\to->size = 1;\n\treturn true;\n}\n\nbool", ALIGNED),
    Mutation("strict: literals are data of a register", DECODE, "\to->base = ARM64_XZR;\n", "", strict("literals")),
    Mutation("strict: a store is a load", STRICT, "o->write ? MMU_ACCESS_WRITE : MMU_ACCESS_READ",
             "MMU_ACCESS_READ", ALIGNED),
    Mutation("strict: an instruction that is looked at again counts twice", RUN,
             "\t\t\tif (g->counted_at == g->stop.pc)\n\t\t\t\tuncount(g);\n\t\t\tmmu", "\t\t\tmmu",
             strict("counts_once")),
    Mutation("return: every one is legal", STRICT, "\tif (arm64_is_eret(word) && !at_el0(g) && returns",
             "\tif (!word && returns", RIGHTS),
    Mutation("return: that of EL0 is illegal", STRICT, "arm64_is_eret(word) && !at_el0(g)", "arm64_is_eret(word)",
             RIGHTS),
    Mutation("return: EL0 has a stack of its own", STRICT,
             " ||\n\t       (spsr.value & (GUEST_PSTATE_EL | GUEST_PSTATE_SP)) == GUEST_PSTATE_SP;", ";", RIGHTS),
    Mutation("return: there is AArch32", STRICT, "GUEST_PSTATE_AARCH32 | MODE_RESERVED", "MODE_RESERVED", RIGHTS),
    Mutation("return: an illegal one takes no flags", DELIVER, "(spsr.value & taken) | GUEST_PSTATE_IL",
             "(*pstate & taken) | GUEST_PSTATE_IL", RIGHTS),
    Mutation("return: an illegal one has not happened", DELIVER, "\t*pc = guest_register(g, g->c.ids.elr);\n",
             "", RIGHTS),
    Mutation("return: the twin's illegal one takes no flags", GUEST, 'self.read("spsr_el1") & TAKEN) |', "TAKEN) |",
             RIGHTS),
    Mutation("trapped: DAIFSet has no syndrome", DELIVER, "syndrome ? syndrome : syndrome_of_system(g);", "syndrome;",
             RIGHTS),
    Mutation("trapped: the twin's DAIFSet has no syndrome", GUEST, " or self._syndrome_of_system(), far)", ", far)",
             RIGHTS),
    Mutation("features: there is BTI", HOST, "& ~PFR1_BT;", "| 1;", RIGHTS),
    Mutation("features: there is SVE", HOST, "~(PFR0_SVE | PFR0_AARCH32)", "~PFR0_AARCH32", RIGHTS),
    Mutation("features: there is AArch32", HOST, " & ~(PFR0_SVE | PFR0_AARCH32)) |", " & ~PFR0_SVE) |", RIGHTS),
)  # fmt: skip
