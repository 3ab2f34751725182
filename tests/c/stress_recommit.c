/*
 * Decoders are recommitted while two threads read: stress_recommit [ROUNDS]. Each round makes a route,
 * publishes it and destroys the ones that no reader can hold. A block read sees one route for all of it,
 * and from 100,000 rounds on the resident size must stay where it was after the first tenth.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "mmu.h"

enum { READERS = 2, PLACES = 16, PLACE = 4096, GRANULE = 256, GRANULES = 8, SPARE = 1024 };
enum { ROUNDS = 20000, ROUNDS_FOR_SIZE = 100000 };
static const uint64_t base = UINT64_C(1) << 32, size = 2 * PLACE, most_growth = UINT64_C(1) << 20;

struct waiting {
	mmu_route *route;
	uint64_t gone_after;		/* the generation that the publish of the next route gave */
};

struct test {
	mmu_bus *bus;
	struct mmu_target targets[2];
	_Atomic int stop, bad;
	_Atomic uint64_t reads;
	mmu_route *now;			/* what is published */
	struct waiting list[SPARE];	/* routes that a reader may still hold */
	uint32_t count;
};

/* Route number n: which of the 16 places of both devices, and which device has the even granules. */
static mmu_route *make_route(const struct test *t, uint64_t n)
{
	struct mmu_span span = { .first = base, .last = base + size - 1, .granule = GRANULE,
				 .slot_count = 2, .shift = 8, .bits = 1 };
	struct mmu_slot slots[2];
	mmu_route *route = NULL;

	for (uint32_t i = 0; i < 2; i++)
		slots[i] = (struct mmu_slot){ .base = base, .dpa = n % PLACES * PLACE,
					      .target = i ^ (n / PLACES & 1),
					      .granularity_shift = 8, .ways_shift = 1 };
	if (mmu_route_create(base, &span, 1, slots, 2, t->targets, 2, &route))
		abort();
	return route;
}

/* Byte p * 2 + d of device d at place p: the first granule tells the route, all others must follow it. */
static bool consistent(const uint8_t *data)
{
	for (unsigned i = 0; i < GRANULES * GRANULE; i++)
		if (data[i] != (data[0] ^ (i / GRANULE & 1)))
			return false;
	return data[0] < 2 * PLACES;
}

static void *reader(void *arg)
{
	uint8_t data[GRANULES * GRANULE];
	struct test *t = arg;
	uint64_t reads = 0, value;
	mmu_port *port;

	if (mmu_port_create(t->bus, 2, &port))
		abort();
	while (!atomic_load_explicit(&t->stop, memory_order_relaxed)) {
		if (mmu_port_read(port, base, data, sizeof(data)) != MMU_MEMTX_OK || !consistent(data))
			t->bad = 1;
		if (mmu_port_load(port, base + reads % (size / 8) * 8, 8, &value) != MMU_MEMTX_OK ||
		    value != (value & 255) * UINT64_C(0x0101010101010101))
			t->bad = 2;
		reads++;
	}
	atomic_fetch_add(&t->reads, reads);
	mmu_port_destroy(port);
	return NULL;
}

static uint64_t resident(void)
{
	unsigned long all, pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	if (f && fscanf(f, "%lu %lu", &all, &pages) != 2)
		pages = 0;
	if (f)
		fclose(f);
	return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Destroys what is free to go; waits when too many are not. */
static void release(struct test *t)
{
	do {
		uint64_t oldest = mmu_bus_reclaim(t->bus);
		uint32_t kept = 0;

		for (uint32_t i = 0; i < t->count; i++) {
			if (t->list[i].gone_after <= oldest)
				mmu_route_destroy(t->list[i].route);
			else
				t->list[kept++] = t->list[i];
		}
		t->count = kept;
		if (t->count == SPARE)
			sched_yield();
	} while (t->count == SPARE);
}

/* NULL: nothing is mapped any more. */
static void publish(struct test *t, mmu_route *route)
{
	struct mmu_range range = { .first = base, .last = base + size - 1,
				   .kind = MMU_RANGE_STRIPED, .route = route };
	uint64_t generation;

	if (mmu_bus_publish(t->bus, &range, route ? 1 : 0, &generation))
		abort();
	if (t->now)
		t->list[t->count++] = (struct waiting){ t->now, generation };
	t->now = route;
	if (t->count == SPARE)
		release(t);
}

/* The growth of the resident size after the first tenth of the rounds, in bytes. */
static uint64_t recommit(struct test *t, uint64_t rounds)
{
	uint64_t early = 0, late;

	for (uint64_t n = 0; n < rounds; n++) {
		publish(t, make_route(t, n));
		if (n == rounds / 10)
			early = resident();
	}
	late = resident();
	return late > early ? late - early : 0;
}

static void fill(struct test *t, mmu_hostmem *memory[2])
{
	for (uint32_t d = 0; d < 2; d++) {
		if (mmu_hostmem_create(PLACES * PLACE, &memory[d]))
			abort();
		t->targets[d] = (struct mmu_target){ mmu_hostmem_address(memory[d]), PLACES * PLACE, d,
						     NULL };
		for (uint32_t p = 0; p < PLACES; p++)
			memset(t->targets[d].host + p * PLACE, (int)(p * 2 + d), PLACE);
	}
}

int main(int argc, char **argv)
{
	uint64_t rounds = argc > 1 ? strtoull(argv[1], NULL, 0) : ROUNDS, growth;
	pthread_t threads[READERS];
	mmu_hostmem *memory[2];
	struct test t = { 0 };

	if (mmu_bus_create(&t.bus))
		return 1;
	fill(&t, memory);
	publish(&t, make_route(&t, 0));
	for (int i = 0; i < READERS; i++)
		pthread_create(&threads[i], NULL, reader, &t);
	growth = recommit(&t, rounds);
	t.stop = 1;
	for (int i = 0; i < READERS; i++)
		pthread_join(threads[i], NULL);
	publish(&t, NULL);
	release(&t);
	if (t.count || mmu_bus_retired(t.bus))
		t.bad = 3;
	mmu_bus_destroy(t.bus);
	for (int d = 0; d < 2; d++)
		mmu_hostmem_destroy(memory[d]);
	if (t.bad)
		fprintf(stderr, "a reader saw, or a route outlived, what must not be (%d)\n", t.bad);
	if (rounds < ROUNDS_FOR_SIZE)
		return t.bad;
	printf("   %llu recommits, %llu reads, resident size grew by %llu KiB\n",
	       (unsigned long long)rounds, (unsigned long long)t.reads,
	       (unsigned long long)(growth >> 10));
	return t.bad || growth > most_growth;
}
