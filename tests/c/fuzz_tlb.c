/*
 * The softmmu TLB under strangers: registers, tables, addresses and lengths of any kind, maps that change
 * while entries point into them, devices that use the TLB in the middle of its own access, and a thread that
 * publishes maps and frees what they were made of.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mmu.h"

#define CHECK(what) do { if (!(what)) { fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); abort(); } } while (0)

enum { PAGE = 4096, PAGES = 64, BATCH = 128, PARTS = 4 };

static uint64_t next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* ---- one machine whose parts may all be strange ---- */

struct machine {
	uint64_t random;
	mmu_bus *bus;
	mmu_port *port;
	mmu_tlb *tlb;
	mmu_hostmem *ram, *other, *device;
	mmu_route *route;
	struct mmu_io io;
	bool arm64;
	unsigned depth;
	uint64_t generation;
};

static uint64_t any(struct machine *m)
{
	uint64_t r = next(&m->random);

	switch (r >> 60 & 3) {
	case 0: return r % (PAGES * PAGE);
	case 1: return (r % (PAGES * PAGE)) | UINT64_C(0x4000000);
	case 2: return UINT64_C(1) << (r % 64);
	default: return r;
	}
}

/* An address that the tables may well map: small, near page edges. */
static uint64_t near_edge(struct machine *m)
{
	uint64_t r = next(&m->random);

	if (!(r >> 56 & 15))
		return any(m);
	return (r % 512) * PAGE + (r >> 32 & 1 ? r >> 40 & 0xfff : PAGE - 1 - (r >> 40 & 15));
}

static void publish(struct machine *m)
{
	uint64_t r = next(&m->random);
	uint8_t *ram = mmu_hostmem_address(m->ram), *other = mmu_hostmem_address(m->other);
	struct mmu_range ranges[] = {
		{ .first = 0, .last = PAGES * PAGE - 1, .kind = MMU_RANGE_RAM, .host = ram },
		{ .first = 0x1000000, .last = 0x1000000 + 8 * PAGE - 1 - (r & 1) * 100,
		  .kind = MMU_RANGE_ROM, .host = other, .io = r >> 9 & 1 ? &m->io : NULL },
		{ .first = 0x2000000 + (r >> 1 & 1) * 4, .last = 0x2000000 + 8 * PAGE - 1,
		  .kind = MMU_RANGE_RAM,
		  .host = other, .offset = r >> 2 & 3 },
		{ .first = 0x3000000, .last = 0x3000000 + 4 * PAGE - 1, .kind = MMU_RANGE_IO,
		  .io = &m->io },
		{ .first = 0x4000000, .last = 0x4000000 + 16 * PAGE - 1, .kind = MMU_RANGE_STRIPED,
		  .route = m->route,
		  .offset = r >> 4 & 8 },
	};

	CHECK(!mmu_bus_publish(m->bus, ranges, 5 - (r >> 8) % 3, &m->generation));
}

/* Entries that lead somewhere more often than not. */
static void write_tables(struct machine *m)
{
	static const uint64_t places[] = { 0, 0x1000000, 0x2000000, 0x3000000, 0x4000000 };
	uint64_t *words = (uint64_t *)(void *)mmu_hostmem_address(m->ram);

	for (unsigned i = 0; i < 8 * 512; i++) {
		uint64_t r = next(&m->random);
		uint64_t table = (1 + r % 7) * PAGE, page = places[r >> 8 & 7 & ((r >> 11 & 3) ?
			7 : 3) % 5] + (r >> 16 & 3) * PAGE;

		words[i] = (r >> 32 & 1 ?
			    table : page) | (r >> 40 & 0xfff) | (r >> 54 & 7 ?
				    3 : 0) | (r >> 60 ? 0 : r << 52);
	}
}

static void set_registers(struct machine *m)
{
	uint64_t r = next(&m->random);

	if (m->arm64) {
		struct mmu_arm64_regs regs = {
			.sctlr_el1 = 1, .ttbr0_el1 = PAGE | (r & 3) << 48, .ttbr1_el1 = PAGE, .el = r >> 8 & 3,
			.tcr_el1 = 25 | 25 << 16 | UINT64_C(2) << 30 | UINT64_C(5) << 32 | (r >> 10 & 7) << 36 | (r >> 13 & 1) << 22,
			.hcr_el2 = r >> 20 & 15 ? 0 : next(&m->random), .vttbr_el2 = 2 * PAGE, .pan = r >> 24 & 1, .pa_range = 48,
			.vtcr_el2 = 24 | 1 << 6 | UINT64_C(5) << 16,
		};

		if (!(r >> 40 & 15))
			regs.tcr_el1 = next(&m->random);
		CHECK(!mmu_tlb_set_arm64(m->tlb, m->port, &regs));
		CHECK(mmu_tlb_set_x86(m->tlb, m->port, &(struct mmu_x86_regs){ 0 }) == MMU_ERANGE);
	} else {
		struct mmu_x86_regs regs = {
			.cr0 = 0x80000001 | (r & 1) << 16, .cr3 = PAGE | (r >> 1 & 3) | (r >> 3 & 1) << 63,
			.cr4 = 0x20 | (r >> 4 & 1) << 7 | (r >> 5 & 1) << 17 | (r >> 6 & 3) << 20, .efer = 0xd00,
			.cpl = r >> 8 & 3, .ac = r >> 10 & 1, .phys_bits = 52, .bus_error = r >> 11 & 1,
			.stage2 = r >> 12 & 15 ? 0 : r >> 16 & 3, .stage2_root = 2 * PAGE, .stage2_cr4 = 0x20,
			.stage2_efer = 0xd00, .stage2_phys_bits = 52, .pkru = r >> 20 & 7 ? 0 : (uint32_t)r,
		};

		if (!(r >> 40 & 15))
			regs.cr4 = next(&m->random);
		CHECK(mmu_tlb_set_x86(m->tlb, m->port,
				      &regs) == (regs.stage2 == 3 ? MMU_ERANGE : MMU_OK));
		if (regs.stage2 == 3)
			return;
		CHECK(mmu_tlb_set_arm64(m->tlb, m->port, &(struct mmu_arm64_regs){ 0 }) == MMU_ERANGE);
	}
}

static void look_inside(struct machine *m)
{
	struct mmu_tlb_kept kept[72];
	struct mmu_tlb_watched watched[MMU_TLB_WATCHED];

	for (uint32_t i = 0; i < 20; i++)
		CHECK(mmu_tlb_kept(m->tlb, m->port, i, kept, 72) <= 72);
	CHECK(mmu_tlb_take_watched(m->tlb, watched) <= MMU_TLB_WATCHED);
}

static void change(struct machine *m)
{
	uint64_t r = next(&m->random), first = near_edge(m);
	struct mmu_tlb_scope scope = { .first = mmu_tlb_flush_address(m->tlb, first),
				       .last = first + (r >> 48), .space = r & 3,
				       .indexes = (uint32_t)(r >> 8) | 1, .any_space = r >> 40 & 1, .global_too = r >> 41 & 1 };

	switch (r % 8) {
	case 0: publish(m); break;
	case 1: set_registers(m); break;
	case 2: write_tables(m); break;
	case 3: mmu_tlb_watch(m->tlb, m->port, first, first + r % 9000, r >> 16 & 7); break;
	case 4:
		mmu_tlb_watch(m->tlb, m->port, 8, 80, 1);
		mmu_tlb_unwatch(m->tlb, m->port, 8, r & 256 ? 80 : first, 1);
		break;
	case 5: mmu_port_trace(m->port, NULL, 0); break;
	default: mmu_tlb_flush(m->tlb, m->port, &scope); break;
	}
	look_inside(m);
}

static void one_access(struct machine *m)
{
	struct mmu_tlb_part parts[PARTS];
	struct mmu_tlb_fault fault;
	uint8_t data[PARTS * PAGE];
	uint64_t r = next(&m->random), size = r >> 8 & 7 ? r % 17 : r % sizeof(data);
	int rc;

	memset(data, 0x5a, sizeof(data));
	if (r >> 32 & 1)
		rc = mmu_tlb_read(m->tlb, m->port, near_edge(m), data, size,
				  (uint32_t)(r >> 40 & 7), parts, r >> 44 & 3 ? PARTS : 1, &fault);
	else
		rc = mmu_tlb_write(m->tlb, m->port, near_edge(m), data, size, parts,
				   r >> 44 & 3 ? PARTS : 1, &fault);
	CHECK(rc == MMU_OK || rc == MMU_ERANGE || rc == MMU_ECALLBACK ||
	      (rc == MMU_FAULTED && fault.kind));
}

static void batch(struct machine *m)
{
	uint64_t vas[BATCH], values[BATCH] = { 0 }, r = next(&m->random), page = near_edge(m) & ~UINT64_C(0xfff);
	uint8_t status[BATCH] = { 0 };
	struct mmu_tlb_fault fault;
	uint32_t size = r >> 8 & 15 ? 1u << (r & 3) : (uint32_t)r;

	for (unsigned i = 0; i < BATCH; i++)
		vas[i] = r >> 20 & 1 ? near_edge(m) : page + next(&m->random) % 512 * 8;
	for (unsigned again = 0; again < 3; again++) {
		uint64_t count = again ? BATCH : r >> 24 & (BATCH - 1);

		if (r >> 16 & 1)
			mmu_tlb_load_many(m->tlb, m->port, vas, count, size, values,
					  r >> 17 & 3 ? status : NULL, &fault);
		else
			mmu_tlb_store_many(m->tlb, m->port, vas, count, size, values,
					   r >> 17 & 3 ? status : NULL, &fault);
	}
}

/* The device does what devices should not. */
static int interfere(struct machine *m)
{
	uint64_t r = next(&m->random);

	if (m->depth >= 3)
		return MMU_MEMTX_OK;
	m->depth++;
	switch (r % 8) {
	case 0: change(m); break;
	case 1: one_access(m); break;
	case 2: batch(m); break;
	}
	m->depth--;
	return r >> 8 & 31 ? MMU_MEMTX_OK : r >> 16 & 1 ? MMU_MEMTX_ERROR : MMU_ECALLBACK;
}

static int device_read(void *ctx, uint64_t offset, uint32_t size, uint64_t *value)
{
	(void)size;
	*value = offset * UINT64_C(0x1000003) | 3;
	return interfere(ctx);
}

static int device_write(void *ctx, uint64_t offset, uint32_t size, uint64_t value)
{
	(void)offset;
	(void)size;
	(void)value;
	return interfere(ctx);
}

static void make_route(struct machine *m)
{
	uint64_t r = next(&m->random);
	struct mmu_target target = { mmu_hostmem_address(m->device), 8 * PAGE, r & 1, NULL };
	struct mmu_slot slots[2] = {
		{ 0x4000000, 0, 0, MMU_SLOT_DEVICE, 8, 1, 0 },
		{ 0x4000000, r >> 1 & 1 ? 3 : 5 * PAGE, 0,
		  r >> 2 & 7 ? MMU_SLOT_DEVICE : MMU_SLOT_REFUSED, 8, 1, r >> 5 & 1 },
	};
	struct mmu_span spans[] = {
		{ .first = 0x4000000, .last = 0x4000000 + 4 * PAGE - 1, .granule = 256,
		  .slot_count = 2, .shift = 8, .bits = 1 },
		{ .first = 0x4000000 + 4 * PAGE, .last = 0x4000000 + 40 * PAGE - 1, .granule = 4096,
		  .slot_count = 1 },
	};

	CHECK(!mmu_route_create(0x4000000, spans, 2, slots, 2, &target, 1, &m->route));
}

static void fuzz(bool arm64, uint64_t seed)
{
	static struct mmu_trace_entry entries[256];
	struct machine m = { .random = seed, .arm64 = arm64 };
	mmu_tlb *none;

	m.io = (struct mmu_io){ .read = device_read, .write = device_write, .ctx = &m, .valid_min = 1,
				.valid_max = 8, .impl_min = 1, .impl_max = 4,
				.guard = seed & 1 ? &m : NULL };
	CHECK(!mmu_bus_create(&m.bus) && !mmu_port_create(m.bus, 1, &m.port));
	CHECK(!mmu_hostmem_create(PAGES * PAGE, &m.ram) && !mmu_hostmem_create(9 * PAGE, &m.other) &&
	      !mmu_hostmem_create(8 * PAGE, &m.device));
	make_route(&m);
	publish(&m);
	for (uint32_t i = 0; i < 40; i++)
		if (mmu_tlb_create((uint32_t)any(&m), &none) == MMU_OK)
			mmu_tlb_destroy(none);
	CHECK(!mmu_tlb_create(64, &m.tlb));
	one_access(&m);		/* without registers: refused */
	batch(&m);
	set_registers(&m);
	for (int i = 0; i < 5000; i++) {
		if (i % 200 == 0) {
			write_tables(&m);
			mmu_port_trace(m.port, i % 400 ? entries : NULL, 256);
		}
		if (next(&m.random) % 8 == 0)
			change(&m);
		else if (next(&m.random) % 4)
			one_access(&m);
		else
			batch(&m);
	}
	mmu_tlb_destroy(m.tlb);
	mmu_tlb_destroy(NULL);
	mmu_port_destroy(m.port);
	mmu_bus_destroy(m.bus);
	mmu_route_destroy(m.route);
	mmu_hostmem_destroy(m.ram);
	mmu_hostmem_destroy(m.other);
	mmu_hostmem_destroy(m.device);
}

/* ---- a writer of the map that frees what it replaced ---- */

enum { ROUNDS = 1000, KEPT = 64 };

struct shared {
	mmu_bus *bus;
	mmu_hostmem *tables;
	atomic_bool stop;
};

static void show(struct shared *s, mmu_hostmem *memory, uint64_t *generation)
{
	struct mmu_range ranges[] = {
		{ .first = 0, .last = 8 * PAGE - 1, .kind = MMU_RANGE_RAM,
		  .host = mmu_hostmem_address(s->tables) },
		{ .first = 0x100000, .last = 0x100000 + PAGE - 1, .kind = MMU_RANGE_RAM,
		  .host = mmu_hostmem_address(memory) },
	};

	CHECK(!mmu_bus_publish(s->bus, ranges, 2, generation));
}

struct old { mmu_hostmem *memory; uint64_t gone_at; };

/* Frees what no reader can reach any more; waits until that includes *wanted. */
static void free_old(struct shared *s, struct old *old, const struct old *wanted)
{
	do {
		uint64_t oldest = mmu_bus_reclaim(s->bus);

		for (unsigned i = 0; i < KEPT; i++)
			if (old[i].memory && old[i].gone_at <= oldest) {
				mmu_hostmem_destroy(old[i].memory);
				old[i].memory = NULL;
			}
	} while (wanted->memory);
}

/* Memory number n is all n; what was shown before is freed as soon as the bus says so. */
static void *publisher(void *arg)
{
	struct old old[KEPT] = { { 0 } };
	mmu_hostmem *shown = NULL;
	struct shared *s = arg;

	for (unsigned n = 1; n <= ROUNDS; n++) {
		mmu_hostmem *memory;
		uint64_t generation;

		CHECK(!mmu_hostmem_create(PAGE, &memory));
		memset(mmu_hostmem_address(memory), (int)(n % 251 + 1), PAGE);
		show(s, memory, &generation);
		free_old(s, old, &old[n % KEPT]);
		old[n % KEPT] = (struct old){ shown, generation };
		shown = memory;
	}
	for (unsigned i = 0; i < KEPT; i++)
		free_old(s, old, &old[i]);
	atomic_store(&s->stop, true);
	return shown;
}

/* A load sees the memory of one publication, in all of its bytes; a batch sees each at most for a while. */
static void reader(struct shared *s)
{
	struct mmu_x86_regs regs = { .cr0 = 0x80000001, .cr3 = PAGE, .cr4 = 0x20, .efer = 0xd00,
				     .phys_bits = 52 };
	uint64_t vas[BATCH * 100], values[BATCH * 100], loads = 0;
	struct mmu_tlb_fault fault;
	mmu_port *port;
	mmu_tlb *tlb;

	CHECK(!mmu_port_create(s->bus, 0, &port) && !mmu_tlb_create(64, &tlb));
	CHECK(!mmu_tlb_set_x86(tlb, port, &regs));
	for (unsigned i = 0; i < BATCH * 100; i++)
		vas[i] = (uint64_t)i * 8 % PAGE;
	while (!atomic_load(&s->stop)) {
		CHECK(mmu_tlb_load_many(tlb, port, vas, BATCH * 100, 8, values, NULL,
					&fault) == MMU_OK);
		for (unsigned i = 0; i < BATCH * 100; i++)
			CHECK(values[i] &&
			      values[i] == (values[i] & 0xff) * UINT64_C(0x0101010101010101));
		loads += BATCH * 100;
	}
	CHECK(loads && mmu_tlb_stats(tlb)->flushed == 0);
	mmu_tlb_destroy(tlb);
	mmu_port_destroy(port);
}

static void stress(void)
{
	struct shared s = { 0 };
	mmu_hostmem *first, *last;
	uint64_t *words, generation;
	pthread_t thread;

	CHECK(!mmu_bus_create(&s.bus) && !mmu_hostmem_create(8 * PAGE, &s.tables) &&
	      !mmu_hostmem_create(PAGE, &first));
	words = (uint64_t *)(void *)mmu_hostmem_address(s.tables);
	for (unsigned level = 1; level < 5; level++)
		words[level * 512] = (level < 4 ? (level + 1) * PAGE : 0x100000) | 0x67;
	memset(mmu_hostmem_address(first), 1, PAGE);
	show(&s, first, &generation);
	CHECK(!pthread_create(&thread, NULL, publisher, &s));
	reader(&s);
	CHECK(!pthread_join(thread, (void **)&last));
	mmu_bus_destroy(s.bus);
	mmu_hostmem_destroy(first);
	mmu_hostmem_destroy(last);
	mmu_hostmem_destroy(s.tables);
}

int main(void)
{
	for (unsigned i = 0; i < 8; i++)
		fuzz(i % 2, UINT64_C(88172645463325252) + i * 77777);
	stress();
	return 0;
}
