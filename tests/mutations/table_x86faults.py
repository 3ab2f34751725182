"""Mistakes in the faults of x86 instructions that the engine leaves out."""

from tests.mutations import Mutation

SITES, SCAN = "csrc/guest_site_x86.c", "csrc/guest_scan_x86.c"
GROUP, X86, DECODE = "csrc/guest_group_15.c", "csrc/guest_x86.c", "csrc/decode_x86.c"
LINES, BASES = ("tests/guest/test_flushed_lines.py",), ("tests/guest/test_segment_bases.py",)
FETCH, RUN, HOOK = "csrc/guest_fetch.c", "csrc/guest_run.c", "csrc/guest_hook.c"
BRANCHES, ENDS = ("tests/guest/test_branches.py",), ("tests/guest/test_page_ends.py",)
MXCSR, STATE = "csrc/guest_mxcsr.c", "mmu/guest/state.py"
FLOATING = ("tests/guest/test_mxcsr.py",)
TABLES, SYSTEM = "csrc/guest_x86_system.c", ("tests/guest/test_system_instructions.py",)
BLOCK, ROTATIONS = "csrc/guest_block.c", ("tests/guest/test_rotations.py",)
LENGTHS, SECOND = ("tests/guest/test_decode.py",), ("tests/guest/test_second_tlb.py", "-k", "invlpg")

MUTATIONS = (
    Mutation("x86faults: CLFLUSH is no operation", GROUP, "i->short_operand || i->repeated ||", "i->memory ||", LINES),
    Mutation("x86faults: CLFLUSHOPT is CLFLUSH", GROUP, "i->short_operand || i->repeated", "i->repeated", LINES),
    Mutation("x86faults: REP CLFLUSH is CLFLUSH", GROUP, "i->short_operand || i->repeated", "i->short_operand", LINES),
    Mutation("x86faults: what is not flushed runs all the same", SITES, "\t\tif (!guest_group_15(g, address, &i))\n"
             "\t\t\tg->c.engine.emu_stop(g->c.engine.uc);\n", "\t\tguest_group_15(g, address, &i);\n", LINES),
    Mutation("x86faults: a flushed line faults on its page", GROUP, "\tg->stop.va = va;", "\tg->stop.va = va & -4096;",
             LINES),
    Mutation("x86faults: an operand that counts from RIP counts from 0", X86, "\tif (i->relative)\n", "\tif (0)\n",
             LINES),
    Mutation("x86faults: an operand counts from its own instruction", X86, "pc + i->length;", "pc;", LINES),
    Mutation("x86faults: an address of 32 bits has 64", X86, "\tif (i->short_address)\n", "\tif (0)\n", LINES),
    Mutation("x86faults: segments have no base", X86, "\treturn at + base.value;", "\treturn at;", LINES),
    Mutation("x86faults: GS is FS", X86, "i->segment == X86_FS ?", "i->segment ?", LINES),
    Mutation("x86faults: INVLPG knows no segments", X86, "\tif (i->segment)\n", "\tif (0)\n", SECOND),
    Mutation("x86faults: a base is any number", GROUP, "x86_is_canonical(base) ||", "base ||", BASES),
    Mutation("x86faults: a base of 32 bits is refused", GROUP, "i->repeated && i->wide)", "i->repeated)", BASES),
    Mutation("x86faults: WRFSBASE is always there", GROUP, " || !(guest_register(g, g->c.ids.cr4) & X86_CR4_FSGSBASE)",
             "", BASES),
    Mutation("x86faults: no site is put on WRGSBASE", SCAN, " || (code[at + 2] & 0x30) == 0x10;", ";", BASES),
    Mutation("x86faults: MOV of 64 bits has 4", DECODE, "\t\t\treturn 8;", "\t\t\treturn 4;", LENGTHS),
    Mutation("x86faults: NEG has an immediate", DECODE, "return i->reg < 2 ? word : 0;", "return word;", LENGTHS),
    Mutation("x86faults: RET n has none", DECODE, "case 0xc2: case 0xca:\n\t\treturn 2;", "case 0xca:\n\t\treturn 2;",
             LENGTHS),
    Mutation("x86faults: an immediate may be missing", DECODE, "\tif ((size_t)(b.end - b.at) < size)\n", "\tif (0)\n",
             LENGTHS),
    Mutation("x86faults: a branch faults at its target", FETCH, "\t\t\tg->stop.pc = at;\n", "\t\t\t;\n", BRANCHES),
    Mutation("x86faults: RET has popped", FETCH, "\t\tadd(g, RSP, -WORD);\n", "", BRANCHES),
    Mutation("x86faults: RET n has released", FETCH, "-WORD - released(g, end)", "-WORD", BRANCHES),
    Mutation("x86faults: CALL has pushed", FETCH, "\tcase OP_CALL:\n\t\tadd(g, RSP, WORD);\n", "\tcase OP_CALL:\n",
             BRANCHES),
    Mutation("x86faults: an indirect CALL has pushed", FETCH, "\t\tif (i->reg == REG_CALL)\n\t\t\tadd(g, RSP, WORD);\n",
             "", BRANCHES),
    Mutation("x86faults: LOOP has counted", FETCH, "\t\tadd(g, RCX, 1);\n", "\t\t;\n", BRANCHES),
    Mutation("x86faults: a branch that is not taken faults", FETCH, " || g->stop.pc == end)", ")", BRANCHES),
    Mutation("x86faults: an instruction that leaves the edge is a branch", FETCH, " || g->stop.va != g->stop.pc ||",
             " ||",
             BRANCHES),
    Mutation("x86faults: a branch of the run before is one of this", RUN, "\tg->block.size = 0;\n\twhile", "\twhile",
             BRANCHES),
    Mutation("x86faults: no block is noted", HOOK, "\tg->block.size = size;\n", "\t(void)size;\n", BRANCHES),
    Mutation("x86faults: a block faults where it begins", FETCH, "return at == pc ? 0 : at;", "return 0;", ENDS),
    Mutation("x86faults: a block runs over its page", FETCH, " && i.length <= page - at)", " && at < page)", ENDS),
    Mutation("x86faults: LOCK is nothing to the system", SITES, "\tif (i.lock && !x86_writes_back(&i) &&",
             "\tif (0 && !x86_writes_back(&i) &&", SYSTEM),
    Mutation("x86faults: LOCK CMPXCHG16B is invalid", SITES, "\tif (i.lock && !x86_writes_back(&i) &&",
             "\tif (i.lock &&", SYSTEM),
    Mutation("x86faults: a task is in a register", TABLES, "(q->i->memory && (!q->wide ||",
             "(q->i->vex && (!q->wide ||", SYSTEM),
    Mutation("x86faults: DR0 has 32 bits", TABLES, "!write || number < 4 || !q->wide", "!write || !q->wide", SYSTEM),
    Mutation("x86faults: an invalid instruction with a hook loses the flags", RUN, " && error != ENGINE_INSN_INVALID)",
             ")", BASES),
    Mutation("x86faults: no block is looked at", BLOCK,
             "\t\t\tlacks |= guest_site_add(g, pc + at, pc + at, NULL);\n", "\t\t\t;\n", ROTATIONS),
    Mutation("x86faults: the first block is not looked at", "csrc/guest.c",
             "EXCLUSIVE_SEARCHES, g->arch->notes_blocks);",
             "EXCLUSIVE_SEARCHES, false);", ROTATIONS),
    Mutation("x86faults: a block runs although it lacks a hook", BLOCK,
             "\tg->stop.access = MMU_ACCESS_FETCH;	/* none of its instructions was counted */\n"
             "\tg->c.engine.emu_stop(g->c.engine.uc);\n", "", ROTATIONS),
    Mutation("x86faults: a block that lacks a hook was counted", BLOCK, "\tg->stop.access = MMU_ACCESS_FETCH;",
             "\tg->stop.access = 0;", ROTATIONS),
    Mutation("x86faults: RCR is none of them", BLOCK, "(modrm >> 4 & 3) == 1 &&", "(modrm >> 3 & 7) == 2 &&",
             ROTATIONS),
    Mutation("x86faults: code is on one page", "csrc/guest_fill.c", "\twhile (done < size) {", "\twhile (!done) {",
             ROTATIONS),
    Mutation("x86faults: MXCSR has no flags", MXCSR, "\tmxcsr |= (met & MET)", "\tmxcsr |= (met & 0)", FLOATING),
    Mutation("x86faults: nothing is known of what was flushed", MXCSR, "(met & MET_FLUSHED ?", "(0 ?", FLOATING),
    Mutation("x86faults: flags come again", MXCSR, "\tsse[SSE_FLAGS] = 0;\n", "", FLOATING),
    Mutation("x86faults: FZ is nothing to SSE", MXCSR, "\tsse[SSE_FLUSH] = flush;\n", "", FLOATING),
    Mutation("x86faults: MXCSR has no reserved bits", MXCSR, "\tif (next & MXCSR_RESERVED)\n", "\tif (0)\n", FLOATING),
    Mutation("x86faults: XSAVE saves the state of another task", MXCSR, "\tif (cr0 & X86_CR0_TS)\n", "\tif (0)\n",
             FLOATING),
    Mutation("x86faults: FXRSTOR has MXCSR where it begins", MXCSR, "at : at + SAVED_MXCSR", "at : at", FLOATING),
    Mutation("x86faults: LDMXCSR forgets when it faults", MXCSR, "\t\tsettle(g, NULL);\n\t\treturn true;",
             "\t\treturn true;", FLOATING),
    Mutation("x86faults: a state is taken without what SSE met", STATE, '    floating["mxcsr"] |= _met(', "    _met(",
             FLOATING),
    Mutation("x86faults: what was met before a state was given counts", STATE,
             "    put(blob, places.sse + SSE_FLAGS, 1, 0)\n", "", FLOATING),
    Mutation("x86faults: a state that is given does not flush", STATE, 'state["floating"]["mxcsr"] >> 15 & 1', "0",
             FLOATING),
    Mutation("x86faults: what was translated stays in the way", RUN, "approaches < 2)", "approaches < 1)", ENDS),
)
