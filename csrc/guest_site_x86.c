/*
 * Before x86 instructions that the engine does not tell of, or gets wrong: what flushes the TLB (INVLPG, INVPCID, MOV
 * to a control register, WRMSR); what guest_x86_system.c and guest_group_15.c are for, and LOCK before any of these;
 * AVX and SSE4A; RDRAND and RDSEED; INS and OUTS of user programs; CMPXCHG8B and 16B, which take the flags for those of
 * an earlier instruction, and SETcc to memory and repeated comparisons, whose faults lose them: the hook has them
 * worked out before; and, where memory is shared, atomic instructions and those that serialize.
 */
#include "deliver_x86.h"
#include "site_x86.h"

/* RDRAND and RDSEED, which the host would answer. */
static bool is_random(const struct x86_instruction *i)
{
	return i->opcode == OP_GROUP_9 && !i->memory && i->reg >= REG_RDRAND;
}

/* SSE4A, which no Intel CPU has: EXTRQ, INSERTQ, MOVNTSS, MOVNTSD. */
static bool is_sse4a(const struct x86_instruction *i)
{
	return i->opcode == OP_EXTRQ || i->opcode == OP_INSERTQ || (i->opcode == OP_MOVNT && i->repeated);
}

/* INVLPG. Only of 64-bit code is its operand known. */
static void flush_page(struct mmu_guest *g, uint64_t pc, const struct x86_instruction *i)
{
	if (x86_in_64_bit_code(g))
		guest_tlb_flush_page(g, guest_operand(g, pc, i));
	else
		guest_tlb_flush(g);
}

/*
 * Each round of a repeated CMPS or SCAS comes here, and the instruction behind it. A round that faults leaves the flags
 * as they were before the first. Source: Intel SDM vol. 2, 'REP/REPE/REPZ/REPNE/REPNZ'.
 */
static void follow_string(struct mmu_guest *g, uint64_t pc, const struct x86_instruction *i)
{
	struct guest_string *s = &g->string;
	uint64_t count = guest_register(g, g->c.ids.general[RCX]);

	if (!x86_compares_strings(i)) {
		s->under_way = false;
		return;
	}
	if (i->short_address)
		count = (uint32_t)count;
	if (s->under_way && s->pc == pc && s->left == count)
		g->flags = s->flags;
	*s = (struct guest_string){ pc, count - 1, g->flags, true };
}

/* What flushes accesses nothing through the TLB, so what is flushed before it is not filled again until it has run. */
void guest_x86_site(struct mmu_guest *g, uint64_t address)
{
	static const enum mmu_guest_stop_kind stop_of[] = {
		[X86_REFUSED] = MMU_GUEST_PROTECTION, [X86_UNDEFINED] = MMU_GUEST_INVALID, [X86_OURS] = MMU_GUEST_SYSTEM,
		[X86_DEBUG] = MMU_GUEST_INTERRUPT,
	};
	struct x86_instruction i;
	enum x86_verdict verdict;

	if (!x86_decode_at(g, address, &i)) {
		guest_tlb_flush(g);
		return;
	}
	if (i.opcode == OP_GROUP_9 && i.reg == REG_CMPXCHG8B && i.memory) {
		if (!guest_flags_afresh(g, address))
			return;
		guest_set_register(g, g->c.ids.flags, g->flags);	/* now they are worked out for good */
	}
	follow_string(g, address, &i);
	if (i.lock && !x86_writes_back(&i) && x86_in_64_bit_code(g)) {
		guest_refuse(g, MMU_GUEST_INVALID);
		return;
	}
	verdict = guest_system_verdict(g, address, &i);
	if (verdict != X86_RUNS) {
		guest_refuse(g, stop_of[verdict]);
		if (verdict == X86_DEBUG)
			x86_debug_access(g);
	} else if (site_serializes(i.opcode, i.reg) && guest_code_serialize(g)) {
		g->c.engine.emu_stop(g->c.engine.uc);
	} else if (i.opcode == OP_SYSTEM && i.reg == REG_INVLPG && i.memory) {
		flush_page(g, address, &i);
	} else if (i.opcode == OP_MOV_CR || i.opcode == OP_INVPCID) {
		guest_tlb_flush(g);
	} else if (i.opcode == OP_WRMSR && (uint32_t)guest_register(g, g->c.ids.general[RCX]) == MSR_EFER) {
		guest_tlb_flush(g);
		guest_flush_tlb(g);	/* the engine's, which forgets to */
	} else if (i.opcode == OP_GROUP_15) {
		if (!guest_group_15(g, address, &i))
			g->c.engine.emu_stop(g->c.engine.uc);
	} else if (site_is_avx(&i) || is_random(&i) || is_sse4a(&i)) {
		guest_refuse(g, MMU_GUEST_INVALID);
	} else if (guest_port_is_string(&i)) {
		if (!guest_port_string_permitted(g, address, &i))
			g->c.engine.emu_stop(g->c.engine.uc);
	} else if (g->sharing && site_is_atomic(&i)) {
		guest_site_run_alone(g, address, i.length);
	}
}
