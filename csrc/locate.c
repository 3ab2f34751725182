/* Locators: built once per set of routes, then read by any number of threads. */
#include "locate.h"
#include <stdlib.h>
#include <string.h>

static const uint32_t max_cells = 1 << 16;
static const uint64_t vector_end = UINT64_C(1) << 52;	/* the vector code divides 52-bit numbers */

static bool windows_valid(const struct mmu_window *windows, uint32_t count, uint32_t target_count)
{
	for (uint32_t i = 0; i < count; i++) {
		const mmu_route *r = windows[i].route;

		if (windows[i].first > windows[i].last ||
		    (i && windows[i].first <= windows[i - 1].last) ||
		    r->target_count > target_count)
			return false;
		for (uint32_t s = 0; s < r->span_count; s++)
			if (r->spans[s].first < windows[i].first ||
			    r->spans[s].last > windows[i].last)
				return false;
	}
	return true;
}

static bool same_decoder(const struct mmu_slot *a, const struct mmu_slot *b)
{
	return a->base == b->base && a->granularity_shift == b->granularity_shift &&
	       a->ways_shift == b->ways_shift && a->mod3 == b->mod3;
}

/* First DPA behind all that a slot gives up to `last`: DPAs grow with HPAs, granule by granule. */
static uint64_t slot_end(const struct mmu_slot *s, uint64_t last)
{
	uint64_t low = (UINT64_C(1) << s->granularity_shift) - 1;

	return slot_dpa(s, last).v - ((last - s->base) & low) + low + 1;
}

/* Fills in what all device slots of a span share, if they do. */
static void share(struct flat_span *flat, const uint64_t *capacity)
{
	const struct mmu_slot *common = NULL;
	bool within = true, devices = true, level = true;

	flat->uniform = true;
	for (uint32_t i = 0; i < flat->slot_count; i++) {
		const struct mmu_slot *s = &flat->slots[i];

		devices = devices && s->kind == MMU_SLOT_DEVICE;
		if (s->kind != MMU_SLOT_DEVICE)
			continue;
		if (common) {
			flat->uniform = flat->uniform && same_decoder(common, s);
			level = level && common->dpa == s->dpa;
		}
		common = s;
		within = within && slot_end(s, flat->last) <= capacity[s->target];
	}
	if (common && flat->uniform) {
		flat->base = common->base;
		flat->granularity_shift = common->granularity_shift;
		flat->ways_shift = common->ways_shift;
		flat->div3 = common->mod3;
		flat->low = (UINT64_C(1) << flat->granularity_shift) - 1;
	}
	flat->fits = flat->uniform && within && devices;
	flat->plain = flat->fits && !flat->map_count && !flat->mod3_shift && !flat->div3 &&
		      (flat->first - flat->base) % ((flat->low + 1) << flat->ways_shift) == 0;
	flat->thirds = flat->fits && !flat->map_count && flat->div3 &&
		       flat->mod3_shift == flat->granularity_shift + flat->ways_shift &&
		       !(flat->base & ((UINT64_C(1) << flat->mod3_shift) - 1));
	flat->even = flat->fits && level && (flat->plain || flat->base == flat->first);
	flat->vector = flat->uniform && within && flat->last < vector_end &&
		       flat->slot_count <= 16 && (!common || flat->base <= flat->first);
}

/* Count from the span's first address and not from the decoders' base, a whole number of rounds. */
static void move_base(struct flat_span *flat, struct mmu_place *leaves)
{
	for (uint32_t i = 0; i < flat->slot_count; i++)
		leaves[i].dpa += (flat->first - flat->base) >> flat->ways_shift;
	flat->base = flat->first;
}

/*
 * Where thirds holds, leaves are looked up by what the offset from the base leaves modulo 3, and
 * not by what the address does: the thirds of the table change places by what the base leaves.
 */
static void turn(const struct flat_span *flat, struct mmu_place *leaves)
{
	uint64_t phase = (flat->base >> flat->mod3_shift) % 3, third = flat->slot_count / 3;

	for (uint64_t i = 0; i < flat->slot_count; i++) {
		const struct mmu_slot *s = &flat->slots[(i + phase * third) % flat->slot_count];

		leaves[i] = (struct mmu_place){ s->dpa, s->target, MMU_PLACE_DEVICE };
	}
}

static void add_span(struct mmu_locator *l, const struct mmu_route *route,
		     const struct mmu_span *span, uint32_t *slots_used)
{
	struct flat_span *flat = &l->spans[l->span_count++];
	struct mmu_place *leaves = &l->leaves[*slots_used];

	*flat = (struct flat_span){
		.first = span->first, .last = span->last, .length = span->last - span->first,
		.mask = (UINT64_C(1) << span->bits) - 1,
		.leaves = leaves, .slots = &l->slots[*slots_used],
		.slot_count = span->slot_count, .shift = span->shift, .bits = span->bits,
		.map_count = span->map_count, .mod3_shift = span->mod3_shift,
	};
	memcpy(flat->maps, span->maps, sizeof(flat->maps));
	for (uint32_t i = 0; i < span->slot_count; i++) {
		const struct mmu_slot *s = &route->slots[span->slot_first + i];
		struct mmu_place *leaf = &leaves[i];

		l->slots[(*slots_used)++] = *s;
		if (s->kind == MMU_SLOT_DEVICE)
			*leaf = (struct mmu_place){ s->dpa, s->target, MMU_PLACE_DEVICE };
		else
			leaf->status = s->kind == MMU_SLOT_REFUSED ? MMU_PLACE_REFUSED :
								     MMU_PLACE_NO_DEVICE;
	}
	share(flat, l->capacity);
	if (flat->plain)
		move_base(flat, leaves);
	if (flat->thirds)
		turn(flat, leaves);
}

/* A stretch of a window that no span covers. */
static void add_gap(struct mmu_locator *l, uint64_t first, uint64_t last, uint32_t *slots_used)
{
	const struct mmu_span gap = { .first = first, .last = last, .slot_count = 1 };
	struct mmu_slot none = { .kind = MMU_SLOT_NO_DEVICE };
	const struct mmu_route route = { .slots = &none };

	add_span(l, &route, &gap, slots_used);
}

static void add_window(struct mmu_locator *l, const struct mmu_window *w, uint32_t *slots_used)
{
	uint64_t next = w->first;
	bool done = false;

	for (uint32_t i = 0; i < w->route->span_count; i++) {
		const struct mmu_span *span = &w->route->spans[i];

		if (span->first > next)
			add_gap(l, next, span->first - 1, slots_used);
		add_span(l, w->route, span, slots_used);
		done = span->last == w->last;
		next = span->last + 1;
	}
	if (!done)
		add_gap(l, next, w->last, slots_used);
}

/* Cells of at least 256 MiB, the unit of decoders, so that nearly every one is in a single span. */
static bool add_cells(struct mmu_locator *l)
{
	uint64_t first = l->spans[0].first, last = l->spans[l->span_count - 1].last;
	uint32_t span = 0;

	for (l->cell_shift = 28; (last >> l->cell_shift) - (first >> l->cell_shift) >= max_cells;)
		l->cell_shift++;
	l->cell_first = first >> l->cell_shift;
	l->cell_count = (uint32_t)((last >> l->cell_shift) - l->cell_first) + 1;
	l->cells = calloc(l->cell_count, sizeof(*l->cells));
	if (!l->cells)
		return false;
	for (uint32_t i = 0; i < l->cell_count; i++) {
		while (l->spans[span].last < (l->cell_first + i) << l->cell_shift)
			span++;
		l->cells[i] = span;
	}
	return true;
}

static bool seen_before(const struct flat_span *s, uint32_t slot)
{
	for (uint32_t i = 0; i < slot; i++)
		if (s->slots[i].kind == MMU_SLOT_DEVICE && s->slots[i].dpa == s->slots[slot].dpa &&
		    s->slots[i].target == s->slots[slot].target &&
		    same_decoder(&s->slots[i], &s->slots[slot]))
			return true;
	return false;
}

static int by_target(const void *a, const void *b)
{
	const struct inverse *x = a, *y = b;

	if (x->target != y->target)
		return x->target < y->target ? -1 : 1;
	return x->span < y->span ? -1 : x->span > y->span;
}

static void add_inverses(struct mmu_locator *l)
{
	uint32_t next = 0;

	for (uint32_t i = 0; i < l->span_count; i++)
		for (uint32_t j = 0; j < l->spans[i].slot_count; j++) {
			const struct mmu_slot *s = &l->spans[i].slots[j];

			if (s->kind == MMU_SLOT_DEVICE && !seen_before(&l->spans[i], j))
				l->inverses[l->inverse_count++] =
					(struct inverse){ s->target, i, *s };
		}
	qsort(l->inverses, l->inverse_count, sizeof(*l->inverses), by_target);
	for (uint32_t t = 0; t <= l->target_count; t++) {
		while (next < l->inverse_count && l->inverses[next].target < t)
			next++;
		l->inverse_first[t] = next;
	}
}

static bool allocate(struct mmu_locator *l, uint64_t spans, uint64_t slots)
{
	l->spans = calloc(spans + 1, sizeof(*l->spans));
	l->leaves = calloc(slots + 1, sizeof(*l->leaves));
	l->slots = calloc(slots + 1, sizeof(*l->slots));
	l->inverses = calloc(slots + 1, sizeof(*l->inverses));
	l->inverse_first = calloc((size_t)l->target_count + 1, sizeof(*l->inverse_first));
	l->capacity = calloc((size_t)l->target_count + 1, sizeof(*l->capacity));
	return l->spans && l->leaves && l->slots && l->inverses && l->inverse_first && l->capacity;
}

int mmu_locator_create(const struct mmu_window *windows, uint32_t window_count,
		       const uint64_t *capacity, uint32_t target_count, mmu_locator **ret)
{
	uint64_t spans = 0, slots = 0;
	uint32_t used = 0;
	struct mmu_locator *l;

	if (!windows_valid(windows, window_count, target_count))
		return MMU_ERANGE;
	for (uint32_t i = 0; i < window_count; i++) {
		/* Each span may have a gap before it, and there may be one at the end. */
		spans += 2 * (uint64_t)windows[i].route->span_count + 1;
		for (uint32_t s = 0; s < windows[i].route->span_count; s++)
			slots += windows[i].route->spans[s].slot_count + 1;
		slots += 1;
	}
	if (slots > UINT32_MAX / 2)
		return MMU_ERANGE;
	l = calloc(1, sizeof(*l));
	if (!l)
		return MMU_ENOMEM;
	l->target_count = target_count;
	if (!allocate(l, spans, slots))
		goto fail;
	if (target_count)
		memcpy(l->capacity, capacity, target_count * sizeof(*capacity));
	for (uint32_t i = 0; i < window_count; i++)
		add_window(l, &windows[i], &used);
	l->spans[l->span_count] = (struct flat_span){
		.first = UINT64_MAX, .last = UINT64_MAX,
	};
	if (window_count && !add_cells(l))
		goto fail;
	add_inverses(l);
	*ret = l;
	return MMU_OK;
fail:
	mmu_locator_destroy(l);
	return MMU_ENOMEM;
}

void mmu_locator_destroy(mmu_locator *l)
{
	if (!l)
		return;
	free(l->spans);
	free(l->leaves);
	free(l->slots);
	free(l->inverses);
	free(l->inverse_first);
	free(l->capacity);
	free(l->cells);
	free(l);
}

void locate_slowly(const struct mmu_locator *l, const struct flat_span *s, uint64_t hpa,
		   struct mmu_place *ret)
{
	const struct mmu_slot *slot;
	uint64_t dpa;

	*ret = (struct mmu_place){ 0, 0, MMU_PLACE_OUTSIDE };
	if (!s->slots)
		return;
	slot = &s->slots[flat_index(s, hpa)];
	if (slot->kind != MMU_SLOT_DEVICE) {
		ret->status = slot->kind == MMU_SLOT_REFUSED ? MMU_PLACE_REFUSED : MMU_PLACE_NO_DEVICE;
		return;
	}
	dpa = slot_dpa(slot, hpa).v;
	ret->status = MMU_PLACE_REFUSED;
	if (dpa < l->capacity[slot->target])
		*ret = (struct mmu_place){ dpa, slot->target, MMU_PLACE_DEVICE };
}

void mmu_locate_many(const mmu_locator *l, const uint64_t *hpas, uint64_t count,
		     struct mmu_place *ret)
{
	const bool vectors = locate_has_vectors();
	const struct flat_span *near = l->spans;
	uint64_t i = 0;

	while (i < count) {
		/* Vectors leave a tail, or begin with eight that are not all in one span; where
		   that is the rule, looking for eight that are costs more than it gives. */
		uint64_t done = 0, one_by_one = 64;
		const struct flat_span *s = locator_near(l, &near, hpas[i]);

		if (vectors && s->vector)
			done = locate_vectors(s, hpas + i, count - i, ret + i);
		i += done;
		if (done)
			one_by_one = 8;
		for (uint64_t n = 0; n < one_by_one && i < count; n++, i++)
			locator_place(l, &near, hpas[i], &ret[i]);
	}
}

/* Adds to *ret the HPAs at which slot v->slot of its span gives `dpa`. */
static void find_one(const struct mmu_locator *l, const struct inverse *v, uint64_t dpa,
		     struct mmu_found *ret)
{
	const struct flat_span *span = &l->spans[v->span];
	const struct mmu_slot *s = &v->slot;
	uint64_t ways = (s->mod3 ? UINT64_C(3) : 1) << s->ways_shift;
	uint64_t chunk = (dpa - s->dpa) >> s->granularity_shift;
	uint64_t within = (dpa - s->dpa) & ((UINT64_C(1) << s->granularity_shift) - 1);

	if (dpa < s->dpa || chunk > (UINT64_MAX >> s->granularity_shift) / ways - 1)
		return;
	for (uint64_t position = 0; position < ways; position++) {
		uint64_t hpa = s->base + ((chunk * ways + position) << s->granularity_shift) + within;
		const struct mmu_slot *there;

		if (hpa < span->first || hpa > span->last)
			continue;
		there = &span->slots[flat_index(span, hpa)];
		if (there->kind != MMU_SLOT_DEVICE || there->target != s->target ||
		    there->dpa != s->dpa || !same_decoder(there, s))
			continue;
		if (!ret->count++ || hpa < ret->hpa)
			ret->hpa = hpa;
	}
}

void mmu_find_many(const mmu_locator *l, const uint32_t *targets, const uint64_t *dpas,
		   uint64_t count, struct mmu_found *ret)
{
	for (uint64_t i = 0; i < count; i++) {
		uint32_t target = targets[i];

		ret[i] = (struct mmu_found){ 0 };
		if (target >= l->target_count || dpas[i] >= l->capacity[target])
			continue;
		for (uint32_t n = l->inverse_first[target]; n < l->inverse_first[target + 1]; n++)
			find_one(l, &l->inverses[n], dpas[i], &ret[i]);
	}
}
