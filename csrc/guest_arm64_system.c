/*
 * SYS instructions of arm64: maintenance of TLBs and, by address, of caches; DC ZVA; and AT. The engine does nothing at
 * all for caches, and AT walks tables that it does not have.
 *
 * A cache is never seen here, but its maintenance translates an address, and faults. PAR_EL1 is what our walk says.
 * Source: Arm ARM DDI 0487, D7.5.9 'Data cache maintenance instructions' and 'Permission fault' there; pseudocode
 * AArch64.DC, AArch64.IC, AArch64.AT.
 */
#include "deliver.h"

enum { CRN_TLBI = 8, CRN_CACHE = 7, OP1_EL1 = 0, OP1_EL0 = 3 };
enum { CRM_IALLUIS = 1, CRM_IC = 5 };
enum { PSTATE_PAN = 1 << 22, DCZID_BS = 15, WORD = 8 };

enum what { CLEAN, INVALIDATE, FETCHED, TRANSLATE, ZERO };

/* With op0 = 1 and CRn = 7. `access`, `el`, `pan`: of AT. */
struct operation { uint8_t op1, crm, op2, what, access, el, pan; };

static const struct operation operations[] = {
	{ OP1_EL0, 5, 1, FETCHED, MMU_ACCESS_READ, 0, 0 },	/* IC IVAU */
	{ OP1_EL1, 6, 1, INVALIDATE, MMU_ACCESS_WRITE, 0, 0 },	/* DC IVAC */
	{ OP1_EL0, 10, 1, CLEAN, MMU_ACCESS_READ, 0, 0 },	/* DC CVAC */
	{ OP1_EL0, 11, 1, CLEAN, MMU_ACCESS_READ, 0, 0 },	/* DC CVAU */
	{ OP1_EL0, 12, 1, CLEAN, MMU_ACCESS_READ, 0, 0 },	/* DC CVAP */
	{ OP1_EL0, 13, 1, CLEAN, MMU_ACCESS_READ, 0, 0 },	/* DC CVADP */
	{ OP1_EL0, 14, 1, CLEAN, MMU_ACCESS_READ, 0, 0 },	/* DC CIVAC */
	{ OP1_EL0, 4, 1, ZERO, MMU_ACCESS_WRITE, 0, 0 },	/* DC ZVA */
	{ OP1_EL1, 8, 0, TRANSLATE, MMU_ACCESS_READ, 1, 0 },	/* AT S1E1R */
	{ OP1_EL1, 8, 1, TRANSLATE, MMU_ACCESS_WRITE, 1, 0 },	/* AT S1E1W */
	{ OP1_EL1, 8, 2, TRANSLATE, MMU_ACCESS_READ, 0, 0 },	/* AT S1E0R */
	{ OP1_EL1, 8, 3, TRANSLATE, MMU_ACCESS_WRITE, 0, 0 },	/* AT S1E0W */
	{ OP1_EL1, 9, 0, TRANSLATE, MMU_ACCESS_READ, 1, 1 },	/* AT S1E1RP */
	{ OP1_EL1, 9, 1, TRANSLATE, MMU_ACCESS_WRITE, 1, 1 },	/* AT S1E1WP */
};

static const struct operation *find(const struct system_register *r)
{
	for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
		if (r->op1 == operations[i].op1 && r->crm == operations[i].crm && r->op2 == operations[i].op2)
			return &operations[i];
	return NULL;
}

/* The engine traps, or calls undefined, what EL0 may not. */
static bool permitted(struct mmu_guest *g, const struct operation *op, uint64_t pstate)
{
	struct system_register sctlr = { .crn = 1, .crm = 0, .op0 = 3, .op1 = 0, .op2 = 0 };

	if (pstate & GUEST_PSTATE_EL)
		return true;
	guest_system_register(g, &sctlr, false);
	return op->op1 == OP1_EL0 && (sctlr.value & (op->what == ZERO ? ARM64_SCTLR_DZE : ARM64_SCTLR_UCI));
}

/* IC IALLUIS, IALLU and IVAU. IALLU is for its own CPU alone; that others look as well is never wrong. */
static bool is_ic(const struct system_register *r)
{
	return r->crm == CRM_IALLUIS || r->crm == CRM_IC;
}

/* The walk for the instruction under way refused: a data abort, whatever was to be maintained. */
static void refuse(struct mmu_guest *g, int rc, uint64_t va, uint32_t access)
{
	guest_stop(g, rc == MMU_FAULTED ? MMU_GUEST_FAULT : MMU_GUEST_CALLBACK);
	g->stop.va = va;
	g->stop.exact = 1;
	g->stop.access = access | MMU_ACCESS_MAINTENANCE;
	guest_undo(g);
}

/*
 * What cleans at EL1 needs no right, so there it is no more than a read, but for PAN, which it is not subject to. The
 * manual leaves open whether IC at EL0 needs one: here it needs none.
 */
static void maintain(struct mmu_guest *g, const struct operation *op, uint64_t va, uint64_t pstate)
{
	bool as_read = op->what != INVALIDATE && !(pstate & PSTATE_PAN);
	struct guest_translation t;
	int rc = guest_translate(g, va, as_read ? op->access : op->access | MMU_ACCESS_MAINTENANCE, &t, &g->stop);

	if (rc == MMU_FAULTED && op->what == FETCHED && g->stop.arm64.kind == MMU_FAULT_PERMISSION)
		rc = MMU_OK;
	if (rc != MMU_OK)
		refuse(g, rc, va, op->access);
}

/* A walk past the TLB, which changes nothing. What the bus refuses is an exception, all else is in PAR_EL1. */
static void translate(struct mmu_guest *g, const struct operation *op, uint64_t va)
{
	struct mmu_arm64_regs regs = guest_arm64_registers(g);
	struct system_register par = { .crn = 7, .crm = 4, .op0 = 3, .op1 = 0, .op2 = 0 };
	struct mmu_arm64_translation t;
	int rc;

	regs.el = op->el;
	regs.pan = regs.pan && op->pan;
	regs.uao = 0;
	rc = mmu_arm64_walk(g->c.walk, &regs, va, op->access, 0, &t, &g->stop.arm64, NULL);
	guest_count_walk(g, rc);
	if (rc < 0 || (rc == MMU_FAULTED && g->stop.arm64.kind == MMU_FAULT_BUS)) {
		refuse(g, rc, va, MMU_ACCESS_READ);
		return;
	}
	par.value = rc == MMU_OK ? mmu_arm64_par(&regs, va, &t) : mmu_arm64_par_fault(&regs, &g->stop.arm64);
	guest_system_register(g, &par, true);
}

static void store_failed(struct mmu_guest *g, uint64_t hpa, int rc)
{
	guest_stop(g, rc < 0 ? MMU_GUEST_CALLBACK : MMU_GUEST_BUS_ERROR);
	g->stop.hpa = hpa;
	g->stop.size = WORD;
	g->stop.access = MMU_ACCESS_WRITE;
	g->stop.result = (uint32_t)rc;
	guest_undo(g);
}

/* It stores to code, maybe to that behind it, which the engine has translated and would still run. False: it is alone. */
static bool begin_alone(struct mmu_guest *g)
{
	if (g->phase != GUEST_RUNNING)
		return false;
	g->event = GUEST_CODE_WRITE;
	guest_undo(g);
	return true;
}

/*
 * DC ZVA of what is not RAM for the engine, which would go on behind it when the bus refuses. False: it is RAM, or code
 * and run alone, or may not be written, and all is the engine's.
 */
static bool zero(struct mmu_guest *g, uint64_t va)
{
	struct system_register dczid = { .crn = 0, .crm = 0, .op0 = 3, .op1 = 3, .op2 = 7 };
	struct guest_translation t;
	struct mmu_guest_stop unused;
	struct guest_place place;
	struct code_page *code;
	uint64_t hpa, block;
	paddr_t page;

	if (guest_translate(g, va, MMU_ACCESS_WRITE, &t, &unused) != MMU_OK)
		return false;
	page = pa_of(t.pa.v & GUEST_PAGE_MASK);
	place = guest_place(g, page, true);
	code = guest_code_find(g, &place.key);
	if (code || guest_alias_is_code(g, page, code))
		return begin_alone(g);
	if (place.plain)
		return false;
	guest_system_register(g, &dczid, false);
	block = UINT64_C(4) << (dczid.value & DCZID_BS);
	hpa = (t.pa.v & GUEST_PAGE_MASK) | (va & (GUEST_PAGE - 1) & ~(block - 1));
	for (uint64_t at = 0; at < block; at += WORD) {
		int rc;

		g->counters.bus_writes++;
		rc = mmu_port_store(g->c.data, hpa + at, WORD, 0);
		guest_device_acted(g);
		if (rc != MMU_MEMTX_OK) {
			store_failed(g, hpa + at, rc);
			break;
		}
	}
	return true;
}

/* UC_HOOK_INSN, SYS, before the instruction. 0: the engine carries it out, or refuses it. */
uint32_t guest_on_system(void *uc, int reg, const void *operation, void *user)
{
	const struct system_register *r = operation;
	const struct operation *op;
	struct mmu_guest *g = user;
	uint64_t pstate;

	(void)uc;
	(void)reg;
	if (g->phase == GUEST_PROBING)
		return 0;
	switch (r->crn) {
	case CRN_TLBI:
		guest_tlb_invalidate(g, r);
		return 0;
	case CRN_CACHE:
		if (g->sharing && is_ic(r))
			exclusive_tell_of_code();
		op = find(r);
		if (!op || guest_stopping(g))
			return 0;
		pstate = guest_register(g, g->c.ids.pstate);
		if (!permitted(g, op, pstate))
			return 0;
		if (op->what == ZERO)
			return zero(g, r->value);
		if (op->what == TRANSLATE)
			translate(g, op, r->value);
		else
			maintain(g, op, r->value, pstate);
		return 1;
	}
	return 0;
}
