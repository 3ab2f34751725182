/* Hooks of the engine: those that only note why it must stop, and ports. */
#include "deliver.h"

/* Notes why the engine must end; the first reason stands. */
void guest_stop(struct mmu_guest *g, enum mmu_guest_stop_kind kind)
{
	if (guest_stopping(g))
		return;
	g->event = GUEST_STOPPED;
	g->stop.kind = kind;
}

/* The instruction that comes next is not to be. */
void guest_refuse(struct mmu_guest *g, enum mmu_guest_stop_kind kind)
{
	guest_stop(g, kind);
	g->c.engine.emu_stop(g->c.engine.uc);
}

static void stop_engine(struct mmu_guest *g, enum mmu_guest_stop_kind kind, uint32_t number)
{
	if (g->phase == GUEST_PROBING || guest_stopping(g))
		return;
	guest_stop(g, kind);
	g->stop.number = number;
	g->c.engine.emu_stop(g->c.engine.uc);
}

static void on_interrupt(void *uc, uint32_t number, void *user)
{
	(void)uc;
	stop_engine(user, MMU_GUEST_INTERRUPT, number);
}

static void on_syscall(void *uc, void *user)
{
	struct mmu_guest *g = user;

	(void)uc;
	if (g->phase == GUEST_PROBING || guest_stopping(g))
		return;
	stop_engine(g, MMU_GUEST_SYSCALL, (uint32_t)guest_register(g, g->c.ids.dr6));
	g->stop.va = guest_register(g, g->c.ids.pc);
}

/* A block is counted or searched, and nothing else is to do before it. */
static bool goes_on(struct mmu_guest *g)
{
	if (exclusive_wants(&g->exclusive, EXCLUSIVE_SEARCHES))
		guest_block_check(g, g->block.pc, g->block.size);
	if (exclusive_wants(&g->exclusive, EXCLUSIVE_RESUMES) && g->phase != GUEST_PROBING)
		guest_flags_resume(g);
	if (exclusive_is_called(&g->exclusive))
		return false;
	if (!exclusive_wants(&g->exclusive, EXCLUSIVE_COUNTS) || (g->look_in && --g->look_in))
		return true;
	g->look = true;
	return false;
}

/* Out of line, so that most blocks save no registers. */
static __attribute__((noinline)) void attend(struct mmu_guest *g)
{
	if (goes_on(g))
		return;
	if (g->phase == GUEST_PROBING) {
		if (g->probe.begun)
			g->c.engine.emu_stop(g->c.engine.uc);	/* it did not fail again: others changed the tables */
		g->probe.begun = true;
		return;
	}
	if (g->phase != GUEST_RUNNING || guest_stopping(g))
		return;
	g->event = GUEST_CALLED;
	g->c.engine.emu_stop(g->c.engine.uc);
}

/*
 * Before each block of instructions. A run is ended from outside here and nowhere else: when told at any other time,
 * the engine gives up an instruction that has already stored, and hooks are passed over.
 */
static void on_block(void *uc, uint64_t address, uint32_t size, void *user)
{
	struct mmu_guest *g = user;

	(void)uc;
	if (__builtin_expect(g->block.fetched && address == g->hooked_at, 0))
		guest_flags_again(g, address, size);
	g->block = (struct guest_block){ .pc = address, .size = size };
	if (__builtin_expect(atomic_load_explicit(&g->exclusive.attention, memory_order_relaxed) != 0, 0))
		attend(g);
}

/* Before each instruction, when instructions are counted. */
static void on_code(void *uc, uint64_t address, uint32_t size, void *user)
{
	struct mmu_guest *g = user;

	(void)uc;
	if (g->phase == GUEST_ATOMIC && address != g->atomic_pc)
		return;
	if (g->phase == GUEST_PROBING || (guest_stopping(g) && g->event != GUEST_ATOMIC_NEXT))
		return;
	guest_flags_note(g, address, size);
	if (g->again && address == g->counted_at)
		return;
	if (g->limit && g->counters.instructions >= g->limit) {
		g->event = GUEST_NO_EVENT;
		stop_engine(g, MMU_GUEST_LIMIT, 0);
	} else {
		g->counters.instructions++;
		g->counted_at = address;
	}
}

/* The instruction under way is not to be. The engine goes on to the end of its block after a hook: all it does there is
   undone, or refused at its TLB. */
void guest_undo(struct mmu_guest *g)
{
	g->c.engine.context_save(g->c.engine.uc, g->c.bus_context);
	g->undo = true;
	g->c.engine.emu_stop(g->c.engine.uc);
	guest_flush_tlb(g);
}

static void port_failed(struct mmu_guest *g)
{
	guest_stop(g, MMU_GUEST_CALLBACK);
	guest_undo(g);
}

/* Where no device answers, reads give ones, as an empty bus does. */
static uint32_t on_port_in(void *uc, uint32_t port, int size, void *user)
{
	uint32_t nothing = UINT32_MAX >> (size == 1 ? 24 : size == 2 ? 16 : 0);
	struct mmu_guest *g = user;
	uint64_t value;
	int rc;

	(void)uc;
	if (g->phase == GUEST_PROBING || guest_stopping(g))
		return nothing;
	guest_flags_keep(g);
	if (!guest_port_permitted(g, port, (uint32_t)size)) {
		guest_undo(g);
		return nothing;
	}
	g->counters.port_reads++;
	if (!g->c.io)
		return nothing;
	rc = mmu_port_load(g->c.io, port, (uint32_t)size, &value);
	guest_device_acted(g);
	if (rc < 0)
		port_failed(g);
	return rc == MMU_MEMTX_OK ? (uint32_t)value : nothing;
}

static void on_port_out(void *uc, uint32_t port, int size, uint32_t value, void *user)
{
	struct mmu_guest *g = user;
	int rc;

	(void)uc;
	if (g->phase == GUEST_PROBING || guest_stopping(g))
		return;
	guest_flags_keep(g);
	if (!guest_port_permitted(g, port, (uint32_t)size)) {
		guest_undo(g);
		return;
	}
	g->counters.port_writes++;
	if (!g->c.io)
		return;
	rc = mmu_port_store(g->c.io, port, (uint32_t)size, value);
	guest_device_acted(g);
	if (rc < 0)
		port_failed(g);
}

void mmu_guest_hooks(struct mmu_guest_hooks *ret)
{
	*ret = (struct mmu_guest_hooks){
		.fill = (void *)(uintptr_t)guest_fill,
		.unmapped = (void *)(uintptr_t)guest_unmapped,
		.interrupt = (void *)(uintptr_t)on_interrupt,
		.code = (void *)(uintptr_t)on_code,
		.block = (void *)(uintptr_t)on_block,
		.system = (void *)(uintptr_t)guest_on_system,
		.mrs = (void *)(uintptr_t)guest_on_mrs,
		.rdtsc = (void *)(uintptr_t)guest_on_rdtsc,
		.rdtscp = (void *)(uintptr_t)guest_on_rdtscp,
		.cpuid = (void *)(uintptr_t)guest_on_cpuid,
		.translated = (void *)(uintptr_t)guest_on_translated,
		.x86_translated = (void *)(uintptr_t)guest_on_x86_translated,
		.syscall = (void *)(uintptr_t)on_syscall,
		.port_in = (void *)(uintptr_t)on_port_in,
		.port_out = (void *)(uintptr_t)on_port_out,
		.access = (void *)(uintptr_t)guest_on_access,
		.bus_read = (void *)(uintptr_t)guest_bus_read,
		.bus_write = (void *)(uintptr_t)guest_bus_write,
		.whole_read = (void *)(uintptr_t)guest_whole_read,
		.whole_write = (void *)(uintptr_t)guest_whole_write,
	};
}
