/* arm64 for the guest: which registers a walk needs, and what the instruction under way is. */
#include "deliver.h"

enum { PSTATE_EL_SHIFT = 2, PSTATE_PAN = 1 << 22, PSTATE_UAO = 1 << 23 };

struct mmu_arm64_regs guest_arm64_registers(struct mmu_guest *g)
{
	const struct mmu_guest_ids *id = &g->c.ids;
	struct system_register sctlr = { .crn = 1, .crm = 0, .op0 = 3, .op1 = 0, .op2 = 0 };
	struct system_register tcr = { .crn = 2, .crm = 0, .op0 = 3, .op1 = 0, .op2 = 2 };
	struct mmu_arm64_regs regs = { .pa_range = (uint8_t)g->c.phys_bits };
	uint64_t pstate = 0;	/* wider than the engine writes */
	int ids[] = { id->ttbr0, id->ttbr1, id->mair, id->pstate, id->coprocessor, id->coprocessor };
	void *values[] = { &regs.ttbr0_el1, &regs.ttbr1_el1, &regs.mair_el1, &pstate, &sctlr, &tcr };

	g->c.engine.reg_read_batch(g->c.engine.uc, ids, values, sizeof(ids) / sizeof(ids[0]));
	regs.sctlr_el1 = sctlr.value;
	regs.tcr_el1 = tcr.value;
	regs.el = (pstate >> PSTATE_EL_SHIFT) & 3;
	regs.pan = (pstate & PSTATE_PAN) != 0;
	regs.uao = (pstate & PSTATE_UAO) != 0;
	return regs;
}

/* Which of the engine's TLBs an entry goes to. */
static uint32_t arm64_index(const struct mmu_arm64_regs *regs)
{
	return regs->el | (uint32_t)regs->pan << 2;
}

static int arm64_tlb_registers(struct mmu_guest *g)
{
	struct mmu_arm64_regs regs = guest_arm64_registers(g), *last = &g->tlb.arm64;
	bool other_tables = regs.ttbr0_el1 != last->ttbr0_el1 || regs.ttbr1_el1 != last->ttbr1_el1;
	bool same = !other_tables && regs.sctlr_el1 == last->sctlr_el1 && regs.tcr_el1 == last->tcr_el1 &&
		    regs.mair_el1 == last->mair_el1 && regs.el == last->el && regs.pan == last->pan &&
		    regs.uao == last->uao;

	if (!g->tlb.set || !same) {
		int rc = mmu_tlb_set_arm64(g->tlb.tlb, g->c.walk, &regs);

		if (rc != MMU_OK)
			return rc;
		/* An ASID may keep entries of other tables, but who forgot TLBI should see it soon. */
		if (g->tlb.set && other_tables)
			guest_tlb_flush(g);
		*last = regs;
		g->tlb.set = true;
	}
	return (int)arm64_index(&regs);
}

static int arm64_walk(struct mmu_guest *g, mmu_port *port, uint64_t va, uint32_t access, bool update,
		      struct guest_translation *ret, struct mmu_guest_stop *stop)
{
	struct mmu_arm64_regs regs = guest_arm64_registers(g);
	struct mmu_arm64_translation t;
	int rc;

	if (access & MMU_ACCESS_IMPLICIT) {	/* the host's look, with EL1's rights */
		access &= ~(uint32_t)MMU_ACCESS_IMPLICIT;
		regs.el = 1;
		regs.pan = 0;
	}
	rc = mmu_arm64_walk(port, &regs, va, access, update ? MMU_ARM64_UPDATE : 0, &t,
			    &stop->arm64, NULL);
	if (rc == MMU_OK)
		*ret = (struct guest_translation){ .pa = pa_of(t.pa), .size = t.page_size,
			.allowed = t.allowed, .index = arm64_index(&regs) | (access & MMU_ACCESS_UNPRIVILEGED) << 3 };
	return rc;
}

/*
 * LDTR and STTR: load/store register (unprivileged), size:111:V:00:opc:0:imm9:10.
 * Source: Arm ARM DDI 0487, C4.1 "Loads and Stores".
 */
static bool is_unprivileged(uint64_t word)
{
	return (word & 0x3b200c00) == 0x38000800;
}

static uint32_t arm64_kind_of_access(struct mmu_guest *g, uint64_t va)
{
	uint64_t word;

	(void)va;
	if (!guest_peek(g, guest_register(g, g->c.ids.pc), 4, &word))
		return 0;
	return is_unprivileged(word) ? MMU_ACCESS_UNPRIVILEGED : 0;
}

/* UC_HOOK_EDGE_GENERATED: code was translated and comes next. The engine translates it at any address. */
void guest_on_translated(void *uc, const struct engine_block *block, const void *before, void *user)
{
	struct mmu_guest *g = user;

	(void)uc;
	(void)before;
	if (!(block->pc & g->arch->pc_mask))
		return;
	g->code_stale = true;	/* or it would run, once it is there */
	if (g->phase == GUEST_PROBING || guest_stopping(g))
		return;
	guest_stop(g, MMU_GUEST_INVALID);
	g->c.engine.emu_stop(g->c.engine.uc);
}

const struct guest_arch guest_arm64 = {
	.walk = arm64_walk, .kind_of_access = arm64_kind_of_access, .tlb_registers = arm64_tlb_registers,
	.handle = guest_arm64_handle, .watch = guest_arm64_watch,
	.pc_mask = 3, .aborts = true,
};
