/* Inside of the port, for the walkers and the guest callbacks. */
#ifndef MMU_PORT_H
#define MMU_PORT_H
#include "address.h"
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

#endif
