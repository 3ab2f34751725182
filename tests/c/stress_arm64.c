/*
 * arm64 walks: threads set access flags and dirty state of the same pages while another takes them
 * away; then walks with any register values over memory of any contents, singly and in batches.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include "mmu.h"

enum { WALKERS = 3, ROUNDS = 20000, PAGES = 64, BATCH = 300, FUZZ = 6000 };
enum { RAM = 1 << 20, LEAVES = 0x3000 };

static const uint64_t LEAF = 3 | UINT64_C(2) << 6 | UINT64_C(1) << 51;	/* page, read-only, DBM */
static const uint64_t AF = 1 << 10, READ_ONLY = 2 << 6;
static mmu_bus *bus;
static _Atomic int bad;
static _Atomic int walkers;

/* T0SZ 34: level 2 at 0x2000, level 3 at LEAVES; HA and HD. */
static const struct mmu_arm64_regs regs = {
	.sctlr_el1 = 1, .tcr_el1 = 34 | 1 << 23 | UINT64_C(5) << 32 | UINT64_C(3) << 39,
	.ttbr0_el1 = 0x2000, .el = 1, .pa_range = 48,
};

static mmu_port *new_port(void)
{
	mmu_port *port;

	if (mmu_port_create(bus, 0, &port))
		abort();
	return port;
}

static uint64_t output_of(uint64_t page)
{
	return 0x80000 + (page << 12);
}

/* After a write the page must have been marked dirty at some moment: a fault is a lost update. */
static void *walker(void *arg)
{
	mmu_port *port = new_port();
	struct mmu_arm64_translation found;
	struct mmu_arm64_fault fault;
	struct mmu_arm64_result results[BATCH];
	uint64_t vas[BATCH];

	for (uint64_t i = 0; i < ROUNDS; i++) {
		uint64_t page = (i * 7 + (uintptr_t)arg) % PAGES;
		uint32_t access = i & 1 ? MMU_ACCESS_WRITE : MMU_ACCESS_READ;

		if (mmu_arm64_walk(port, &regs, page << 12, access, MMU_ARM64_UPDATE, &found, &fault, NULL) ||
		    found.pa != output_of(page))
			bad = 1;
	}
	for (uint64_t i = 0; i < BATCH; i++)
		vas[i] = (i % PAGES) << 12;
	for (int round = 0; round < ROUNDS / 100; round++) {
		if (mmu_arm64_walk_many(port, &regs, vas, BATCH, MMU_ACCESS_WRITE, MMU_ARM64_UPDATE, results))
			bad = 2;
		for (uint64_t i = 0; i < BATCH; i++)
			if (results[i].status || results[i].pa != output_of(i % PAGES))
				bad = 3;
	}
	mmu_port_destroy(port);
	walkers--;
	return NULL;
}

/* An operating system that ages pages: puts the clean entry back, and checks that nothing else changed. */
static void *ager(void *arg)
{
	mmu_port *port = new_port();

	(void)arg;
	for (uint64_t i = 0; walkers; i++) {
		uint64_t page = i % PAGES, entry = LEAF | output_of(page), at = LEAVES + 8 * page, old, seen;

		if (mmu_port_load(port, at, 8, &seen))
			bad = 4;
		if ((seen & ~AF & ~READ_ONLY) != (entry & ~READ_ONLY) || (!(seen & READ_ONLY) && !(seen & AF)))
			bad = 5;
		mmu_port_exchange(port, at, 8, seen, entry, &old);
	}
	mmu_port_destroy(port);
	return NULL;
}

static void stress(void)
{
	pthread_t threads[WALKERS + 1];
	mmu_port *port = new_port();

	mmu_port_store(port, 0x2000, 8, LEAVES | 3);
	for (uint64_t page = 0; page < PAGES; page++)
		mmu_port_store(port, LEAVES + 8 * page, 8, LEAF | output_of(page));
	walkers = WALKERS;
	for (uintptr_t i = 0; i <= WALKERS; i++)
		if (pthread_create(&threads[i], NULL, i < WALKERS ? walker : ager, (void *)i))
			abort();
	for (int i = 0; i <= WALKERS; i++)
		pthread_join(threads[i], NULL);
	mmu_port_destroy(port);
}

static uint64_t random64(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Nothing to check but that the sanitizers stay silent and every walk ends. */
static void fuzz(uint8_t *memory)
{
	uint64_t state = 88172645463325252u, vas[BATCH];
	mmu_port *port = new_port();

	for (uint64_t i = 0; i < RAM / 8; i++)
		((uint64_t *)(void *)memory)[i] = (random64(&state) & ~UINT64_C(0xfffffff00000)) | (random64(&state) & 3) |
						  (random64(&state) & 1);
	for (int i = 0; i < FUZZ; i++) {
		struct mmu_arm64_regs any;
		struct mmu_arm64_translation found;
		struct mmu_arm64_fault fault;
		struct mmu_arm64_result results[BATCH];
		struct mmu_step step[4];
		struct mmu_steps steps = { .capacity = 4, .step = step };
		uint32_t access = 1u << random64(&state) % 3;

		for (size_t k = 0; k < sizeof(any); k += 8)
			*(uint64_t *)(void *)((uint8_t *)&any + k) = random64(&state);
		any.el &= 3;
		for (int k = 0; k < BATCH; k++)
			vas[k] = random64(&state) >> random64(&state) % 64;
		mmu_arm64_walk(port, &any, vas[0], access, (uint32_t)random64(&state) & 3, &found, &fault, &steps);
		if (i % 16 == 0)
			mmu_arm64_walk_many(port, &any, vas, BATCH, access, MMU_ARM64_UPDATE, results);
	}
	mmu_port_destroy(port);
}

int main(void)
{
	struct mmu_range range = { .last = RAM - 1, .kind = MMU_RANGE_RAM };
	uint64_t generation;
	mmu_hostmem *ram;

	if (mmu_bus_create(&bus) || mmu_hostmem_create(RAM, &ram))
		abort();
	range.host = mmu_hostmem_address(ram);
	if (mmu_bus_publish(bus, &range, 1, &generation))
		abort();
	stress();
	fuzz(range.host);
	mmu_bus_destroy(bus);
	mmu_hostmem_destroy(ram);
	if (bad)
		printf("stress_arm64: check %d failed\n", bad);
	return bad != 0;
}
