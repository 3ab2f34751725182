/* One aligned piece of an access: who answers, and what. A piece over two ranges is cut in half. */
#include "piece.h"
#include <sched.h>
#include "hostfile.h"
#include "memory.h"
#include "window.h"

uint8_t *port_wait(mmu_port *port, struct mmu_places *places, uint8_t *host)
{
	uint8_t *now;

	do {
		port_aside(port);
		sched_yield();
		port_back(port);
		now = window_now(port, places, host);
	} while (!now);
	return now;
}

static inline const struct mmu_range *find(mmu_port *port, const struct mmu_map *map, uint64_t pa,
					   uint32_t size, bool *split)
{
	uint32_t i = map_search(map, pa);
	const struct mmu_range *r = &map->ranges[i];

	*split = false;
	if (i == map->count)
		return NULL;
	if (pa < r->first) {
		*split = r->first - pa < size;
		return NULL;
	}
	if (r->last - pa < size - 1 ||
	    (r->kind == MMU_RANGE_STRIPED && size > 1 &&
	     (r->route->base + r->offset + (pa - r->first)) & (size - 1))) {
		*split = true;
		return NULL;
	}
	if (r->kind == MMU_RANGE_STRIPED)
		port->window = map_window_search(map, pa);
	return r;
}

const struct mmu_range *piece_range(mmu_port *port, const struct mmu_map *map, uint64_t pa,
				    uint32_t size, bool *split)
{
	return find(port, map, pa, size, split);
}

static int load_halves(mmu_port *port, const struct mmu_map *map, uint64_t pa, uint32_t size, uint64_t *ret)
{
	uint64_t low = 0, high = 0;
	int rc, rc2;

	rc = piece_load(port, map, pa, size / 2, &low);
	if (rc < 0)
		return rc;
	rc2 = piece_load(port, map, pa + size / 2, size / 2, &high);
	if (rc2 < 0)
		return rc2;
	*ret = low | high << (4 * size);
	return rc | rc2;
}

static int store_halves(mmu_port *port, const struct mmu_map *map, uint64_t pa, uint32_t size, uint64_t value)
{
	int rc, rc2;

	rc = piece_store(port, map, pa, size / 2, value);
	if (rc < 0)
		return rc;
	rc2 = piece_store(port, map, pa + size / 2, size / 2, value >> (4 * size));
	return rc2 < 0 ? rc2 : rc | rc2;
}

/* Memory that lies askew: the piece ends in another block, which may be elsewhere. */
static bool in_two_blocks(const mmu_port *port, const uint8_t *host, uint32_t size)
{
	return (uintptr_t)host % PLACE_BLOCK + size > PLACE_BLOCK && window_any_away(port);
}

/* A page of a file may have failed meanwhile. */
static int load_memory(const uint8_t *host, uint32_t size, uint64_t *ret)
{
	*ret = memory_load(host, size);
	if (!hostfile_failed(host, size))
		return MMU_MEMTX_OK;
	*ret = 0;
	return MMU_MEMTX_ERROR;
}

static int store_memory(uint8_t *host, uint32_t size, uint64_t value)
{
	memory_store(host, size, value);
	return hostfile_failed(host, size) ? MMU_MEMTX_ERROR : MMU_MEMTX_OK;
}

int piece_load(mmu_port *port, const struct mmu_map *map, uint64_t pa, uint32_t size, uint64_t *ret)
{
	const struct mmu_target *target;
	uint64_t offset, run = size;
	const struct mmu_range *r;
	uint8_t *host;
	bool split;
	int rc;

	*ret = 0;
	r = find(port, map, pa, size, &split);
	if (split)
		return load_halves(port, map, pa, size, ret);
	if (!r)
		return MMU_MEMTX_DECODE_ERROR;
	offset = r->offset + (pa - r->first);
	switch ((enum mmu_range_kind)r->kind) {
	case MMU_RANGE_RAM:
	case MMU_RANGE_ROM:
		return load_memory((const uint8_t *)r->host + offset, size, ret);
	case MMU_RANGE_IO:
		return port_io_load(port, r->io, offset, size, ret);
	case MMU_RANGE_STRIPED:
		rc = striped_find(r->route, r->route->base + offset, false, &run, &host, &target);
		if (!host)
			return rc;
		if (run < size)		/* the device's memory ends inside the piece */
			return MMU_MEMTX_ERROR;
		if (in_two_blocks(port, host, size))
			return load_halves(port, map, pa, size, ret);
		rc = load_memory(window_wait(port, target->places, host), size, ret);
		if (rc == MMU_MEMTX_OK)
			striped_count(port, target, false, size);
		return rc;
	}
	return MMU_MEMTX_DECODE_ERROR;
}

int piece_store(mmu_port *port, const struct mmu_map *map, uint64_t pa, uint32_t size,
		uint64_t value)
{
	const struct mmu_target *target;
	uint64_t offset, run = size;
	const struct mmu_range *r;
	uint8_t *host;
	bool split;
	int rc;

	r = find(port, map, pa, size, &split);
	if (split)
		return store_halves(port, map, pa, size, value);
	if (!r)
		return MMU_MEMTX_DECODE_ERROR;
	offset = r->offset + (pa - r->first);
	switch ((enum mmu_range_kind)r->kind) {
	case MMU_RANGE_RAM:
		return store_memory((uint8_t *)r->host + offset, size, value);
	case MMU_RANGE_ROM:
		return r->io ? port_io_store(port, r->io, offset, size, value) : MMU_MEMTX_OK;
	case MMU_RANGE_IO:
		return port_io_store(port, r->io, offset, size, value);
	case MMU_RANGE_STRIPED:
		rc = striped_find(r->route, r->route->base + offset, true, &run, &host, &target);
		if (!host)
			return rc;
		if (run < size)
			return MMU_MEMTX_ERROR;
		if (in_two_blocks(port, host, size))
			return store_halves(port, map, pa, size, value);
		rc = store_memory(window_wait(port, target->places, host), size, value);
		if (rc == MMU_MEMTX_OK)
			striped_count(port, target, true, size);
		return rc;
	}
	return MMU_MEMTX_DECODE_ERROR;
}
