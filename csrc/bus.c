/* The map of the bus: checked, published with one store, freed when no reader can hold it. */
#define _GNU_SOURCE
#include "bus.h"
#include <linux/membarrier.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "map.h"
#include "places.h"
#include "stripes.h"


/* To look at the readers costs more than to publish, so it is done for many maps at once. */
enum { RECLAIM_BATCH = 32 };

int mmu_bus_create(mmu_bus **ret)
{
	mmu_bus *bus = calloc(1, sizeof(*bus));
	struct mmu_map *map = map_create(NULL, 0, NULL);

	if (!bus || !map) {
		free(bus);
		map_destroy(map);
		return MMU_ENOMEM;
	}
	pthread_mutex_init(&bus->lock, NULL);
	atomic_init(&bus->map, map);
	atomic_init(&bus->epoch, 1);
	map->serial = 1;
	atomic_init(&bus->state, map->serial << AWAY_BITS);
	bus->retired_end = &bus->retired;
	bus->reclaim_at = RECLAIM_BATCH;
	bus->membarrier =
		syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
	*ret = bus;
	return MMU_OK;
}

static void bus_free(struct mmu_bus *bus)
{
	for (struct mmu_map *map = bus->retired, *next; map; map = next) {
		next = map->next;
		map_destroy(map);
	}
	map_destroy(atomic_load(&bus->map));
	for (struct places_bus *shown = bus->shown, *next; shown; shown = next) {
		next = shown->next_of_bus;
		places_detach(shown);
	}
	pthread_mutex_destroy(&bus->lock);
	free(bus);
}

void mmu_bus_destroy(mmu_bus *bus)
{
	bool last;

	if (!bus)
		return;
	pthread_mutex_lock(&bus->lock);
	bus->closed = true;
	last = !bus->ports;
	pthread_mutex_unlock(&bus->lock);
	if (last)
		bus_free(bus);
}

int mmu_port_create(mmu_bus *bus, uint32_t targets, mmu_port **ret)
{
	mmu_port *port = calloc(1, sizeof(*port) + (size_t)targets * sizeof(port->counts[0]));

	if (!port)
		return MMU_ENOMEM;
	port->bus = bus;
	port->targets = targets;
	pthread_mutex_lock(&bus->lock);
	port->next = bus->ports;
	port->link = &bus->ports;
	if (port->next)
		port->next->link = &port->next;
	bus->ports = port;
	pthread_mutex_unlock(&bus->lock);
	*ret = port;
	return MMU_OK;
}

void mmu_port_destroy(mmu_port *port)
{
	struct mmu_bus *bus;
	bool last;

	if (!port)
		return;
	bus = port->bus;
	pthread_mutex_lock(&bus->lock);
	*port->link = port->next;
	if (port->next)
		port->next->link = port->link;
	last = bus->closed && !bus->ports;
	pthread_mutex_unlock(&bus->lock);
	free(port);
	if (last)
		bus_free(bus);
}

enum { SETTLE_TRIES = 1000 };	/* yields of the CPU, before a move that need not be is given up */

/* The oldest epoch in which a port still reads; the present one when none does. */
static uint64_t oldest_reader(struct mmu_bus *bus)
{
	uint64_t oldest = atomic_load_explicit(&bus->epoch, memory_order_relaxed);

	/* Pairs with the fence in port_enter(): a port that found the old map has its note visible now. */
	if (bus->membarrier)
		syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
	else
		atomic_thread_fence(memory_order_seq_cst);
	for (struct mmu_port *port = bus->ports; port; port = port->next) {
		/* Acquire: pairs with the release in port_leave(). */
		uint64_t epoch = atomic_load_explicit(&port->epoch, memory_order_acquire);

		if (epoch && epoch < oldest)
			oldest = epoch;
	}
	return oldest;
}

static uint64_t reclaim(struct mmu_bus *bus)
{
	uint64_t oldest;

	if (!bus->retired)	/* then nobody can hold another map than the present one */
		return atomic_load_explicit(&bus->epoch, memory_order_relaxed);
	oldest = oldest_reader(bus);
	while (bus->retired && bus->retired->retired_at <= oldest) {
		struct mmu_map *map = bus->retired;

		bus->retired = map->next;
		bus->retired_count--;
		map_destroy(map);
	}
	if (!bus->retired)
		bus->retired_end = &bus->retired;
	bus->reclaim_at = bus->retired_count + RECLAIM_BATCH;
	return oldest;
}

uint64_t mmu_bus_reclaim(mmu_bus *bus)
{
	uint64_t oldest;

	pthread_mutex_lock(&bus->lock);
	oldest = reclaim(bus);
	pthread_mutex_unlock(&bus->lock);
	return oldest;
}

uint32_t mmu_bus_retired(mmu_bus *bus)
{
	uint32_t count;

	pthread_mutex_lock(&bus->lock);
	count = bus->retired_count;
	pthread_mutex_unlock(&bus->lock);
	return count;
}

static bool power_of_two_to_8(uint32_t n)
{
	return n == 1 || n == 2 || n == 4 || n == 8;
}

static bool io_valid(const struct mmu_io *io)
{
	return io && power_of_two_to_8(io->valid_min) &&
	       power_of_two_to_8(io->valid_max) && power_of_two_to_8(io->impl_min) &&
	       power_of_two_to_8(io->impl_max) && io->valid_min <= io->valid_max &&
	       io->impl_min <= io->impl_max;
}

static bool range_valid(const struct mmu_range *r)
{
	if (r->first > r->last || r->offset + (r->last - r->first) < r->offset)
		return false;
	switch ((enum mmu_range_kind)r->kind) {
	case MMU_RANGE_RAM:
		return r->host;
	case MMU_RANGE_ROM:
		return r->host && (!r->io || io_valid(r->io));
	case MMU_RANGE_IO:
		return io_valid(r->io);
	case MMU_RANGE_STRIPED:
		return r->route;
	}
	return false;
}

/* Puts `map` in place; returns the epoch from which on nobody can find the one before. */
static uint64_t replace(struct mmu_bus *bus, struct mmu_map *map)
{
	struct mmu_map *old = atomic_load_explicit(&bus->map, memory_order_relaxed);
	uint64_t epoch = atomic_load_explicit(&bus->epoch, memory_order_relaxed) + 1;

	map->serial = bus_serial(bus) + 1;
	/* Release: pairs with the acquire of the map in port_enter(): who finds it sees all of it. */
	atomic_store_explicit(&bus->map, map, memory_order_release);
	/* Release: pairs with the acquires of it in bus_serial() and guest_bus.c: who sees the new number finds the new
	   map. Before the epoch: who notes the new one does not take what it remembers of the old map for true. */
	atomic_fetch_add_explicit(&bus->state, UINT64_C(1) << AWAY_BITS, memory_order_release);
	/* Release: pairs with the acquire of the epoch in port_enter(). */
	atomic_store_explicit(&bus->epoch, epoch, memory_order_release);
	old->retired_at = epoch;
	old->next = NULL;
	*bus->retired_end = old;
	bus->retired_end = &old->next;
	bus->retired_count++;
	for (struct mmu_port *port = bus->ports; port; port = port->next)
		if (port->exclusive)	/* its guest may have the old places as RAM */
			exclusive_call(port->exclusive);
	return epoch;
}

void mmu_bus_set_aliased(mmu_bus *bus, bool aliased)
{
	/* Relaxed: published with the map. */
	atomic_store_explicit(&bus->aliased, aliased, memory_order_relaxed);
}

void port_own(struct mmu_port *port, struct exclusive *guest)
{
	pthread_mutex_lock(&port->bus->lock);
	port->exclusive = guest;
	pthread_mutex_unlock(&port->bus->lock);
}

/* ---- places of device memory ---- */

static bool passed(struct mmu_port *port, uint64_t epoch)
{
	/* Acquire: pairs with the releases in port_leave() and port_aside(). */
	uint64_t noted = atomic_load_explicit(&port->epoch, memory_order_acquire);

	return !noted || noted >= epoch || atomic_load_explicit(&port->aside, memory_order_acquire);
}

bool bus_settle(struct mmu_bus *bus, bool patient)
{
	uint32_t tries = SETTLE_TRIES;
	bool settled = true;
	uint64_t epoch;

	pthread_mutex_lock(&bus->lock);
	epoch = atomic_load_explicit(&bus->epoch, memory_order_relaxed) + 1;
	/* Release: pairs with the acquire of the epoch in port_enter(): who notes it sees the marks. */
	atomic_store_explicit(&bus->epoch, epoch, memory_order_release);
	/* Pairs with the fences in port_enter() and port_back(), as in oldest_reader(). */
	if (bus->membarrier)
		syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
	else
		atomic_thread_fence(memory_order_seq_cst);
	for (struct mmu_port *port = bus->ports; port && settled; port = port->next)
		while (settled && !passed(port, epoch)) {
			settled = patient || tries--;
			sched_yield();
		}
	pthread_mutex_unlock(&bus->lock);
	return settled;
}

/* Tells the memories behind a window that ports of this bus may reach them from now on. */
static int show(struct mmu_bus *bus, const mmu_route *route)
{
	for (uint32_t i = 0; i < route->target_count; i++) {
		struct mmu_places *places = route->targets[i].places;
		struct places_bus *shown = NULL;
		int rc = places ? places_attach(places, bus, &shown) : MMU_OK;

		if (rc != MMU_OK)
			return rc;
		if (!shown)
			continue;
		pthread_mutex_lock(&bus->lock);
		shown->next_of_bus = bus->shown;
		bus->shown = shown;
		pthread_mutex_unlock(&bus->lock);
	}
	return MMU_OK;
}

int mmu_bus_publish(mmu_bus *bus, const struct mmu_range *ranges, uint32_t count,
		    uint64_t *generation_ret)
{
	struct mmu_map *map;
	int rc = MMU_OK;

	for (uint32_t i = 0; i < count; i++) {
		if (!range_valid(&ranges[i]))
			return MMU_ERANGE;
		if (i && ranges[i].first <= ranges[i - 1].last)
			return MMU_EOVERLAP;
	}
	for (uint32_t i = 0; i < count && rc == MMU_OK; i++)
		if (ranges[i].kind == MMU_RANGE_STRIPED)
			rc = show(bus, ranges[i].route);
	if (rc != MMU_OK)
		return rc;
	pthread_mutex_lock(&bus->lock);
	map = map_create(ranges, count, atomic_load_explicit(&bus->map, memory_order_relaxed));
	if (map) {
		*generation_ret = replace(bus, map);
		if (bus->retired_count >= bus->reclaim_at)
			reclaim(bus);
	}
	pthread_mutex_unlock(&bus->lock);
	return map ? MMU_OK : MMU_ENOMEM;
}
