/* Formats, states and tables from a stranger: a scan refuses them or follows them, and always comes back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mmu.h"

enum { MEMORY = 1 << 16, RECORDS = 64 };

static uint64_t state = 88172645463325252u;

static uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static uint64_t odd(void)
{
	switch (next() % 4) {
	case 0: return next() % 70;
	case 1: return UINT64_C(1) << next() % 64;
	case 2: return (UINT64_C(1) << next() % 64) - 1;
	default: return next();
	}
}

static struct mmu_scan_entry any_entry(void)
{
	struct mmu_scan_entry entry = {
		.mask = odd(), .reserved = next() % 4 ? 0 : odd(),
		.parts = (uint32_t)(next() % 4), .rules = (uint32_t)(next() % 14),
	};

	entry.value = odd() & entry.mask;
	for (int i = 0; i < MMU_SCAN_PARTS; i++)
		entry.part[i] = (struct mmu_scan_part){ odd(), (uint32_t)(odd() % 66), (uint32_t)(odd() % 66) };
	for (int i = 0; i < MMU_SCAN_RULES; i++)
		entry.rule[i] = (struct mmu_scan_rule){ odd(), odd(), odd() };
	return entry;
}

/* Mostly levels that fit together, so that scans go deep. */
static struct mmu_scan_format any_format(void)
{
	struct mmu_scan_format format = {
		.base = odd(), .bus_error = odd(), .invalid = odd(), .with = odd(), .without = odd(),
		.sign = (uint32_t)(next() % 67), .levels = (uint32_t)(next() % 8), .swap = next() & 1,
	};
	uint32_t shift = (uint32_t)(next() % 14);

	for (uint32_t d = MMU_SCAN_LEVELS; d-- > 0;) {
		struct mmu_scan_level *level = &format.level[d];

		*level = (struct mmu_scan_level){
			.present = odd(), .shift = shift, .bits = (uint32_t)(next() % 11),
			.width = next() % 8 ? 8 : (uint32_t)(next() % 9), .table = any_entry(), .leaf = any_entry(),
		};
		shift = d < format.levels ? level->shift + level->bits : shift;
		if (d + 1 >= format.levels)
			level->table.parts = 0;
		if (next() % 64 == 0)
			level->bits = (uint32_t)odd();
	}
	return format;
}

static uint64_t scan_once(mmu_port *port)
{
	static struct mmu_mapping records[RECORDS];
	struct mmu_scan_format format = any_format();
	struct mmu_scan scan;
	uint64_t first = next() % 2 ? 0 : odd(), count, total = 0;

	if (mmu_scan_begin(&format, next() % MEMORY, first, next() % 2 ? UINT64_MAX : odd(),
			   next() & 1, &scan))
		return 0;
	for (int i = 0; i < 8 && (!scan.done || scan.waiting); i++) {
		uint64_t capacity = 2 + next() % (RECORDS - 1);

		if (mmu_scan_next(port, &format, &scan, next() % 5000, records, capacity, &count))
			return total;
		if (count > capacity)
			abort();
		total += count;
		if (next() % 16 == 0)
			scan.depth = (uint32_t)odd();
		if (next() % 16 == 0)
			scan.frame[next() % 6] = (struct mmu_scan_frame){ odd(), odd(), odd(), odd() };
	}
	return total;
}

int main(void)
{
	mmu_hostmem *memory;
	mmu_bus *bus;
	mmu_port *port;
	uint64_t total = 0, generation;

	if (mmu_hostmem_create(MEMORY, &memory) || mmu_bus_create(&bus) || mmu_port_create(bus, 0, &port))
		return 1;
	struct mmu_range range = { .first = 0, .last = MEMORY - 1, .kind = MMU_RANGE_RAM,
				   .host = mmu_hostmem_address(memory) };

	if (mmu_bus_publish(bus, &range, 1, &generation))
		return 1;
	for (int i = 0; i < MEMORY; i += 8) {
		uint64_t entry = odd() & (next() % 3 ? MEMORY - 1 : UINT64_MAX);

		memcpy(mmu_hostmem_address(memory) + i, &entry, 8);
	}
	for (int i = 0; i < 30000; i++)
		total += scan_once(port);
	mmu_port_destroy(port);
	mmu_bus_destroy(bus);
	mmu_hostmem_destroy(memory);
	printf("%llu records\n", (unsigned long long)total);
	return total ? 0 : 1;
}
