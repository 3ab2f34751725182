/*
 * What an arm64 CPU checks before an instruction and the engine does not: whether FP is trapped (CPACR_EL1.FPEN), that
 * SP is aligned where memory is accessed through it (SCTLR_EL1.SA and SA0), that addresses are (SCTLR_EL1.A), and that
 * an ERET goes where there is something.
 *
 * All are sites: code is searched for what the registers, as they are, may have to refuse. Where an instruction may
 * change that, the one behind it is a site as well, and when it did all code is searched again. So a guest whose SP
 * stays aligned, whose FP is on and whose SCTLR_EL1.A is 0 pays for a hook on ERET, and on what moves SP otherwise than
 * by multiples of 16. LDAR and its like must be aligned in any case, but a kernel is full of them, and the more hooks
 * there are the more each costs: they are checked with the others.
 * Source: Arm ARM DDI 0487, pseudocode CheckFPEnabled64, CheckSPAlignment, AArch64.CheckAlignment.
 */
#include "decode_arm64.h"
#include "deliver.h"

enum { FPEN_SHIFT = 20, FPEN_EL1 = 1, FPEN_NONE = 3 };	/* what traps EL0 alone, and nobody */
enum { SP_BITS = 15 };
enum { MODE_RESERVED = 1 << 1, MODE_EL2_OR_EL3 = 1 << 3 };	/* of SPSR_EL1.M */

/* What code is searched for. */
enum watch {
	WATCH_FLOATING = 1,
	WATCH_ACCESSES = 2,	/* of memory: their alignment */
	WATCH_STACK = 4,	/* accesses through SP: one of the stack pointers is not aligned */
	WATCH_SP = 8		/* what moves SP */
};

static uint64_t control(struct mmu_guest *g, uint32_t op2)	/* 0: SCTLR_EL1, 2: CPACR_EL1 */
{
	struct system_register r = { .crn = 1, .crm = 0, .op0 = 3, .op1 = 0, .op2 = op2 };

	guest_system_register(g, &r, false);
	return r.value;
}

/* Any of them: they change places at exceptions, ERET and MSR SPSel, which need not be watched so. */
static bool some_sp_is_odd(struct mmu_guest *g)
{
	const struct mmu_guest_ids *id = &g->c.ids;

	return (guest_register(g, id->sp) | guest_register(g, id->sp_el0) | guest_register(g, id->sp_el1)) & SP_BITS;
}

uint32_t guest_arm64_watch(struct mmu_guest *g)
{
	uint64_t sctlr = control(g, 0);
	uint32_t watch = (sctlr & ARM64_SCTLR_A) ? WATCH_ACCESSES : 0;

	if ((control(g, 2) >> FPEN_SHIFT & 3) != FPEN_NONE)
		watch |= WATCH_FLOATING;
	if (sctlr & (ARM64_SCTLR_SA | ARM64_SCTLR_SA0))
		watch |= WATCH_SP | (some_sp_is_odd(g) ? WATCH_STACK : 0);
	return watch;
}

/* ---- before an instruction ---- */

static bool at_el0(struct mmu_guest *g)
{
	return !(guest_register(g, g->c.ids.pstate) & GUEST_PSTATE_EL);
}

static bool floating_is_trapped(struct mmu_guest *g)
{
	unsigned fpen = control(g, 2) >> FPEN_SHIFT & 3;

	return fpen != FPEN_NONE && (fpen != FPEN_EL1 || at_el0(g));
}

static bool sp_is_misaligned(struct mmu_guest *g)
{
	if (!(guest_register(g, g->c.ids.sp) & SP_BITS))
		return false;
	return control(g, 0) & (at_el0(g) ? ARM64_SCTLR_SA0 : ARM64_SCTLR_SA);
}

static uint64_t general(struct mmu_guest *g, unsigned number)
{
	return number == ARM64_SP ? guest_register(g, g->c.ids.sp) : guest_register(g, g->c.ids.x[number]);
}

/* Source: pseudocode ExtendReg. */
static uint64_t extended(uint64_t value, const struct arm64_operand *o)
{
	if ((o->option & 3) == 2)	/* a word */
		value = o->option & 4 ? (uint64_t)(int64_t)(int32_t)value : (uint32_t)value;
	return value << o->shift;
}

static uint64_t address_of(struct mmu_guest *g, uint64_t pc, const struct arm64_operand *o)
{
	uint64_t base = o->base == ARM64_XZR ? pc : general(g, o->base);

	return base + (uint64_t)o->offset + (o->index == ARM64_XZR ? 0 : extended(general(g, o->index), o));
}

static void trap(struct mmu_guest *g, enum mmu_guest_trap number)
{
	guest_refuse(g, MMU_GUEST_TRAP);
	g->stop.number = number;
}

/* A data abort, before any translation. */
static void refuse_address(struct mmu_guest *g, uint64_t va, const struct arm64_operand *o)
{
	uint32_t access = o->write ? MMU_ACCESS_WRITE : MMU_ACCESS_READ;

	guest_refuse(g, MMU_GUEST_FAULT);
	g->stop.arm64 = (struct mmu_arm64_fault){ .va = va, .kind = MMU_FAULT_ALIGNMENT, .access = access, .stage = 1 };
	g->stop.va = va;
	g->stop.access = access;
	g->stop.size = o->size;
	g->stop.exact = 1;
}

/* To AArch32, EL2, EL3, EL0 with a stack of its own, or a reserved mode. Source: pseudocode IllegalExceptionReturn. */
static bool returns_illegally(struct mmu_guest *g)
{
	struct system_register spsr = { .crn = 4, .crm = 0, .op0 = 3, .op1 = 0, .op2 = 0 };

	guest_system_register(g, &spsr, false);
	return (spsr.value & (GUEST_PSTATE_AARCH32 | MODE_RESERVED | MODE_EL2_OR_EL3)) ||
	       (spsr.value & (GUEST_PSTATE_EL | GUEST_PSTATE_SP)) == GUEST_PSTATE_SP;
}

/* Whether the instruction at pc, which comes next, may run; else the engine is told to stop. */
bool guest_arm64_permitted(struct mmu_guest *g, uint64_t pc, uint32_t word)
{
	struct arm64_operand o;
	uint64_t va;

	if (arm64_is_floating(word) && floating_is_trapped(g)) {
		trap(g, MMU_GUEST_TRAP_FLOATING);
		return false;
	}
	if (arm64_through_sp(word) && sp_is_misaligned(g)) {
		trap(g, MMU_GUEST_TRAP_STACK);
		return false;
	}
	if (arm64_is_eret(word) && !at_el0(g) && returns_illegally(g)) {
		trap(g, MMU_GUEST_TRAP_RETURN);
		return false;
	}
	if (!arm64_operand(word, &o))
		return true;
	va = address_of(g, pc, &o);
	if (!(va & (o.size - 1u)) || !(control(g, 0) & ARM64_SCTLR_A))
		return true;
	refuse_address(g, va, &o);
	return false;
}

/* ---- behind an instruction ---- */

static void look_again(struct mmu_guest *g)
{
	g->event = GUEST_STRICTER;
	g->c.engine.emu_stop(g->c.engine.uc);
}

/* UC_HOOK_CODE behind what may have moved SP: is it still aligned? */
static void behind_sp(void *uc, uint64_t address, uint32_t size, void *user)
{
	struct mmu_guest *g = user;

	(void)uc;
	(void)address;
	(void)size;
	if (g->phase == GUEST_RUNNING && !guest_stopping(g) && !(g->watch & WATCH_STACK) && some_sp_is_odd(g))
		look_again(g);
}

/* UC_HOOK_CODE behind what has written SCTLR_EL1 or CPACR_EL1. */
static void behind_control(void *uc, uint64_t address, uint32_t size, void *user)
{
	struct mmu_guest *g = user;

	(void)uc;
	(void)address;
	(void)size;
	if (g->phase == GUEST_RUNNING && !guest_stopping(g) && guest_arm64_watch(g) != g->watch)
		look_again(g);
}

/* ---- the search ---- */

static bool is_watched(const struct mmu_guest *g, uint32_t word)
{
	struct arm64_operand o;

	if (arm64_is_eret(word) || ((g->watch & WATCH_FLOATING) && arm64_is_floating(word)) ||
	    ((g->watch & WATCH_STACK) && arm64_through_sp(word)))
		return true;
	return (g->watch & WATCH_ACCESSES) && arm64_operand(word, &o);
}

static bool add_behind(struct mmu_guest *g, uint64_t at, void (*hook)(void *, uint64_t, uint32_t, void *))
{
	return guest_site_add(g, at + 4, at + 7, (void *)(uintptr_t)hook) && !((at + 4) & (GUEST_PAGE - 1));
}

/* False: a hook is new on the page behind, which may have been translated without it. */
bool guest_arm64_scan(struct mmu_guest *g, uint64_t page, const uint8_t *code)
{
	bool late = false;
	uint32_t word;

	for (uint32_t at = 0; at < GUEST_PAGE; at += sizeof(word)) {
		memcpy(&word, code + at, sizeof(word));
		if (g->sharing && guest_atomic_arm64(word))
			guest_site_add(g, page + at, page + at + 4, NULL);
		else if (is_watched(g, word))
			guest_site_add(g, page + at, page + at, NULL);
		if (arm64_writes_control(word))
			late |= add_behind(g, page + at, behind_control);
		else if ((g->watch & WATCH_SP) && arm64_moves_sp(word))
			late |= add_behind(g, page + at, behind_sp);
	}
	return !late;
}
