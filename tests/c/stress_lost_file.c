/*
 * Files behind memory are cut short while other threads read, write and exchange through a window over them: every
 * access has the bytes or an error, and memories come and go meanwhile.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "mmu.h"

enum { READERS = 2, DEVICES = 2, PAGES = 48, PAGE = 4096, DEVICE = PAGES * PAGE, ROUNDS = 20 };

static const uint64_t window = UINT64_C(1) << 30;
static mmu_bus *bus;
static _Atomic int bad, done;

/* Word i of device d. Loads and exchanges find this, stores write it. */
static uint64_t word(uint64_t d, uint64_t i)
{
	return d << 32 | (i + 1);
}

/* Of a word in the first half of its granule: other threads store to it. */
static void check_word(mmu_port *port, uint64_t address)
{
	uint64_t offset = address - window, d = offset / 256 % DEVICES;
	uint64_t i = (offset / (256 * DEVICES) * 256 + offset % 256) / 8, value = 1, old = 1;
	int rc = mmu_port_load(port, address, 8, &value);

	if (rc == MMU_MEMTX_OK ? value != word(d, i) : rc != MMU_MEMTX_ERROR || value)
		bad = 1;
	if (rc != MMU_MEMTX_OK && i < PAGE / 8)		/* the first page is never cut off */
		bad = 2;
	rc = mmu_port_exchange(port, address, 8, word(d, i), word(d, i), &old);
	if (rc == MMU_MEMTX_OK ? old != word(d, i) : rc != MMU_MEMTX_ERROR || old)
		bad = 3;
	rc = mmu_port_store(port, address, 8, word(d, i));
	if (rc != MMU_MEMTX_OK && rc != MMU_MEMTX_ERROR)
		bad = 4;
}

/* Of the second half of a granule: words that nobody stores to. */
static void check_block(mmu_port *port, uint64_t address)
{
	uint64_t block[16], zeroes = 0;
	int rc = mmu_port_read(port, address, block, sizeof(block));

	for (int k = 0; k < 16; k++)
		zeroes += !block[k];
	if (rc == MMU_MEMTX_OK ? zeroes != 0 : rc != MMU_MEMTX_ERROR || zeroes != 16)
		bad = 5;
}

static void *reader(void *arg)
{
	uint64_t at = (uint64_t)(uintptr_t)arg * 7919;
	mmu_port *port;

	if (mmu_port_create(bus, DEVICES, &port))
		abort();
	while (!done) {
		at = (at * 6364136223846793005u + 1442695040888963407u);
		check_word(port, window + (at >> 20) % (DEVICES * DEVICE / 256) * 256 + (at >> 52) % 16 * 8);
		check_block(port, window + (at >> 36) % (DEVICES * DEVICE / 256) * 256 + 128);
	}
	mmu_port_destroy(port);
	return NULL;
}

static int file_of(uint64_t d)
{
	char name[] = "/tmp/stress-lost-file-XXXXXX";
	uint64_t *words = malloc(DEVICE);
	int fd = mkstemp(name);

	if (fd < 0 || unlink(name) || !words)
		abort();
	for (uint64_t i = 0; i < DEVICE / 8; i++)
		words[i] = word(d, i);
	if (write(fd, words, DEVICE) != DEVICE)
		abort();
	free(words);
	return fd;
}

static mmu_route *make_route(const struct mmu_target *targets)
{
	const struct mmu_span span = { .first = window, .last = window + DEVICES * DEVICE - 1, .granule = 256,
				       .slot_count = DEVICES, .shift = 8, .bits = 1 };
	struct mmu_slot slots[DEVICES];
	mmu_route *route;

	for (uint32_t d = 0; d < DEVICES; d++)
		slots[d] = (struct mmu_slot){ .base = window, .target = d, .granularity_shift = 8,
					      .ways_shift = 1 };
	if (mmu_route_create(window, &span, 1, slots, DEVICES, targets, DEVICES, &route))
		abort();
	return route;
}

/* One machine, whose files lose page after page from their ends. */
static void round_of_loss(void)
{
	struct mmu_target targets[DEVICES];
	mmu_hostmem *memory[DEVICES];
	pthread_t threads[READERS];
	struct mmu_range range;
	uint64_t generation;
	int fd[DEVICES];

	for (uint32_t d = 0; d < DEVICES; d++) {
		fd[d] = file_of(d);
		if (mmu_hostmem_create(DEVICE, &memory[d]) || mmu_hostmem_map_file(memory[d], 0, DEVICE, fd[d]))
			abort();
		targets[d] = (struct mmu_target){ mmu_hostmem_address(memory[d]), DEVICE, d, NULL };
	}
	range = (struct mmu_range){ .first = window, .last = window + DEVICES * DEVICE - 1,
				    .kind = MMU_RANGE_STRIPED, .route = make_route(targets) };
	if (mmu_bus_create(&bus) || mmu_bus_publish(bus, &range, 1, &generation))
		abort();
	done = 0;
	for (uintptr_t i = 0; i < READERS; i++)
		pthread_create(&threads[i], NULL, reader, (void *)i);
	for (int pages = PAGES - 1; pages; pages--)
		for (int d = 0; d < DEVICES; d++) {
			mmu_hostmem *other;

			if (ftruncate(fd[d], pages * PAGE))
				abort();
			/* The list of files changes while handlers go through it. */
			if (mmu_hostmem_create(PAGE, &other) || mmu_hostmem_map_file(other, 0, PAGE, fd[d]))
				abort();
			mmu_hostmem_destroy(other);
		}
	done = 1;
	for (int i = 0; i < READERS; i++)
		pthread_join(threads[i], NULL);
	mmu_bus_destroy(bus);
	mmu_route_destroy((mmu_route *)(uintptr_t)range.route);
	for (int d = 0; d < DEVICES; d++) {
		uint64_t byte = 1, value;

		if (mmu_hostmem_read(memory[d], DEVICE - 8, &value, 8) != MMU_FAULTED ||
		    !mmu_hostmem_failed(memory[d], 0, DEVICE, &byte) || byte < PAGE || byte % PAGE)
			bad = 6;
		mmu_hostmem_destroy(memory[d]);
		close(fd[d]);
	}
}

int main(void)
{
	for (int i = 0; i < ROUNDS; i++)
		round_of_loss();
	if (bad)
		fprintf(stderr, "a reader saw what must not be (%d)\n", bad);
	return bad;
}
