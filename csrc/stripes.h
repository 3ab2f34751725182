/* Inside of a route. The reference is mmu/stripes.py. */
#ifndef MMU_STRIPES_H
#define MMU_STRIPES_H
#include "address.h"
#include "mmu.h"

/*
 * A slot made ready for an aligned access of at most 8 bytes: where its memory begins and how much of it
 * there is. `room` 0: nothing can be said in short (a miss, a division by 3, memory that lies askew).
 */
struct route_slot {
	uint64_t base, room;
	uint8_t *host;
	uint64_t high;			/* mask of the offset above the granules of one set */
	uint32_t low;			/* mask of the offset in a granule */
	uint32_t number;		/* of the target, for counting */
	struct mmu_places *places;	/* of the target */
	uint8_t ways_shift;
};

struct mmu_route {
	uint64_t base;
	uint32_t span_count, slot_count, target_count;
	struct mmu_span *spans;
	struct mmu_slot *slots;
	struct mmu_target *targets;
	struct route_slot *ready;	/* as many as slots */
};

/* First span that ends at or after hpa, or NULL. */
static inline const struct mmu_span *route_span(const struct mmu_route *route, uint64_t hpa)
{
	uint32_t lo = 0, hi = route->span_count;

	if (hi == 1)	/* the common case without a loop whose length must be guessed */
		return hpa > route->spans->last ? NULL : route->spans;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (hpa > route->spans[mid].last)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < route->span_count ? &route->spans[lo] : NULL;
}

/* Number among the route's slots of the one that answers at hpa. */
static inline uint32_t span_index(const struct mmu_span *span, uint64_t hpa)
{
	uint64_t index = (hpa >> span->shift) & ((UINT64_C(1) << span->bits) - 1);
	unsigned width = span->bits;

	for (unsigned i = 0; i < span->map_count; i++)
		index |= (uint64_t)__builtin_parityll(hpa & span->maps[i]) << width++;
	if (span->mod3_shift)
		index += ((hpa >> span->mod3_shift) % 3) << width;
	return span->slot_first + (uint32_t)index;
}

static inline const struct mmu_slot *span_slot(const struct mmu_route *route,
					       const struct mmu_span *span, uint64_t hpa)
{
	return &route->slots[span_index(span, hpa)];
}

/* Offset in the slot's memory of an aligned access of at most 8 bytes at hpa; good when less than its room. */
static inline uint64_t slot_offset(const struct route_slot *slot, uint64_t hpa)
{
	uint64_t offset = hpa - slot->base;

	return (offset & slot->high) >> slot->ways_shift | (offset & slot->low);
}

static inline dpa_t slot_dpa(const struct mmu_slot *slot, uint64_t hpa)
{
	uint64_t offset = hpa - slot->base;
	uint64_t chunk = offset >> (slot->granularity_shift + slot->ways_shift);

	if (slot->mod3)
		chunk /= 3;
	return dpa_of(slot->dpa + (chunk << slot->granularity_shift) +
		      (offset & ((UINT64_C(1) << slot->granularity_shift) - 1)));
}

#endif
