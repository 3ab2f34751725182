/* The ordinary case of a batch of arm64 walks, level by level for a whole group; see walk_arm64.h. */
#include <assert.h>
#include "hostfile.h"
#include "walk_arm64.h"
#include "window.h"

/* The key of arm64_fast.allows: AP, then DBM .. UXN (and Contiguous), then PXNTable .. APTable. */
static_assert(ARM64_STAGE1LEAF_AP == UINT64_C(3) << 6, "AP");
static_assert((ARM64_STAGE1LEAF_DBM | ARM64_STAGE1LEAF_CONTIGUOUS | ARM64_STAGE1LEAF_PXN |
	       ARM64_STAGE1LEAF_UXN) == UINT64_C(15) << 51, "DBM, Contiguous, PXN, UXN");
static_assert((ARM64_STAGE1TABLE_PXNTABLE | ARM64_STAGE1TABLE_UXNTABLE |
	       ARM64_STAGE1TABLE_APTABLE) == UINT64_C(15) << 59, "PXNTable, UXNTable, APTable");

static inline unsigned rights_key(uint64_t descriptor, uint64_t above)
{
	return (unsigned)((descriptor >> 6 & 3) | (descriptor >> 51 & 15) << 2 |
			  (above >> 59 & 15) << 6);
}

bool arm64_fast_init(struct arm64_fast *fast, const struct arm64_request *q,
		     const struct arm64_stage1 *s)
{
	if (!s->enabled || s->tables.big_endian || s->tables.base >> s->tables.output_bits)
		return false;
	fast->q = q;
	fast->s = s;
	for (uint64_t key = 0; key < 1024; key++)
		fast->allows[key] = arm64_leaf_allows(q, s, (key & 3) << 6 | (key >> 2 & 15) << 51,
						      (key >> 6) << 59);
	return true;
}

struct group {
	uint64_t va[ARM64_GROUP], entry[ARM64_GROUP], above[ARM64_GROUP];
	const uint64_t *at[ARM64_GROUP];		/* where the entry lies in the host */
	const struct mmu_target *target[ARM64_GROUP];	/* the device it belongs to, or NULL */
	uint8_t index[ARM64_GROUP];
	const struct mmu_map *map;
	const mmu_port *port;
	struct arm64_rest *rest;
	unsigned count, rest_count;
};

/* Device memory of the entry at hpa; NULL where a lane must find out what the window does. */
static const void *window_entry(const mmu_port *port, const mmu_route *route, uint64_t hpa,
				const struct mmu_target **target)
{
	uint64_t run = 8;
	uint8_t *host;

	if ((hpa & 7) || striped_find(route, hpa, false, &run, &host, target) != MMU_MEMTX_OK)
		return NULL;
	return run == 8 && host ? window_now(port, (*target)->places, host) : NULL;
}

/* An entry outside of the run of RAM. */
static const uint64_t *other_entry(const struct group *g, uint64_t pa,
				   const struct mmu_target **target)
{
	const struct mmu_map *map = g->map;
	uint32_t i = map_search(map, pa);
	const struct mmu_range *r = &map->ranges[i];
	const void *host = NULL;

	if (i == map->count || pa < r->first || r->last - pa < 7)
		return NULL;
	if (r->kind == MMU_RANGE_RAM || r->kind == MMU_RANGE_ROM)
		host = (const uint8_t *)r->host + r->offset + (pa - r->first);
	else if (r->kind == MMU_RANGE_STRIPED)
		host = window_entry(g->port, r->route, r->route->base + r->offset + (pa - r->first), target);
	return (uintptr_t)host & 7 ? NULL : host;
}

/* Puts a walk back into the group, at its next entry; false when that is for a lane to read. */
static inline bool aim(struct group *g, struct map_ram ram, uint64_t va, uint64_t entry,
		       uint64_t above, uint8_t index)
{
	uint64_t offset = entry - ram.first;
	unsigned k = g->count;

	g->target[k] = NULL;
	if (ram.host && offset <= ram.span)
		g->at[k] = (const uint64_t *)(const void *)(ram.host + offset);
	else
		g->at[k] = other_entry(g, entry, &g->target[k]);
	if (!g->at[k])
		return false;
	__builtin_prefetch(g->at[k]);
	g->va[k] = va;
	g->entry[k] = entry;
	g->above[k] = above;
	g->index[k] = index;
	g->count++;
	return true;
}

static void give_up(struct group *g, uint64_t entry, uint64_t above, uint8_t index, int level)
{
	g->rest[g->rest_count++] = (struct arm64_rest){
		.entry = entry, .above = above, .index = index, .level = (int8_t)level,
	};
}

/* Whether a leaf may be answered here: it maps the address, permits the access, needs no update. */
static inline bool plain_leaf(const struct arm64_fast *fast, int level, uint64_t descriptor,
			      uint64_t above)
{
	const struct arm64_tables *t = &fast->s->tables;
	uint64_t dirty = ARM64_STAGE1LEAF_DBM | UINT64_C(2) << 6;	/* DBM and AP[2] */

	if (level == 3 ? (descriptor & 3) != 3 :
	    (descriptor & 3) != 1 || level < 0 || !(t->block_levels >> level & 1))
		return false;
	if (!(descriptor & ARM64_STAGE1LEAF_AF) || !fast->allows[rights_key(descriptor, above)])
		return false;
	return !(t->hd && fast->q->access == MMU_ACCESS_WRITE && (descriptor & dirty) == dirty);
}

/* Reads the entries of one level; those that end here leave the group. */
static void one_level(const struct arm64_fast *fast, struct group *g, int level, unsigned shift,
		      struct mmu_arm64_result *ret)
{
	const struct arm64_tables *t = &fast->s->tables;
	uint64_t address_mask = t->address_mask, high_mask = t->high_mask;
	uint64_t page = arm64_low_mask(shift), below = arm64_low_mask(t->stride);
	unsigned n = g->count, high_shift = t->high_shift, output_bits = t->output_bits;
	unsigned next = level == 3 ? 0 : shift - t->stride;
	const struct map_ram ram = g->map->ram;

	g->count = 0;
	for (unsigned k = 0; k < n; k++) {
		uint64_t va = g->va[k], above = g->above[k], entry = g->entry[k];
		uint64_t descriptor = __atomic_load_n(g->at[k], __ATOMIC_RELAXED);
		uint64_t base = (descriptor & address_mask) | (descriptor & high_mask) << high_shift;
		const struct mmu_target *target = g->target[k];
		bool fits = !(base >> output_bits), used = true;
		uint8_t i = g->index[k];

		if (fits && level != 3 && (descriptor & 3) == 3) {
			uint64_t child = base | (va >> next & below) << 3;

			if (!aim(g, ram, va, child, above | descriptor, i))
				give_up(g, child, above | descriptor, i, level + 1);
		} else if (fits && plain_leaf(fast, level, descriptor, above)) {
			ret[i] = (struct mmu_arm64_result){ (base & ~page) | (va & page), page + 1, 0, 0 };
		} else {
			give_up(g, entry, above, i, level);
			used = false;
		}
		if (target && used)
			striped_count(fast->q->port, target, false, 8);
	}
}

unsigned arm64_fast_walk(const struct arm64_fast *fast, const struct mmu_map *map,
			 const uint64_t *vas, const uint8_t *index, unsigned n,
			 struct mmu_arm64_result *ret, struct arm64_rest *rest)
{
	const struct arm64_tables *t = &fast->s->tables;
	uint64_t input = arm64_low_mask(t->input_bits);
	unsigned shift = t->start_shift;
	struct group g;

	g.map = map;
	g.port = fast->q->port;
	g.rest = rest;
	g.count = g.rest_count = 0;
	for (unsigned k = 0; k < n; k++) {
		uint64_t va = vas[index[k]];
		uint64_t entry = t->base | (va & input) >> shift << 3;

		if (arm64_input_refused(fast->q, fast->s, va) || !aim(&g, map->ram, va, entry, 0, index[k]))
			give_up(&g, 0, 0, index[k], ARM64_STAGE_OFF);
	}
	for (int level = t->start_level; g.count && level <= 3; level++, shift -= t->stride)
		one_level(fast, &g, level, shift, ret);
	if (!hostfile_any_failed())
		return g.rest_count;
	/* A page of a file has failed, perhaps one with tables: nothing of this counts, but for traffic. */
	g.rest_count = 0;
	for (unsigned k = 0; k < n; k++)
		give_up(&g, 0, 0, index[k], ARM64_STAGE_OFF);
	return g.rest_count;
}
