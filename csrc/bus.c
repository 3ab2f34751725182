/* The map of the bus. Readers take no lock: they follow one pointer to an immutable map. */
#include "bus.h"
#include <stdlib.h>
#include <string.h>

static struct mmu_map *map_new(uint32_t count)
{
	struct mmu_map *map = malloc(sizeof(*map) + (size_t)count * sizeof(map->ranges[0]));

	if (map)
		*map = (struct mmu_map){ .count = count };
	return map;
}

int mmu_bus_create(mmu_bus **ret)
{
	mmu_bus *bus = malloc(sizeof(*bus));
	struct mmu_map *map = map_new(0);

	if (!bus || !map) {
		free(bus);
		free(map);
		return MMU_ENOMEM;
	}
	atomic_init(&bus->map, map);
	*ret = bus;
	return MMU_OK;
}

void mmu_bus_destroy(mmu_bus *bus)
{
	if (!bus)
		return;
	for (struct mmu_map *map = atomic_load(&bus->map), *older; map; map = older) {
		older = map->retired;
		free(map);
	}
	free(bus);
}

static bool power_of_two_to_8(uint32_t n)
{
	return n == 1 || n == 2 || n == 4 || n == 8;
}

static bool io_valid(const struct mmu_io *io)
{
	return io && io->read && io->write && power_of_two_to_8(io->valid_min) &&
	       power_of_two_to_8(io->valid_max) && power_of_two_to_8(io->impl_min) &&
	       power_of_two_to_8(io->impl_max) && io->valid_min <= io->valid_max &&
	       io->impl_min <= io->impl_max;
}

static bool range_valid(const struct mmu_range *r)
{
	if (r->first > r->last || r->offset + (r->last - r->first) < r->offset)
		return false;
	switch ((enum mmu_range_kind)r->kind) {
	case MMU_RANGE_RAM:
	case MMU_RANGE_ROM:
		return r->host;
	case MMU_RANGE_IO:
		return io_valid(r->io);
	case MMU_RANGE_STRIPED:
		return r->route;
	}
	return false;
}

int mmu_bus_publish(mmu_bus *bus, const struct mmu_range *ranges, uint32_t count)
{
	struct mmu_map *map;

	for (uint32_t i = 0; i < count; i++) {
		if (!range_valid(&ranges[i]))
			return MMU_ERANGE;
		if (i && ranges[i].first <= ranges[i - 1].last)
			return MMU_EOVERLAP;
	}
	map = map_new(count);
	if (!map)
		return MMU_ENOMEM;
	if (count)
		memcpy(map->ranges, ranges, (size_t)count * sizeof(*ranges));
	map->retired = atomic_load_explicit(&bus->map, memory_order_relaxed);
	/*
	 * Release: pairs with the acquire in bus_map(). Whoever sees the new map sees every
	 * store into it. Writers are serialised by the caller; the old map may still be in use
	 * by a reader, so it is kept until the bus is destroyed.
	 */
	atomic_store_explicit(&bus->map, map, memory_order_release);
	return MMU_OK;
}
