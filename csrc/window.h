/* An access to a window: which device memory it reaches, and the count of it. */
#ifndef MMU_WINDOW_H
#define MMU_WINDOW_H
#include "bus.h"
#include "stripes.h"

/*
 * Finds device memory for a run at hpa. Returns MMU_MEMTX_OK with *host and *run (bytes, at most
 * *run on entry), or why not with *run set to how many bytes share that answer.
 * A write that reaches no device is dropped without an error; *host is then NULL.
 */
static inline int striped_find(const mmu_route *route, uint64_t hpa, bool write, uint64_t *run,
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

static inline void striped_count(mmu_port *port, const struct mmu_target *target, bool write, uint64_t bytes)
{
	struct mmu_traffic *t;

	if (target->number >= port->targets)
		return;
	t = &port->traffic[target->number];
	*(write ? &t->writes : &t->reads) += 1;
	*(write ? &t->write_bytes : &t->read_bytes) += bytes;
}

#endif
