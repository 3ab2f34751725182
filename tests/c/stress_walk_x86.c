/*
 * x86 walks from registers of a stranger over tables of noise, alone and in batches: each is answered
 * or refused, and both ways agree. Then four threads walk one set of tables while each sets and clears
 * flags in it: no access races, no answer is torn.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mmu.h"

enum { MEMORY = 1 << 18, THREADS = 4, ROUNDS = 8000, BATCH = 40 };

static mmu_bus *bus;
static _Atomic int bad;

static uint64_t next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static uint64_t sparse(uint64_t *state)
{
	return next(state) & next(state);
}

/* An entry that leads somewhere, more often than not. */
static uint64_t entry(uint64_t *state)
{
	uint64_t e = (next(state) & (MEMORY - 1) & ~UINT64_C(4095)) | (next(state) & 0xfff) | 1;

	return next(state) % 8 ? e : e ^ sparse(state);
}

static struct mmu_x86_regs stranger(uint64_t *s)
{
	struct mmu_x86_regs regs = {
		.cr0 = next(s), .cr3 = next(s), .cr4 = next(s), .efer = next(s), .stage2_root = next(s),
		.stage2_cr4 = next(s), .stage2_efer = next(s), .pkru = (uint32_t)next(s), .pkrs = (uint32_t)next(s),
		.cpl = (uint8_t)next(s), .ac = (uint8_t)next(s), .phys_bits = (uint8_t)next(s),
		.stage2_phys_bits = (uint8_t)next(s), .stage2 = (uint8_t)(next(s) % 5),
		.bus_error = (uint8_t)next(s),
	};

	if (next(s) % 4) {
		regs.cr3 &= MEMORY - 1;
		regs.stage2_root &= MEMORY - 1;
		regs.phys_bits = regs.stage2_phys_bits = 52;
		regs.cr0 |= UINT64_C(1) << 31;
	}
	return regs;
}

static bool same(int status, const struct mmu_x86_translation *found, const struct mmu_x86_fault *fault,
		 const struct mmu_x86_result *many)
{
	if (status == MMU_OK)
		return many->status == 0 && many->pa == found->pa && many->page_size == found->page_size;
	return many->status == fault->kind && many->pa == 0 && many->page_size == 0;
}

static void fuzz(uint8_t *memory)
{
	uint64_t state = 88172645463325252u, vas[BATCH];
	struct mmu_x86_result many[BATCH];
	mmu_port *port;

	if (mmu_port_create(bus, 1, &port))
		abort();
	for (int round = 0; round < 1500; round++) {
		struct mmu_x86_regs regs = stranger(&state);
		uint32_t access = next(&state) % 4 ? 1u << next(&state) % 3 : (uint32_t)sparse(&state);
		int status;

		for (size_t i = 0; i < MEMORY; i += 8) {
			uint64_t e = entry(&state);

			memcpy(memory + i, &e, 8);
		}
		for (int i = 0; i < BATCH; i++)
			vas[i] = next(&state) >> next(&state) % 64;
		status = mmu_x86_walk_many(port, &regs, vas, BATCH, access, 0, many);
		for (int i = 0; i < BATCH; i++) {
			struct mmu_step step[3];
			struct mmu_steps steps = { .capacity = 3, .step = step };
			struct mmu_x86_translation found;
			struct mmu_x86_fault fault;
			struct mmu_x86_event event;
			int one = mmu_x86_walk(port, &regs, vas[i], access, 0, &found, &fault, &steps);

			if ((one == MMU_ERANGE) != (status == MMU_ERANGE))
				bad = 1;
			if (one == MMU_FAULTED)
				mmu_x86_exception(&regs, &fault, &event);
			if (one >= 0 && !same(one, &found, &fault, &many[i]))
				bad = 2;
		}
	}
	mmu_port_destroy(port);
}

/* Identity tables of 4 KiB pages over the first 2 MiB, none of them accessed or dirty. */
static void build(uint8_t *memory)
{
	static const uint64_t above[3] = { 0x2003, 0x3003, 0x4003 };

	memset(memory, 0, MEMORY);
	for (int i = 0; i < 3; i++)
		memcpy(memory + 0x1000 * (i + 1), &above[i], 8);
	for (uint64_t page = 0; page < 512; page++) {
		uint64_t e = page << 12 | 3;

		memcpy(memory + 0x4000 + 8 * page, &e, 8);
	}
}

static void *walker(void *arg)
{
	const struct mmu_x86_regs regs = { .cr0 = 0x80010001, .cr3 = 0x1000, .cr4 = 0x20, .efer = 0xd00,
					   .phys_bits = 52 };
	uint64_t state = 1 + (uint64_t)(uintptr_t)arg;
	mmu_port *port;

	if (mmu_port_create(bus, 1, &port))
		abort();
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t page = next(&state) % 512, va = page << 12 | 5, old;
		struct mmu_x86_translation found;
		struct mmu_x86_fault fault;
		struct mmu_x86_result many;

		if (mmu_x86_walk(port, &regs, va, MMU_ACCESS_WRITE, MMU_X86_UPDATE, &found, &fault, NULL) ||
		    found.pa != va)
			bad = 3;
		if (mmu_x86_walk_many(port, &regs, &va, 1, MMU_ACCESS_READ, MMU_X86_UPDATE, &many) || many.pa != va)
			bad = 4;
		mmu_port_exchange(port, 0x4000 + 8 * page, 8, page << 12 | 0x63, page << 12 | 3, &old);
		if ((old & ~UINT64_C(0x60)) != (page << 12 | 3))
			bad = 5;
	}
	mmu_port_destroy(port);
	return NULL;
}

int main(void)
{
	struct mmu_range range = { .first = 0, .last = MEMORY - 1, .kind = MMU_RANGE_RAM };
	pthread_t threads[THREADS];
	mmu_hostmem *memory;
	uint64_t generation;

	if (mmu_bus_create(&bus) || mmu_hostmem_create(MEMORY, &memory))
		return 1;
	range.host = mmu_hostmem_address(memory);
	if (mmu_bus_publish(bus, &range, 1, &generation))
		return 1;
	fuzz(range.host);
	build(range.host);
	for (uintptr_t i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, walker, (void *)i))
			return 1;
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	mmu_bus_destroy(bus);
	mmu_hostmem_destroy(memory);
	if (bad)
		fprintf(stderr, "wrong answer of kind %d\n", bad);
	return bad;
}
