/* Lengths, indices and registers from a stranger: each is refused or answered, none is believed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mmu.h"

static uint64_t state = 88172645463325252u;

static uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* Small numbers, powers of two and their neighbours, and anything at all. */
static uint64_t odd(void)
{
	switch (next() % 4) {
	case 0: return next() % 70;
	case 1: return UINT64_C(1) << next() % 64;
	case 2: return (UINT64_C(1) << next() % 64) - 1;
	default: return next();
	}
}

static void fuzz_routes(mmu_hostmem *memory)
{
	for (int i = 0; i < 20000; i++) {
		struct mmu_target target = { mmu_hostmem_address(memory), 4096, 0, NULL };
		struct mmu_slot slots[48];
		struct mmu_span span = {
			.first = odd() & ~UINT64_C(7), .granule = odd(), .slot_first = (uint32_t)(odd() % 3),
			.slot_count = (uint32_t)odd(), .shift = (uint8_t)odd(), .bits = (uint8_t)(odd() % 8),
			.map_count = (uint8_t)(odd() % 6), .mod3_shift = (uint8_t)(odd() % 80),
			.maps = { odd(), odd(), odd(), odd() },
		};
		uint32_t where;
		uint64_t dpa;
		mmu_route *route;

		span.last = (span.first + odd()) | 7;
		if (next() % 2)
			span.slot_count = (1u << (span.bits + span.map_count) % 16) * (span.mod3_shift ? 3 : 1);
		for (int s = 0; s < 48; s++)
			slots[s] = (struct mmu_slot){ odd(), odd(), (uint32_t)(odd() % 3), (uint8_t)(odd() % 4),
						      (uint8_t)(odd() % 40), (uint8_t)(odd() % 10), next() & 1 };
		if (mmu_route_create(odd(), &span, 1, slots, 48, &target, 1, &route))
			continue;
		for (int k = 0; k < 8; k++)
			mmu_route_locate(route, odd(), &where, &dpa);
		mmu_route_destroy(route);
	}
}

static void fuzz_port(mmu_bus *bus)
{
	uint8_t data[512];
	mmu_port *port;

	if (mmu_port_create(bus, 1, &port))
		abort();
	for (int i = 0; i < 50000; i++) {
		uint64_t value, old, address = odd();
		uint32_t size = (uint32_t)odd();
		uint8_t *host;

		mmu_port_load(port, address, size, &value);
		mmu_port_store(port, address, size, odd());
		mmu_port_exchange(port, address, size, odd(), odd(), &old);
		mmu_port_read(port, address, data, next() % sizeof(data));
		mmu_port_write(port, address, data, next() % sizeof(data));
		mmu_port_host(port, address, odd(), next() & 1, &host);
	}
	mmu_port_destroy(port);
}

int main(void)
{
	struct mmu_range ranges[2];
	mmu_hostmem *memory;
	uint64_t generation;
	mmu_bus *bus;

	if (mmu_bus_create(&bus) || mmu_hostmem_create(65536, &memory))
		return 1;
	memset(ranges, 0, sizeof(ranges));
	ranges[0] = (struct mmu_range){ .first = 0, .last = 65535, .kind = MMU_RANGE_RAM,
					.host = mmu_hostmem_address(memory) };
	ranges[1] = (struct mmu_range){ .first = UINT64_MAX - 4095, .last = UINT64_MAX,
					.kind = MMU_RANGE_ROM, .host = mmu_hostmem_address(memory) };
	if (mmu_bus_publish(bus, ranges, 2, &generation))
		return 1;
	fuzz_routes(memory);
	fuzz_port(bus);
	for (int i = 0; i < 20000; i++) {
		mmu_hostmem *other;

		ranges[0].last = odd();
		ranges[0].kind = (uint32_t)odd();
		ranges[1].first = odd();
		mmu_bus_publish(bus, ranges, 2, &generation);	/* accepted or refused; never used below */
		if (!mmu_hostmem_create(odd() & 0xffffffff, &other)) {
			mmu_hostmem_map_file(other, odd(), odd(), -1);
			mmu_hostmem_destroy(other);
		}
	}
	mmu_bus_destroy(bus);
	mmu_hostmem_destroy(memory);
	return 0;
}
