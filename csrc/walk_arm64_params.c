/*
 * Registers to the parameters of a walk. The twin of mmu/arm64/regime.py, which names the sources.
 * Every register value gives parameters that are safe to walk with.
 */
#include <string.h>
#include "walk_arm64.h"

struct granule {
	int page_shift, stride, tg0, tg1, max_txsz, min_txsz, large_min_txsz, has_ds;
	int block_levels, large_block_levels, contiguous[4];
	int start_level[8], start_pa[8], start_ds_level;
};

static const struct granule granules[] = ARM64_GRANULES;
static const uint8_t pa_sizes[] = ARM64_PA_SIZES;
static const uint8_t high_at[] = ARM64_ADDR_HI_SHIFT;

/* Where a form holds addresses; the same at both stages. */
static const struct { uint64_t low, high; } forms[] = {
	[MMU_ARM64_FORM_K4] = { ARM64_PAGE4K_ADDR, 0 },
	[MMU_ARM64_FORM_K16] = { ARM64_PAGE16K_ADDR, 0 },
	[MMU_ARM64_FORM_K64] = { ARM64_PAGE64K_ADDR, ARM64_PAGE64K_ADDR_HI },
	[MMU_ARM64_FORM_K4_DS] = { ARM64_PAGE4KDS_ADDR, ARM64_PAGE4KDS_ADDR_HI },
	[MMU_ARM64_FORM_K16_DS] = { ARM64_PAGE16KDS_ADDR, ARM64_PAGE16KDS_ADDR_HI },
};

/* A field of a register, shifted down; the mask names the place. */
static unsigned field(uint64_t word, uint64_t mask)
{
	return (unsigned)((word & mask) / (mask & -mask));
}

static int min_int(int a, int b)
{
	return a < b ? a : b;
}

/* What both stages take from their control register. */
struct control {
	const struct granule *granule;
	uint64_t ttbr;
	int txsz, min_txsz, encoded_size, pa_range;
	bool valid, ds, ha, hd, big_endian;
};

static bool is_large(const struct control *c)
{
	return c->granule->has_ds ? c->ds : c->pa_range >= 52;
}

static unsigned form_of(const struct control *c)
{
	unsigned form = (unsigned)(c->granule - granules);

	if (!c->ds)
		return form;
	return form == MMU_ARM64_FORM_K4 ? MMU_ARM64_FORM_K4_DS : MMU_ARM64_FORM_K16_DS;
}

static void set_address_format(struct arm64_tables *t, const struct control *c)
{
	t->form = (uint8_t)form_of(c);
	t->address_mask = forms[t->form].low;
	t->high_mask = is_large(c) ? forms[t->form].high : 0;
	if (t->high_mask)
		t->high_shift = (uint8_t)(high_at[t->form] - __builtin_ctzll(t->high_mask));
}

static uint64_t first_table(const struct control *c, int table_shift)
{
	uint64_t address = c->ttbr & ARM64_TTBR_BADDR;

	if (c->ds || (!c->granule->has_ds && c->encoded_size >= 6 && c->pa_range >= 52)) {
		address = (address & ~UINT64_C(0x3f)) | (c->ttbr >> 2 & 0xf) << 48;
		if (table_shift < 6)
			table_shift = 6;
	}
	return address & ~arm64_low_mask((unsigned)table_shift);
}

/* Fills *t; `start` is the start level of stage 2, or anything above 3 to compute it. */
static void set_tables(struct arm64_tables *t, const struct control *c, unsigned stage, int start)
{
	const struct granule *g = c->granule;
	int input = c->valid ? 64 - c->txsz : g->page_shift + 1;
	bool narrow = g->has_ds && !c->ds;

	if (!c->valid || start > 3)
		start = 3 - (input - 1 - g->page_shift) / g->stride;
	memset(t, 0, sizeof(*t));
	t->stage = (uint8_t)stage;
	t->valid = c->valid;
	t->input_bits = (uint8_t)input;
	t->output_bits = (uint8_t)min_int(pa_sizes[c->encoded_size],
					  narrow ? min_int(c->pa_range, 48) : c->pa_range);
	t->page_shift = (uint8_t)g->page_shift;
	t->stride = (uint8_t)g->stride;
	t->block_levels = (uint8_t)(g->block_levels | (is_large(c) ? g->large_block_levels : 0));
	t->ha = c->ha;
	t->hd = c->ha && c->hd;
	t->big_endian = c->big_endian;
	t->start_level = (int8_t)start;
	t->start_shift = (uint8_t)(g->page_shift + (3 - start) * g->stride);
	t->base = first_table(c, input - t->start_shift + 3);
	set_address_format(t, c);
}

static const struct granule *granule_by_tg0(unsigned tg, bool *valid)
{
	*valid = true;
	for (unsigned i = 0; i < 3; i++)
		if ((unsigned)granules[i].tg0 == tg)
			return &granules[i];
	*valid = false;
	return &granules[0];
}

static const struct granule *granule_by_tg1(unsigned tg, bool *valid)
{
	*valid = true;
	for (unsigned i = 0; i < 3; i++)
		if ((unsigned)granules[i].tg1 == tg)
			return &granules[i];
	*valid = false;
	return &granules[0];
}

static void check_stage1_txsz(struct control *c)
{
	const struct granule *g = c->granule;
	int least = (g->has_ds ? c->ds : true) ? g->large_min_txsz : g->min_txsz;

	c->valid = c->valid && c->txsz >= least && c->txsz <= g->max_txsz;
}

static int pa_range_of(const struct mmu_arm64_regs *regs)
{
	return regs->pa_range < 32 ? 32 : min_int(regs->pa_range, 52);
}

static void init_two_ranges(struct arm64_stage1 *s, const struct mmu_arm64_regs *regs, bool el1,
			    bool upper)
{
	uint64_t sctlr = el1 ? regs->sctlr_el1 : regs->sctlr_el2;
	uint64_t tcr = el1 ? regs->tcr_el1 : regs->tcr_el2;
	uint64_t off = el1 ? ARM64_HCR_DC | ARM64_HCR_TGE : 0;
	struct control c = {
		.encoded_size = (int)field(tcr, ARM64_TCR_IPS),
		.pa_range = pa_range_of(regs),
		.ha = tcr & ARM64_TCR_HA,
		.hd = tcr & ARM64_TCR_HD,
		.big_endian = sctlr & ARM64_SCTLR_EE,
	};

	if (upper) {
		c.granule = granule_by_tg1(field(tcr, ARM64_TCR_TG1), &c.valid);
		c.txsz = (int)field(tcr, ARM64_TCR_T1SZ);
		c.ttbr = el1 ? regs->ttbr1_el1 : regs->ttbr1_el2;
	} else {
		c.granule = granule_by_tg0(field(tcr, ARM64_TCR_TG0), &c.valid);
		c.txsz = (int)field(tcr, ARM64_TCR_T0SZ);
		c.ttbr = el1 ? regs->ttbr0_el1 : regs->ttbr0_el2;
	}
	c.ds = (tcr & ARM64_TCR_DS) && c.granule->has_ds;
	check_stage1_txsz(&c);
	set_tables(&s->tables, &c, 1, ARM64_STAGE_OFF);
	s->enabled = (sctlr & ARM64_SCTLR_M) && !(regs->hcr_el2 & off);
	s->tbi = tcr & (upper ? ARM64_TCR_TBI1 : ARM64_TCR_TBI0);
	s->epd = tcr & (upper ? ARM64_TCR_EPD1 : ARM64_TCR_EPD0);
	s->e0pd = tcr & (upper ? ARM64_TCR_E0PD1 : ARM64_TCR_E0PD0);
	s->hpd = tcr & (upper ? ARM64_TCR_HPD1 : ARM64_TCR_HPD0);
	s->wxn = sctlr & ARM64_SCTLR_WXN;
	s->epan = sctlr & ARM64_SCTLR_EPAN;
	s->two_ranges = true;
	s->upper = upper;
}

static bool two_ranges_tbid(uint64_t tcr, bool upper)
{
	return tcr & (upper ? ARM64_TCR_TBID1 : ARM64_TCR_TBID0);
}

static void init_one_range(struct arm64_stage1 *s, const struct mmu_arm64_regs *regs, bool el2)
{
	uint64_t sctlr = el2 ? regs->sctlr_el2 : regs->sctlr_el3;
	uint64_t tcr = el2 ? regs->tcr_el2 : regs->tcr_el3;
	struct control c = {
		.ttbr = el2 ? regs->ttbr0_el2 : regs->ttbr0_el3,
		.txsz = (int)field(tcr, ARM64_TCRSINGLE_T0SZ),
		.encoded_size = (int)field(tcr, ARM64_TCRSINGLE_PS),
		.pa_range = pa_range_of(regs),
		.ha = tcr & ARM64_TCRSINGLE_HA,
		.hd = tcr & ARM64_TCRSINGLE_HD,
		.big_endian = sctlr & ARM64_SCTLR_EE,
	};

	c.granule = granule_by_tg0(field(tcr, ARM64_TCRSINGLE_TG0), &c.valid);
	c.ds = (tcr & ARM64_TCRSINGLE_DS) && c.granule->has_ds;
	check_stage1_txsz(&c);
	set_tables(&s->tables, &c, 1, ARM64_STAGE_OFF);
	s->enabled = sctlr & ARM64_SCTLR_M;
	s->tbi = tcr & ARM64_TCRSINGLE_TBI;
	s->hpd = tcr & ARM64_TCRSINGLE_HPD;
	s->wxn = sctlr & ARM64_SCTLR_WXN;
}

void arm64_stage1_init(struct arm64_request *q, const struct mmu_arm64_regs *regs, bool upper)
{
	struct arm64_stage1 *s = &q->stage1[upper];
	bool el1 = q->regime_el == 1, tbid;

	memset(s, 0, sizeof(*s));
	if (q->two_ranges) {
		init_two_ranges(s, regs, el1, upper);
		tbid = two_ranges_tbid(el1 ? regs->tcr_el1 : regs->tcr_el2, upper);
	} else {
		init_one_range(s, regs, q->regime_el == 2);
		tbid = (q->regime_el == 2 ? regs->tcr_el2 : regs->tcr_el3) & ARM64_TCRSINGLE_TBID;
	}
	if (tbid && q->access == MMU_ACCESS_FETCH)
		s->tbi = false;
}

static bool start_level_fits(const struct granule *g, int input, int start)
{
	int least = (3 - start) * g->stride + g->page_shift + 1;

	return input >= least && input <= least + g->stride - 1 + 4;
}

static void stage2_init(struct arm64_stage2 *s, const struct mmu_arm64_regs *regs)
{
	uint64_t vtcr = regs->vtcr_el2;
	struct control c = {
		.ttbr = regs->vttbr_el2,
		.txsz = (int)field(vtcr, ARM64_VTCR_T0SZ),
		.encoded_size = (int)field(vtcr, ARM64_VTCR_PS),
		.pa_range = pa_range_of(regs),
		.ha = vtcr & ARM64_VTCR_HA,
		.hd = vtcr & ARM64_VTCR_HD,
		.big_endian = regs->sctlr_el2 & ARM64_SCTLR_EE,
	};
	unsigned code = field(vtcr, ARM64_VTCR_SL0);
	int start, least;

	c.granule = granule_by_tg0(field(vtcr, ARM64_VTCR_TG0), &c.valid);
	c.ds = (vtcr & ARM64_VTCR_DS) && c.granule->has_ds;
	if (c.ds && c.granule == &granules[0] && (vtcr & ARM64_VTCR_SL2))
		code |= 4;
	start = c.granule->start_level[code];
	least = 64 - (c.granule->has_ds && !c.ds ? min_int(c.pa_range, 48) : c.pa_range);
	c.valid = c.valid && c.txsz >= least && c.txsz <= c.granule->max_txsz &&
		  c.granule->start_pa[code] <= c.pa_range &&
		  (c.ds || start != c.granule->start_ds_level) &&
		  start_level_fits(c.granule, 64 - c.txsz, start);
	set_tables(&s->tables, &c, 2, start);
	s->enabled = true;
	s->ptw = regs->hcr_el2 & ARM64_HCR_PTW;
}

/* EL0 belongs to EL2. */
static bool in_host(const struct mmu_arm64_regs *regs)
{
	return (regs->hcr_el2 & ARM64_HCR_E2H) && (regs->hcr_el2 & ARM64_HCR_TGE);
}

/* The EL whose registers hold stage 1; pseudocode TranslationRegime. */
static unsigned regime_el(const struct mmu_arm64_regs *regs)
{
	if (regs->el >= 2)
		return regs->el == 2 ? 2 : 3;
	return regs->el == 0 && in_host(regs) ? 2 : 1;
}

/* Whether LDTR and STTR use EL0's rights; pseudocode AArch64.IsUnprivAccessPriv. */
static bool unprivileged_is_user(const struct mmu_arm64_regs *regs)
{
	return !regs->uao && (regs->el == 1 || (regs->el == 2 && in_host(regs)));
}

int arm64_request_init(struct arm64_request *q, mmu_port *port, const struct mmu_arm64_regs *regs,
		       uint32_t access, uint32_t options)
{
	uint32_t kind = access & (MMU_ACCESS_READ | MMU_ACCESS_WRITE | MMU_ACCESS_FETCH);
	uint32_t more = access & ~kind;

	if (!kind || kind & (kind - 1) ||
	    (more && (kind == MMU_ACCESS_FETCH ||
		      (more != MMU_ACCESS_UNPRIVILEGED && more != MMU_ACCESS_MAINTENANCE))))
		return MMU_ERANGE;
	q->port = port;
	q->ram = NULL;
	q->steps = NULL;
	q->flags = access;
	q->access = kind;
	q->pa_range = (uint8_t)pa_range_of(regs);
	q->regime_el = (uint8_t)regime_el(regs);
	q->two_ranges = q->regime_el == 1 || (q->regime_el == 2 && (regs->hcr_el2 & ARM64_HCR_E2H));
	q->update = options & MMU_ARM64_UPDATE;
	q->stage1_only = options & MMU_ARM64_STAGE1_ONLY;
	q->user = regs->el == 0 ||
		  ((access & MMU_ACCESS_UNPRIVILEGED) && unprivileged_is_user(regs));
	q->pan = regs->pan && !q->user && !(access & MMU_ACCESS_MAINTENANCE);
	q->checked = q->user || kind == MMU_ACCESS_WRITE || !(access & MMU_ACCESS_MAINTENANCE);
	q->dirties = access == MMU_ACCESS_WRITE || access == (MMU_ACCESS_WRITE | MMU_ACCESS_UNPRIVILEGED);
	memset(&q->stage2, 0, sizeof(q->stage2));
	if (q->regime_el == 1 && (regs->hcr_el2 & (ARM64_HCR_VM | ARM64_HCR_DC)))
		stage2_init(&q->stage2, regs);
	return MMU_OK;
}
