/*
 * arm64 walker (VMSAv8-64). The twin of mmu/arm64/reference.py, which names the manual's sources:
 * the same results, faults, write-backs and bus accesses, in the same order.
 */
#include "walk_arm64_rights.h"

static int refuse(const struct arm64_request *q, struct mmu_arm64_fault *f, uint32_t kind,
		  const struct arm64_cursor *c, int level, unsigned has_entry)
{
	*f = (struct mmu_arm64_fault){
		.va = f->va,
		.kind = kind,
		.access = q->flags,
		.level = level,
		.stage = c->tables->stage,
		.on_table = c->on_table,
		.ipa = c->tables->stage == 2 ? c->input : 0,
		.has_entry = (uint8_t)has_entry,
		.entry_address = has_entry & 1 ? c->entry.v : 0,
		.entry = has_entry & 2 ? c->descriptor : 0,
	};
	return MMU_FAULTED;
}

/* The entry that the cursor stands on is at fault. */
static int refuse_entry(const struct arm64_request *q, struct mmu_arm64_fault *f, uint32_t kind,
			const struct arm64_cursor *c)
{
	return refuse(q, f, kind, c, c->level, 3);
}

static int refuse_bus(const struct arm64_request *q, struct mmu_arm64_fault *f,
		      const struct arm64_cursor *c, int result, unsigned has_entry)
{
	refuse(q, f, MMU_FAULT_BUS, c, c->level, has_entry);
	f->result = (uint8_t)result;
	return MMU_FAULTED;
}

static void cursor_begin(struct arm64_cursor *c, const struct arm64_tables *t, uint64_t input,
			 bool on_table)
{
	c->tables = t;
	c->input = input;
	c->on_table = on_table;
	c->base = t->base;
	c->level = t->start_level;
	c->shift = t->start_shift;
	c->top = t->input_bits;
	c->above = 0;
}

/* Pseudocode AArch64.DecodeDescriptorType. */
static unsigned entry_kind(const struct arm64_tables *t, int level, uint64_t descriptor)
{
	if (!(descriptor & ARM64_INVALID_VALID))
		return MMU_ARM64_ENTRY_INVALID;
	if (descriptor & ARM64_INVALID_TYPE)
		return level == 3 ? MMU_ARM64_ENTRY_LEAF : MMU_ARM64_ENTRY_TABLE;
	if (level >= 0 && (t->block_levels >> level & 1))
		return MMU_ARM64_ENTRY_LEAF;
	return MMU_ARM64_ENTRY_INVALID;
}

static void record(const struct arm64_request *q, const struct arm64_cursor *c, unsigned kind)
{
	struct mmu_steps *s = q->steps;

	if (!s)
		return;
	if (s->count < s->capacity)
		s->step[s->count] = (struct mmu_step){
			.address = c->entry.v,
			.value = c->descriptor,
			.level = c->level,
			.stage = c->tables->stage,
			.format = (uint8_t)(c->tables->form * 4 + kind),
			.size = 8,
		};
	s->count++;
}

static uint64_t output_address(const struct arm64_tables *t, uint64_t descriptor, unsigned shift)
{
	uint64_t low = descriptor & t->address_mask & ~arm64_low_mask(shift);

	return low | (descriptor & t->high_mask) << t->high_shift;
}

static int stage2_translate(const struct arm64_request *q, ipa_t ipa, uint32_t access,
			    bool on_table, struct arm64_cursor *c, uint64_t *output,
			    uint32_t *rights, struct mmu_arm64_fault *f);

/* Where an entry of stage 1 lies: its address is an IPA while stage 2 is on. */
static int entry_address(const struct arm64_request *q, struct arm64_cursor *c, uint32_t access,
			 struct mmu_arm64_fault *f)
{
	struct arm64_cursor two;
	uint64_t output;
	uint32_t rights;
	int rc;

	if (c->tables->stage == 2 || !q->stage2.enabled) {
		c->entry = pa_of(c->entry_input);
		return MMU_OK;
	}
	rc = stage2_translate(q, ipa_of(c->entry_input), access, true, &two, &output, &rights, f);
	if (rc == MMU_OK)
		c->entry = pa_of(output);
	return rc;
}

/* One bus access. Whoever answers it may change the map, so the run of RAM is looked up again. */
static int load_entry(const struct arm64_request *q, paddr_t entry, uint64_t *ret)
{
	int rc;

	if (port_ram_load(q->ram, entry, 8, ret))
		return MMU_MEMTX_OK;
	rc = port_load64(q->port, entry, ret);
	*q->ram = port_ram(q->port);
	return rc;
}

/* Reads one entry and moves below it. MMU_OK: it is the leaf, and c->base its output address. */
static int cursor_step(const struct arm64_request *q, struct arm64_cursor *c,
		       struct mmu_arm64_fault *f)
{
	const struct arm64_tables *t = c->tables;
	uint64_t index = (c->input & arm64_low_mask(c->top)) >> c->shift;
	unsigned kind;
	int rc;

	c->entry_input = c->base | index << 3;
	rc = entry_address(q, c, MMU_ACCESS_READ, f);
	if (rc != MMU_OK)
		return rc;
	rc = load_entry(q, c->entry, &c->descriptor);
	if (rc)
		return rc < 0 ? rc : refuse_bus(q, f, c, rc, 1);
	if (t->big_endian)
		c->descriptor = __builtin_bswap64(c->descriptor);
	kind = entry_kind(t, c->level, c->descriptor);
	record(q, c, kind);
	if (kind == MMU_ARM64_ENTRY_INVALID)
		return refuse_entry(q, f, MMU_FAULT_NOT_PRESENT, c);
	c->base = output_address(t, c->descriptor, kind == MMU_ARM64_ENTRY_LEAF ? c->shift : 0);
	if (c->base >> t->output_bits)
		return refuse_entry(q, f, MMU_FAULT_ADDRESS_SIZE, c);
	if (kind == MMU_ARM64_ENTRY_TABLE) {
		c->above |= c->descriptor;
		c->level++;
		c->top = c->shift;
		c->shift = (uint8_t)(c->shift - t->stride);
		return ARM64_MORE;
	}
	if (!t->ha && !(c->descriptor & ARM64_STAGE1LEAF_AF))
		return refuse_entry(q, f, MMU_FAULT_ACCESS_FLAG, c);
	return MMU_OK;
}

/* Writes a changed leaf back. ARM64_MORE: another agent changed it, so the walk starts again. */
static int write_back(const struct arm64_request *q, struct arm64_cursor *c, uint64_t descriptor,
		      struct mmu_arm64_fault *f)
{
	uint64_t expected = c->descriptor, desired = descriptor, old;
	int rc;

	if (descriptor == c->descriptor || !q->update)
		return MMU_OK;
	rc = entry_address(q, c, MMU_ACCESS_WRITE, f);
	if (rc != MMU_OK)
		return rc;
	if (c->tables->big_endian) {
		expected = __builtin_bswap64(expected);
		desired = __builtin_bswap64(desired);
	}
	rc = port_exchange64(q->port, c->entry, expected, desired, &old);
	*q->ram = port_ram(q->port);
	if (rc)
		return rc < 0 ? rc : refuse_bus(q, f, c, rc, 3);
	if (old != expected)
		return ARM64_MORE;
	c->descriptor = descriptor;
	return MMU_OK;
}

/* ---- stage 2 ---- */

/* Translates ipa; *c is left at the leaf. `on_table`: for an entry of stage 1. */
static int stage2_translate(const struct arm64_request *q, ipa_t ipa, uint32_t access,
			    bool on_table, struct arm64_cursor *c, uint64_t *output,
			    uint32_t *rights, struct mmu_arm64_fault *f)
{
	const struct arm64_tables *t = &q->stage2.tables;
	uint64_t wanted;
	bool device;
	int rc;

	do {
		cursor_begin(c, t, ipa.v, on_table);
		if (!t->valid || ipa.v >> t->input_bits)
			return refuse(q, f, MMU_FAULT_NOT_PRESENT, c, 0, 0);
		if (t->base >> t->output_bits)
			return refuse(q, f, MMU_FAULT_ADDRESS_SIZE, c, 0, 0);
		do
			rc = cursor_step(q, c, f);
		while (rc == ARM64_MORE);
		if (rc != MMU_OK)
			return rc;
		*rights = stage2_rights(t, c->descriptor);
		device = on_table && q->stage2.ptw &&
			 FIELD(c->descriptor, ARM64_STAGE2LEAF_MEMATTR) < 4;
		if (device || ((on_table || q->checked) && !(access & rights_of(*rights, q->user && !on_table))))
			return refuse_entry(q, f, MMU_FAULT_PERMISSION, c);
		wanted = c->descriptor | (t->ha ? ARM64_STAGE2LEAF_AF : 0);
		if (t->hd && (wanted & ARM64_STAGE2LEAF_DBM) && (on_table ? access == MMU_ACCESS_WRITE : q->dirties))
			wanted |= S2AP_WRITE * (ARM64_STAGE2LEAF_S2AP & -ARM64_STAGE2LEAF_S2AP);
		rc = write_back(q, c, wanted, f);
	} while (rc == ARM64_MORE);
	*output = c->base | (ipa.v & arm64_low_mask(c->shift));
	return rc;
}

/* ---- stage 1 ---- */

/* Pseudocode AArch64.S1DisabledOutput. */
static int stage1_off(const struct arm64_request *q, struct arm64_lane *lane,
		      struct mmu_arm64_fault *f)
{
	uint64_t address = lane->at.input & arm64_low_mask(arm64_address_bits(lane->stage1));

	if (address >> q->pa_range)
		return refuse(q, f, MMU_FAULT_ADDRESS_SIZE, &lane->at, 0, 0);
	lane->output = address;
	lane->at.level = ARM64_STAGE_OFF;
	lane->at.descriptor = 0;
	lane->rights = both(MMU_ACCESS_READ | MMU_ACCESS_WRITE, true, true);
	return MMU_OK;
}

int arm64_lane_begin(const struct arm64_request *q, struct arm64_lane *lane, vaddr_t va,
		     struct mmu_arm64_fault *f)
{
	const struct arm64_stage1 *s = &q->stage1[arm64_upper(q, va.v)];

	lane->stage1 = s;
	f->va = va.v;
	cursor_begin(&lane->at, &s->tables, va.v, false);
	if (!s->enabled)
		return stage1_off(q, lane, f);
	if (arm64_input_refused(q, s, va.v))
		return refuse(q, f, MMU_FAULT_NOT_PRESENT, &lane->at, 0, 0);
	if (s->tables.base >> s->tables.output_bits)
		return refuse(q, f, MMU_FAULT_ADDRESS_SIZE, &lane->at, 0, 0);
	return ARM64_MORE;
}

bool arm64_leaf_allows(const struct arm64_request *q, const struct arm64_stage1 *s,
		       uint64_t descriptor, uint64_t above)
{
	return q->access & granted(q, s, stage1_rights(s, descriptor, s->hpd ? 0 : above));
}

void arm64_lane_skip(struct arm64_lane *lane, const struct arm64_rest *rest)
{
	struct arm64_cursor *c = &lane->at;
	const struct arm64_tables *t = c->tables;
	unsigned levels = (unsigned)(rest->level - t->start_level);

	if (!levels)
		return;
	c->level = rest->level;
	c->shift = (uint8_t)(t->start_shift - levels * t->stride);
	c->top = (uint8_t)(c->shift + t->stride);
	c->above = rest->above;
	c->base = rest->entry & ~arm64_low_mask(t->stride + 3);
}

/* The leaf is reached: check, and only then write AF and dirty state back. */
static int stage1_leaf(const struct arm64_request *q, struct arm64_lane *lane,
		       struct mmu_arm64_fault *f)
{
	const struct arm64_stage1 *s = lane->stage1;
	struct arm64_cursor *c = &lane->at;
	uint64_t wanted;
	int rc;

	lane->rights = stage1_rights(s, c->descriptor, s->hpd ? 0 : c->above);
	if (!(q->access & granted(q, s, lane->rights)))
		return refuse_entry(q, f, MMU_FAULT_PERMISSION, c);
	wanted = c->descriptor | (s->tables.ha ? ARM64_STAGE1LEAF_AF : 0);
	if (s->tables.hd && (wanted & ARM64_STAGE1LEAF_DBM) && q->dirties)
		wanted &= ~(AP_READ_ONLY * (ARM64_STAGE1LEAF_AP & -ARM64_STAGE1LEAF_AP));
	lane->output = c->base | (c->input & arm64_low_mask(c->shift));
	rc = write_back(q, c, wanted, f);
	if (rc == ARM64_MORE)
		cursor_begin(c, &s->tables, c->input, false);
	return rc;
}

int arm64_lane_step(const struct arm64_request *q, struct arm64_lane *lane,
		    struct mmu_arm64_fault *f)
{
	int rc = cursor_step(q, &lane->at, f);

	return rc == MMU_OK ? stage1_leaf(q, lane, f) : rc;
}

/* ---- the result ---- */

/* Hardware must still mark the page dirty before a write. */
static bool stage1_clean(const struct arm64_cursor *c)
{
	return c->level != ARM64_STAGE_OFF && c->tables->hd &&
	       (c->descriptor & ARM64_STAGE1LEAF_DBM) &&
	       (FIELD(c->descriptor, ARM64_STAGE1LEAF_AP) & AP_READ_ONLY);
}

static bool stage2_clean(const struct arm64_cursor *c)
{
	return c->tables->hd && (c->descriptor & ARM64_STAGE2LEAF_DBM) &&
	       !(FIELD(c->descriptor, ARM64_STAGE2LEAF_S2AP) & S2AP_WRITE);
}

static struct mmu_arm64_stage stage_of(const struct arm64_cursor *c)
{
	return (struct mmu_arm64_stage){
		.descriptor = c->descriptor, .level = c->level, .form = c->tables->form,
	};
}

int arm64_lane_finish(const struct arm64_request *q, const struct arm64_lane *lane,
		      struct mmu_arm64_translation *ret, struct mmu_arm64_fault *f)
{
	bool one_off = lane->at.level == ARM64_STAGE_OFF;
	uint64_t size = one_off ? ARM64_FLAT_PAGE : UINT64_C(1) << lane->at.shift;
	uint32_t own = granted(q, lane->stage1, lane->rights), rights = lane->rights, two_rights;
	struct mmu_arm64_stage two = { .level = ARM64_STAGE_OFF };
	bool clean = stage1_clean(&lane->at);
	uint64_t pa = lane->output;
	struct arm64_cursor c;
	int rc;

	if (q->stage2.enabled && !q->stage1_only) {
		rc = stage2_translate(q, ipa_of(pa), q->access, false, &c, &pa, &two_rights, f);
		if (rc != MMU_OK)
			return rc;
		rights &= two_rights;
		own &= rights_of(two_rights, q->user);
		clean = clean || stage2_clean(&c);
		if (one_off || size >> c.shift)
			size = UINT64_C(1) << c.shift;
		two = stage_of(&c);
	}
	*ret = (struct mmu_arm64_translation){
		.pa = pa,
		.ipa = lane->output,
		.page_size = size,
		.stage1 = stage_of(&lane->at),
		.stage2 = two,
		.allowed = clean ? own & ~(uint32_t)MMU_ACCESS_WRITE : own,
		.rights = rights,
		.writable = !!(rights & MMU_ARM64_PRIV_WRITE),
		.user = !!(rights & (MMU_ARM64_USER_READ | MMU_ARM64_USER_WRITE)),
		.executable = !!(rights_of(rights, q->user) & MMU_ACCESS_FETCH),
	};
	return MMU_OK;
}

int mmu_arm64_walk(mmu_port *port, const struct mmu_arm64_regs *regs, uint64_t va, uint32_t access,
		   uint32_t options, struct mmu_arm64_translation *ret,
		   struct mmu_arm64_fault *fault_ret, struct mmu_steps *steps)
{
	struct mmu_arm64_fault fault = { 0 };
	struct arm64_request q;
	struct arm64_lane lane;
	struct port_read read;
	struct map_ram ram;
	int rc = arm64_request_init(&q, port, regs, access, options);

	if (rc != MMU_OK)
		return rc;
	read = port_enter(port);
	ram = port_ram(port);
	q.ram = &ram;
	q.steps = steps;
	arm64_stage1_init(&q, regs, arm64_upper(&q, va));
	rc = arm64_lane_begin(&q, &lane, va_of(va), &fault);
	while (rc == ARM64_MORE)
		rc = arm64_lane_step(&q, &lane, &fault);
	if (rc == MMU_OK)
		rc = arm64_lane_finish(&q, &lane, ret, &fault);
	port_leave(port, read);
	if (rc == MMU_FAULTED)
		*fault_ret = fault;
	return rc;
}
