/*
 * Inside of the bus: the immutable map, and how a reader holds it.
 *
 * Readers take no lock. A port notes the bus's epoch before it follows the pointer to the map, and
 * takes the note back when it is done. A writer replaces the pointer, moves the epoch on, and frees a
 * replaced map once every port's note is empty or younger.
 */
#ifndef MMU_BUS_H
#define MMU_BUS_H
#include <pthread.h>
#include <stdatomic.h>
#include "address.h"
#include "mmu.h"

struct mmu_map {
	struct mmu_map *next;		/* among the retired: replaced later */
	uint64_t retired_at;		/* the epoch in which no new reader can find it */
	uint32_t count;
	struct mmu_range ranges[];	/* sorted, apart */
};

struct mmu_bus {
	_Atomic(struct mmu_map *) map;
	_Atomic uint64_t epoch;		/* from 1 on; 0 is "not reading" */
	bool membarrier;		/* the kernel can order the readers for us */
	pthread_mutex_t lock;		/* writers and the list of ports; never held across a callback */
	bool closed;			/* destroyed but for its ports */
	struct mmu_port *ports;
	struct mmu_map *retired, **retired_end;	/* oldest first */
};

struct mmu_port {
	struct mmu_bus *bus;
	_Atomic uint64_t epoch;		/* the bus's epoch when reading began, 0 when not reading */
	uint32_t depth;			/* a callback may use the port that it was called through */
	uint32_t targets;
	struct mmu_port *next, **link;
	struct mmu_trace_entry *trace;
	uint64_t trace_capacity, trace_used;
	struct mmu_traffic traffic[];
};

/* The map as of now, valid until the matching port_leave(). */
static inline const struct mmu_map *port_enter(struct mmu_port *port)
{
	struct mmu_bus *bus = port->bus;

	if (port->depth++ == 0) {
		/* Acquire: pairs with the release of the epoch in mmu_bus_publish(): who notes the new
		   epoch finds the new map. */
		uint64_t epoch = atomic_load_explicit(&bus->epoch, memory_order_acquire);

		atomic_store_explicit(&port->epoch, epoch, memory_order_relaxed);
		/* The note must be visible before the map is read. Pairs with the barrier in oldest_reader():
		   the kernel's, which makes every running thread pass one, or a fence on both sides. */
		if (bus->membarrier)
			atomic_signal_fence(memory_order_seq_cst);
		else
			atomic_thread_fence(memory_order_seq_cst);
	}
	/* Acquire: pairs with the release of the map in mmu_bus_publish(). */
	return atomic_load_explicit(&bus->map, memory_order_acquire);
}

static inline void port_leave(struct mmu_port *port)
{
	/* Release: pairs with the acquire in oldest_reader(): our reads are over before the map is freed. */
	if (--port->depth == 0)
		atomic_store_explicit(&port->epoch, 0, memory_order_release);
}

/*
 * A batch holds the map, so that host addresses from mmu_port_host() stay good until it lets go.
 * Pairs nest. The owner of the port.
 */
static inline void port_hold(struct mmu_port *port)
{
	port_enter(port);
}

static inline void port_release(struct mmu_port *port)
{
	port_leave(port);
}

/* First range that ends at or after pa; map->count when there is none. */
static inline uint32_t map_search(const struct mmu_map *map, uint64_t pa)
{
	uint32_t lo = 0, hi = map->count;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (pa > map->ranges[mid].last)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

#endif
