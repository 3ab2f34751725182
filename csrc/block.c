/*
 * Blocks: as many bytes at once as one range, or one granule of a window, gives. Bytes that cannot be
 * read are zero. Each function below takes all that it is given; `size` is at least 1.
 */
#include "block.h"
#include "piece.h"
#include "window.h"

enum { SMALLEST_PAGE = 4096 };	/* a page fails as a whole, and is at least so large */

int block_suspect(const struct block *b, const uint8_t *host, uint64_t size)
{
	int result = MMU_MEMTX_OK;
	uint64_t run;

	for (uint64_t done = 0; done < size; done += run) {
		run = block_least(size - done, SMALLEST_PAGE - (uintptr_t)(host + done) % SMALLEST_PAGE);
		if (!hostfile_hit(host + done, run))
			continue;
		result = MMU_MEMTX_ERROR;
		if (!b->write)
			memset(b->data + done, 0, run);
	}
	return result;
}

/* Aligned accesses as wide as the device takes. */
static int copy_io(struct block b, const struct mmu_io *io, uint64_t offset, uint64_t size)
{
	int result = MMU_MEMTX_OK;

	while (size) {
		uint32_t run = piece_size(offset, block_least(size, io->valid_max));
		uint64_t value = 0;
		int rc;

		if (b.write) {
			memcpy(&value, b.data, run);
			rc = port_io_store(b.port, io, offset, run, value);
		} else {
			rc = port_io_load(b.port, io, offset, run, &value);
			memcpy(b.data, &value, run);
		}
		if (rc < 0)
			return rc;
		result |= rc;
		offset += run;
		b.data += run;
		size -= run;
	}
	return result;
}

static int copy_range(const struct block *b, const struct mmu_range *r, uint64_t offset,
		      uint64_t size)
{
	switch ((enum mmu_range_kind)r->kind) {
	case MMU_RANGE_RAM:
		return block_memory(b, (uint8_t *)r->host + offset, size);
	case MMU_RANGE_ROM:
		if (b->write)
			return r->io ? copy_io(*b, r->io, offset, size) : MMU_MEMTX_OK;
		return block_memory(b, (uint8_t *)r->host + offset, size);
	case MMU_RANGE_IO:
		return copy_io(*b, r->io, offset, size);
	case MMU_RANGE_STRIPED:
		return block_window(b, r->route, r->route->base + offset, size);
	}
	return MMU_MEMTX_DECODE_ERROR;
}

static int block(struct block b, const struct mmu_map *map, uint64_t address, uint64_t size)
{
	int result = MMU_MEMTX_OK;

	while (size) {
		uint32_t i = map_search(map, address);
		const struct mmu_range *r = &map->ranges[i];
		uint64_t run = size;
		int rc;

		if (i == map->count || address < r->first) {
			if (i < map->count)
				run = block_least(run, r->first - address);
			rc = block_nobody(&b, run, MMU_MEMTX_DECODE_ERROR);
		} else {
			if (run - 1 > r->last - address)
				run = r->last - address + 1;
			rc = copy_range(&b, r, r->offset + (address - r->first), run);
		}
		if (rc < 0)
			return rc;
		result |= rc;
		address += run;
		b.data += run;
		size -= run;
	}
	return result;
}

static int transfer(mmu_port *port, uint64_t address, uint8_t *data, uint64_t size, bool write)
{
	struct port_read read;
	int rc;

	if (size && address + (size - 1) < address)
		return MMU_ERANGE;
	read = port_enter(port);
	rc = block((struct block){ port, data, write }, read.map, address, size);
	port_leave(port, read);
	if (write)
		port_wrote(port);
	return rc;
}

int mmu_port_read(mmu_port *port, uint64_t address, void *data, uint64_t size)
{
	return transfer(port, address, data, size, false);
}

int mmu_port_write(mmu_port *port, uint64_t address, const void *data, uint64_t size)
{
	/* Written through only in the other direction. */
	return transfer(port, address, (uint8_t *)(uintptr_t)data, size, true);
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
	size = block_least(size - 1, r->last - address) + 1;
	return hostfile_failed(*ret, size) ? 0 : size;
}

uint64_t mmu_port_host(mmu_port *port, uint64_t address, uint64_t size, bool write, uint8_t **ret)
{
	struct port_read read = port_enter(port);
	uint64_t run = host_run(read.map, address, size, write, ret);

	port_leave(port, read);
	return run;
}
