/*
 * Pages of windows that are RAM for the engine: in place, where a page lies in one piece in one device, or
 * gathered in a mirror. Which of the two, or neither, is found out when the guest first touches the page,
 * and holds until the map of the bus changes or the run ends.
 */
#include "guest.h"
#include <stdlib.h>
#include <string.h>
#include "bus.h"
#include "window.h"

enum { FIRST_SLOTS = 64 };

/* Host address of a page that the engine has as RAM at `engine`; NULL when it is none of a window's. */
const uint8_t *guest_window_host(const struct mmu_guest *g, uint64_t engine)
{
	if (g->c.mirror && engine - GUEST_MIRROR_BASE < mmu_mirror_size(g->c.mirror))
		return mmu_mirror_address(g->c.mirror) + (engine - GUEST_MIRROR_BASE);
	for (uint32_t i = 0; i < g->bank_count; i++)
		if (engine - g->banks[i].engine < g->banks[i].size)
			return g->banks[i].host + (engine - g->banks[i].engine);
	return NULL;
}

/* ---- what is known of pages ---- */

static struct guest_window *slot_of(const struct guest_windows *w, uint64_t hpa)
{
	uint32_t i = (uint32_t)((hpa / GUEST_PAGE * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (w->slot_count - 1);

	while (w->slots[i].used && w->slots[i].hpa != hpa)
		i = (i + 1) & (w->slot_count - 1);
	return &w->slots[i];
}

/* Makes the table at most half full with one more in it. */
static bool room_for_slot(struct guest_windows *w)
{
	struct guest_windows larger = *w;

	if (w->slot_count && 2 * (w->slots_used + 1) <= w->slot_count)
		return true;
	larger.slot_count = w->slot_count ? 2 * w->slot_count : FIRST_SLOTS;
	larger.slots = calloc(larger.slot_count, sizeof(*larger.slots));
	if (!larger.slots)
		return false;
	for (uint32_t i = 0; i < w->slot_count; i++)
		if (w->slots[i].used)
			*slot_of(&larger, w->slots[i].hpa) = w->slots[i];
	free(w->slots);
	*w = larger;
	return true;
}

/* Room for one more element of an array that must be given back. */
static bool room_for_one(void **array, uint32_t *space, uint32_t used, size_t size)
{
	uint32_t more = *space ? 2 * *space : FIRST_SLOTS;
	void *larger;

	if (used < *space)
		return true;
	larger = realloc(*array, more * size);
	if (!larger)
		return false;
	*array = larger;
	*space = more;
	return true;
}

/* ---- claims ---- */

/* What the 16 blocks of a page are. */
struct page_home {
	struct mirror_home block[MIRROR_BLOCKS];
	uint8_t *host;		/* of the device that has the whole page in one piece, else NULL */
};

/* All blocks of a page of a window, as the decoders say now; false when one is no device's. */
static bool find_home(const struct mmu_range *r, uint64_t page, struct page_home *ret)
{
	uint64_t hpa = r->route->base + r->offset + (page - r->first);
	bool linear = true;

	if (hpa % GUEST_PAGE)
		return false;
	for (uint32_t i = 0; i < MIRROR_BLOCKS; i++) {
		const struct mmu_target *target;
		uint64_t run = PLACE_BLOCK, dpa;
		uint8_t *host;

		striped_find(r->route, hpa + i * PLACE_BLOCK, false, &run, &host, &target);
		if (!host || !target->places || run < PLACE_BLOCK)
			return false;
		dpa = (uint64_t)(host - target->host);
		if (dpa % PLACE_BLOCK)
			return false;
		ret->block[i] = (struct mirror_home){ target->places, dpa, target->number };
		linear = linear && target->places == ret->block[0].places &&
			 dpa == ret->block[0].dpa + i * PLACE_BLOCK;
		if (!i)
			ret->host = host;
	}
	if (!linear || ret->block[0].dpa % GUEST_PAGE)
		ret->host = NULL;
	return true;
}

static bool look_up(struct mmu_guest *g, uint64_t page, struct page_home *ret)
{
	struct port_read read = port_enter(g->c.probe);
	uint32_t i = map_search(read.map, page);
	const struct mmu_range *r = &read.map->ranges[i];
	bool found = i < read.map->count && r->kind == MMU_RANGE_STRIPED && page >= r->first &&
		     r->last - page >= GUEST_PAGE - 1 && find_home(r, page, ret);

	port_leave(g->c.probe, read);
	return found;
}

static uint64_t bank_of(const struct mmu_guest *g, const uint8_t *host)
{
	for (uint32_t i = 0; i < g->bank_count; i++) {
		uintptr_t offset = (uintptr_t)host - (uintptr_t)g->banks[i].host;

		if (offset < g->banks[i].size)
			return g->banks[i].engine + offset;
	}
	return 0;
}

/*
 * Whether a page at `host` is one that a file cannot give any more. It is touched to find out: better now than by
 * the engine, which would go on with zeroes until it next asks for a translation.
 */
bool guest_page_failed(const uint8_t *host)
{
	memory_load_aligned(host, 1);
	return hostfile_failed(host, GUEST_PAGE);
}

static uint64_t take_direct(struct mmu_guest *g, const struct page_home *home)
{
	struct guest_windows *w = &g->windows;
	const struct mirror_home *first = &home->block[0];
	uint64_t engine = home->host ? bank_of(g, home->host) : 0;

	if (!engine || guest_page_failed(home->host) || !room_for_one((void **)&w->pins, &w->pin_space, w->pin_count, sizeof(*w->pins)) ||
	    !places_pin(first->places, first->dpa))
		return 0;
	w->pins[w->pin_count++] = (struct guest_pin){ first->places, first->dpa };
	g->counters.direct++;
	return engine;
}

static uint64_t take_mirror(struct mmu_guest *g, const struct page_home *home)
{
	struct guest_windows *w = &g->windows;
	int rc = MMU_ENOMEM;
	uint32_t page;
	bool gathered;

	if (g->c.mirror &&
	    room_for_one((void **)&w->pages, &w->page_space, w->page_count, sizeof(*w->pages)))
		rc = mirror_take(g->c.mirror, home->block, &page, &gathered);
	if (rc != MMU_OK) {
		g->counters.mirror_full += rc == MMU_ENOMEM;
		return 0;
	}
	w->pages[w->page_count++] = page;
	g->counters.mirrored++;
	for (uint32_t i = 0; gathered && i < MIRROR_BLOCKS; i++)
		window_count_block(g->c.blocks, home->block[i].number, false, PLACE_BLOCK);
	return GUEST_MIRROR_BASE + page * GUEST_PAGE;
}

/* Address for the engine of a page that may become RAM; 0 when it may not. */
static uint64_t take(struct mmu_guest *g, uint64_t page)
{
	uint32_t services = g->windows.services;
	struct page_home home;
	uint64_t engine = 0;

	if (!look_up(g, page, &home))
		return 0;
	if (services & MMU_GUEST_DIRECT)
		engine = take_direct(g, &home);
	if (!engine && services & MMU_GUEST_MIRROR)
		engine = take_mirror(g, &home);
	return engine;
}

/* Where the engine has a page as RAM; with `claim`, the page may become it now. */
bool guest_window_find(struct mmu_guest *g, paddr_t page, bool claim, uint64_t *engine_ret)
{
	struct guest_windows *w = &g->windows;
	struct guest_window *slot = w->slots_used ? slot_of(w, page.v) : NULL;

	if (slot && slot->used) {
		*engine_ret = slot->engine;
		return slot->engine;
	}
	if (!claim || !w->services || !room_for_slot(w))
		return false;
	slot = slot_of(w, page.v);
	*slot = (struct guest_window){ .hpa = page.v, .engine = take(g, page.v), .used = true };
	w->slots_used++;
	*engine_ret = slot->engine;
	return slot->engine;
}

/* Gives back every page. The engine must not run on them any more: flush it before. */
void guest_windows_give(struct mmu_guest *g)
{
	struct guest_windows *w = &g->windows;

	for (uint32_t i = 0; i < w->pin_count; i++)
		places_unpin(w->pins[i].places, w->pins[i].dpa);
	if (w->page_count)
		mirror_give(g->c.mirror, g->c.blocks, w->pages, w->page_count);
	if (w->slots_used)
		memset(w->slots, 0, w->slot_count * sizeof(*w->slots));
	w->pin_count = w->page_count = w->slots_used = 0;
}
