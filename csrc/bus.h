/*
 * Inside of the bus: the immutable map, and how a reader holds it.
 *
 * Readers take no lock. A port notes the bus's epoch before it follows the pointer to the map, and
 * takes the note back when it is done. A writer replaces the pointer, moves the epoch on, and frees a
 * replaced map once every port's note is empty or younger. Who moves blocks of device memory (places.h)
 * waits in the same way, but not for a port that stepped aside.
 */
#ifndef MMU_BUS_H
#define MMU_BUS_H
#include <pthread.h>
#include <stdatomic.h>
#include "address.h"
#include "exclusive.h"
#include "mmu.h"

/*
 * A table over one run of ranges: the bucket of an address says where to begin looking. A bucket that
 * would hold many ranges has a table of its own (MAP_NESTED and its number), so that the search is
 * short however the ranges lie.
 */
struct map_table {
	uint64_t base;
	uint32_t shift, mask;		/* bucket = (address - base) >> shift, at most mask */
	uint32_t first;			/* of its buckets, among the map's */
	uint32_t reserved;
};

/* How a map is searched; maps whose ranges lie at the same addresses share it. */
struct map_index {
	uint32_t users;			/* maps */
	struct map_table *tables;	/* tables[0] covers all; NULL: no range */
	uint32_t *buckets;
};

/*
 * The largest run of RAM, so that most accesses need no search. An aligned access of at most 8 bytes
 * lies in it when (address - first) <= span; host NULL: there is none, or it is mapped askew.
 */
struct map_ram {
	uint8_t *host;			/* of address `first` */
	uint64_t first, span;
};

/*
 * What one span of a window's route shows on the bus, for the common case of an aligned access. `slots`
 * is indexed by (HPA >> shift) & mask; where the index is made of more than that, it is one slot without room.
 */
struct map_window {
	uint64_t first, span;		/* bus addresses first .. first + span */
	uint64_t hpa;			/* of `first` */
	const struct route_slot *slots;
	uint32_t mask, range;		/* `range`: its number in the map */
	uint8_t shift;
};

enum { MAP_NESTED = 1u << 31, MAP_SCAN = 4 };	/* at most MAP_SCAN + 1 ranges begin in a plain bucket */

struct mmu_map {
	struct mmu_map *next;		/* among the retired: replaced later */
	uint64_t retired_at;		/* the epoch in which no new reader can find it */
	uint64_t serial;		/* no other map of the bus has it; from 1 on */
	uint32_t count;
	struct map_ram ram;
	const struct map_table *tables;	/* of the index */
	const uint32_t *buckets;
	struct map_index *index;
	struct map_window *windows;	/* sorted, apart */
	uint32_t window_count;
	_Alignas(64) struct mmu_range ranges[];	/* sorted, apart; each in one line of the host's cache */
};

enum { AWAY_BITS = 24 };		/* the low bits of mmu_bus.state: a bus has fewer memories behind windows */

struct mmu_bus {
	_Atomic(struct mmu_map *) map;
	_Atomic uint64_t epoch;		/* from 1 on; 0 is "not reading" */
	bool membarrier;		/* the kernel can order the readers for us */
	_Atomic uint64_t state;		/* the map's serial << AWAY_BITS | memories behind windows with blocks away from home */
	_Atomic uint32_t watchers;	/* guests that run code from its memory */
	_Atomic uint64_t written;	/* while there are any, counts what others write to it */
	_Atomic bool told;		/* of that: they look by themselves until nothing is written any more */
	pthread_mutex_t lock;		/* writers and the list of ports; never held across a callback */
	bool closed;			/* destroyed but for its ports */
	struct mmu_port *ports;
	struct mmu_map *retired, **retired_end;	/* oldest first */
	uint32_t retired_count, reclaim_at;	/* when so many are retired, see which can go */
	struct places_bus *shown;	/* memories that a map of this bus ever had in a window */
	_Atomic bool aliased;		/* some memory is at more than one place of the map */
};

/* What reached one device; [0] reads, [1] writes. A single access of n bytes counts in [n / 2]: 0, 1, 2 or 4. */
struct port_count {
	uint64_t single[2][5];
	uint64_t blocks[2], block_bytes[2];
	uint64_t unused[2];		/* up to a power of two */
};

struct mmu_port {
	struct mmu_bus *bus;
	_Atomic uint64_t epoch;		/* the bus's epoch when reading began, 0 when not reading */
	_Atomic bool aside;		/* reading, but it holds no place of device memory: see port_aside() */
	uint32_t targets;
	uint32_t window;		/* the number in the map of the one used last: a guess, to be checked */
	struct exclusive *exclusive;	/* of the guest that runs through it, and sees what it writes; NULL: none */
	struct mmu_port *next, **link;
	struct mmu_trace_entry *trace;
	uint64_t trace_capacity, trace_used;
	struct port_count counts[];
};

/* A reader's hold on the map. `outer`: this one noted the epoch; one inside it, in a callback, does not. */
struct port_read {
	const struct mmu_map *map;
	bool outer;
	bool aside;			/* of an inner one: the outer had stepped aside */
};

/*
 * Between these two the port keeps its hold on the map, but knows no place of device memory: it calls the
 * host, or waits for a block on the move. Who moves blocks need not wait for it.
 */
static inline void port_aside(struct mmu_port *port)
{
	/* Release: pairs with the acquire in bus_settle(): our accesses are over before a block moves. */
	atomic_store_explicit(&port->aside, true, memory_order_release);
}

static inline void port_back(struct mmu_port *port)
{
	atomic_store_explicit(&port->aside, false, memory_order_relaxed);
	/* The same order as in port_enter(): the flag is down before the places are read. */
	if (port->bus->membarrier)
		atomic_signal_fence(memory_order_seq_cst);
	else
		atomic_thread_fence(memory_order_seq_cst);
}

/* The map as of now, valid until the matching port_leave(). For the owner of a port that is not reading. */
static inline struct port_read port_enter_outer(struct mmu_port *port)
{
	struct mmu_bus *bus = port->bus;
	/* Acquire: pairs with the release of the epoch in mmu_bus_publish(): who notes the new epoch finds
	   the new map. */
	uint64_t epoch = atomic_load_explicit(&bus->epoch, memory_order_acquire);

	atomic_store_explicit(&port->epoch, epoch, memory_order_relaxed);
	/* The note must be visible before the map is read. Pairs with the barrier in oldest_reader(): the
	   kernel's, which makes every running thread pass one, or a fence on both sides. */
	if (bus->membarrier)
		atomic_signal_fence(memory_order_seq_cst);
	else
		atomic_thread_fence(memory_order_seq_cst);
	/* Acquire: pairs with the release of the map in mmu_bus_publish(). */
	return (struct port_read){ atomic_load_explicit(&bus->map, memory_order_acquire), true, false };
}

/* The same for who needs no map but only what is true until port_leave(). Where the bus has a membarrier. */
static inline struct port_read port_note(struct mmu_port *port)
{
	/* The orders of port_enter_outer(). */
	atomic_store_explicit(&port->epoch, atomic_load_explicit(&port->bus->epoch, memory_order_acquire),
			      memory_order_relaxed);
	atomic_signal_fence(memory_order_seq_cst);
	return (struct port_read){ .outer = true };
}

/* The same whether it is reading or not: pairs nest. */
static inline struct port_read port_enter(struct mmu_port *port)
{
	bool aside;

	if (atomic_load_explicit(&port->epoch, memory_order_relaxed) == 0)
		return port_enter_outer(port);
	aside = atomic_load_explicit(&port->aside, memory_order_relaxed);
	if (aside)
		port_back(port);
	/* Acquire: as in port_enter_outer(). */
	return (struct port_read){ atomic_load_explicit(&port->bus->map, memory_order_acquire), false, aside };
}

static inline void port_leave(struct mmu_port *port, struct port_read read)
{
	/* Release: pairs with the acquire in oldest_reader(): our reads are over before the map is freed. */
	if (read.outer)
		atomic_store_explicit(&port->epoch, 0, memory_order_release);
	else if (read.aside)
		port_aside(port);
}

/* Acquire: pairs with the release in replace() of bus.c: who sees the number finds the map. */
static inline uint64_t bus_serial(const struct mmu_bus *bus)
{
	return atomic_load_explicit(&bus->state, memory_order_acquire) >> AWAY_BITS;
}

/* Says which guest runs through the port, NULL: none; it is called when the map changes. */
void port_own(struct mmu_port *port, struct exclusive *guest);

/* Counts a write of somebody who is no guest, and calls the guests if that is news to them. */
static inline void bus_wrote(struct mmu_bus *bus)
{
	/* Sequentially consistent, as in guest_code.c: of a guest that will look no more and who writes then, the one sees
	   the count or the other that it must call. And who sees the count sees the bytes. */
	atomic_fetch_add(&bus->written, 1);
	if (!atomic_load(&bus->told) && !atomic_exchange(&bus->told, true))
		exclusive_call_all();
}

/* Notes that something was written through the port, which may be code of a guest. */
static inline void port_wrote(struct mmu_port *port)
{
	/* Relaxed: a guest that begins later reads its code later. */
	if (atomic_load_explicit(&port->bus->watchers, memory_order_relaxed) && !port->exclusive)
		bus_wrote(port->bus);
}

/* Moves the epoch on and waits until no port can hold a place that it found before. False when one still does
   after a while, unless `patient`. Not for a caller whose own port is reading and has not stepped aside. */
bool bus_settle(struct mmu_bus *bus, bool patient);

/* First range that ends at or after pa; map->count when there is none. */
static inline uint32_t map_search(const struct mmu_map *map, uint64_t pa)
{
	const struct map_table *table = map->tables;
	uint32_t i;

	if (!table || pa > map->ranges[map->count - 1].last)
		return map->count;
	for (;;) {
		uint64_t bucket = pa < table->base ? 0 : (pa - table->base) >> table->shift;

		i = map->buckets[table->first + (bucket > table->mask ? table->mask : bucket)];
		if (!(i & MAP_NESTED))
			break;
		table = &map->tables[i & ~MAP_NESTED];
	}
	while (map->ranges[i].last < pa)
		i++;
	return i;
}

/* The number of the first span of a window that ends at or after pa; window_count when there is none. */
static inline uint32_t map_window_search(const struct mmu_map *map, uint64_t pa)
{
	uint32_t lo = 0, hi = map->window_count;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (pa > map->windows[mid].first + map->windows[mid].span)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

#endif
