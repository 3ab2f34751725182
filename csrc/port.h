/* Inside of the port, for the walkers and the guest callbacks. */
#ifndef MMU_PORT_H
#define MMU_PORT_H
#include "address.h"
#include "bus.h"
#include "hostfile.h"
#include "mmu.h"

/*
 * One aligned 8-byte table entry: one bus access. MMU_MEMTX_* bits or MMU_ECALLBACK; *ret is 0
 * when nothing answered. Any thread that owns the port.
 */
static inline int port_load64(struct mmu_port *port, paddr_t pa, uint64_t *ret)
{
	return mmu_port_load(port, pa.v, 8, ret);
}

static inline int port_load32(struct mmu_port *port, paddr_t pa, uint64_t *ret)
{
	return mmu_port_load(port, pa.v, 4, ret);
}

/* Replaces `expected` by `desired` in an entry; *old_ret is what was there. */
static inline int port_exchange64(struct mmu_port *port, paddr_t pa, uint64_t expected,
				  uint64_t desired, uint64_t *old_ret)
{
	return mmu_port_exchange(port, pa.v, 8, expected, desired, old_ret);
}

/*
 * The largest run of RAM, for table reads without a search. Good between port_enter() and port_leave().
 * Empty while the port is traced: every access must be seen then.
 */
static inline struct map_ram port_ram(struct mmu_port *port)
{
	if (port->trace)
		return (struct map_ram){ 0 };
	return atomic_load_explicit(&port->bus->map, memory_order_acquire)->ram;
}

/*
 * An aligned entry of 4 or 8 bytes at pa, when it lies in the run. Relaxed: one atomic load, no order.
 * False also when its page may have failed: the port finds out.
 */
static inline bool port_ram_load(const struct map_ram *ram, paddr_t pa, uint32_t size, uint64_t *ret)
{
	uint64_t offset = pa.v - ram->first;
	const void *p = ram->host + offset;

	if (!ram->host || offset > ram->span)
		return false;
	*ret = size == 8 ? __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED)
			 : __atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED);
	return !hostfile_any_failed();
}

#endif
