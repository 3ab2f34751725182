/*
 * Ports: how an initiator reaches what the bus maps. No lock, no allocation.
 *
 * A single access is cut into naturally aligned pieces of at most 8 bytes, the largest first that
 * fits at each address; an aligned piece is single-copy atomic in RAM and device memory.
 */
#include "port.h"
#include <string.h>
#include "bus.h"
#include "stripes.h"

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

/* ---- plain memory ---- */

static bool aligned(const void *p, uint64_t size)
{
	return ((uintptr_t)p & (size - 1)) == 0;
}

static uint64_t memory_load(const uint8_t *p, uint32_t size)
{
	uint64_t value = 0;

	if (!aligned(p, size)) {	/* only where the host maps a region askew */
		memcpy(&value, p, size);
		return value;
	}
	switch (size) {
	case 1: return __atomic_load_n(p, __ATOMIC_RELAXED);
	case 2: return __atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_RELAXED);
	case 4: return __atomic_load_n((const uint32_t *)(const void *)p, __ATOMIC_RELAXED);
	case 8: return __atomic_load_n((const uint64_t *)(const void *)p, __ATOMIC_RELAXED);
	}
	return 0;
}

static void memory_store(uint8_t *p, uint32_t size, uint64_t value)
{
	if (!aligned(p, size)) {
		memcpy(p, &value, size);
		return;
	}
	switch (size) {
	case 1: __atomic_store_n(p, (uint8_t)value, __ATOMIC_RELAXED); break;
	case 2: __atomic_store_n((uint16_t *)(void *)p, (uint16_t)value, __ATOMIC_RELAXED); break;
	case 4: __atomic_store_n((uint32_t *)(void *)p, (uint32_t)value, __ATOMIC_RELAXED); break;
	case 8: __atomic_store_n((uint64_t *)(void *)p, value, __ATOMIC_RELAXED); break;
	}
}

/* A page-table update orders what came before it: sequentially consistent, as LOCK CMPXCHG is. */
static uint64_t memory_exchange(uint8_t *p, uint32_t size, uint64_t expected, uint64_t desired)
{
	if (size == 4) {
		uint32_t old = (uint32_t)expected;

		__atomic_compare_exchange_n((uint32_t *)(void *)p, &old, (uint32_t)desired, false,
					    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
		return old;
	}
	__atomic_compare_exchange_n((uint64_t *)(void *)p, &expected, desired, false,
				    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	return expected;
}

/* ---- MMIO ---- */

static uint64_t mask_of(uint32_t size)
{
	return size >= 8 ? UINT64_MAX : (UINT64_C(1) << (8 * size)) - 1;
}

static bool io_accepts(const struct mmu_io *io, uint64_t offset, uint32_t size)
{
	return size >= io->valid_min && size <= io->valid_max &&
	       (io->unaligned || !(offset & (size - 1)));
}

static uint32_t io_chunk(const struct mmu_io *io, uint32_t size)
{
	if (size < io->impl_min)
		return io->impl_min;
	return size > io->impl_max ? io->impl_max : size;
}

static int io_load(const struct mmu_io *io, uint64_t offset, uint32_t size, uint64_t *ret)
{
	uint32_t chunk = io_chunk(io, size);
	uint64_t value = 0;
	int result = MMU_MEMTX_OK;

	*ret = 0;
	if (!io_accepts(io, offset, size))
		return MMU_MEMTX_DECODE_ERROR;
	for (uint32_t i = 0; i < size; i += chunk) {
		uint64_t part = 0;
		int rc = io->read(io->ctx, offset + i, chunk, &part);

		if (rc < 0)
			return rc;
		result |= rc;
		value |= (part & mask_of(chunk)) << (8 * i);
	}
	*ret = value & mask_of(size);
	return result;
}

static int io_store(const struct mmu_io *io, uint64_t offset, uint32_t size, uint64_t value)
{
	uint32_t chunk = io_chunk(io, size);
	int result = MMU_MEMTX_OK;

	if (!io_accepts(io, offset, size))
		return MMU_MEMTX_DECODE_ERROR;
	for (uint32_t i = 0; i < size; i += chunk) {
		int rc = io->write(io->ctx, offset + i, chunk, (value >> (8 * i)) & mask_of(chunk));

		if (rc < 0)
			return rc;
		result |= rc;
	}
	return result;
}

/* ---- windows ---- */

/*
 * Finds device memory for a run at hpa. Returns MMU_MEMTX_OK with *host and *run (bytes, at most
 * *run on entry), or why not with *run set to how many bytes share that answer.
 * A write that reaches no device is dropped without an error; *host is then NULL.
 */
static int striped_find(const mmu_route *route, uint64_t hpa, bool write, uint64_t *run,
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

static void striped_count(mmu_port *port, const struct mmu_target *target, bool write, uint64_t bytes)
{
	struct mmu_traffic *t;

	if (target->number >= port->targets)
		return;
	t = &port->traffic[target->number];
	*(write ? &t->writes : &t->reads) += 1;
	*(write ? &t->write_bytes : &t->read_bytes) += bytes;
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
	int result = MMU_MEMTX_OK;

	*ret = 0;
	for (uint32_t done = 0; done < size;) {
		uint32_t n = piece_size(address + done, size - done);
		uint64_t part;
		int rc = piece_load(port, map, address + done, n, &part);

		if (rc < 0)
			return rc;
		result |= rc;
		*ret |= part << (8 * done);
		done += n;
	}
	return result;
}

int mmu_port_load(mmu_port *port, uint64_t address, uint32_t size, uint64_t *ret)
{
	int rc;

	if (!size_valid(size) || address + (size - 1) < address)
		return MMU_ERANGE;
	rc = load(port, port_enter(port), address, size, ret);
	port_leave(port);
	if (port->trace)
		trace(port, (struct mmu_trace_entry){ .address = address, .value = *ret,
			.size = (uint8_t)size, .kind = MMU_TRACE_READ, .result = (uint8_t)rc });
	return rc;
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

int mmu_port_store(mmu_port *port, uint64_t address, uint32_t size, uint64_t value)
{
	int rc;

	if (!size_valid(size) || address + (size - 1) < address)
		return MMU_ERANGE;
	rc = store(port, port_enter(port), address, size, value);
	port_leave(port);
	if (port->trace)
		trace(port, (struct mmu_trace_entry){ .address = address,
			.value = value & mask_of(size), .size = (uint8_t)size,
			.kind = MMU_TRACE_WRITE, .result = (uint8_t)rc });
	return rc;
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
	int rc;

	if ((size != 4 && size != 8) || address & (size - 1))
		return MMU_ERANGE;
	rc = exchange(port, port_enter(port), address, size, expected, desired, old);
	port_leave(port);
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
	int rc;

	if (size && address + (size - 1) < address)
		return MMU_ERANGE;
	if (size)
		memset(data, 0, size);
	rc = block(port, port_enter(port), address, data, size, false);
	port_leave(port);
	return rc;
}

int mmu_port_write(mmu_port *port, uint64_t address, const void *data, uint64_t size)
{
	int rc;

	if (size && address + (size - 1) < address)
		return MMU_ERANGE;
	/* Written through only when `write` is false; one body serves both directions. */
	rc = block(port, port_enter(port), address, (uint8_t *)(uintptr_t)data, size, true);
	port_leave(port);
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
	uint64_t run = host_run(port_enter(port), address, size, write, ret);

	port_leave(port);
	return run;
}
