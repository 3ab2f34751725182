/* Inside of a locator: every window cut into spans, found by table, with what their slots share. */
#ifndef MMU_LOCATE_H
#define MMU_LOCATE_H
#include "stripes.h"

struct flat_span {
	uint64_t first, last;
	uint64_t length;		/* last - first */
	uint64_t base;			/* of every device slot, when uniform */
	uint64_t mask;			/* of the address bits, after `shift` */
	uint64_t low;			/* of an address, what stays: granularity - 1, when uniform */
	uint64_t maps[4];
	/* By index: what a slot adds to what all share. Its `dpa` is that of `base`. */
	const struct mmu_place *leaves;
	const struct mmu_slot *slots;
	uint32_t slot_count;
	uint8_t shift, bits, map_count, mod3_shift;
	uint8_t granularity_shift, ways_shift, div3;
	bool uniform;			/* all device slots have one base, granularity and number of ways */
	bool fits;			/* and all slots are devices that hold all of the span */
	bool plain;			/* and are chosen and divided by powers of two alone, base == first */
	bool thirds;			/* or: one division by 3 gives both leaf and DPA; see turn() */
	bool even;			/* fits, and all slots begin with the span, at one DPA */
	bool vector;			/* uniform, and fits the vector code */
};

/* Of one target, one distinct slot of one span. */
struct inverse { uint32_t target, span; struct mmu_slot slot; };

struct mmu_locator {
	uint32_t span_count, inverse_count, target_count, cell_count;
	unsigned cell_shift;
	uint64_t cell_first;		/* number of the cell that cells[0] is */
	struct flat_span *spans;	/* and one more, of addresses that are in none */
	uint32_t *cells;		/* the first span that ends in or after the cell */
	struct mmu_place *leaves;
	struct mmu_slot *slots;
	uint64_t *capacity;
	struct inverse *inverses;	/* sorted by target */
	uint32_t *inverse_first;	/* target_count + 1 */
};

/* The span that `hpa` is in, or the last one, which is nowhere. */
static inline const struct flat_span *locator_span(const struct mmu_locator *l, uint64_t hpa)
{
	uint64_t cell = (hpa >> l->cell_shift) - l->cell_first;
	const struct flat_span *s;

	if (cell >= l->cell_count)
		return &l->spans[l->span_count];
	s = &l->spans[l->cells[cell]];
	while (hpa > s->last)
		s++;
	return hpa >= s->first ? s : &l->spans[l->span_count];
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

static inline uint64_t flat_dpa(const struct flat_span *s, const struct mmu_place *leaf,
				uint64_t hpa)
{
	uint64_t offset = hpa - s->base;
	uint64_t chunk = offset >> (s->granularity_shift + s->ways_shift);

	if (s->div3)
		chunk /= 3;
	return leaf->dpa + (chunk << s->granularity_shift) + (offset & s->low);
}

/* Any span, any address in it; also what locator_place() leaves out. */
void locate_slowly(const struct mmu_locator *l, const struct flat_span *s, uint64_t hpa,
		   struct mmu_place *ret);

/* The span of `hpa`, which becomes *near; that was any span of the locator. */
static inline const struct flat_span *locator_near(const struct mmu_locator *l,
						   const struct flat_span **near, uint64_t hpa)
{
	const struct flat_span *s = *near;

	if (__builtin_expect(hpa - s->first > s->length, 0))
		*near = s = locator_span(l, hpa);
	return s;
}

/*
 * One translation; see locator_near(). Addresses near one another find their span at once.
 * Any number of threads, each with its own `near`.
 */
static inline __attribute__((always_inline)) void
locator_place(const struct mmu_locator *l, const struct flat_span **near, uint64_t hpa,
	      struct mmu_place *ret)
{
	const struct flat_span *s = locator_near(l, near, hpa);
	const struct mmu_place *leaf;

	if (s->plain) {
		uint64_t offset = hpa - s->first;

		leaf = &s->leaves[(hpa >> s->shift) & s->mask];
		/* A shift, but for the bits within the granule, which stay. */
		ret->dpa = leaf->dpa + ((offset >> s->ways_shift & ~s->low) | (offset & s->low));
	} else if (s->thirds) {
		uint64_t offset = hpa - s->base, rounds = offset >> s->mod3_shift, third = rounds / 3;
		uint64_t rest = rounds - 3 * third;

		leaf = &s->leaves[((hpa >> s->shift) & s->mask) + (rest << s->bits)];
		ret->dpa = leaf->dpa + (third << s->granularity_shift | (offset & s->low));
	} else if (s->fits) {
		leaf = &s->leaves[flat_index(s, hpa)];
		ret->dpa = flat_dpa(s, leaf, hpa);
	} else {
		locate_slowly(l, s, hpa, ret);
		return;
	}
	ret->target = leaf->target;
	ret->status = leaf->status;
}

/* Answers a prefix of the questions, 8 at a time, as long as all 8 are in `s`; returns how many.
   Only where locate_has_vectors() and s->vector. */
uint64_t locate_vectors(const struct flat_span *s, const uint64_t *hpas, uint64_t count,
			struct mmu_place *ret);
bool locate_has_vectors(void);

#endif
