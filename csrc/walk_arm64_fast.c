/* The ordinary case of a batch of arm64 walks, level by level for a whole group; see walk_arm64.h. */
#include <assert.h>
#include "bus.h"
#include "walk_arm64.h"

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

bool arm64_fast_find(struct arm64_fast *fast, const struct mmu_map *map)
{
	uint64_t pa = fast->s->tables.base;
	uint32_t i = map_search(map, pa);
	const struct mmu_range *r = &map->ranges[i];

	if (i == map->count || pa < r->first || r->last - r->first < 7 ||
	    (r->kind != MMU_RANGE_RAM && r->kind != MMU_RANGE_ROM))
		return false;
	fast->first = r->first;
	fast->last = r->last - 7;
	fast->host = (const uint8_t *)r->host + r->offset;
	/* An entry is aligned on the bus; here it must be in the host too. */
	return (((uintptr_t)fast->host ^ r->first) & 7) == 0;
}

static inline bool in_run(const struct arm64_fast *fast, uint64_t pa)
{
	return pa >= fast->first && pa <= fast->last;
}

static inline const uint64_t *at_run(const struct arm64_fast *fast, uint64_t pa)
{
	return (const uint64_t *)(const void *)(fast->host + (pa - fast->first));
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

struct group {
	uint64_t va[ARM64_GROUP], entry[ARM64_GROUP], above[ARM64_GROUP];
	uint8_t index[ARM64_GROUP];
};

/* Reads the entries of one level; those that end here leave the group. Returns how many stay. */
static unsigned one_level(struct arm64_fast *fast, struct group *g, unsigned n, int level,
			  unsigned shift, struct mmu_arm64_result *ret, uint8_t *slow,
			  unsigned *slow_count)
{
	const struct arm64_tables *t = &fast->s->tables;
	uint64_t address_mask = t->address_mask, high_mask = t->high_mask;
	uint64_t page = arm64_low_mask(shift), below = arm64_low_mask(t->stride);
	unsigned stay = 0, high_shift = t->high_shift, output_bits = t->output_bits;
	unsigned next = level == 3 ? 0 : shift - t->stride;

	for (unsigned k = 0; k < n; k++) {
		uint64_t va = g->va[k], above = g->above[k], descriptor, base;
		unsigned i = g->index[k];

		descriptor = __atomic_load_n(at_run(fast, g->entry[k]), __ATOMIC_RELAXED);
		base = (descriptor & address_mask) | (descriptor & high_mask) << high_shift;
		if ((descriptor & 3) == 3 && level != 3 && !(base >> output_bits)) {
			uint64_t entry = base | (va >> next & below) << 3;

			if (in_run(fast, entry)) {
				__builtin_prefetch(at_run(fast, entry));
				g->va[stay] = va;
				g->entry[stay] = entry;
				g->above[stay] = above | descriptor;
				g->index[stay++] = (uint8_t)i;
				continue;
			}
		}
		base &= ~page;
		if (!(base >> output_bits) && plain_leaf(fast, level, descriptor, above))
			ret[i] = (struct mmu_arm64_result){ base | (va & page), page + 1, 0, 0 };
		else
			slow[(*slow_count)++] = (uint8_t)i;
	}
	return stay;
}

unsigned arm64_fast_walk(struct arm64_fast *fast, const uint64_t *vas, const uint8_t *index,
			 unsigned n, struct mmu_arm64_result *ret, uint8_t *slow)
{
	const struct arm64_tables *t = &fast->s->tables;
	unsigned slow_count = 0, stay = 0, shift = t->start_shift;
	uint64_t input = arm64_low_mask(t->input_bits);
	struct group g;

	for (unsigned k = 0; k < n; k++) {
		uint64_t va = vas[index[k]];
		uint64_t entry = t->base | (va & input) >> shift << 3;

		if (arm64_input_refused(fast->q, fast->s, va) || !in_run(fast, entry)) {
			slow[slow_count++] = index[k];
			continue;
		}
		__builtin_prefetch(at_run(fast, entry));
		g.va[stay] = va;
		g.entry[stay] = entry;
		g.above[stay] = 0;
		g.index[stay++] = index[k];
	}
	for (int level = t->start_level; stay && level <= 3; level++, shift -= t->stride)
		stay = one_level(fast, &g, stay, level, shift, ret, slow, &slow_count);
	return slow_count;
}
