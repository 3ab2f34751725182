/* Inside of the bus: the immutable map. */
#ifndef MMU_BUS_H
#define MMU_BUS_H
#include <stdatomic.h>
#include "address.h"
#include "mmu.h"

struct mmu_map {
	struct mmu_map *retired;	/* the map before this one */
	uint32_t count;
	struct mmu_range ranges[];	/* sorted, apart */
};

struct mmu_bus {
	_Atomic(struct mmu_map *) map;
};

/* The map as of now. It stays valid until the bus is destroyed. */
static inline const struct mmu_map *bus_map(struct mmu_bus *bus)
{
	/* Acquire: pairs with the release in mmu_bus_publish(). */
	return atomic_load_explicit(&bus->map, memory_order_acquire);
}

/* First range that ends at or after pa; map->count when there is none. */
static inline uint32_t map_search(const struct mmu_map *map, uint64_t pa)
{
	uint32_t lo = 0, hi = map->count;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (pa > map->ranges[mid].last)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

#endif
