/*
 * What the engine would take from the host: time and random numbers. With them no run would be like another one.
 *
 * Clocks are one clock, of the guest, which moves on at each look at it. There are no random numbers: RDRAND and RDSEED
 * (guest_site_x86.c), RNDR and RNDRRS are undefined, and CPUID and ID_AA64ISAR0_EL1 say so.
 */
#include "deliver_x86.h"

enum { TIME_STEP = 1000 };
enum { CR4_OSXSAVE = 1 << 18, CPUID_OSXSAVE = 1 << 27 };
enum { FEATURES_LEAF = 1, LAST_BASIC = 0xd, HYPERVISOR = 0x40000000, LAST_EXTENDED = 0x80000008u };

uint64_t mmu_guest_look(mmu_guest *g)
{
	if (g->phase != GUEST_PROBING)
		g->time += TIME_STEP;
	return g->time;
}

/* A look by an instruction. Behind one that is not to be in its block, it is none: all of it is undone but the clock. */
static uint64_t look(struct mmu_guest *g)
{
	return guest_stopping(g) ? g->time : mmu_guest_look(g);
}

/* ---- x86. Hooks before an instruction; 1: it is done ---- */

int guest_on_rdtsc(void *uc, void *user)
{
	struct mmu_guest *g = user;
	uint64_t time = look(g);

	(void)uc;
	guest_flags_keep(g);
	guest_set_register(g, g->c.ids.general[RAX], (uint32_t)time);
	guest_set_register(g, g->c.ids.general[RDX], time >> 32);
	return 1;
}

int guest_on_rdtscp(void *uc, void *user)
{
	struct mmu_guest *g = user;

	guest_set_register(g, g->c.ids.general[RCX], (uint32_t)guest_msr(g, MSR_TSC_AUX));
	return guest_on_rdtsc(uc, user);
}

static const struct mmu_guest_cpuid *find_leaf(const struct mmu_guest *g, uint32_t leaf, uint32_t subleaf)
{
	const struct mmu_guest_cpuid *row = g->c.cpuid, *end = row + sizeof(g->c.cpuid) / sizeof(*row);

	for (; row < end && row->leaf; row++)
		if (row->leaf == leaf && (row->subleaf == subleaf || row->subleaf == UINT32_MAX))
			return row;
	return NULL;
}

/* Beyond the last leaves is the last basic one. */
static uint32_t answered(uint32_t leaf)
{
	bool known = leaf <= LAST_BASIC || leaf == HYPERVISOR || (leaf >> 31 && leaf <= LAST_EXTENDED);

	return known ? leaf : LAST_BASIC;
}

/* The leaves that are other than the engine has them. */
int guest_on_cpuid(void *uc, void *user)
{
	static const uint8_t to[4] = { RAX, RBX, RCX, RDX };
	struct mmu_guest *g = user;
	uint32_t leaf = answered((uint32_t)guest_register(g, g->c.ids.general[RAX])), more = 0;
	const struct mmu_guest_cpuid *row = find_leaf(g, leaf, (uint32_t)guest_register(g, g->c.ids.general[RCX]));

	(void)uc;
	guest_flags_keep(g);
	if (guest_code_serialize(g)) {
		guest_undo(g);
		return 1;
	}
	if (!row)
		return 0;
	if (leaf == FEATURES_LEAF && (guest_register(g, g->c.ids.cr4) & CR4_OSXSAVE))
		more = CPUID_OSXSAVE;
	for (unsigned i = 0; i < 4; i++)
		guest_set_register(g, g->c.ids.general[to[i]], row->registers[i] | (to[i] == RCX ? more : 0));
	return 1;
}

/* ---- arm64 ---- */

#define ISAR0_RNDR (UINT64_C(15) << 60)

/* Of ID_AA64PFR0_EL1: SVE, and that EL0 and EL1 have AArch32 as well. */
#define PFR0_SVE (UINT64_C(15) << 32)
#define PFR0_AARCH32 UINT64_C(0x22)
#define PFR0_AARCH64 UINT64_C(0x11)

#define PFR1_BT UINT64_C(15)	/* of ID_AA64PFR1_EL1: branch targets, which nobody checks */

enum what { COUNTER, TIMER, NO_TIMER, RANDOM, FEATURES, STATES, TARGETS };

/* With op0 = 3. EL0 may read them where one of `rights` is set in CNTKCTL_EL1 or, of the PMU, in PMUSERENR_EL0. */
struct host_register { uint8_t op1, crn, crm, op2, what; uint16_t rights; };

static const struct host_register host_registers[] = {
	{ 3, 14, 0, 1, COUNTER, 1 << 0 },	/* CNTPCT_EL0 */
	{ 3, 14, 0, 2, COUNTER, 1 << 1 },	/* CNTVCT_EL0 */
	{ 3, 14, 2, 0, TIMER, 1 << 9 },		/* CNTP_TVAL_EL0 */
	{ 3, 14, 2, 2, NO_TIMER, 1 << 9 },	/* CNTP_CVAL_EL0 */
	{ 3, 14, 3, 0, TIMER, 1 << 8 },		/* CNTV_TVAL_EL0 */
	{ 3, 14, 3, 2, NO_TIMER, 1 << 8 },	/* CNTV_CVAL_EL0 */
	{ 3, 9, 13, 0, COUNTER, 1 << 0 | 1 << 2 },	/* PMCCNTR_EL0 */
	{ 3, 2, 4, 0, RANDOM, 0 },		/* RNDR */
	{ 3, 2, 4, 1, RANDOM, 0 },		/* RNDRRS */
	{ 0, 0, 6, 0, FEATURES, 0 },		/* ID_AA64ISAR0_EL1 */
	{ 0, 0, 4, 0, STATES, 0 },		/* ID_AA64PFR0_EL1 */
	{ 0, 0, 4, 1, TARGETS, 0 },		/* ID_AA64PFR1_EL1 */
};

static const struct host_register *find(const struct system_register *op)
{
	const struct host_register *r = host_registers;

	for (size_t i = 0; i < sizeof(host_registers) / sizeof(*r); i++, r++)
		if (op->op0 == 3 && op->op1 == r->op1 && op->crn == r->crn && op->crm == r->crm && op->op2 == r->op2)
			return r;
	return NULL;
}

static uint64_t system_value(struct mmu_guest *g, struct system_register r)
{
	g->c.engine.reg_read(g->c.engine.uc, g->c.ids.coprocessor, &r);
	return r.value;
}

/* The engine traps what is not permitted. */
static bool readable(struct mmu_guest *g, const struct host_register *r)
{
	struct system_register cntkctl = { .op0 = 3, .op1 = 0, .crn = 14, .crm = 1, .op2 = 0 };
	struct system_register pmuserenr = { .op0 = 3, .op1 = 3, .crn = 9, .crm = 14, .op2 = 0 };

	if (guest_register(g, g->c.ids.pstate) & GUEST_PSTATE_EL)
		return true;
	return r->what == RANDOM || (r->rights & system_value(g, r->crn == 9 ? pmuserenr : cntkctl));
}

/* UC_HOOK_INSN, MRS, before it. */
uint32_t guest_on_mrs(void *uc, int reg, const void *operation, void *user)
{
	const struct system_register *op = operation;
	const struct host_register *r = find(op);
	struct mmu_guest *g = user;
	uint64_t value = 0;

	(void)uc;
	if (!r || !readable(g, r))
		return 0;
	switch ((enum what)r->what) {
	case COUNTER: value = look(g); break;
	case TIMER: value = (uint32_t)-look(g); break;
	case NO_TIMER: break;
	case FEATURES: value = system_value(g, *op) & ~ISAR0_RNDR; break;
	case TARGETS: value = system_value(g, *op) & ~PFR1_BT; break;
	case STATES: value = (system_value(g, *op) & ~(PFR0_SVE | PFR0_AARCH32)) | PFR0_AARCH64; break;
	case RANDOM:
		if (g->phase == GUEST_PROBING || guest_stopping(g))
			return 1;
		guest_stop(g, MMU_GUEST_INVALID);
		guest_undo(g);
		return 1;
	}
	guest_set_register(g, reg, value);	/* of XZR, nothing comes of it */
	return 1;
}
