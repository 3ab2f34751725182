/* Blocks: as many bytes at once as one range, or one granule of a window, gives. */
#include <string.h>
#include "bus.h"
#include "io.h"
#include "piece.h"
#include "window.h"

/* One run of a block: as many bytes as one range, or one granule of a window, gives at once. */
static int run_copy(mmu_port *port, const struct mmu_map *map, uint64_t pa, uint8_t *data,
		    bool write, uint64_t *run)
{
	uint32_t i = map_search(map, pa);
	const struct mmu_range *r = &map->ranges[i];
	const struct mmu_target *target;
	uint64_t offset, value;
	uint8_t *host;
	int rc;

	if (i == map->count || pa < r->first) {
		if (i < map->count && *run > r->first - pa)
			*run = r->first - pa;
		return MMU_MEMTX_DECODE_ERROR;
	}
	if (*run - 1 > r->last - pa)
		*run = r->last - pa + 1;
	offset = r->offset + (pa - r->first);
	switch ((enum mmu_range_kind)r->kind) {
	case MMU_RANGE_RAM:
	case MMU_RANGE_ROM:
		if (!write)
			memcpy(data, (uint8_t *)r->host + offset, *run);
		else if (r->kind == MMU_RANGE_RAM)
			memcpy((uint8_t *)r->host + offset, data, *run);
		return MMU_MEMTX_OK;
	case MMU_RANGE_IO:
		*run = piece_size(offset, *run > 8 ? 8 : *run);
		value = 0;
		if (write) {
			memcpy(&value, data, *run);
			return io_store(r->io, offset, (uint32_t)*run, value);
		}
		rc = io_load(r->io, offset, (uint32_t)*run, &value);
		memcpy(data, &value, *run);
		return rc;
	case MMU_RANGE_STRIPED:
		rc = striped_find(r->route, r->route->base + offset, write, run, &host, &target);
		if (!host)
			return rc;
		if (write)
			memcpy(host, data, *run);
		else
			memcpy(data, host, *run);
		striped_count_block(port, target, write, *run);
		return rc;
	}
	return MMU_MEMTX_DECODE_ERROR;
}

static int block(mmu_port *port, const struct mmu_map *map, uint64_t address, uint8_t *data,
		 uint64_t size, bool write)
{
	int result = MMU_MEMTX_OK;

	while (size) {
		uint64_t run = size;
		int rc = run_copy(port, map, address, data, write, &run);

		if (rc < 0)
			return rc;
		result |= rc;
		address += run;
		data += run;
		size -= run;
	}
	return result;
}

int mmu_port_read(mmu_port *port, uint64_t address, void *data, uint64_t size)
{
	struct port_read read;
	int rc;

	if (size && address + (size - 1) < address)
		return MMU_ERANGE;
	if (size)
		memset(data, 0, size);
	read = port_enter(port);
	rc = block(port, read.map, address, data, size, false);
	port_leave(port, read);
	return rc;
}

int mmu_port_write(mmu_port *port, uint64_t address, const void *data, uint64_t size)
{
	struct port_read read;
	int rc;

	if (size && address + (size - 1) < address)
		return MMU_ERANGE;
	/* Written through only when `write` is false; one body serves both directions. */
	read = port_enter(port);
	rc = block(port, read.map, address, (uint8_t *)(uintptr_t)data, size, true);
	port_leave(port, read);
	return rc;
}

static uint64_t host_run(const struct mmu_map *map, uint64_t address, uint64_t size, bool write,
			 uint8_t **ret)
{
	uint32_t i = map_search(map, address);
	const struct mmu_range *r = &map->ranges[i];

	if (!size || i == map->count || address < r->first)
		return 0;
	if (r->kind != MMU_RANGE_RAM && (write || r->kind != MMU_RANGE_ROM))
		return 0;
	*ret = (uint8_t *)r->host + r->offset + (address - r->first);
	return size - 1 > r->last - address ? r->last - address + 1 : size;
}

uint64_t mmu_port_host(mmu_port *port, uint64_t address, uint64_t size, bool write, uint8_t **ret)
{
	struct port_read read = port_enter(port);
	uint64_t run = host_run(read.map, address, size, write, ret);

	port_leave(port, read);
	return run;
}
