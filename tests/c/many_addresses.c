/* Random routes: a batch of addresses gives what mmu_route_locate() gives for each, and back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mmu.h"

enum { TARGETS = 5, WINDOWS = 3, SPANS = 3, ADDRESSES = 203, ROUNDS = 3000 };

static const uint64_t part = UINT64_C(1) << 28;
static uint64_t state = 88172645463325252;

static uint64_t any(uint64_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % below;
}

struct made {
	struct mmu_span spans[SPANS];
	struct mmu_slot slots[SPANS * 64];
	uint32_t span_count, slot_count;
};

/* One to four parts of 256 MiB; 1 to 16 or 3 to 48 slots over equal or different decoders. */
static void add_span(struct made *m, uint64_t first, uint64_t base)
{
	struct mmu_span *s = &m->spans[m->span_count++];
	bool mod3 = any(3) == 0, mixed = any(4) == 0;
	uint8_t granularity = (uint8_t)(8 + any(7)), ways = (uint8_t)any(5);

	memset(s, 0, sizeof(*s));
	s->first = first;
	s->last = first + part * (1 + any(4)) - 1 - 4096 * any(2);
	s->granule = 256;
	s->shift = granularity;
	s->map_count = (uint8_t)any(3);
	s->bits = (uint8_t)(any(5) < 3 ? ways : any(3));
	for (unsigned i = 0; i < s->map_count; i++)
		s->maps[i] = (any(1 << 20) << 8) | 256;
	if (s->bits + s->map_count > 4)
		s->map_count = 0;
	s->mod3_shift = mod3 ? (uint8_t)(granularity + (any(2) ? ways : s->bits)) : 0;
	s->slot_first = m->slot_count;
	s->slot_count = (1u << (s->bits + s->map_count)) * (mod3 ? 3 : 1);
	for (uint32_t i = 0; i < s->slot_count; i++)
		m->slots[m->slot_count++] = (struct mmu_slot){
			.base = base, .dpa = mixed ? any(3) * part : 0, .target = (uint32_t)any(TARGETS),
			.kind = any(9) ? MMU_SLOT_DEVICE : (uint8_t)any(3),
			.granularity_shift = mixed ? (uint8_t)(8 + any(7)) : granularity,
			.ways_shift = mixed ? (uint8_t)any(5) : ways, .mod3 = mod3 && !(mixed && any(2)),
		};
}

static uint64_t add_route(uint64_t base, mmu_route **ret)
{
	static struct mmu_target targets[TARGETS];
	struct made m = { .span_count = 0 };
	uint64_t at = base;

	for (uint64_t i = any(SPANS + 1); i; i--) {
		at += part * any(2);
		add_span(&m, at, any(3) ? base : at);
		at = (m.spans[m.span_count - 1].last | (part - 1)) + 1;
	}
	for (unsigned i = 0; i < TARGETS; i++)
		targets[i] = (struct mmu_target){ .number = i };
	if (mmu_route_create(base, m.spans, m.span_count, m.slots, m.slot_count, targets, TARGETS, ret))
		abort();
	return at + part * any(3);
}

static void expect(bool holds, const char *what, uint64_t hpa)
{
	if (holds)
		return;
	fprintf(stderr, "%s at %#llx\n", what, (unsigned long long)hpa);
	exit(1);
}

static void check_one(const struct mmu_window *windows, uint64_t hpa, const struct mmu_place *place,
		      const uint64_t *capacity)
{
	const struct mmu_window *w = NULL;
	uint32_t target = 0;
	uint64_t dpa = 0;
	int found;

	for (unsigned i = 0; i < WINDOWS; i++)
		if (hpa >= windows[i].first && hpa <= windows[i].last)
			w = &windows[i];
	if (!w) {
		expect(place->status == MMU_PLACE_OUTSIDE, "an address of no window", hpa);
		return;
	}
	found = mmu_route_locate(w->route, hpa, &target, &dpa);
	if (found == 1 + MMU_SLOT_NO_DEVICE)
		expect(place->status == MMU_PLACE_NO_DEVICE, "a hole", hpa);
	else if (found || dpa >= capacity[target])
		expect(place->status == MMU_PLACE_REFUSED, "a refusal", hpa);
	else
		expect(place->status == MMU_PLACE_DEVICE && place->target == target && place->dpa == dpa,
		       "a byte", hpa);
	if (place->status)
		expect(!place->dpa && !place->target, "a miss with an answer", hpa);
}

static void check_back(const mmu_locator *l, uint64_t hpa, const struct mmu_place *place)
{
	struct mmu_found found;

	mmu_find_many(l, &place->target, &place->dpa, 1, &found);
	expect(found.count > 0 && found.hpa <= hpa, "no way back", hpa);
	if (found.hpa != hpa) {
		struct mmu_place other;

		mmu_locate_many(l, &found.hpa, 1, &other);
		expect(!memcmp(&other, place, sizeof(other)), "a way back to another byte", hpa);
	}
}

int main(void)
{
	for (unsigned round = 0; round < ROUNDS; round++) {
		mmu_route *routes[WINDOWS];
		struct mmu_window windows[WINDOWS];
		uint64_t capacity[TARGETS], hpas[ADDRESSES], at = part * any(1000);
		struct mmu_place places[ADDRESSES];
		mmu_locator *l;

		for (unsigned i = 0; i < TARGETS; i++)
			capacity[i] = part * any(20) + 4096 * any(2) + 1;
		for (unsigned i = 0; i < WINDOWS; i++) {
			uint64_t first = at, end = add_route(at, &routes[i]);

			end = end > first ? end : first + part;
			windows[i] = (struct mmu_window){ first, end - 1, routes[i] };
			at = end + part * any(2);
		}
		if (mmu_locator_create(windows, WINDOWS, capacity, TARGETS, &l))
			abort();
		for (unsigned i = 0; i < ADDRESSES; i++)	/* runs within one window, and jumps */
			hpas[i] = i % 40 ? hpas[i - 1] + any(1 << 20) :
					   windows[0].first - 5 + any(at - windows[0].first + 10);
		hpas[ADDRESSES - 1] = UINT64_MAX;
		mmu_locate_many(l, hpas, ADDRESSES, places);
		for (unsigned i = 0; i < ADDRESSES; i++) {
			check_one(windows, hpas[i], &places[i], capacity);
			if (places[i].status == MMU_PLACE_DEVICE)
				check_back(l, hpas[i], &places[i]);
		}
		mmu_locator_destroy(l);
		for (unsigned i = 0; i < WINDOWS; i++)
			mmu_route_destroy(routes[i]);
	}
	return 0;
}
