/*
 * A guest whose engine is mad: random registers, random accesses, random errors, interrupted from another
 * thread. What it is told stays within bounds: never W together with X, never more than nothing where
 * the walk refused, never an address outside of what the engine was given.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "guest_arch.h"

enum { PAGES = 64, MORE = 4, RUNS = 1500 };	/* MORE pages are not plain RAM for the engine */
enum { ID_PC = 1, ID_TABLE, ID_MSR, ID_CS, ID_SYSTEM, ID_OTHER };

static uint64_t state = 88172645463325252u;
static struct mmu_guest_hooks hooks;
static mmu_guest *guest;
static atomic_bool stopped;
static uint64_t pc;
static void (*site)(void *, uint64_t, uint32_t, void *);
static uint8_t blob[256];

static uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void expect(bool truth, const char *what)
{
	if (!truth) {
		fprintf(stderr, "%s\n", what);
		abort();
	}
}

static int reg_read(void *uc, int id, void *value)
{
	uint64_t random = next() % 4 ? next() % (PAGES * 4096) & ~UINT64_C(4095) : next();

	(void)uc;
	switch (id) {
	case ID_PC: memcpy(value, &pc, 8); break;
	case ID_CS: memcpy(value, &random, 2); break;
	case ID_TABLE: memcpy((char *)value + 8, &random, 8); memset((char *)value + 16, 0xff, 4); break;
	case ID_MSR: memcpy((char *)value + 8, &random, 8); break;
	case ID_SYSTEM:	/* mostly SCTLR.M, TCR.T0SZ and IPS as they are in life */
		random = next() % 8 ? UINT64_C(0x500000011) : random;
		memcpy((char *)value + 24, &random, 8);
		break;
	default: memcpy(value, &random, 8);
	}
	return 0;
}

static int reg_read_batch(void *uc, int *ids, void **values, int count)
{
	for (int i = 0; i < count; i++)
		reg_read(uc, ids[i], values[i]);
	return 0;
}

static int emu_stop(void *uc)
{
	(void)uc;
	atomic_store(&stopped, true);
	return 0;
}

static int control(void *uc, int control_, ...)
{
	(void)uc;
	(void)control_;
	return 0;
}

static int context(void *uc, void *to)
{
	(void)uc;
	for (size_t i = 0; i < sizeof(blob); i++)
		blob[i] = (uint8_t)next();
	(void)to;
	return 0;
}

static void check_entry(const struct engine_tlb_entry *entry, int type)
{
	int p = entry->permissions;

	expect(!(p & ENGINE_MAY_WRITE && p & ENGINE_MAY_FETCH), "W together with X");
	if (type == ENGINE_FETCH)
		expect(p == ENGINE_MAY_FETCH, "a fetch got more or less than X");
	expect((entry->pa >= GUEST_BUS_BASE && entry->pa <= GUEST_NOWHERE_BASE) ||
	       (entry->pa >= GUEST_WHOLE_BASE && entry->pa < GUEST_WHOLE_BASE + GUEST_BUS_SIZE), "an address of nowhere");
	if (entry->pa >= GUEST_RAM_BASE && entry->pa < GUEST_SHADOW_BASE)
		expect(entry->pa < GUEST_RAM_BASE + PAGES * 4096, "an address behind the RAM");
	if (entry->pa >= GUEST_SHADOW_BASE && entry->pa < GUEST_SCRATCH_BASE)
		expect(entry->pa < GUEST_SHADOW_BASE + mmu_guest_shadow_size(), "an address behind the copies");
}

/* What the engine tells of an access, and any pieces. */
static void whole(void *uc, uint64_t address, int type)
{
	enum { WRITE_DENIED = 22 };
	int told = type == ENGINE_READ ? ENGINE_READ_DENIED : WRITE_DENIED;
	uint64_t hpa = address - GUEST_WHOLE_BASE;

	if (next() % 8 && !guest_on_access(uc, told, address, next() % 8 ? 1 << next() % 4 : (int)next(), (int64_t)next(), guest))
		return;
	for (uint32_t n = next() % 6; n; n--) {
		uint64_t at = (next() % 4 ? hpa & ~UINT64_C(7) : hpa) + next() % 24;

		if (next() % 4 ? type == ENGINE_READ : next() % 2)
			guest_whole_read(uc, at, 1u << next() % 3, guest);
		else
			guest_whole_write(uc, at, 1u << next() % 3, next(), guest);
	}
}

/* A block that is translated, or begins. */
static void block(void *uc)
{
	void (*begins)(void *, uint64_t, uint32_t, void *);
	uint32_t size = (uint32_t)(next() % 8 ? next() % 300 : next());
	struct engine_block what = { pc, (uint16_t)next(), (uint16_t)size };

	begins = (void (*)(void *, uint64_t, uint32_t, void *))(uintptr_t)hooks.block;
	if (next() % 2)
		guest_on_x86_translated(uc, &what, NULL, guest);
	else
		begins(uc, pc, size, guest);
}

/* Random accesses until told to stop; the error is that of a refused fill or anything else. */
static int emu_start(void *uc, uint64_t begin, uint64_t until, uint64_t timeout, size_t count)
{
	bool (*fill)(void *, uint64_t, int, struct engine_tlb_entry *, void *) = guest_fill;
	void (*interrupt)(void *, uint32_t, void *);

	(void)until;
	(void)timeout;
	pc = begin;
	atomic_store(&stopped, false);
	interrupt = (void (*)(void *, uint32_t, void *))(uintptr_t)hooks.interrupt;
	for (size_t i = 0; i < (count ? 1 : 40) && !atomic_load(&stopped); i++) {
		struct engine_tlb_entry entry = { 0, 0 };
		int type = ENGINE_READ + (int)(next() % 3);
		uint64_t va = next() % 3 ? next() % (PAGES * 4096) : next();

		pc = next() % 8 ? pc + 4 : next();
		if (!fill(uc, va & GUEST_PAGE_MASK, type, &entry, guest))
			return 21;
		check_entry(&entry, type);
		if (type == ENGINE_FETCH)
			continue;
		if (entry.pa == GUEST_NOWHERE_BASE) {
			guest_unmapped(uc, type, entry.pa + va % 4096, (int)next(), 0, guest);
			return 6;
		}
		if (entry.pa >= GUEST_WHOLE_BASE)
			whole(uc, entry.pa + va % 4096, type);
		else if (entry.pa < GUEST_RAM_BASE && type == ENGINE_READ)
			guest_bus_read(uc, entry.pa - GUEST_BUS_BASE + va % 4096, 1u << next() % 3, guest);
		else if (entry.pa < GUEST_RAM_BASE)
			guest_bus_write(uc, entry.pa - GUEST_BUS_BASE + va % 4096, 1u << next() % 3, next(), guest);
		if (site && next() % 4 == 0)
			site(uc, pc, 4, guest);
		if (next() % 8 == 0)
			block(uc);
		if (next() % 64 == 0)
			interrupt(uc, (uint32_t)next(), guest);
	}
	return next() % 16 ? 0 : (int)(next() % 24);
}

static int reg_write(void *uc, int id, const void *value)
{
	(void)uc;
	(void)id;
	(void)value;
	return 0;
}

static int hook_add(void *uc, size_t *hook, int type, void *callback, void *user, uint64_t begin, uint64_t end,
		    ...)
{
	enum { HOOK_CODE = 4 };

	(void)uc;
	expect(callback && user == guest, "a hook of nobody");
	expect(begin <= end, "a hook on everything");
	if (type == HOOK_CODE)
		site = (void (*)(void *, uint64_t, uint32_t, void *))(uintptr_t)callback;
	*hook = next();
	return next() % 16 == 0;
}

static int hook_del(void *uc, size_t hook)
{
	(void)uc;
	(void)hook;
	return 0;
}

static void *interrupter(void *done)
{
	while (!atomic_load((atomic_bool *)done))
		mmu_guest_interrupt(guest);
	return NULL;
}

/* Tables that often lead somewhere: entries refer to other pages of the same RAM, a few to nothing. */
static void plant_tables(uint8_t *ram)
{
	for (size_t i = 0; i < PAGES * 4096 / 8; i++) {
		uint64_t entry = (next() % (PAGES + 2 * MORE)) * 4096 | (next() & 0x7f) | 0x403;

		memcpy(ram + 8 * i, &entry, 8);
	}
}

static void run(uint32_t arch, mmu_bus *bus, uint8_t *ram, uint8_t *shadow)
{
	struct mmu_guest_ram table = { 0, PAGES * 4096, GUEST_RAM_BASE };
	struct mmu_guest_config config = { .arch = arch, .phys_bits = 48, .bus = bus, .shadow = shadow };
	mmu_port **ports[] = { &config.data, &config.walk, &config.code, &config.probe };
	struct mmu_guest_stop stop;
	atomic_bool done = false;
	pthread_t thread;

	config.engine = (struct mmu_guest_engine){ NULL, reg_read, reg_read_batch, emu_start, emu_stop,
						   control, context, context, reg_write, hook_add, hook_del };
	config.ids = (struct mmu_guest_ids){ .pc = ID_PC, .sp = ID_OTHER, .cr0 = ID_OTHER, .cr3 = ID_OTHER,
		.cr4 = ID_OTHER, .cs = ID_CS, .ss = ID_CS, .flags = ID_OTHER, .msr = ID_MSR, .gdtr = ID_TABLE,
		.idtr = ID_TABLE, .ldtr = ID_TABLE, .tr = ID_TABLE, .pstate = ID_OTHER, .ttbr0 = ID_OTHER,
		.ttbr1 = ID_OTHER, .mair = ID_OTHER, .coprocessor = ID_SYSTEM, .vbar = ID_OTHER };
	config.places = (struct mmu_guest_places){ 0, 24, 152, 156, 160, 164, 176, 168, 172 };
	config.context = config.bus_context = blob;
	config.deliver = 1;
	for (int i = 0; i < 4; i++)
		expect(mmu_port_create(bus, 4, ports[i]) == MMU_OK, "no port");
	expect(mmu_guest_create(&config, &guest) == MMU_OK, "no guest");
	expect(mmu_guest_set_ram(guest, &table, 1) == MMU_OK, "RAM refused");
	for (int i = 0; i < RUNS; i++) {
		uint64_t value;

		if (i % 16 == 0)
			plant_tables(ram);
		mmu_guest_set_shared(guest, next() % 2);
		mmu_guest_begin(guest, next() % 2 ? next() % 100 : 0, next() % 200, 0);
		mmu_guest_run(guest, next() % 2 ? 0x1000 : next(), &stop);
		mmu_guest_load(guest, next(), (uint32_t)(next() % 10), (uint32_t)(1u << next() % 3), &value, &stop);
		mmu_guest_store(guest, next() % (PAGES * 4096), (uint32_t)(next() % 10), MMU_ACCESS_WRITE, next(), &stop);
		mmu_guest_translate(guest, next(), (uint32_t)next() & 0xff, &value, &stop);
	}
	pthread_create(&thread, NULL, interrupter, &done);
	for (int i = 0; i < 200; i++) {
		mmu_guest_resume(guest);
		mmu_guest_run(guest, 0x1000, &stop);
	}
	atomic_store(&done, true);
	pthread_join(thread, NULL);
	mmu_guest_destroy(guest);
	for (int i = 0; i < 4; i++)
		mmu_port_destroy(*ports[i]);
}

/* RAM tables that overlap, wrap around or are not whole pages are refused. */
static void refuse_ram(void)
{
	struct mmu_guest_config config = { .arch = MMU_GUEST_X86_64 };
	const struct mmu_guest_ram bad[][2] = {
		{ { 1, 4096, 0 }, { 0 } }, { { 0, 100, 0 }, { 0 } }, { { 0, 4096, 1 }, { 0 } }, { { 0, 0, 0 }, { 0 } },
		{ { ~UINT64_C(4095), 8192, 0 }, { 0 } }, { { 0, 8192, 0 }, { 4096, 4096, 0 } },
		{ { 8192, 4096, 0 }, { 0, 4096, 0 } },
	};

	expect(mmu_guest_create(&config, &guest) == MMU_OK, "no guest");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		expect(mmu_guest_set_ram(guest, bad[i], bad[i][1].size ? 2 : 1) == MMU_ERANGE, "bad RAM accepted");
	mmu_guest_destroy(guest);
	config.arch = 7;
	expect(mmu_guest_create(&config, &guest) == MMU_ERANGE, "unknown architecture accepted");
}

/* Serial ports by random accesses: output and input stay within their room. */
static void serial_ports(void)
{
	const uint8_t bytes[40] = { 1, 2, 3 };
	uint32_t count;
	uint64_t lost;
	mmu_uart *uart;

	expect(mmu_uart_create(0, &uart) == MMU_ERANGE, "a serial port without room");
	expect(mmu_uart_create(16, &uart) == MMU_OK, "no serial port");
	for (int i = 0; i < 20000; i++) {
		uint64_t offset = next() % 0x1100, value = next();

		mmu_uart_16550_write(uart, next(), 1, value);
		mmu_uart_pl011_write(uart, offset, 4, value);
		mmu_uart_16550_read(uart, next(), 1, &value);
		mmu_uart_pl011_read(uart, offset, 4, &value);
		expect(mmu_uart_feed(uart, bytes, (uint32_t)(next() % sizeof(bytes))) <= 16, "fed too much");
		mmu_uart_output(uart, &count, &lost);
		expect(count <= 16, "too much output");
		if (next() % 64 == 0)
			mmu_uart_clear(uart);
	}
	mmu_uart_destroy(uart);
}

int main(void)
{
	struct mmu_range ranges[1];
	mmu_hostmem *ram, *shadow;
	uint64_t generation;
	mmu_bus *bus;

	if (mmu_bus_create(&bus) || mmu_hostmem_create((PAGES + MORE) * 4096, &ram) ||
	    mmu_hostmem_create(mmu_guest_shadow_size(), &shadow))
		return 1;
	memset(ranges, 0, sizeof(ranges));
	ranges[0] = (struct mmu_range){ .first = 0, .last = (PAGES + MORE) * 4096 - 1, .kind = MMU_RANGE_RAM,
					.host = mmu_hostmem_address(ram) };
	if (mmu_bus_publish(bus, ranges, 1, &generation))
		return 1;
	mmu_guest_hooks(&hooks);
	refuse_ram();
	serial_ports();
	for (uint32_t arch = 0; arch < 2; arch++)
		run(arch, bus, mmu_hostmem_address(ram), mmu_hostmem_address(shadow));
	mmu_hostmem_destroy(shadow);
	mmu_bus_destroy(bus);
	mmu_hostmem_destroy(ram);
	return 0;
}
