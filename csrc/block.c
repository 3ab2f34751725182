/*
 * Blocks: as many bytes at once as one range, or one granule of a window, gives. Bytes that cannot be
 * read are zero. Each function below takes all that it is given; `size` is at least 1.
 */
#include <string.h>
#include "bus.h"
#include "hostfile.h"
#include "memory.h"
#include "piece.h"
#include "window.h"

/* Bytes of the initiator's memory, and which way they go: to the bus when `write`. */
struct block {
	mmu_port *port;
	uint8_t *data;
	bool write;
};

enum { SMALLEST_PAGE = 4096 };	/* a page fails as a whole, and is at least so large */

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Pages of files have failed: what of these bytes did not reach, or come from, its page? */
static __attribute__((noinline)) int suspect(const struct block *b, const uint8_t *host, uint64_t size)
{
	int result = MMU_MEMTX_OK;
	uint64_t run;

	for (uint64_t done = 0; done < size; done += run) {
		run = least(size - done, SMALLEST_PAGE - (uintptr_t)(host + done) % SMALLEST_PAGE);
		if (!hostfile_hit(host + done, run))
			continue;
		result = MMU_MEMTX_ERROR;
		if (!b->write)
			memset(b->data + done, 0, run);
	}
	return result;
}

static int copy_memory(const struct block *b, uint8_t *host, uint64_t size)
{
	uint64_t value;

	/* What one instruction can move must not tear. */
	if (size == 8 && aligned(host, 8)) {
		if (b->write) {
			memcpy(&value, b->data, 8);
			memory_store_aligned(host, 8, value);
		} else {
			value = memory_load_aligned(host, 8);
			memcpy(b->data, &value, 8);
		}
	} else if (b->write) {
		memcpy(host, b->data, size);
	} else {
		memcpy(b->data, host, size);
	}
	return hostfile_any_failed() ? suspect(b, host, size) : MMU_MEMTX_OK;
}

static int nobody(const struct block *b, uint64_t size, int result)
{
	if (!b->write)
		memset(b->data, 0, size);
	return result;
}

/* Aligned accesses as wide as the device takes. */
static int copy_io(struct block b, const struct mmu_io *io, uint64_t offset, uint64_t size)
{
	int result = MMU_MEMTX_OK;

	while (size) {
		uint32_t run = piece_size(offset, least(size, io->valid_max));
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

/* Device memory that is at home at `host`, which may be in several places. */
static int copy_device(struct block b, struct mmu_places *places, uint8_t *host, uint64_t size)
{
	int result = MMU_MEMTX_OK;

	if (!places || !window_any_away(b.port))
		return copy_memory(&b, host, size);
	while (size) {
		uint64_t run = least(size, PLACE_BLOCK - (uintptr_t)host % PLACE_BLOCK);

		result |= copy_memory(&b, window_wait(b.port, places, host), run);
		host += run;
		b.data += run;
		size -= run;
	}
	return result;
}

/* What is not in the short form of its slot: misses, divisions by 3, the end of a device. */
static int copy_granule(const struct block *b, const mmu_route *route, uint64_t hpa, uint64_t *run)
{
	const struct mmu_target *target;
	uint8_t *host;
	int rc = striped_find(route, hpa, b->write, run, &host, &target);

	if (!host)
		return nobody(b, *run, rc);
	rc |= copy_device(*b, target->places, host, *run);
	window_count_block(b->port, target->number, b->write, *run);
	return rc;
}

static int copy_span(struct block b, const mmu_route *route, const struct mmu_span *span,
		     uint64_t hpa, uint64_t size)
{
	int result = MMU_MEMTX_OK;

	while (size) {
		const struct route_slot *slot = &route->ready[span_index(span, hpa)];
		uint64_t run = least(size, span->granule - (hpa & (span->granule - 1)));
		uint64_t at = slot_offset(slot, hpa);

		if (at < slot->room) {
			run = least(run, slot->room - at);
			result |= copy_device(b, slot->places, slot->host + at, run);
			window_count_block(b.port, slot->number, b.write, run);
		} else {
			result |= copy_granule(&b, route, hpa, &run);
		}
		hpa += run;
		b.data += run;
		size -= run;
	}
	return result;
}

static int copy_window(struct block b, const mmu_route *route, uint64_t hpa, uint64_t size)
{
	int result = MMU_MEMTX_OK;

	while (size) {
		const struct mmu_span *span = route_span(route, hpa);
		uint64_t run = size;

		if (span && hpa >= span->first) {
			if (run - 1 > span->last - hpa)
				run = span->last - hpa + 1;
			result |= copy_span(b, route, span, hpa, run);
		} else {
			if (span)
				run = least(run, span->first - hpa);
			result |= nobody(&b, run, b.write ? MMU_MEMTX_OK : MMU_MEMTX_ERROR);
		}
		hpa += run;
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
		return copy_memory(b, (uint8_t *)r->host + offset, size);
	case MMU_RANGE_ROM:
		if (b->write)
			return r->io ? copy_io(*b, r->io, offset, size) : MMU_MEMTX_OK;
		return copy_memory(b, (uint8_t *)r->host + offset, size);
	case MMU_RANGE_IO:
		return copy_io(*b, r->io, offset, size);
	case MMU_RANGE_STRIPED:
		return copy_window(*b, r->route, r->route->base + offset, size);
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
				run = least(run, r->first - address);
			rc = nobody(&b, run, MMU_MEMTX_DECODE_ERROR);
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
	size = least(size - 1, r->last - address) + 1;
	return hostfile_failed(*ret, size) ? 0 : size;
}

uint64_t mmu_port_host(mmu_port *port, uint64_t address, uint64_t size, bool write, uint8_t **ret)
{
	struct port_read read = port_enter(port);
	uint64_t run = host_run(read.map, address, size, write, ret);

	port_leave(port, read);
	return run;
}
