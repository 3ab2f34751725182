/* Walks in flight, for batches. */
#ifndef MMU_WALK_X86_FLIGHT_H
#define MMU_WALK_X86_FLIGHT_H
#include "walk_x86.h"

enum { X86_GROUP = 32, X86_LEVELS = 5 };	/* walks in flight; levels of the deepest */

/* A kind of entry as a test: it is as wanted when (entry & care) == need. */
struct x86_expected { uint64_t care, need; };

struct x86_batch {
	struct x86_walk walk;
	bool fast;			/* groups may fly */
	struct x86_expected table, page_1g, page_2m, page_4k;
	uint32_t granted;		/* bit executable * 4 + user * 2 + writable */
	uint32_t denied[2];		/* [user]: keys that forbid the access */
	const struct mmu_map *map;
	const struct mmu_range *window;	/* the last one met, of `map`; NULL: none */
};

/* What a batch shares, after x86_walk_setup() of its walk. */
void x86_flight_setup(struct x86_batch *b);
/* Up to X86_GROUP walks together, of a batch that is fast, while its map is held. Returns the set of those that
   x86_walk_one() must do. */
uint32_t x86_fly(struct x86_batch *b, const uint64_t *vas, uint32_t count, struct mmu_x86_result *out);

#endif
