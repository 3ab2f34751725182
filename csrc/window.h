/* An access to a window: which device memory it reaches, and the count of it. */
#ifndef MMU_WINDOW_H
#define MMU_WINDOW_H
#include "bus.h"
#include "memory.h"
#include "places.h"
#include "stripes.h"

/*
 * All that follows but window_now() says where bytes are at home. Before they are accessed, window_now() or
 * window_wait() says where they are: the same place unless a guest has them in a mirror.
 */
static inline bool window_any_away(const mmu_port *port)
{
	/* Acquire: pairs with the release in places.c when the last block is at home again. That a first one is
	   away is seen because the mover waits for whoever may not see it. */
	return atomic_load_explicit(&port->bus->state, memory_order_acquire) & ((1u << AWAY_BITS) - 1);
}

/* Where the byte at home at `host` is now, good to the end of its block of 256; NULL while that is on the move. */
static inline uint8_t *window_now(const mmu_port *port, struct mmu_places *places, uint8_t *host)
{
	return places && window_any_away(port) ? places_find(places, host) : host;
}

/* The same, but waits while it is on the move. */
static inline uint8_t *window_wait(mmu_port *port, struct mmu_places *places, uint8_t *host)
{
	uint8_t *now = window_now(port, places, host);

	return now ? now : port_wait(port, places, host);
}

/*
 * Finds device memory for a run at hpa. Returns MMU_MEMTX_OK with *host and *run (bytes, at most
 * *run on entry), or why not with *run set to how many bytes share that answer.
 * A write that reaches no device is dropped without an error; *host is then NULL.
 */
static inline int striped_find(const mmu_route *route, uint64_t hpa, bool write, uint64_t *run,
			uint8_t **host, const struct mmu_target **target_ret)
{
	const struct mmu_span *span = route_span(route, hpa);
	const struct mmu_slot *slot;
	const struct mmu_target *target;
	uint64_t most, dpa;

	*host = NULL;
	if (!span || hpa < span->first) {
		if (span && *run > span->first - hpa)
			*run = span->first - hpa;
		return write ? MMU_MEMTX_OK : MMU_MEMTX_ERROR;
	}
	most = span->granule - (hpa & (span->granule - 1));
	if (most > span->last - hpa)
		most = span->last - hpa + 1;
	if (*run > most)
		*run = most;
	slot = span_slot(route, span, hpa);
	if (slot->kind == MMU_SLOT_NO_DEVICE)
		return write ? MMU_MEMTX_OK : MMU_MEMTX_ERROR;
	if (slot->kind == MMU_SLOT_REFUSED)
		return MMU_MEMTX_ERROR;
	target = &route->targets[slot->target];
	dpa = slot_dpa(slot, hpa).v;
	if (dpa >= target->size)
		return MMU_MEMTX_ERROR;
	if (*run > target->size - dpa)
		*run = target->size - dpa;
	*host = target->host + dpa;
	*target_ret = target;
	return MMU_MEMTX_OK;
}

/*
 * The common case of one aligned access of at most 8 bytes: `r` is a window, a device answers for all
 * of it, and its memory is as aligned. NULL: it is not that, and nothing was decided.
 */
static inline uint8_t *window_piece(const struct mmu_range *r, uint64_t address, uint32_t size,
				    const struct mmu_target **target_ret)
{
	uint64_t offset = address - r->first, hpa, dpa;
	const struct mmu_target *target;
	const struct mmu_slot *slot;
	const struct mmu_span *span;

	if (r->kind != MMU_RANGE_STRIPED || offset > r->last - r->first ||
	    r->last - address < size - 1)
		return NULL;
	hpa = r->route->base + r->offset + offset;
	span = route_span(r->route, hpa);
	if (!span || hpa < span->first || hpa & (size - 1))
		return NULL;
	slot = span_slot(r->route, span, hpa);
	if (slot->kind != MMU_SLOT_DEVICE)
		return NULL;
	target = &r->route->targets[slot->target];
	dpa = slot_dpa(slot, hpa).v;
	if (dpa >= target->size || target->size - dpa < size || !aligned(target->host + dpa, size))
		return NULL;
	*target_ret = target;
	return target->host + dpa;
}

/* The span of a window that the port used last, when the address lies in it, else NULL. */
static inline const struct map_window *last_window(const mmu_port *port, const struct mmu_map *map,
						   uint64_t address)
{
	const struct map_window *w = &map->windows[port->window];

	return port->window < map->window_count && address - w->first <= w->span ? w : NULL;
}

static inline const struct route_slot *window_slot(const struct map_window *w, uint64_t hpa)
{
	return &w->slots[hpa >> w->shift & w->mask];
}

/* One store only, for the common case. `size`: 1, 2, 4 or 8. */
static inline void window_count(mmu_port *port, uint32_t number, bool write, uint32_t size)
{
	if (number < port->targets)
		port->counts[number].single[write][size / 2]++;
}

static inline void striped_count(mmu_port *port, const struct mmu_target *target, bool write, uint32_t size)
{
	window_count(port, target->number, write, size);
}

/* Takes back the count of an access that turns out to have failed. */
static inline void window_uncount(mmu_port *port, uint32_t number, bool write, uint32_t size)
{
	if (number < port->targets)
		port->counts[number].single[write][size / 2]--;
}

/* So many blocks of `bytes` each. */
static inline void window_count_blocks(mmu_port *port, uint32_t number, bool write, uint64_t blocks, uint64_t bytes)
{
	if (number >= port->targets)
		return;
	port->counts[number].blocks[write] += blocks;
	port->counts[number].block_bytes[write] += blocks * bytes;
}

static inline void window_count_block(mmu_port *port, uint32_t number, bool write, uint64_t bytes)
{
	window_count_blocks(port, number, write, 1, bytes);
}

#endif
