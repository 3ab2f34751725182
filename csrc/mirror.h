/* Inside of the mirror: moves of whole pages, for the guests of one bus. Any thread. */
#ifndef MMU_MIRROR_H
#define MMU_MIRROR_H
#include "places.h"

#define MIRROR_PAGE PLACE_PAGE
enum { MIRROR_BLOCKS = 16 };		/* of a page */

/* A block of device memory; ports count its traffic under `number`. */
struct mirror_home {
	struct mmu_places *places;
	uint64_t dpa;
	uint32_t number;
};

/* A page that is to be in the order of `home`. */
struct mirror_page {
	struct mirror_home home[MIRROR_BLOCKS];
	uint32_t users;
	uint32_t next;			/* free: the next free page */
};

/*
 * Gathers the blocks into a page, or finds the page that they are in already, in this order, and counts one
 * more user. MMU_OK and *page_ret, and *gathered_ret when they came from home; MMU_FAULTED when one of them
 * is elsewhere or must stay, or ports are too busy with them; MMU_ENOMEM. Not while a port of the caller reads.
 */
int mirror_take(mmu_mirror *mirror, const struct mirror_home *home, uint32_t *page_ret, bool *gathered_ret);
/* The caller uses these pages no more. Those that nobody uses are scattered: each block that differs from
   its home is written back and counted as a write of `port`. Same condition. */
void mirror_give(mmu_mirror *mirror, mmu_port *port, const uint32_t *pages, uint32_t count);
uint8_t *mirror_host(const mmu_mirror *mirror, uint32_t page);

#endif
