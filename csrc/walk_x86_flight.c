/*
 * Walks in flight: a group goes down level by level together, so that the memory latency of one hides
 * behind the others. This knows only what is common: long mode without a stage 2, entries in the
 * largest run of RAM or in device memory behind a window, nothing to update, access granted. Whatever
 * else a walk meets is left to x86_walk_one(), from the root; until then nobody has seen its reads:
 * those of devices are counted when the walk succeeds. Once a page of a file has failed, none does.
 */
#include "hostfile.h"
#include "memory.h"
#include "walk_x86_flight.h"
#include "window.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* The walks in flight, by their number in the group; live[0..count-1] go on. */
struct flight {
	uint64_t address[X86_GROUP], rights[X86_GROUP];
	const uint8_t *entry[X86_GROUP];
	uint8_t live[X86_GROUP];
	uint8_t device_reads[X86_GROUP];	/* entries of device memory, in reached[][] */
	uint32_t reached[X86_GROUP][X86_LEVELS];	/* numbers of devices */
	uint32_t count;
	uint32_t slow;			/* set of those that need x86_walk_one() */
};

static struct x86_expected expect(const struct x86_walk *w, uint64_t reserved, uint64_t flags)
{
	uint64_t need = X86_PTE_P | (w->update ? flags : 0);

	return (struct x86_expected){ .care = need | reserved | w->stage1.beyond | (w->stage1.no_xd & X86_PTE_XD),
				  .need = need };
}

/* What long mode expects: see the layouts of these names in mmu/x86/format.py. */
static void expect_entries(struct x86_batch *b)
{
	const struct x86_walk *w = &b->walk;
	uint64_t flags = X86_PTE_A | (w->wanted & MMU_ACCESS_WRITE ? X86_PTE_D : 0);

	/* Where a level has pages, bit 7 is 0 in every entry that counts as a table. */
	b->table = expect(w, X86_PML4E_RESERVED | X86_PDPTE_RESERVED | X86_PDE_RESERVED, X86_PTE_A);
	b->page_1g = expect(w, X86_PDPTE1G_RESERVED, flags);
	b->page_2m = expect(w, X86_PDE2M_RESERVED, flags);
	b->page_4k = expect(w, X86_PTE_RESERVED, flags);
}

static void judge_pages(struct x86_batch *b)
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

void x86_flight_setup(struct x86_batch *b)
{
	const struct x86_walk *w = &b->walk;

	b->fast = w->long_mode && w->regs->stage2 == MMU_X86_STAGE2_NONE && !w->rules.shadow_stack;
	if (b->fast) {
		expect_entries(b);
		judge_pages(b);
	}
}

/* Sends walk i to an entry in the memory of a device; `host`: where it is now, NULL while that is on the move. */
static ALWAYS_INLINE bool aim_at_host(struct flight *f, uint32_t i, const uint8_t *host, uint32_t number)
{
	if (!host)
		return false;
	f->reached[i][f->device_reads[i]++] = number;
	f->entry[i] = host;
	__builtin_prefetch(host);
	return true;
}

/* As aim_at_device(), for any span of any window. */
static __attribute__((noinline)) bool search_device(struct x86_batch *b, struct flight *f, uint32_t i, uint64_t pa)
{
	const struct mmu_range *r = b->window;
	const struct mmu_target *target;
	uint64_t hpa, run = 8;
	uint8_t *host;

	if (!r || pa - r->first > r->last - r->first) {
		uint32_t at = map_search(b->map, pa);

		if (at == b->map->count || pa < b->map->ranges[at].first)
			return false;
		r = &b->map->ranges[at];
		if (r->kind != MMU_RANGE_STRIPED)
			return false;
		b->window = r;
		b->walk.port->window = map_window_search(b->map, pa);
	}
	hpa = r->route->base + r->offset + (pa - r->first);
	if (r->last - pa < 7 || hpa & 7)
		return false;
	striped_find(r->route, hpa, false, &run, &host, &target);
	if (!host || run < 8 || !aligned(host, 8))
		return false;
	return aim_at_host(f, i, window_now(b->walk.port, target->places, host), target->number);
}

/* Sends walk i to the entry at pa, in device memory behind a window; false when it is elsewhere. */
static __attribute__((noinline)) bool aim_at_device(struct x86_batch *b, struct flight *f, uint32_t i, uint64_t pa)
{
	const struct map_window *w = last_window(b->walk.port, b->map, pa);
	const struct route_slot *slot;
	uint64_t hpa, at;

	if (!w)
		return search_device(b, f, i, pa);
	hpa = w->hpa + (pa - w->first);
	slot = window_slot(w, hpa);
	at = slot_offset(slot, hpa);
	if (hpa & 7 || at >= slot->room)
		return search_device(b, f, i, pa);
	return aim_at_host(f, i, window_now(b->walk.port, slot->places, slot->host + at), slot->number);
}

/* Sends walk i to its entry of the table at `table`; false when that is not where this path can read. */
static ALWAYS_INLINE bool aim(struct x86_batch *b, struct flight *f, uint32_t i, uint64_t table, unsigned int shift)
{
	uint64_t pa = table + (f->address[i] >> shift & 511) * 8;
	uint64_t offset = pa - b->walk.ram.first;

	if (offset > b->walk.ram.span || !b->walk.ram.host)
		return aim_at_device(b, f, i, pa);
	f->entry[i] = b->walk.ram.host + offset;
	__builtin_prefetch(f->entry[i]);
	return true;
}

static ALWAYS_INLINE bool grant(const struct x86_batch *b, uint64_t rights, uint64_t entry)
{
	uint64_t key = (entry & X86_PTE_PK) / (X86_PTE_PK & -X86_PTE_PK);
	uint64_t page = (rights & (X86_PTE_RW | X86_PTE_US)) >> 1 | rights >> 63 << 2;

	return (b->granted >> page & 1) && !(b->denied[page >> 1 & 1] >> key & 1);
}

static void count_reads(const struct x86_batch *b, const struct flight *f, uint32_t i)
{
	for (uint32_t k = 0; k < f->device_reads[i]; k++)
		window_count(b->walk.port, f->reached[i][k], false, 8);
}

/*
 * One level of all live walks; `page` is NULL where entries do not map pages, `tables` false where all do.
 * `first`: no level came before, so f->rights has nothing yet.
 */
static ALWAYS_INLINE void level(struct x86_batch *b, struct flight *f, unsigned int shift, bool first, bool tables,
				const struct x86_expected *page, struct mmu_x86_result *out)
{
	const uint64_t offset_mask = (UINT64_C(1) << shift) - 1;
	const struct x86_expected table = b->table;
	const struct x86_expected leaf = page ? *page : table;
	uint32_t going = 0;

	for (uint32_t k = 0; k < f->count; k++) {
		uint32_t i = f->live[k];
		uint64_t entry = __atomic_load_n((const uint64_t *)(const void *)f->entry[i], __ATOMIC_RELAXED);
		uint64_t rights = (first ? UINT64_MAX : f->rights[i]) & (entry ^ X86_PTE_XD);

		if (page && (!tables || (entry & X86_PDE2M_PS))) {
			if ((entry & leaf.care) == leaf.need && grant(b, rights, entry)) {
				out[i].pa = (entry & X86_PTE_ADDR & ~offset_mask) | (f->address[i] & offset_mask);
				out[i].page_size = (uint32_t)(offset_mask + 1);
				out[i].status = 0;
				out[i].error_code = 0;
				if (f->device_reads[i])
					count_reads(b, f, i);
				continue;
			}
		} else if ((entry & table.care) == table.need && aim(b, f, i, entry & X86_PTE_ADDR, shift - 9)) {
			f->rights[i] = rights;
			f->live[going++] = (uint8_t)i;
			continue;
		}
		f->slow |= UINT32_C(1) << i;
	}
	f->count = going;
}

/* A page of a file has failed meanwhile, perhaps one with tables: nothing of this flight counts. */
static __attribute__((noinline)) uint32_t give_up(const struct x86_batch *b, const struct flight *f, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		for (uint32_t k = 0; !(f->slow >> i & 1) && k < f->device_reads[i]; k++)
			window_uncount(b->walk.port, f->reached[i][k], false, 8);
	return UINT32_MAX >> (32 - count);
}

uint32_t x86_fly(struct x86_batch *b, const uint64_t *vas, uint32_t count, struct mmu_x86_result *out)
{
	const struct x86_walk *w = &b->walk;
	unsigned int top = w->stage1.levels->shift;
	struct flight f;

	f.count = f.slow = 0;
	memset(f.device_reads, 0, sizeof(f.device_reads));
	for (uint32_t i = 0; i < count; i++) {
		f.address[i] = x86_linear(&w->linear, vas[i]);
		if (x86_canonical(&w->linear, f.address[i]) && aim(b, &f, i, w->stage1.root, top))
			f.live[f.count++] = (uint8_t)i;
		else
			f.slow |= UINT32_C(1) << i;
	}
	if (top == 48) {
		level(b, &f, 48, true, true, NULL, out);
		level(b, &f, 39, false, true, NULL, out);
	} else {
		level(b, &f, 39, true, true, NULL, out);
	}
	level(b, &f, 30, false, true, &b->page_1g, out);
	level(b, &f, 21, false, true, &b->page_2m, out);
	level(b, &f, 12, false, false, &b->page_4k, out);
	return hostfile_any_failed() ? give_up(b, &f, count) : f.slow;
}

