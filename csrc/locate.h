/* Inside of a locator: every window cut into spans, found by table, each with what all its slots share. */
#ifndef MMU_LOCATE_H
#define MMU_LOCATE_H
#include "stripes.h"

/* What a slot adds to what its span knows. `meta` is target and status as struct mmu_place has them. */
struct leaf { uint64_t dpa, meta; };

struct flat_span {
	uint64_t first, last;
	uint64_t base;			/* of every device slot, when uniform */
	uint64_t mask;			/* of the address bits, after `shift` */
	uint64_t low;			/* of an address, what stays: granularity - 1, when uniform */
	uint64_t maps[4];
	const struct leaf *leaves;
	const struct mmu_slot *slots;
	uint32_t slot_count;
	uint8_t shift, bits, map_count, mod3_shift;
	uint8_t granularity_shift, chunk_shift, div3;
	bool uniform;			/* all device slots have one base, granularity and number of ways */
	bool fits;			/* and all slots are devices that hold all of the span */
	bool plain;			/* and are chosen and divided by powers of two alone */
	bool even;			/* fits, and all slots begin at one DPA */
	bool vector;			/* uniform, and fits the vector code */
};

/* Of one target, one distinct slot of one span. */
struct inverse { uint32_t target, span; struct mmu_slot slot; };

struct mmu_locator {
	uint32_t span_count, inverse_count, target_count, cell_count;
	unsigned cell_shift;
	uint64_t cell_first;		/* number of the cell that cells[0] is */
	struct flat_span *spans;	/* a last one, which holds only the last address of all, ends each search */
	uint32_t *cells;		/* the first span that ends in or after the cell */
	struct leaf *leaves;
	struct mmu_slot *slots;
	uint64_t *capacity;
	struct inverse *inverses;	/* sorted by target */
	uint32_t *inverse_first;	/* target_count + 1 */
};

static inline uint64_t place_meta(uint32_t target, uint32_t status)
{
	return target | (uint64_t)status << 32;
}

/* The span that `hpa` is in, or the first behind it. */
static inline const struct flat_span *locator_span(const struct mmu_locator *l, uint64_t hpa)
{
	uint64_t cell = (hpa >> l->cell_shift) - l->cell_first;
	const struct flat_span *s;

	if (cell >= l->cell_count)
		return &l->spans[l->span_count];
	s = &l->spans[l->cells[cell]];
	while (hpa > s->last)
		s++;
	return s;
}

static inline uint64_t flat_index(const struct flat_span *s, uint64_t hpa)
{
	uint64_t index = (hpa >> s->shift) & s->mask;
	unsigned width = s->bits;

	for (unsigned i = 0; i < s->map_count; i++)
		index |= (uint64_t)__builtin_parityll(hpa & s->maps[i]) << width++;
	if (s->mod3_shift)
		index += ((hpa >> s->mod3_shift) % 3) << width;
	return index;
}

static inline uint64_t flat_dpa(const struct flat_span *s, const struct leaf *leaf, uint64_t hpa)
{
	uint64_t offset = hpa - s->base;
	uint64_t chunk = offset >> s->chunk_shift;

	if (s->div3)
		chunk /= 3;
	return leaf->dpa + (chunk << s->granularity_shift) + (offset & s->low);
}

/* Any span, any address in it; the rare kinds of what locator_place() does at once. */
void locate_slowly(const struct mmu_locator *l, const struct flat_span *s, uint64_t hpa,
		   struct mmu_place *ret);

/* One translation. Any number of threads. */
static inline void locator_place(const struct mmu_locator *l, uint64_t hpa, struct mmu_place *ret)
{
	const struct flat_span *s = locator_span(l, hpa);
	const struct leaf *leaf;

	if (__builtin_expect(hpa < s->first || !s->fits, 0)) {
		locate_slowly(l, s, hpa, ret);
		return;
	}
	if (s->plain) {
		leaf = &s->leaves[(hpa >> s->shift) & s->mask];
		ret->dpa = leaf->dpa + ((hpa - s->base) >> s->chunk_shift << s->granularity_shift) +
			   ((hpa - s->base) & s->low);
	} else {
		leaf = &s->leaves[flat_index(s, hpa)];
		ret->dpa = flat_dpa(s, leaf, hpa);
	}
	ret->target = (uint32_t)leaf->meta;
	ret->status = MMU_PLACE_DEVICE;
}

/* Answers a prefix of the questions, 8 at a time, as long as all 8 are in `s`; returns how many.
   Only where locate_has_vectors() and s->vector. */
uint64_t locate_vectors(const struct flat_span *s, const uint64_t *hpas, uint64_t count,
			struct mmu_place *ret);
bool locate_has_vectors(void);

#endif
