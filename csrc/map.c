/* Builds the tables that make the search of a map short, however many ranges there are. */
#include "map.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "stripes.h"

static_assert(sizeof(struct mmu_range) == 64, "one line of the host's cache");

struct builder {
	const struct mmu_range *ranges;
	uint32_t count;
	struct map_index *index;
	size_t tables, table_space, buckets, bucket_space;
};

/* Makes room for `more` elements; false when memory is out, what was there stays. */
static bool grow(void **array, size_t *space, size_t used, size_t more, size_t size)
{
	size_t want = *space ? *space : 64;
	void *larger;

	if (used + more <= *space)
		return true;
	while (want < used + more)
		want *= 2;
	larger = realloc(*array, want * size);
	if (!larger)
		return false;
	*array = larger;
	*space = want;
	return true;
}

static unsigned bits_of(uint64_t v)
{
	return v ? 64 - (unsigned)__builtin_clzll(v) : 0;
}

/*
 * The table number `at` over addresses first..last, in which the ranges from `range` on are looked for.
 * Twice as many buckets as ranges; a crowded bucket gets a table of its own. Depth is bounded: each
 * table's span is at most 2^-3 of its parent's.
 */
static bool build(struct builder *b, uint32_t at, uint64_t first, uint64_t last, uint32_t range,
		  uint32_t ranges)
{
	unsigned width = bits_of(ranges) + 1 < 4 ? 4 : bits_of(ranges) + 1;
	unsigned span = bits_of(last - first), shift = span > width ? span - width : 0;
	uint32_t buckets = (uint32_t)((last - first) >> shift) + 1, base = (uint32_t)b->buckets;

	if (!grow((void **)&b->index->buckets, &b->bucket_space, b->buckets, buckets, sizeof(uint32_t)))
		return false;
	b->buckets += buckets;
	b->index->tables[at] = (struct map_table){ .base = first, .shift = shift, .mask = buckets - 1,
						 .first = base };
	for (uint32_t i = 0; i < buckets; i++) {
		uint64_t low = first + ((uint64_t)i << shift);
		uint64_t high = i == buckets - 1 ? last : low + ((UINT64_C(1) << shift) - 1);
		uint32_t end;

		while (range < b->count && b->ranges[range].last < low)
			range++;
		for (end = range; end < b->count && b->ranges[end].first <= high; end++)
			;
		b->index->buckets[base + i] = range;
		if (end - range <= MAP_SCAN + 1 || !shift)
			continue;
		if (!grow((void **)&b->index->tables, &b->table_space, b->tables, 1,
			  sizeof(struct map_table)))
			return false;
		b->index->buckets[base + i] = MAP_NESTED | (uint32_t)b->tables++;
		if (!build(b, (uint32_t)b->tables - 1, low, high, range, end - range))
			return false;
	}
	return true;
}

static void index_destroy(struct map_index *index)
{
	free(index->tables);
	free(index->buckets);
	free(index);
}

static struct map_index *index_create(const struct mmu_range *ranges, uint32_t count)
{
	struct map_index *index = calloc(1, sizeof(*index));
	struct builder b = { .ranges = ranges, .count = count, .index = index, .tables = 1 };

	if (!index)
		return NULL;
	index->users = 1;
	if (!count)
		return index;
	if (count >= MAP_NESTED ||
	    !grow((void **)&index->tables, &b.table_space, 0, 1, sizeof(struct map_table)) ||
	    !build(&b, 0, ranges[0].first, ranges[count - 1].last, 0, count)) {
		index_destroy(index);
		return NULL;
	}
	return index;
}

/* Only what is there changed, not where: the index of `map` does for these ranges too. */
static bool same_places(const struct mmu_map *map, const struct mmu_range *ranges, uint32_t count)
{
	if (map->count != count)
		return false;
	for (uint32_t i = 0; i < count; i++)
		if (map->ranges[i].first != ranges[i].first || map->ranges[i].last != ranges[i].last)
			return false;
	return true;
}

static struct map_ram largest_ram(const struct mmu_map *map)
{
	struct map_ram found = { 0 };

	for (uint32_t i = 0; i < map->count; i++) {
		const struct mmu_range *r = &map->ranges[i];
		uint8_t *host = (uint8_t *)r->host + r->offset;

		if (r->kind != MMU_RANGE_RAM || r->last - r->first < 7 ||
		    ((uintptr_t)host - r->first) & 7)
			continue;
		if (!found.host || r->last - r->first - 7 > found.span)
			found = (struct map_ram){ host, r->first, r->last - r->first - 7 };
	}
	return found;
}

/* The part of range number `i` that `span` shows; span 0: none, or fewer than 8 bytes. */
static struct map_window window_of(const struct mmu_map *map, uint32_t i, const struct mmu_span *span)
{
	const struct mmu_range *r = &map->ranges[i];
	const mmu_route *route = r->route;
	uint64_t low = route->base + r->offset, high = low + (r->last - r->first);
	static const struct route_slot none = { 0 };
	struct map_window w = { .range = i, .shift = span->shift, .slots = &none };

	if (low > high || span->last < low || span->first > high)	/* low > high: wraps */
		return w;
	w.hpa = span->first > low ? span->first : low;
	w.first = r->first + (w.hpa - low);
	w.span = (span->last < high ? span->last : high) - w.hpa;
	/* An aligned access must be as aligned for the device, and not cross the end. */
	if (!span->map_count && !span->mod3_shift && !((w.first | w.hpa | (w.span + 1)) & 7)) {
		w.slots = route->ready + span->slot_first;
		w.mask = (1u << span->bits) - 1;
	}
	return w;
}

static uint32_t count_windows(const struct mmu_range *ranges, uint32_t count)
{
	uint32_t windows = 0;

	for (uint32_t i = 0; i < count; i++)
		if (ranges[i].kind == MMU_RANGE_STRIPED)
			windows += ranges[i].route->span_count;
	return windows;
}

static void list_windows(struct mmu_map *map)
{
	for (uint32_t i = 0; i < map->count; i++) {
		const mmu_route *route = map->ranges[i].route;

		if (map->ranges[i].kind != MMU_RANGE_STRIPED)
			continue;
		for (uint32_t k = 0; k < route->span_count; k++) {
			struct map_window w = window_of(map, i, &route->spans[k]);

			if (w.span)
				map->windows[map->window_count++] = w;
		}
	}
}

struct mmu_map *map_create(const struct mmu_range *ranges, uint32_t count, const struct mmu_map *like)
{
	size_t size = sizeof(struct mmu_map) + (size_t)count * sizeof(*ranges);
	size_t windows = count_windows(ranges, count) * sizeof(struct map_window);
	struct mmu_map *map = aligned_alloc(64, size + ((windows + 63) & ~(size_t)63));

	if (!map)
		return NULL;
	*map = (struct mmu_map){ .count = count };
	if (like && same_places(like, ranges, count)) {
		map->index = like->index;
		map->index->users++;
	} else {
		map->index = index_create(ranges, count);
	}
	if (!map->index) {
		free(map);
		return NULL;
	}
	map->tables = map->index->tables;
	map->buckets = map->index->buckets;
	if (count)
		memcpy(map->ranges, ranges, (size_t)count * sizeof(*ranges));
	map->windows = (struct map_window *)((char *)map + size);
	list_windows(map);
	map->ram = largest_ram(map);
	return map;
}

void map_destroy(struct mmu_map *map)
{
	if (!map)
		return;
	if (--map->index->users == 0)
		index_destroy(map->index);
	free(map);
}
