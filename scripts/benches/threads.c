/* Readers on the bus, timed from within, so that waiting to return to Python is no part of it; recommits. */
#define _GNU_SOURCE
#include <stdint.h>
#include <sys/resource.h>
#include <time.h>
#include "mmu.h"

typedef int load_fn(void *port, uint64_t address, uint32_t size, uint64_t *value_ret);

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t waits(void)
{
	struct rusage r;

	getrusage(RUSAGE_THREAD, &r);
	return (uint64_t)r.ru_nvcsw;
}

/* setup: address of mmu_port_load, port, passes. Every word holds its own address.
   out: CPU time in ns, how often the thread went to sleep, loads that were wrong. See native.py. */
void reader(const uint64_t *setup, const uint64_t *in, uint64_t *out, uint64_t n)
{
	load_fn *load = (load_fn *)(uintptr_t)setup[0];
	void *port = (void *)(uintptr_t)setup[1];
	uint64_t value, wrong = 0, slept = waits(), start = cpu_ns();

	for (uint64_t pass = 0; pass < setup[2]; pass++)
		for (uint64_t i = 0; i < n; i++)
			wrong += load(port, in[i], 8, &value) || value != in[i];
	out[0] = cpu_ns() - start;
	out[1] = waits() - slept;
	out[2] = wrong;
}

enum { SPARE = 64, WINDOW = 1 << 20 };

/*
 * Makes a 2-way route, publishes it and destroys what nobody can read any more, n times.
 * setup: addresses of mmu_bus_create, mmu_bus_destroy, mmu_bus_publish, mmu_bus_reclaim, mmu_route_create,
 * mmu_route_destroy. out[i] is nonzero where it failed.
 */
void recommits(const uint64_t *setup, const uint64_t *in, uint64_t *out, uint64_t n)
{
	int (*create)(mmu_bus **) = (int (*)(mmu_bus **))(uintptr_t)setup[0];
	void (*destroy)(mmu_bus *) = (void (*)(mmu_bus *))(uintptr_t)setup[1];
	__typeof__(mmu_bus_publish) *publish = (__typeof__(mmu_bus_publish) *)(uintptr_t)setup[2];
	uint64_t (*reclaim)(mmu_bus *) = (uint64_t (*)(mmu_bus *))(uintptr_t)setup[3];
	__typeof__(mmu_route_create) *make = (__typeof__(mmu_route_create) *)(uintptr_t)setup[4];
	void (*unmake)(mmu_route *) = (void (*)(mmu_route *))(uintptr_t)setup[5];
	static uint64_t memory[2][WINDOW / 16];
	struct mmu_target targets[2] = { { (uint8_t *)memory[0], WINDOW / 2, 0, NULL },
					 { (uint8_t *)memory[1], WINDOW / 2, 1, NULL } };
	struct mmu_span span = { .first = WINDOW, .last = 2 * WINDOW - 1, .granule = 256,
				 .slot_count = 2, .shift = 8, .bits = 1 };
	struct mmu_range range = { .first = WINDOW, .last = 2 * WINDOW - 1, .kind = MMU_RANGE_STRIPED };
	struct mmu_slot slots[2] = { { .base = WINDOW, .granularity_shift = 8, .ways_shift = 1 },
				     { .base = WINDOW, .granularity_shift = 8, .ways_shift = 1, .target = 1 } };
	mmu_route *old[SPARE] = { NULL };
	uint64_t generation = 0;
	mmu_bus *bus;

	(void)in;
	if (create(&bus))
		return;
	for (uint64_t i = 0; i < n; i++) {
		mmu_route *route;

		if (i % SPARE == 0 && reclaim(bus) < generation)
			out[i] = 1;
		unmake(old[i % SPARE]);
		out[i] |= make(WINDOW, &span, 1, slots, 2, targets, 2, &route) != MMU_OK;
		old[i % SPARE] = route;
		range.route = route;
		out[i] |= publish(bus, &range, 1, &generation) != MMU_OK;
	}
	destroy(bus);
	for (int i = 0; i < SPARE; i++)
		unmake(old[i]);
}
