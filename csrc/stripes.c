/* Routes: the compiled form of a window's committed decoders. */
#include "stripes.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

static_assert(sizeof(mmu_route) % 8 == 0 && sizeof(struct route_slot) % 8 == 0 &&
	      sizeof(struct mmu_slot) % 8 == 0 && sizeof(struct mmu_span) % 8 == 0, "one piece");

static bool slot_valid(const struct mmu_slot *s, uint32_t target_count)
{
	return s->kind <= MMU_SLOT_REFUSED && s->granularity_shift < 32 && s->ways_shift < 8 &&
	       (s->kind != MMU_SLOT_DEVICE || s->target < target_count);
}

/* A naturally aligned access of 8 bytes must lie in one slot: so 8-byte edges and granules. */
static bool span_valid(const struct mmu_span *s, uint32_t slot_count)
{
	uint64_t need;

	if (s->first > s->last || s->first % 8 || s->last % 8 != 7)
		return false;
	if (s->granule < 8 || s->granule & (s->granule - 1))
		return false;
	if (s->shift > 63 || s->bits > 16 || s->map_count > 4 || s->mod3_shift > 63)
		return false;
	need = (UINT64_C(1) << (s->bits + s->map_count)) * (s->mod3_shift ? 3 : 1);
	return s->slot_count == need && s->slot_first <= slot_count &&
	       need <= slot_count - s->slot_first;
}

static bool route_valid(const struct mmu_span *spans, uint32_t span_count,
			const struct mmu_slot *slots, uint32_t slot_count, uint32_t target_count)
{
	for (uint32_t i = 0; i < slot_count; i++)
		if (!slot_valid(&slots[i], target_count))
			return false;
	for (uint32_t i = 0; i < span_count; i++)
		if (!span_valid(&spans[i], slot_count) ||
		    (i && spans[i].first <= spans[i - 1].last))
			return false;
	return true;
}

/* `from` may be NULL when there is nothing. */
static void copy(void *to, const void *from, size_t size)
{
	if (size)
		memcpy(to, from, size);
}

static struct route_slot make_ready(const struct mmu_slot *s, const struct mmu_target *targets)
{
	struct route_slot ready = { .base = s->base };
	const struct mmu_target *t;
	uint8_t *host;

	if (s->kind != MMU_SLOT_DEVICE || s->mod3 || s->granularity_shift < 3 || s->base % 8)
		return ready;
	t = &targets[s->target];
	if (s->dpa >= t->size)
		return ready;
	host = t->host + s->dpa;
	if ((uintptr_t)host % 8)
		return ready;
	ready.host = host;
	ready.room = (t->size - s->dpa) & ~UINT64_C(7);
	ready.low = (uint32_t)((UINT64_C(1) << s->granularity_shift) - 1);
	ready.number = t->number;
	ready.places = t->places;
	ready.high = ~((UINT64_C(1) << (s->granularity_shift + s->ways_shift)) - 1);
	ready.ways_shift = s->ways_shift;
	return ready;
}

int mmu_route_create(uint64_t base, const struct mmu_span *spans, uint32_t span_count,
		     const struct mmu_slot *slots, uint32_t slot_count,
		     const struct mmu_target *targets, uint32_t target_count, mmu_route **ret)
{
	mmu_route *route;

	if (!route_valid(spans, span_count, slots, slot_count, target_count))
		return MMU_ERANGE;
	/* In one piece: every size is a multiple of 8. */
	route = calloc(1, sizeof(*route) + slot_count * (sizeof(*slots) + sizeof(*route->ready)) +
			  span_count * sizeof(*spans) + target_count * sizeof(*targets));
	if (!route)
		return MMU_ENOMEM;
	route->base = base;
	route->span_count = span_count;
	route->slot_count = slot_count;
	route->target_count = target_count;
	route->ready = (struct route_slot *)(route + 1);
	route->slots = (struct mmu_slot *)(route->ready + slot_count);
	route->spans = (struct mmu_span *)(route->slots + slot_count);
	route->targets = (struct mmu_target *)(route->spans + span_count);
	copy(route->slots, slots, slot_count * sizeof(*slots));
	copy(route->spans, spans, span_count * sizeof(*spans));
	copy(route->targets, targets, target_count * sizeof(*targets));
	for (uint32_t i = 0; i < slot_count; i++)
		route->ready[i] = make_ready(&slots[i], targets);
	*ret = route;
	return MMU_OK;
}

void mmu_route_destroy(mmu_route *route)
{
	free(route);
}

int mmu_route_locate(const mmu_route *route, uint64_t hpa, uint32_t *target_ret, uint64_t *dpa_ret)
{
	const struct mmu_span *span = route_span(route, hpa);
	const struct mmu_slot *slot;

	if (!span || hpa < span->first)
		return 1 + MMU_SLOT_NO_DEVICE;
	slot = span_slot(route, span, hpa);
	if (slot->kind != MMU_SLOT_DEVICE)
		return 1 + slot->kind;
	*target_ret = slot->target;
	*dpa_ret = slot_dpa(slot, hpa).v;
	return MMU_OK;
}
