/*
 * Readers load, store and exchange through ports of their own while a writer publishes maps:
 * a read sees one whole map or the next, never a mixture, and nothing is used after it is freed.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include "mmu.h"

enum { READERS = 3, ROUNDS = 20000, PUBLISHES = 400, DEVICE = 1 << 16 };

static mmu_bus *bus;
static _Atomic int bad;

/* Window A sends even granules to device 0, window B to device 1: byte 0 tells which route was used. */
static mmu_route *route_to(struct mmu_target *targets, uint32_t first)
{
	struct mmu_slot slots[2];
	struct mmu_span span = { .first = 1 << 20, .last = (1 << 20) + 2 * DEVICE - 1, .granule = 256,
				 .slot_count = 2, .shift = 8, .bits = 1 };
	mmu_route *route = NULL;

	for (uint32_t i = 0; i < 2; i++)
		slots[i] = (struct mmu_slot){ .base = 1 << 20, .target = i ^ first,
					      .granularity_shift = 8, .ways_shift = 1 };
	if (mmu_route_create(1 << 20, &span, 1, slots, 2, targets, 2, &route))
		abort();
	return route;
}

static void *reader(void *arg)
{
	mmu_port *port;

	if (mmu_port_create(bus, 2, &port))
		abort();
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t a, old, at = (1 << 20) + 512 * (uint64_t)(i % 128);

		/* Device d holds d in every byte: an 8-byte piece is all of one. */
		if (mmu_port_load(port, at, 8, &a) != MMU_MEMTX_OK)
			bad = 1;
		if (a != 0 && a != UINT64_C(0x0101010101010101))
			bad = 2;
		if (mmu_port_exchange(port, 8, 8, a, a + 1, &old) < 0)
			bad = 3;
		mmu_port_store(port, 16 + 8 * (uint64_t)(uintptr_t)arg, 8, (uint64_t)i);
	}
	mmu_port_destroy(port);
	return NULL;
}

int main(void)
{
	mmu_hostmem *ram, *memory[2];
	struct mmu_target targets[2];
	struct mmu_range ranges[2];
	mmu_route *routes[2];
	uint64_t generation;
	pthread_t threads[READERS];

	if (mmu_bus_create(&bus) || mmu_hostmem_create(4096, &ram))
		return 1;
	for (uint32_t d = 0; d < 2; d++) {
		if (mmu_hostmem_create(DEVICE, &memory[d]))
			return 1;
		targets[d] = (struct mmu_target){ mmu_hostmem_address(memory[d]), DEVICE, d, NULL };
		for (int i = 0; i < DEVICE; i++)
			targets[d].host[i] = (uint8_t)d;
	}
	routes[0] = route_to(targets, 0);
	routes[1] = route_to(targets, 1);
	ranges[0] = (struct mmu_range){ .first = 0, .last = 4095, .kind = MMU_RANGE_RAM,
					.host = mmu_hostmem_address(ram) };
	ranges[1] = (struct mmu_range){ .first = 1 << 20, .last = (1 << 20) + 2 * DEVICE - 1,
					.kind = MMU_RANGE_STRIPED, .route = routes[0] };
	if (mmu_bus_publish(bus, ranges, 2, &generation))
		return 1;
	for (uintptr_t i = 0; i < READERS; i++)
		pthread_create(&threads[i], NULL, reader, (void *)i);
	for (int i = 0; i < PUBLISHES; i++) {
		ranges[1].route = routes[i & 1];
		if (mmu_bus_publish(bus, ranges, 2, &generation))
			return 1;
	}
	for (int i = 0; i < READERS; i++)
		pthread_join(threads[i], NULL);
	mmu_bus_destroy(bus);
	for (int d = 0; d < 2; d++) {
		mmu_route_destroy(routes[d]);
		mmu_hostmem_destroy(memory[d]);
	}
	mmu_hostmem_destroy(ram);
	if (bad)
		fprintf(stderr, "a reader saw what must not be (%d)\n", bad);
	return bad;
}
