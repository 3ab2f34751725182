/* A window whose interleave needs no division and no XOR, made ready for a batch. */
#ifndef MMU_TLB_WINDOW_H
#define MMU_TLB_WINDOW_H
#include "stripes.h"
#include "window.h"

enum { TLB_WINDOW_WAYS = 16 };

/* HPAs first .. first + length of `route`: all devices, which hold all of that. NULL route: none is ready. */
struct tlb_window {
	const mmu_route *route;
	uint64_t first, length;
	uint64_t base, mask, low;
	uint8_t shift, chunk_shift, granularity_shift;
	uint8_t *host[TLB_WINDOW_WAYS];			/* of the DPA of `base` */
	const struct mmu_target *target[TLB_WINDOW_WAYS];
	uint64_t count[TLB_WINDOW_WAYS];		/* accesses that tlb_window_count() still has to tell */
};

/*
 * Host address of the 4 KiB at hpa of the range when they are in a mirror, in order, else NULL. The port is entered;
 * it is good until the next change of the bus's epoch, which comes before any of it moves.
 */
uint8_t *tlb_window_mirrored(const mmu_port *port, const struct mmu_range *r, uint64_t hpa);

/* Makes the span that holds hpa ready, if it is of this kind. The map that the route is from is held. */
void tlb_window_make(struct tlb_window *w, const mmu_route *route, uint64_t hpa);
/* Counts at the port what was accessed, in pieces of `size` bytes. */
void tlb_window_count(struct tlb_window *w, mmu_port *port, bool write, uint32_t size);

static inline uint32_t tlb_window_way(const struct tlb_window *w, uint64_t hpa)
{
	return (uint32_t)(hpa >> w->shift & w->mask);
}

static inline uint8_t *tlb_window_host(const struct tlb_window *w, uint64_t hpa, uint32_t way)
{
	uint64_t offset = hpa - w->base;

	return w->host[way] + (offset >> w->chunk_shift << w->granularity_shift) + (offset & w->low);
}

#endif
