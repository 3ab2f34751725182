/* Windows made ready for a batch. What is left out goes by slot_dpa(), access for access. */
#include "tlb_window.h"

static bool same_decoder(const struct mmu_slot *a, const struct mmu_slot *b)
{
	return a->base == b->base && a->granularity_shift == b->granularity_shift &&
	       a->ways_shift == b->ways_shift && !b->mod3;
}

/* The slot's device has memory for every HPA up to `last`, and 8 aligned bytes are aligned there too. */
static bool holds(const mmu_route *route, const struct mmu_slot *s, uint64_t last)
{
	const struct mmu_target *t = &route->targets[s->target];
	uint64_t low = (UINT64_C(1) << s->granularity_shift) - 1;
	uint64_t top = ((last - s->base) >> (s->granularity_shift + s->ways_shift) << s->granularity_shift) | low;

	return s->dpa < t->size && top < t->size - s->dpa && (((uintptr_t)t->host + s->dpa) & 7) == 0;
}

void tlb_window_make(struct tlb_window *w, const mmu_route *route, uint64_t hpa)
{
	const struct mmu_span *span = route_span(route, hpa);
	const struct mmu_slot *slots;

	w->route = NULL;
	if (!span || hpa < span->first || span->slot_count > TLB_WINDOW_WAYS || span->map_count ||
	    span->mod3_shift)
		return;
	slots = &route->slots[span->slot_first];
	if (slots->base > span->first || slots->granularity_shift < 3)
		return;
	for (uint32_t i = 0; i < span->slot_count; i++) {
		if (slots[i].kind != MMU_SLOT_DEVICE || !same_decoder(slots, &slots[i]) ||
		    !holds(route, &slots[i], span->last))
			return;
		w->target[i] = &route->targets[slots[i].target];
		w->host[i] = w->target[i]->host + slots[i].dpa;
		w->count[i] = 0;
	}
	w->route = route;
	w->first = span->first;
	w->length = span->last - span->first;
	w->base = slots->base;
	w->shift = span->shift;
	w->mask = (UINT64_C(1) << span->bits) - 1;
	w->low = (UINT64_C(1) << slots->granularity_shift) - 1;
	w->granularity_shift = slots->granularity_shift;
	w->chunk_shift = (uint8_t)(slots->granularity_shift + slots->ways_shift);
}

uint8_t *tlb_window_mirrored(const mmu_port *port, const struct mmu_range *r, uint64_t hpa)
{
	uint8_t *page = NULL;

	if (!window_any_away(port))
		return NULL;
	for (uint64_t at = 0; at < PLACE_PAGE; at += PLACE_BLOCK) {
		const struct mmu_target *target;
		uint64_t run = PLACE_BLOCK;
		uint8_t *home, *now;

		striped_find(r->route, hpa + at, false, &run, &home, &target);
		if (!home || run < PLACE_BLOCK || !target->places ||
		    (uint64_t)(home - target->places->home) % PLACE_BLOCK)
			return NULL;
		now = places_find(target->places, home);
		if (!now || now == home || (page && now != page + at))
			return NULL;
		if (!page)
			page = now;
	}
	return page;
}

void tlb_window_count(struct tlb_window *w, mmu_port *port, bool write, uint32_t size)
{
	if (!w->route)
		return;
	for (uint64_t i = 0; i <= w->mask; i++) {
		uint32_t number = w->target[i]->number;

		if (number < port->targets)
			port->counts[number].single[write][size / 2] += w->count[i];
		w->count[i] = 0;
	}
}
