/* A guest's life, and what its other parts share. */
#include "deliver.h"
#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* unicorn.h: UC_CTL_WRITE(UC_CTL_TB_FLUSH, 0), UC_CTL_WRITE(UC_CTL_TLB_FLUSH, 0) */
enum { CONTROL_FLUSH_TB = 10 | 1 << 30, CONTROL_FLUSH_TLB = 11 | 1 << 30 };
enum { CLOSE_TRIES = 1 << 20 };	/* yields of the CPU, until a run has ended */

uint64_t mmu_guest_bus_base(void) { return GUEST_BUS_BASE; }
uint64_t mmu_guest_bus_size(void) { return GUEST_BUS_SIZE; }
uint64_t mmu_guest_whole_base(void) { return GUEST_WHOLE_BASE; }
uint64_t mmu_guest_ram_base(void) { return GUEST_RAM_BASE; }
uint64_t mmu_guest_shadow_base(void) { return GUEST_SHADOW_BASE; }
uint64_t mmu_guest_shadow_size(void) { return CODE_SLOTS * GUEST_PAGE; }
uint64_t mmu_guest_mirror_base(void) { return GUEST_MIRROR_BASE; }
uint64_t mmu_guest_scratch_base(void) { return GUEST_SCRATCH_BASE; }
uint64_t mmu_guest_nowhere_base(void) { return GUEST_NOWHERE_BASE; }

static void own_ports(struct mmu_guest *g, struct exclusive *owner)
{
	mmu_port *ports[] = { g->c.data, g->c.walk, g->c.code, g->c.probe, g->c.io };

	for (uint32_t i = 0; i < sizeof(ports) / sizeof(ports[0]); i++)
		if (ports[i])
			port_own(ports[i], owner);
}

int mmu_guest_create(const struct mmu_guest_config *config, mmu_guest **ret)
{
	mmu_guest *g;

	if (config->arch > MMU_GUEST_AARCH64)
		return MMU_ERANGE;
	g = calloc(1, sizeof(*g));
	if (!g)
		return MMU_ENOMEM;
	if (mmu_tlb_create(GUEST_TLB_ENTRIES, &g->tlb.tlb) != MMU_OK) {
		free(g);
		return MMU_ENOMEM;
	}
	g->c = *config;
	own_ports(g, &g->exclusive);
	exclusive_enroll(&g->exclusive);
	g->arch = config->arch == MMU_GUEST_X86_64 ? &guest_x86 : &guest_arm64;
	exclusive_want(&g->exclusive, EXCLUSIVE_SEARCHES, g->arch->notes_blocks);
	*ret = g;
	return MMU_OK;
}

void mmu_guest_close(mmu_guest *g)
{
	if (g->closed)
		return;
	/* When the process ends, a thread that nobody waits for may still be in a run. */
	mmu_guest_interrupt(g);
	for (unsigned tries = 0; atomic_load(&g->exclusive.inside) && tries < CLOSE_TRIES; tries++)
		sched_yield();
	g->closed = true;
	guest_code_unwatch(g);
	guest_windows_give(g);
	own_ports(g, NULL);
	exclusive_resign(&g->exclusive);
}

void mmu_guest_destroy(mmu_guest *g)
{
	if (!g)
		return;
	mmu_guest_close(g);
	mmu_tlb_destroy(g->tlb.tlb);
	free(g->windows.slots);
	free(g->windows.pages);
	free(g->windows.pins);
	free(g->banks);
	free(g->ram);
	free(g);
}

int mmu_guest_set_ram(mmu_guest *g, const struct mmu_guest_ram *ram, uint32_t count)
{
	struct mmu_guest_ram *copy;

	for (uint32_t i = 0; i < count; i++) {
		const struct mmu_guest_ram *r = &ram[i];

		if ((r->hpa | r->size | r->engine) & (GUEST_PAGE - 1) || !r->size ||
		    r->hpa + (r->size - 1) < r->hpa)
			return MMU_ERANGE;
		if (i && r->hpa - ram[i - 1].hpa < ram[i - 1].size)
			return MMU_ERANGE;
		if (i && r->hpa < ram[i - 1].hpa)
			return MMU_ERANGE;
	}
	copy = calloc(count ? count : 1, sizeof(*copy));
	if (!copy)
		return MMU_ENOMEM;
	memcpy(copy, ram, count * sizeof(*copy));
	free(g->ram);
	g->ram = copy;
	g->ram_count = count;
	g->ram_last = 0;
	g->ram_serial = bus_serial(g->c.bus);
	g->code_stale = true;
	return MMU_OK;
}

int mmu_guest_set_banks(mmu_guest *g, const struct mmu_guest_bank *banks, uint32_t count)
{
	struct mmu_guest_bank *copy = calloc(count ? count : 1, sizeof(*copy));

	if (!copy)
		return MMU_ENOMEM;
	memcpy(copy, banks, count * sizeof(*copy));
	free(g->banks);
	g->banks = copy;
	g->bank_count = count;
	return MMU_OK;
}

void guest_flush_tlb(struct mmu_guest *g)
{
	g->c.engine.control(g->c.engine.uc, CONTROL_FLUSH_TLB);
}

/* The engine looks up where the hook was, to forget what it has translated there, and has forgotten all of it. */
void mmu_guest_unhook(mmu_guest *g, uint64_t hook)
{
	enum guest_phase phase = g->phase;

	g->phase = GUEST_DROPPING;
	g->dropping = GUEST_SCRATCH_BASE;
	g->c.engine.hook_del(g->c.engine.uc, hook);
	g->phase = phase;
}

void mmu_guest_flush(mmu_guest *g)
{
	uint64_t serial;

	guest_code_forget(g);
	g->code_stale = false;
	g->sharing = atomic_load_explicit(&g->shared, memory_order_relaxed);
	g->view.host = NULL;
	g->c.engine.control(g->c.engine.uc, CONTROL_FLUSH_TB);
	guest_sites_forget(g);
	guest_flush_tlb(g);
	g->watch = g->arch->watch ? g->arch->watch(g) : 0;
	guest_code_look_later(g);
	g->tlb.blind = false;
	serial = guest_map_serial(g);
	/* Relaxed: who saw the serial of a map sees what was said of it before. */
	g->aliases.any = atomic_load_explicit(&g->c.bus->aliased, memory_order_relaxed);
	if (serial == g->serial)
		return;
	guest_windows_give(g);
	g->serial = serial;
}

void mmu_guest_begin(mmu_guest *g, uint64_t instructions, uint64_t exceptions, uint32_t services)
{
	guest_windows_give(g);
	g->windows.services = services;
	g->sites.drop = (instructions && !g->limit) || g->traced;
	g->limit = instructions ? g->counters.instructions + instructions : 0;
	g->exception_limit = exceptions ? g->counters.exceptions + exceptions : 0;
	g->delivered_count = 0;
	g->string.under_way = false;
	g->serialized = false;
	g->counters.error_access = 0;
	exclusive_want(&g->exclusive, EXCLUSIVE_RESUMES, g->arch->notes_blocks);
	guest_code_watch(g);
	guest_tlb_flush(g);	/* the host may have changed tables and registers */
	mmu_guest_flush(g);
}

void mmu_guest_end(mmu_guest *g)
{
	guest_code_unwatch(g);
	g->windows.services = 0;
	g->view.host = NULL;
	guest_windows_give(g);	/* the engine forgets them before it runs again */
}

void mmu_guest_set_shared(mmu_guest *g, bool shared)
{
	atomic_store_explicit(&g->shared, shared, memory_order_relaxed);
}

void mmu_guest_set_traced(mmu_guest *g, bool traced)
{
	g->traced = traced;
}

void mmu_guest_set_whole(mmu_guest *g, bool whole)
{
	g->in_whole = whole;
}

void mmu_guest_share(mmu_guest *g)
{
	struct exclusive caller = { 0 };	/* not enrolled: nobody waits for it */

	exclusive_begin(&caller);
	atomic_store_explicit(&g->shared, true, memory_order_relaxed);
	exclusive_call(&g->exclusive);	/* its atomic instructions are to be found */
	exclusive_end(&caller);
}

void mmu_guest_set_mirror(mmu_guest *g, mmu_mirror *mirror)
{
	g->c.mirror = mirror;
}

void mmu_guest_interrupt(mmu_guest *g)
{
	/* Release: pairs with the acquire in guest_stop_requested(); the caller's reason is set before. */
	atomic_store_explicit(&g->interrupted, true, memory_order_release);
	exclusive_call(&g->exclusive);
}

int mmu_guest_exit(void *ctx, uint64_t offset, uint32_t size, uint64_t value)
{
	struct mmu_guest *g = ctx;

	(void)offset;
	(void)size;
	atomic_store_explicit(&g->exit_value, (uint32_t)value, memory_order_relaxed);
	/* Release: pairs with the acquire in guest_stop_requested(); the value is seen. */
	atomic_store_explicit(&g->exited, true, memory_order_release);
	exclusive_call(&g->exclusive);
	return MMU_MEMTX_OK;
}

bool mmu_guest_exited(const mmu_guest *g, uint32_t *ret)
{
	/* Acquire: pairs with the release in mmu_guest_exit(); its value is seen. */
	bool exited = atomic_load_explicit(&g->exited, memory_order_acquire);

	*ret = atomic_load_explicit(&g->exit_value, memory_order_relaxed);
	return exited;
}

void mmu_guest_resume(mmu_guest *g)
{
	/* Relaxed: on the thread that runs it next. */
	atomic_store_explicit(&g->exited, false, memory_order_relaxed);
	atomic_store_explicit(&g->interrupted, false, memory_order_relaxed);
}

const struct mmu_guest_counters *mmu_guest_counters(const mmu_guest *g)
{
	return &g->counters;
}

uint64_t mmu_guest_time(const mmu_guest *g)
{
	return g->time;
}

void mmu_guest_set_time(mmu_guest *g, uint64_t time)
{
	g->time = time;
}

uint64_t guest_register(struct mmu_guest *g, int id)
{
	uint64_t value = 0;

	g->c.engine.reg_read(g->c.engine.uc, id, &value);
	return value;
}

void guest_set_register(struct mmu_guest *g, int id, uint64_t value)
{
	uint64_t wide[2] = { value, 0 };

	g->c.engine.reg_write(g->c.engine.uc, id, wide);
}

uint8_t *guest_blob_save(struct mmu_guest *g)
{
	g->c.engine.context_save(g->c.engine.uc, g->c.context);
	return g->c.context;
}

void guest_blob_restore(struct mmu_guest *g)
{
	g->c.engine.context_restore(g->c.engine.uc, g->c.context);
}

void guest_delivered(struct mmu_guest *g, uint64_t pc, const struct mmu_guest_event *event, uint64_t handler)
{
	g->counters.exceptions++;
	if (g->delivered_count < DELIVERED_KEPT)
		g->delivered[g->delivered_count++] = (struct mmu_guest_delivered){
			.pc = pc, .handler = handler, .event = *event };
}

const struct mmu_guest_delivered *mmu_guest_delivered(const mmu_guest *g, uint32_t *count_ret)
{
	*count_ret = g->delivered_count;
	return g->delivered;
}

uint64_t mmu_guest_trace(mmu_guest *g, struct mmu_guest_mark *marks, uint64_t capacity)
{
	uint64_t count = g->mark_count;

	g->marks = marks;
	g->mark_capacity = marks ? capacity : 0;
	g->mark_count = 0;
	return count;
}

/* A walk on behalf of the guest is over: counts it, and notes where it stands in the trace. */
void guest_count_walk(struct mmu_guest *g, int rc)
{
	g->counters.walks++;
	g->counters.faults += rc == MMU_FAULTED;
	if (!g->marks)
		return;
	if (g->mark_count < g->mark_capacity)
		g->marks[g->mark_count] = (struct mmu_guest_mark){
			mmu_port_trace_used(g->c.data), mmu_port_trace_used(g->c.walk) };
	g->mark_count++;
}

/* A walk on behalf of the guest: counted, traced, and with its effects on the tables. */
int guest_walk(struct mmu_guest *g, uint64_t va, uint32_t access, struct guest_translation *ret,
	       struct mmu_guest_stop *stop)
{
	int rc = g->arch->walk(g, g->c.walk, va, access, true, ret, stop);

	guest_count_walk(g, rc);
	return rc;
}
