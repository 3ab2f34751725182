/*
 * Memory that the guest reaches at more than one place: through two windows, or as RAM and through a window.
 *
 * A page is known by where it is for the engine. So stores through another place to what runs as code would be missed:
 * the engine has the one page as RAM, or a copy of it, and gets to the other one through the bus. Where the bus has
 * such memory each page of code is noted by its blocks of device memory too, and a page that shares one of them
 * counts as code for stores. The engine does not see these, so they are run alone; see fill_data().
 */
#include "guest.h"
#include <string.h>
#include "window.h"

static uint32_t bit_of(const uint8_t *block)
{
	return (uint32_t)((uintptr_t)block / PLACE_BLOCK * UINT64_C(0x9e3779b97f4a7c15) >> 48) % ALIAS_BITS;
}

/* The block at home of the byte at pa, which `r` shows; NULL: it is no memory. */
static const uint8_t *block_of(const struct mmu_range *r, uint64_t pa)
{
	uint64_t offset = r->offset + (pa - r->first), run = 1;
	const struct mmu_target *target;
	uint8_t *host = NULL;

	if (r->kind == MMU_RANGE_STRIPED)
		striped_find(r->route, r->route->base + offset, false, &run, &host, &target);
	else if (r->kind == MMU_RANGE_RAM)
		host = (uint8_t *)r->host + offset;
	return host ? host - (uintptr_t)host % PLACE_BLOCK : NULL;
}

/* All blocks of a page, which may lie askew in them. */
static void find_blocks(struct mmu_guest *g, paddr_t page, const uint8_t *ret[ALIAS_BLOCKS])
{
	struct port_read read = port_enter(g->c.probe);
	uint32_t i = map_search(read.map, page.v);
	const struct mmu_range *r = &read.map->ranges[i];
	bool found = i < read.map->count && page.v >= r->first && r->last - page.v >= GUEST_PAGE - 1;

	for (uint32_t n = 0; n < ALIAS_BLOCKS; n++) {
		uint64_t at = n * PLACE_BLOCK < GUEST_PAGE ? n * PLACE_BLOCK : GUEST_PAGE - 1;

		ret[n] = found ? block_of(r, page.v + at) : NULL;
	}
	port_leave(g->c.probe, read);
}

/* Notes a page that is code from now on. */
void guest_alias_enter(struct mmu_guest *g, const struct code_page *code, paddr_t page)
{
	const uint8_t **blocks = g->aliases.block[code - g->code];

	if (!g->aliases.any)
		return;
	find_blocks(g, page, blocks);
	for (uint32_t n = 0; n < ALIAS_BLOCKS; n++)
		g->aliases.bits[bit_of(blocks[n]) / 64] |= UINT64_C(1) << bit_of(blocks[n]) % 64;
}

static bool is_noted(const struct mmu_guest *g, const uint8_t *block, const struct code_page *but)
{
	if (!block || !(g->aliases.bits[bit_of(block) / 64] >> bit_of(block) % 64 & 1))
		return false;
	for (uint32_t i = 0; i < g->code_count; i++)
		for (uint32_t n = 0; n < ALIAS_BLOCKS; n++)
			if (g->aliases.block[g->code_order[i]][n] == block && &g->code[g->code_order[i]] != but)
				return true;
	return false;
}

/* Whether the page holds bytes of code that runs elsewhere. `code`: what is known of this page as code, or NULL. */
bool guest_alias_is_code(struct mmu_guest *g, paddr_t page, const struct code_page *code)
{
	const uint8_t *blocks[ALIAS_BLOCKS];

	if (!g->aliases.any || !g->code_count)
		return false;
	find_blocks(g, page, blocks);
	for (uint32_t n = 0; n < ALIAS_BLOCKS; n++)
		if (is_noted(g, blocks[n], code))
			return true;
	return false;
}

/* No page is code any more. */
void guest_alias_forget(struct mmu_guest *g)
{
	if (g->aliases.any)
		memset(g->aliases.bits, 0, sizeof(g->aliases.bits));
}
