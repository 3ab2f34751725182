/*
 * Ports: how an initiator reaches what the bus maps. No lock, no allocation.
 *
 * A single access is cut into naturally aligned pieces of at most 8 bytes, the largest first that
 * fits at each address; an aligned piece is single-copy atomic in RAM and device memory.
 */
#include "port.h"
#include <string.h>
#include "bus.h"
#include "io.h"
#include "memory.h"
#include "window.h"

void mmu_port_trace(mmu_port *port, struct mmu_trace_entry *entries, uint64_t capacity)
{
	port->trace = NULL;
	port->trace_capacity = entries ? capacity : 0;
	port->trace_used = 0;
	port->trace = entries;
}

uint64_t mmu_port_trace_used(const mmu_port *port)
{
	return port->trace_used;
}

const struct mmu_traffic *mmu_port_traffic(const mmu_port *port)
{
	return port->traffic;
}

static void trace(mmu_port *port, struct mmu_trace_entry entry)
{
	if (port->trace_used < port->trace_capacity)
		port->trace[port->trace_used] = entry;
	port->trace_used++;
}

/* ---- one aligned piece ---- */

/* The range that holds all of pa..pa+size-1, or NULL; *split: it holds a part, so cut the piece. */
static const struct mmu_range *piece_range(const struct mmu_map *map, uint64_t pa, uint32_t size,
					   bool *split)
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
	return r;
}

static int piece_load(mmu_port *port, const struct mmu_map *map, uint64_t pa, uint32_t size,
		      uint64_t *ret)
{
	const struct mmu_target *target;
	uint64_t offset, low = 0, high = 0, run = size;
	const struct mmu_range *r;
	uint8_t *host;
	bool split;
	int rc, rc2;

	*ret = 0;
	r = piece_range(map, pa, size, &split);
	if (split) {
		rc = piece_load(port, map, pa, size / 2, &low);
		if (rc < 0)
			return rc;
		rc2 = piece_load(port, map, pa + size / 2, size / 2, &high);
		if (rc2 < 0)
			return rc2;
		*ret = low | high << (4 * size);
		return rc | rc2;
	}
	if (!r)
		return MMU_MEMTX_DECODE_ERROR;
	offset = r->offset + (pa - r->first);
	switch ((enum mmu_range_kind)r->kind) {
	case MMU_RANGE_RAM:
	case MMU_RANGE_ROM:
		*ret = memory_load((const uint8_t *)r->host + offset, size);
		return MMU_MEMTX_OK;
	case MMU_RANGE_IO:
		return io_load(r->io, offset, size, ret);
	case MMU_RANGE_STRIPED:
		rc = striped_find(r->route, r->route->base + offset, false, &run, &host, &target);
		if (!host)
			return rc;
		if (run < size)		/* the device's memory ends inside the piece */
			return MMU_MEMTX_ERROR;
		*ret = memory_load(host, size);
		striped_count(port, target, false, size);
		return rc;
	}
	return MMU_MEMTX_DECODE_ERROR;
}

static int piece_store(mmu_port *port, const struct mmu_map *map, uint64_t pa, uint32_t size,
		       uint64_t value)
{
	const struct mmu_target *target;
	uint64_t offset, run = size;
	const struct mmu_range *r;
	uint8_t *host;
	bool split;
	int rc, rc2;

	r = piece_range(map, pa, size, &split);
	if (split) {
		rc = piece_store(port, map, pa, size / 2, value);
		if (rc < 0)
			return rc;
		rc2 = piece_store(port, map, pa + size / 2, size / 2, value >> (4 * size));
		return rc2 < 0 ? rc2 : rc | rc2;
	}
	if (!r)
		return MMU_MEMTX_DECODE_ERROR;
	offset = r->offset + (pa - r->first);
	switch ((enum mmu_range_kind)r->kind) {
	case MMU_RANGE_RAM:
		memory_store((uint8_t *)r->host + offset, size, value);
		return MMU_MEMTX_OK;
	case MMU_RANGE_ROM:
		return MMU_MEMTX_OK;
	case MMU_RANGE_IO:
		return io_store(r->io, offset, size, value & mask_of(size));
	case MMU_RANGE_STRIPED:
		rc = striped_find(r->route, r->route->base + offset, true, &run, &host, &target);
		if (!host)
			return rc;
		if (run < size)
			return MMU_MEMTX_ERROR;
		memory_store(host, size, value);
		striped_count(port, target, true, size);
		return rc;
	}
	return MMU_MEMTX_DECODE_ERROR;
}

/* ---- single accesses ---- */

static bool size_valid(uint32_t size)
{
	return size == 1 || size == 2 || size == 4 || size == 8;
}

/* The largest power of two, at most 8, that is aligned at `address` and fits in `size`. */
static uint32_t piece_size(uint64_t address, uint64_t size)
{
	uint64_t n = (address | 8) & -(address | 8);

	while (n > size)
		n /= 2;
	return (uint32_t)n;
}

static int load(mmu_port *port, const struct mmu_map *map, uint64_t address, uint32_t size,
		uint64_t *ret)
{
	uint64_t value = 0;
	int result = MMU_MEMTX_OK;

	for (uint32_t done = 0; done < size;) {
		uint32_t n = piece_size(address + done, size - done);
		uint64_t part;
		int rc = piece_load(port, map, address + done, n, &part);

		if (rc < 0)
			return rc;
		result |= rc;
		value |= part << (8 * done);
		done += n;
	}
	*ret = value;
	return result;
}

/* Aligned, in the largest run of RAM, and nobody traces: the host address, else NULL. */
static inline uint8_t *plain_ram(const mmu_port *port, const struct mmu_map *map, uint64_t address,
				 uint32_t size)
{
	uint64_t offset = address - map->ram.first;

	if (!map->ram.host || offset > map->ram.span || address & (size - 1) || port->trace)
		return NULL;
	return map->ram.host + offset;
}

/* Out of line, so that the way to plain RAM saves no registers. */
static __attribute__((noinline)) int load_any(mmu_port *port, uint64_t address, uint32_t size,
					      uint64_t *ret)
{
	struct port_read read;
	int rc;

	if (!size_valid(size) || address + (size - 1) < address)
		return MMU_ERANGE;
	read = port_enter(port);
	rc = load(port, read.map, address, size, ret);
	port_leave(port, read);
	if (port->trace)
		trace(port, (struct mmu_trace_entry){ .address = address, .value = *ret,
			.size = (uint8_t)size, .kind = MMU_TRACE_READ, .result = (uint8_t)rc });
	return rc;
}

int mmu_port_load(mmu_port *port, uint64_t address, uint32_t size, uint64_t *ret)
{
	struct port_read read = port_enter(port);
	const uint8_t *host = size_valid(size) ? plain_ram(port, read.map, address, size) : NULL;

	if (host)
		*ret = memory_load(host, size);
	port_leave(port, read);
	return host ? MMU_MEMTX_OK : load_any(port, address, size, ret);
}

static int store(mmu_port *port, const struct mmu_map *map, uint64_t address, uint32_t size,
		 uint64_t value)
{
	int result = MMU_MEMTX_OK;

	for (uint32_t done = 0; done < size;) {
		uint32_t n = piece_size(address + done, size - done);
		int rc = piece_store(port, map, address + done, n, value >> (8 * done));

		if (rc < 0)
			return rc;
		result |= rc;
		done += n;
	}
	return result;
}

static __attribute__((noinline)) int store_any(mmu_port *port, uint64_t address, uint32_t size,
					       uint64_t value)
{
	struct port_read read;
	int rc;

	if (!size_valid(size) || address + (size - 1) < address)
		return MMU_ERANGE;
	read = port_enter(port);
	rc = store(port, read.map, address, size, value);
	port_leave(port, read);
	if (port->trace)
		trace(port, (struct mmu_trace_entry){ .address = address,
			.value = value & mask_of(size), .size = (uint8_t)size,
			.kind = MMU_TRACE_WRITE, .result = (uint8_t)rc });
	return rc;
}

int mmu_port_store(mmu_port *port, uint64_t address, uint32_t size, uint64_t value)
{
	struct port_read read = port_enter(port);
	uint8_t *host = size_valid(size) ? plain_ram(port, read.map, address, size) : NULL;

	if (host)
		memory_store(host, size, value);
	port_leave(port, read);
	return host ? MMU_MEMTX_OK : store_any(port, address, size, value);
}

static int exchange(mmu_port *port, const struct mmu_map *map, uint64_t address, uint32_t size,
		    uint64_t expected, uint64_t desired, uint64_t *old)
{
	const struct mmu_target *target;
	const struct mmu_range *r;
	uint64_t offset, run = size;
	uint8_t *host = NULL;
	bool split;
	int rc;

	*old = 0;
	r = piece_range(map, address, size, &split);
	if (!r)			/* an entry that lies in two regions cannot be exchanged */
		return MMU_MEMTX_DECODE_ERROR;
	offset = r->offset + (address - r->first);
	if (r->kind == MMU_RANGE_RAM)
		host = (uint8_t *)r->host + offset;
	if (r->kind == MMU_RANGE_STRIPED) {
		rc = striped_find(r->route, r->route->base + offset, false, &run, &host, &target);
		if (!host || run < size)
			return rc | MMU_MEMTX_ERROR;
		striped_count(port, target, false, size);
	}
	if (host && aligned(host, size)) {
		*old = memory_exchange(host, size, expected, desired);
		if (r->kind == MMU_RANGE_STRIPED && *old == expected)
			striped_count(port, target, true, size);
		return MMU_MEMTX_OK;
	}
	rc = piece_load(port, map, address, size, old);
	if (rc != MMU_MEMTX_OK || *old != expected)
		return rc;
	return piece_store(port, map, address, size, desired);
}

int mmu_port_exchange(mmu_port *port, uint64_t address, uint32_t size, uint64_t expected,
		      uint64_t desired, uint64_t *old)
{
	struct port_read read;
	int rc;

	if ((size != 4 && size != 8) || address & (size - 1))
		return MMU_ERANGE;
	read = port_enter(port);
	rc = exchange(port, read.map, address, size, expected, desired, old);
	port_leave(port, read);
	if (port->trace)
		trace(port, (struct mmu_trace_entry){ .address = address, .value = *old,
			.desired = desired, .size = (uint8_t)size, .kind = MMU_TRACE_EXCHANGE,
			.result = (uint8_t)rc,
			.stored = rc == MMU_MEMTX_OK && *old == expected });
	return rc;
}

/* ---- blocks ---- */

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
		striped_count(port, target, write, *run);
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
