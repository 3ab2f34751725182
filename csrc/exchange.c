/* Compare and exchange: what page-table updates are made of. Atomic in RAM and device memory. */
#include "hostfile.h"
#include "memory.h"
#include "piece.h"
#include "window.h"

static int exchange(mmu_port *port, const struct mmu_map *map, uint64_t address, uint32_t size,
		    uint64_t expected, uint64_t desired, uint64_t *old)
{
	const struct mmu_target *target = NULL;
	const struct mmu_range *r;
	uint64_t offset, run = size;
	uint8_t *host = NULL;
	bool split;
	int rc;

	*old = 0;
	r = piece_range(port, map, address, size, &split);
	if (!r)			/* an entry that lies in two regions cannot be exchanged */
		return MMU_MEMTX_DECODE_ERROR;
	offset = r->offset + (address - r->first);
	if (r->kind == MMU_RANGE_RAM)
		host = (uint8_t *)r->host + offset;
	if (r->kind == MMU_RANGE_STRIPED) {
		rc = striped_find(r->route, r->route->base + offset, false, &run, &host, &target);
		if (!host || run < size)
			return rc | MMU_MEMTX_ERROR;
		host = window_wait(port, target->places, host);
	}
	if (host && aligned(host, size)) {
		*old = memory_exchange(host, size, expected, desired);
		if (hostfile_failed(host, size)) {
			*old = 0;
			return MMU_MEMTX_ERROR;
		}
		if (target)
			striped_count(port, target, false, size);
		if (target && *old == expected)
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
	port_wrote(port);
	if (port->trace)
		port_record(port, (struct mmu_trace_entry){ .address = address, .value = *old,
			.desired = desired, .size = (uint8_t)size, .kind = MMU_TRACE_EXCHANGE,
			.result = (uint8_t)rc,
			.stored = rc == MMU_MEMTX_OK && *old == expected });
	return rc;
}
