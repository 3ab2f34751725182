/*
 * Many x86 walks at once. GROUP walks go down level by level together, so that the memory latency of
 * one hides behind the others. This path knows only what is common: long mode without a stage 2,
 * entries in the largest run of RAM, nothing to update, access granted. Whatever else a walk meets
 * sends it to x86_walk_one(), from the root; the entries read so far were plain RAM, so nobody saw that.
 */
#include "walk_x86.h"

enum { GROUP = 32, BLOCK = 4096 };	/* walks in flight; walks between looks at the map of the bus */

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* A kind of entry as a test: it is as wanted when (entry & care) == need. */
struct expected { uint64_t care, need; };

struct batch {
	struct x86_walk walk;
	bool fast;
	struct expected table, page_1g, page_2m, page_4k;
	uint32_t granted;		/* bit executable * 4 + user * 2 + writable */
	uint32_t denied[2];		/* [user]: keys that forbid the access */
};

/* The walks in flight, by their number in the group; live[0..count-1] go on. */
struct flight {
	uint64_t address[GROUP], rights[GROUP];
	const uint8_t *entry[GROUP];
	uint8_t live[GROUP];
	uint32_t count;
	uint32_t slow;			/* set of those that need x86_walk_one() */
};

static struct expected expect(const struct x86_walk *w, uint64_t reserved, uint64_t flags)
{
	uint64_t need = X86_PTE_P | (w->update ? flags : 0);

	return (struct expected){ .care = need | reserved | w->stage1.beyond | (w->stage1.no_xd & X86_PTE_XD),
				  .need = need };
}

/* What long mode expects: see the layouts of these names in mmu/x86/format.py. */
static void expect_entries(struct batch *b)
{
	const struct x86_walk *w = &b->walk;
	uint64_t flags = X86_PTE_A | (w->wanted & MMU_ACCESS_WRITE ? X86_PTE_D : 0);

	/* Where a level has pages, bit 7 is 0 in every entry that counts as a table. */
	b->table = expect(w, X86_PML4E_RESERVED | X86_PDPTE_RESERVED | X86_PDE_RESERVED, X86_PTE_A);
	b->page_1g = expect(w, X86_PDPTE1G_RESERVED, flags);
	b->page_2m = expect(w, X86_PDE2M_RESERVED, flags);
	b->page_4k = expect(w, X86_PTE_RESERVED, flags);
}

static void judge_pages(struct batch *b)
{
	const struct x86_walk *w = &b->walk;

	for (int i = 0; i < 8; i++) {
		const struct x86_leaf page = { .executable = i & 4, .user = i & 2, .writable = i & 1 };

		if (x86_rights(&w->rules, &page) & w->wanted)
			b->granted |= 1u << i;
	}
	for (int i = 0; i < 32; i++) {
		const struct x86_leaf page = { .user = i & 16, .key = i & 15 };

		if (x86_key_denies(&w->rules, &page) & w->wanted)
			b->denied[page.user] |= 1u << page.key;
	}
}

static void batch_setup(struct batch *b)
{
	const struct x86_walk *w = &b->walk;

	b->fast = w->long_mode && w->regs->stage2 == MMU_X86_STAGE2_NONE && !w->rules.shadow_stack;
	if (b->fast) {
		expect_entries(b);
		judge_pages(b);
	}
}

/* Sends walk i to its entry for the table at `table`; false when that is not in the run of RAM. */
static ALWAYS_INLINE bool aim(struct flight *f, const struct map_ram *ram, uint32_t i, uint64_t table,
			      unsigned int shift)
{
	uint64_t offset = table + (f->address[i] >> shift & 511) * 8 - ram->first;

	f->entry[i] = ram->host + offset;
	if (offset > ram->span)
		return false;
	__builtin_prefetch(f->entry[i]);
	return true;
}

static ALWAYS_INLINE bool grant(const struct batch *b, uint64_t rights, uint64_t entry)
{
	uint64_t key = (entry & X86_PTE_PK) / (X86_PTE_PK & -X86_PTE_PK);
	uint64_t page = (rights & (X86_PTE_RW | X86_PTE_US)) >> 1 | rights >> 63 << 2;

	return (b->granted >> page & 1) && !(b->denied[page >> 1 & 1] >> key & 1);
}

/* One level of all live walks; `page` is NULL where entries do not map pages, `tables` false where all do. */
static ALWAYS_INLINE void level(const struct batch *b, struct flight *f, unsigned int shift, bool tables,
				const struct expected *page, struct mmu_x86_result *out)
{
	const struct map_ram ram = b->walk.ram;
	const uint64_t offset_mask = (UINT64_C(1) << shift) - 1;
	const struct expected table = b->table;
	const struct expected leaf = page ? *page : table;
	uint32_t going = 0;

	for (uint32_t k = 0; k < f->count; k++) {
		uint32_t i = f->live[k];
		uint64_t entry = __atomic_load_n((const uint64_t *)(const void *)f->entry[i], __ATOMIC_RELAXED);
		uint64_t rights = f->rights[i] & (entry ^ X86_PTE_XD);

		if (page && (!tables || (entry & X86_PDE2M_PS))) {
			if ((entry & leaf.care) == leaf.need && grant(b, rights, entry)) {
				out[i].pa = (entry & X86_PTE_ADDR & ~offset_mask) | (f->address[i] & offset_mask);
				out[i].page_size = (uint32_t)(offset_mask + 1);
				out[i].status = 0;
				out[i].error_code = 0;
				continue;
			}
		} else if ((entry & table.care) == table.need && aim(f, &ram, i, entry & X86_PTE_ADDR, shift - 9)) {
			f->rights[i] = rights;
			f->live[going++] = (uint8_t)i;
			continue;
		}
		f->slow |= UINT32_C(1) << i;
	}
	f->count = going;
}

/* Up to GROUP walks together. Returns the set of those that x86_walk_one() must do. */
static uint32_t group(const struct batch *b, const uint64_t *vas, uint32_t count, struct mmu_x86_result *out)
{
	const struct x86_walk *w = &b->walk;
	unsigned int top = w->stage1.levels->shift;
	struct flight f;

	f.count = f.slow = 0;
	for (uint32_t i = 0; i < count; i++) {
		f.address[i] = x86_linear(&w->linear, vas[i]);
		f.rights[i] = UINT64_MAX;
		if (x86_canonical(&w->linear, f.address[i]) && aim(&f, &w->ram, i, w->stage1.root, top))
			f.live[f.count++] = (uint8_t)i;
		else
			f.slow |= UINT32_C(1) << i;
	}
	if (top == 48)
		level(b, &f, 48, true, NULL, out);
	level(b, &f, 39, true, NULL, out);
	level(b, &f, 30, true, &b->page_1g, out);
	level(b, &f, 21, true, &b->page_2m, out);
	level(b, &f, 12, false, &b->page_4k, out);
	return f.slow;
}

static int one(struct x86_walk *w, uint64_t va, struct mmu_x86_result *ret)
{
	struct mmu_x86_translation found;
	struct mmu_x86_event event;
	int rc = x86_walk_one(w, va, &found);

	if (rc < 0)
		return rc;
	if (rc == MMU_OK) {
		*ret = (struct mmu_x86_result){ .pa = found.pa, .page_size = (uint32_t)found.page_size };
		return MMU_OK;
	}
	mmu_x86_exception(w->regs, w->fault, &event);
	*ret = (struct mmu_x86_result){ .status = w->fault->kind, .error_code = event.code };
	return MMU_OK;
}

static int block(struct batch *b, const uint64_t *vas, uint64_t count, struct mmu_x86_result *out)
{
	for (uint64_t at = 0; at < count; at += GROUP) {
		uint32_t n = count - at < GROUP ? (uint32_t)(count - at) : GROUP;
		uint32_t slow = n == GROUP ? UINT32_MAX : (UINT32_C(1) << n) - 1;

		if (b->fast && b->walk.ram.host)
			slow = group(b, vas + at, n, out + at);
		for (; slow; slow &= slow - 1) {
			uint32_t i = (uint32_t)__builtin_ctz(slow);
			int rc = one(&b->walk, vas[at + i], &out[at + i]);

			if (rc < 0)
				return rc;
		}
	}
	return MMU_OK;
}

int mmu_x86_walk_many(mmu_port *port, const struct mmu_x86_regs *regs, const uint64_t *vas, uint64_t count,
		      uint32_t access, uint32_t options, struct mmu_x86_result *ret)
{
	struct mmu_x86_fault fault;
	struct batch b = { 0 };
	int rc = MMU_OK;

	if (!x86_access_valid(access) || regs->stage2 > MMU_X86_STAGE2_EPT)
		return MMU_ERANGE;
	for (uint64_t at = 0; at < count && rc == MMU_OK; at += BLOCK) {
		/* Anew for each block: the writer of the map waits for nobody longer than that. */
		struct port_read read = port_enter(port);

		x86_walk_setup(&b.walk, port, regs, access, options);
		b.walk.fault = &fault;
		if (!at)
			batch_setup(&b);
		rc = block(&b, vas + at, count - at < BLOCK ? count - at : BLOCK, ret + at);
		port_leave(port, read);
	}
	return rc;
}
