/*
 * Blocks of windows. Bytes that follow one another in host memory too are copied at once: so they are in a
 * mirror, and where granules of one device meet.
 */
#include "block.h"
#include "window.h"

enum { TALLY_BITS = 4 };

/* A transfer with a window, in order. */
struct gathering {
	struct block b;			/* of what is still to be copied */
	uint8_t *host;			/* the run to be copied next, or `pending` is 0 */
	uint64_t pending;
	bool away;			/* bytes of windows may not be at home */
	int result;
};

static void settle(struct gathering *g)
{
	if (!g->pending)
		return;
	g->result |= block_memory(&g->b, g->host, g->pending);
	g->b.data += g->pending;
	g->pending = 0;
}

static inline void gather(struct gathering *g, uint8_t *host, uint64_t size)
{
	if (host != g->host + g->pending) {
		settle(g);
		g->host = host;
	}
	g->pending += size;
}

/* Bytes that nobody answers. */
static void skip(struct gathering *g, uint64_t size, int result)
{
	settle(g);
	g->result |= block_nobody(&g->b, size, result);
	g->b.data += size;
}

/* Where a byte on the move is in the end. Waiting lets everything move: no run may be pending then. */
static __attribute__((noinline)) uint8_t *wait_for(struct gathering *g, struct mmu_places *places, uint8_t *host)
{
	uint8_t *now;

	settle(g);
	now = port_wait(g->b.port, places, host);
	g->away = window_any_away(g->b.port);
	return now;
}

/* Device memory that is at home at `host`, which may be in several places. */
static inline void gather_device(struct gathering *g, struct mmu_places *places, uint8_t *host, uint64_t size)
{
	if (!places || !g->away) {
		gather(g, host, size);
		return;
	}
	while (size) {
		uint64_t run = block_least(size, PLACE_BLOCK - (uintptr_t)host % PLACE_BLOCK);
		uint8_t *now = places_find(places, host);

		gather(g, now ? now : wait_for(g, places, host), run);
		host += run;
		size -= run;
	}
}

/* What is not in the short form of its slot: misses, divisions by 3, the end of a device. */
static void gather_granule(struct gathering *g, const mmu_route *route, uint64_t hpa, uint64_t *run)
{
	const struct mmu_target *target;
	uint8_t *host;
	int rc = striped_find(route, hpa, g->b.write, run, &host, &target);

	if (!host) {
		skip(g, *run, rc);
		return;
	}
	gather_device(g, target->places, host, *run);
	window_count_block(g->b.port, target->number, g->b.write, *run);
}

/* Shifts find the slot of each granule, and there are few slots. */
static inline bool is_plain(const struct mmu_span *span)
{
	return !span->map_count && !span->mod3_shift && span->bits <= TALLY_BITS;
}

/*
 * Whole granules of a plain span from hpa on, as long as devices have them in short: how many bytes they are. What
 * they count for is added up first, since a count in memory for each is a good part of the work.
 */
static __attribute__((noinline)) uint64_t gather_granules(struct gathering *g, const mmu_route *route, const struct mmu_span *span, uint64_t hpa,
			     uint64_t size)
{
	const struct route_slot *slots = route->ready + span->slot_first;
	uint64_t granule = span->granule, done = 0;
	uint32_t mask = (1u << span->bits) - 1, tally[1 << TALLY_BITS] = { 0 };

	for (; size - done >= granule; done += granule) {
		uint32_t i = (uint32_t)((hpa + done) >> span->shift) & mask;
		const struct route_slot *slot = &slots[i];
		uint64_t at = slot_offset(slot, hpa + done);

		if (at >= slot->room || slot->room - at < granule)
			break;
		tally[i]++;
		gather_device(g, slot->places, slot->host + at, granule);
	}
	for (uint32_t i = 0; i <= mask; i++)
		if (tally[i])
			window_count_blocks(g->b.port, slots[i].number, g->b.write, tally[i], granule);
	return done;
}

static void gather_span(struct gathering *g, const mmu_route *route, const struct mmu_span *span, uint64_t hpa,
			uint64_t size)
{
	while (size) {
		uint64_t run = 0;

		if (size >= span->granule && !(hpa & (span->granule - 1)) && is_plain(span))
			run = gather_granules(g, route, span, hpa, size);
		if (!run) {
			const struct route_slot *slot = &route->ready[span_index(span, hpa)];
			uint64_t at = slot_offset(slot, hpa);

			run = block_least(size, span->granule - (hpa & (span->granule - 1)));
			if (at < slot->room) {
				run = block_least(run, slot->room - at);
				gather_device(g, slot->places, slot->host + at, run);
				window_count_blocks(g->b.port, slot->number, g->b.write, 1, run);
			} else {
				gather_granule(g, route, hpa, &run);
			}
		}
		hpa += run;
		size -= run;
	}
}

int block_window(const struct block *b, const mmu_route *route, uint64_t hpa, uint64_t size)
{
	struct gathering g = { .b = *b, .away = window_any_away(b->port) };

	while (size) {
		const struct mmu_span *span = route_span(route, hpa);
		uint64_t run = size;

		if (span && hpa >= span->first) {
			run = block_least(run - 1, span->last - hpa) + 1;
			gather_span(&g, route, span, hpa, run);
		} else {
			if (span)
				run = block_least(run, span->first - hpa);
			skip(&g, run, b->write ? MMU_MEMTX_OK : MMU_MEMTX_ERROR);
		}
		hpa += run;
		size -= run;
	}
	settle(&g);
	return g.result;
}
