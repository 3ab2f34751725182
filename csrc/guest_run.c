/* The run loop: from one stop that wants attention to the next, with what C settles by itself in between. */
#include "decode_x86.h"
#include "deliver.h"

/* unicorn.h: uc_err */
enum { ENGINE_OK = 0, ENGINE_INSN_INVALID = 10, ENGINE_EXCEPTION = 21 };

/* Where no program counter ever is: not canonical, odd. */
#define UNREACHABLE ((UINT64_C(1) << 63) | 1)

/*
 * Lets the engine run until it ends, also where PC equals `until` if that is not 0, or for one instruction; where it
 * begins this one again, for both. Returns its error. When it ends it drops what it translated from the byte before
 * `until`.
 *
 * The engine ends by itself where it is told to, and 0 is the only value that costs nothing; so
 * a guest that goes to address 0 comes back here and goes on under an end that it cannot reach.
 */
static int run_once(struct mmu_guest *g, uint64_t pc, enum guest_phase phase, uint64_t until)
{
	const struct mmu_guest_engine *e = &g->c.engine;
	bool alone = phase == GUEST_STEPPING;
	int error;

	g->phase = phase;
	g->event = GUEST_NO_EVENT;
	g->block.hooked = g->block.fetched = false;
	g->whole = (struct guest_whole){ 0 };
	g->stop = (struct mmu_guest_stop){ 0 };
	g->until = pc || until ? until : UNREACHABLE;
	for (;;) {
		error = e->emu_start(e->uc, pc, g->until, 0, alone + (alone && g->again));
		pc = guest_register(g, g->c.ids.pc);
		if (error == ENGINE_EXCEPTION && (g->until || !pc) && !g->event)
			error = ENGINE_OK;	/* that of the look-up which is_end() refused */
		if (error || pc || g->until || g->event || alone)
			break;
		g->until = UNREACHABLE;
	}
	if (g->undo) {
		e->context_restore(e->uc, g->c.bus_context);
		pc = guest_register(g, g->c.ids.pc);
		g->undo = false;
	}
	guest_flags_put_back(g, pc, error == ENGINE_INSN_INVALID);
	g->until = 0;
	g->phase = GUEST_RUNNING;
	g->stop.pc = pc;
	return error;
}

/* Whether the guest wrote to its exit; g->stop then says so. */
static bool exited(struct mmu_guest *g)
{
	/* Acquire: pairs with the release in mmu_guest_exit(); its value is seen. */
	if (!atomic_load_explicit(&g->exited, memory_order_acquire))
		return false;
	g->stop.kind = MMU_GUEST_EXIT;
	g->stop.number = atomic_load_explicit(&g->exit_value, memory_order_relaxed);
	return true;
}

/* The stop that somebody asked for. False: nobody did. */
static bool requested(struct mmu_guest *g)
{
	if (exited(g))
		return true;
	/* Acquire: pairs with the release in mmu_guest_interrupt(). */
	if (!atomic_load_explicit(&g->interrupted, memory_order_acquire))
		return false;
	g->stop.kind = MMU_GUEST_INTERRUPTED;
	return true;
}

/* What ended the engine without a callback: a request to stop never does, so the guest has halted. */
static void classify(struct mmu_guest *g, int error)
{
	g->stop.number = (uint32_t)error;
	if (error != ENGINE_OK)
		g->stop.kind = error == ENGINE_INSN_INVALID ? MMU_GUEST_INVALID : MMU_GUEST_ENGINE;
	else if (!exited(g))
		g->stop.kind = MMU_GUEST_HALTED;
}

/* The instruction at PC will be run again: it counts once. One that was not even fetched has not been counted. */
static void uncount(struct mmu_guest *g)
{
	if (g->limit && g->counters.instructions && !(g->stop.access & MMU_ACCESS_FETCH))
		g->counters.instructions--;
}

/* Makes the address of a fault or a bus error exact. */
static void locate(struct mmu_guest *g)
{
	uint64_t pc = g->stop.pc;
	bool bus = g->stop.kind == MMU_GUEST_BUS_ERROR;

	if (!bus && g->stop.exact)
		return;		/* an access of the CPU itself */
	if (g->stop.access & MMU_ACCESS_FETCH) {
		if (!g->stop.exact && (pc & GUEST_PAGE_MASK) == g->stop.va)
			g->stop.va = pc;
		g->stop.exact = 1;
		if (!bus && g->arch->undo_branch)
			g->arch->undo_branch(g);
	} else {
		if (bus)
			g->c.engine.context_restore(g->c.engine.uc, g->c.bus_context);
		guest_probe(g);
	}
	if (bus)
		guest_bus_error(g, g->stop.hpa, g->stop.size, g->stop.access, (int)g->stop.result);
}

/* A register that x86 alone has: the engine complains of one that it does not. */
static uint64_t general(struct mmu_guest *g, unsigned number)
{
	return g->c.arch == MMU_GUEST_X86_64 ? guest_register(g, g->c.ids.general[number]) : 0;
}

/*
 * The instruction at PC was begun, did nothing, and has ended: it stores to the block that it is in. The engine of x86
 * then begins it once more, as a block of its own, and counts it twice. Returns where it ends; 0: it was not like that.
 */
static uint64_t begun_again(struct mmu_guest *g, const uint64_t before[3], int error)
{
	struct x86_instruction i;

	if (g->c.arch != MMU_GUEST_X86_64 || error != ENGINE_OK || g->event || g->stop.pc != before[0] ||
	    general(g, RCX) != before[1] || general(g, RSP) != before[2])
		return 0;
	return x86_decode_at(g, g->stop.pc, &i) ? g->stop.pc + i.length : 0;
}

/* Runs the instruction at PC alone, then drops all code. Returns the engine's error. */
static int step(struct mmu_guest *g)
{
	const uint64_t before[] = { g->stop.pc, general(g, RCX), general(g, RSP) };
	uint64_t end;
	int error;

	uncount(g);
	mmu_guest_flush(g);
	error = run_once(g, g->stop.pc, GUEST_STEPPING, 0);
	end = begun_again(g, before, error);
	if (end) {
		g->again = true;
		error = run_once(g, g->stop.pc, GUEST_STEPPING, end);
		g->again = false;
	}
	g->surplus = 0;
	mmu_guest_flush(g);
	return error;
}

/* Runs the atomic instruction at PC alone, as often as it is lost to others. Returns the engine's error. */
static int run_atomic(struct mmu_guest *g)
{
	const struct mmu_guest_engine *e = &g->c.engine;
	uint64_t pc = g->stop.pc;
	bool alone = false;
	int error;

	/* A hook stops the engine at the next instruction; but what is on another page may be translated without it. */
	if ((g->atomic_next ^ pc) & GUEST_PAGE_MASK)
		mmu_guest_flush(g);
	e->context_save(e->uc, g->c.tried_context);
	if (g->counted_at == pc)
		uncount(g);
	do {
		g->atomic = (struct guest_atomic){ .alone = alone };
		guest_flush_tlb(g);
		if (alone)
			exclusive_begin(&g->exclusive);
		error = run_once(g, pc, GUEST_ATOMIC, 0);
		if (alone)
			exclusive_end(&g->exclusive);
		if (!g->atomic.lost)
			break;
		alone = g->atomic.wide;
		e->context_restore(e->uc, g->c.tried_context);
		g->stop = (struct mmu_guest_stop){ .pc = pc };
		g->event = GUEST_CALLED;	/* whatever came behind it did not */
		uncount(g);
	} while (alone || !exclusive_is_called(&g->exclusive));
	guest_flush_tlb(g);
	return error;
}

/* Returns true when the engine must go on at g->stop.pc. */
static bool handle(struct mmu_guest *g, int error)
{
	unsigned approaches = 0;
	bool alone = false;

	for (;;) {
		uint64_t until = 0;
		bool atomic = false;

		switch (g->event) {
		case GUEST_NO_EVENT:
			if (alone && error == ENGINE_OK)
				return true;
			classify(g, error);
			return false;
		case GUEST_CODE_FULL:
		case GUEST_MAP_CHANGED:
			uncount(g);
			mmu_guest_flush(g);
			return true;
		case GUEST_STRICTER:
			if (g->counted_at == g->stop.pc)
				uncount(g);
			mmu_guest_flush(g);
			return true;
		case GUEST_AFRESH:
			if (g->counted_at == g->stop.pc)
				uncount(g);
			return true;
		case GUEST_CALLED:
			return true;
		case GUEST_ATOMIC_NEXT:
			atomic = true;
			break;
		case GUEST_CODE_WRITE:
			g->counters.steps++;
			break;
		case GUEST_STOPPED:
			if (g->stop.kind != MMU_GUEST_FAULT && g->stop.kind != MMU_GUEST_BUS_ERROR)
				return false;
			if (exited(g))	/* the program was over before this instruction */
				return false;
			/* What was translated when more was there may be in the way; but not twice: see run_once(). */
			if (g->arch->fetch_reaches && approaches < 2)
				until = g->arch->fetch_reaches(g);
			if (until)
				break;
			if (!g->arch->loads_too_much || !g->arch->loads_too_much(g)) {
				locate(g);
				return false;
			}
			g->surplus = g->stop.va | 1;
			break;
		}
		if (until)
			error = run_once(g, g->stop.pc, GUEST_RUNNING, until);
		else
			error = atomic ? run_atomic(g) : step(g);
		approaches += until != 0;
		alone = true;
	}
}

/* Whether the run must end before the instruction at pc; g->stop then says why. */
static bool ended(struct mmu_guest *g, uint64_t pc)
{
	bool last = g->exception_limit && g->counters.exceptions >= g->exception_limit;

	if (!last && !guest_stop_requested(g))
		return false;
	g->stop = (struct mmu_guest_stop){ .kind = MMU_GUEST_LIMIT, .number = 1, .pc = pc };
	requested(g);
	return true;
}

/* From one stop that is not settled here to the next: g->stop. */
static void run_to_stop(struct mmu_guest *g, uint64_t pc)
{
	g->block.size = 0;
	while (!ended(g, pc)) {
		int error;

		if (exclusive_called(&g->exclusive)) {
			exclusive_leave(&g->exclusive);	/* if somebody wants to be alone, this is the time */
			exclusive_enter(&g->exclusive);
			continue;
		}
		if (g->code_stale || guest_map_changed(g) || guest_code_changed(g))
			mmu_guest_flush(g);
		g->raised = false;
		error = run_once(g, pc, GUEST_RUNNING, 0);
		if (handle(g, error)) {
			pc = g->stop.pc;
			continue;
		}
		if (g->raised && (g->stop.kind == MMU_GUEST_FAULT || g->stop.kind == MMU_GUEST_BUS_ERROR))
			g->stop.kind = MMU_GUEST_CALLBACK;
		if (!g->c.deliver || !g->arch->handle(g, &pc))
			return;
		g->block.size = 0;
	}
}

int mmu_guest_run(mmu_guest *g, uint64_t pc, struct mmu_guest_stop *ret)
{
	exclusive_enter(&g->exclusive);
	run_to_stop(g, pc);
	exclusive_leave(&g->exclusive);
	*ret = g->stop;
	return MMU_OK;
}
