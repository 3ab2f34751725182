/* One aligned piece of an access: 1, 2, 4 or 8 bytes, no pa + size wraps. */
#ifndef MMU_PIECE_H
#define MMU_PIECE_H
#include "bus.h"
#include "exclusive.h"
#include "io.h"

/* The range of a device that holds all of pa..pa+size-1, or NULL: it is not that. */
static inline const struct mmu_range *piece_device(const struct mmu_map *map, uint64_t pa,
						   uint32_t size)
{
	uint32_t i = map_search(map, pa);
	const struct mmu_range *r = &map->ranges[i];

	return i < map->count && r->kind == MMU_RANGE_IO && pa >= r->first &&
	       r->last - pa >= size - 1 ? r : NULL;
}

/* The range that holds all of pa..pa+size-1, or NULL; *split: it holds a part, so cut the piece. */
const struct mmu_range *piece_range(mmu_port *port, const struct mmu_map *map, uint64_t pa,
				    uint32_t size, bool *split);
/* MMU_MEMTX_* bits, or MMU_ECALLBACK. *ret is 0 where nothing answered. */
int piece_load(mmu_port *port, const struct mmu_map *map, uint64_t pa, uint32_t size, uint64_t *ret);
int piece_store(mmu_port *port, const struct mmu_map *map, uint64_t pa, uint32_t size,
		uint64_t value);

/* The port steps aside, and its guest out of the way of the others. */
static inline bool port_step_out(mmu_port *port)
{
	port_aside(port);
	return port->exclusive && exclusive_pause(port->exclusive);
}

static inline void port_step_in(mmu_port *port, bool inside)
{
	if (inside)
		exclusive_back(port->exclusive);
	port_back(port);
}

/* As io_load() and io_store(). The device may do anything meanwhile, also through this port, which steps aside. */
static inline int port_io_load(mmu_port *port, const struct mmu_io *io, uint64_t offset, uint32_t size,
			       uint64_t *ret)
{
	bool inside = port_step_out(port);
	int rc = io_load(io, offset, size, ret);

	port_step_in(port, inside);
	return rc;
}

static inline int port_io_store(mmu_port *port, const struct mmu_io *io, uint64_t offset, uint32_t size,
				uint64_t value)
{
	bool inside = port_step_out(port);
	int rc = io_store(io, offset, size, value);

	port_step_in(port, inside);
	return rc;
}

/* Adds to the port's trace. */
void port_record(mmu_port *port, struct mmu_trace_entry entry);

/* The largest power of two, at most 8, that is aligned at `address` and fits in `size`. */
static inline uint32_t piece_size(uint64_t address, uint64_t size)
{
	uint64_t n = (address | 8) & -(address | 8);

	while (n > size)
		n /= 2;
	return (uint32_t)n;
}

#endif
