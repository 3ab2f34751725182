/*
 * Exceptions of arm64 guests through VBAR_EL1. Twin of mmu/guest/arm64.py.
 * Source: Arm ARM DDI 0487, D1 'The AArch64 System Level Programmers' Model', pseudocode AArch64.TakeException.
 */
#include "deliver.h"

enum { VECTOR_SP0 = 0x000, VECTOR_SPX = 0x200, VECTOR_LOWER = 0x400 };
/* The engine's exception numbers that need care: prefetch and data abort, whose alignment it checks, and SMC. */
enum { EXCP_PREFETCH_ABORT = 3, EXCP_DATA_ABORT = 4, EXCP_SMC = 13 };
#define UNKNOWN_REASON ARM64_ESR_IL	/* EC 0 */
#define SP_ALIGNMENT (UINT64_C(0x26) << 26 | ARM64_ESR_IL)
#define SYSTEM_TRAPPED (UINT64_C(0x18) << 26 | ARM64_ESR_IL)
#define FLOATING_TRAPPED (UINT64_C(0x07) << 26 | ARM64_ESR_IL | 1 << 24 | 0xe << 20)	/* CV, COND: always */
#define ILLEGAL_STATE (UINT64_C(0x0e) << 26 | ARM64_ESR_IL)
#define PC_ALIGNMENT (UINT64_C(0x22) << 26 | ARM64_ESR_IL)

/* Store-exclusive instructions: the engine reads before it writes, the CPU only writes.
   Source: Arm ARM DDI 0487, C4.1 'Load/store exclusive register', 'exclusive pair'. */
static bool is_store_exclusive(uint64_t word)
{
	return (word & 0x3fe00000) == 0x08000000 || (word & 0xbfe00000) == 0x88200000;
}

static struct system_register system_register(uint32_t crn, uint32_t crm, uint32_t op1, uint32_t op2)
{
	return (struct system_register){ .crn = crn, .crm = crm, .op0 = 3, .op1 = op1, .op2 = op2 };
}

void guest_system_register(struct mmu_guest *g, struct system_register *r, bool write)
{
	const struct mmu_guest_engine *e = &g->c.engine;

	if (write)
		e->reg_write(e->uc, g->c.ids.coprocessor, r);
	else
		e->reg_read(e->uc, g->c.ids.coprocessor, r);
}

/* A store-exclusive is a write, whatever the engine asked first. Of atomics, a read that faults is reported. */
static void refine(struct mmu_guest *g)
{
	struct mmu_guest_stop again;
	uint64_t word, pa;
	uint32_t access = g->stop.access ^ (MMU_ACCESS_READ | MMU_ACCESS_WRITE);

	if (!(g->stop.access & MMU_ACCESS_READ) || !guest_peek(g, g->stop.pc, 4, &word) ||
	    !is_store_exclusive(word))
		return;
	if (guest_looked(g, mmu_guest_translate(g, g->stop.va, access, &pa, &again)) == MMU_FAULTED) {
		g->stop.arm64 = again.arm64;
		g->stop.access = access;
	}
}

static void event_of_fault(struct mmu_guest *g, struct mmu_guest_event *ret)
{
	struct mmu_arm64_regs regs = guest_arm64_registers(g);
	struct mmu_arm64_fault fault;

	refine(g);
	fault = g->stop.arm64;
	fault.access = g->stop.access;
	*ret = (struct mmu_guest_event){ .kind = MMU_GUEST_EVENT_ABORT, .code = mmu_arm64_esr(&fault, &regs),
					 .address = g->stop.va, .has_address = 1, .level = fault.level };
}

/* A synchronous external abort: the bus refused what the instruction accessed. */
static void event_of_bus_error(struct mmu_guest *g, struct mmu_guest_event *ret)
{
	bool fetch = g->stop.access & MMU_ACCESS_FETCH;
	uint64_t class = fetch ? MMU_ARM64_EC_INSTRUCTION_ABORT_LOWER : MMU_ARM64_EC_DATA_ABORT_LOWER;
	uint64_t esr;

	class += guest_arm64_registers(g).el == 1;
	esr = class << 26 | ARM64_ESR_IL | MMU_ARM64_FSC_EXTERNAL;
	if (!(g->stop.result & MMU_MEMTX_DECODE_ERROR))
		esr |= ARM64_ESR_EA;
	if (!g->stop.exact)
		esr |= ARM64_ESR_FNV;
	if (g->stop.access & MMU_ACCESS_WRITE)
		esr |= ARM64_ESR_WNR;
	*ret = (struct mmu_guest_event){ .kind = MMU_GUEST_EVENT_EXTERNAL, .code = esr, .has_address = 1,
					 .address = g->stop.exact ? g->stop.va : 0 };
}

/* MSR DAIFSet and DAIFClr of EL0, of which the engine forgets what it trapped.
   Source: Arm ARM DDI 0487, ISS encoding for an exception from MSR, MRS, or System instruction execution. */
static uint64_t syndrome_of_system(struct mmu_guest *g)
{
	uint64_t word;

	if (!guest_peek(g, g->stop.pc, 4, &word))
		return UNKNOWN_REASON;
	return SYSTEM_TRAPPED | (word >> 19 & 3) << 20 | (word >> 5 & 7) << 17 | (word >> 16 & 7) << 14 |
	       (word >> 12 & 15) << 10 | (word & 31) << 5 | (word >> 8 & 15) << 1 | (word >> 21 & 1);
}

/* What the engine stopped for; *pc is its instruction, or behind it where the CPU reports that. */
static void event_of_interrupt(struct mmu_guest *g, uint64_t *pc, struct mmu_guest_event *ret)
{
	uint32_t number = g->stop.number;
	const uint8_t *blob;
	uint32_t syndrome;

	*ret = (struct mmu_guest_event){ .kind = MMU_GUEST_EVENT_SYNCHRONOUS, .code = UNKNOWN_REASON };
	if (number == EXCP_SMC) {	/* no EL3 here: SMC is undefined. The engine is past it. */
		*pc -= 4;
		return;
	}
	blob = guest_blob_save(g);
	memcpy(&syndrome, blob + g->c.places.syndrome, sizeof(syndrome));
	ret->code = syndrome ? syndrome : syndrome_of_system(g);
	ret->has_address = number == EXCP_PREFETCH_ABORT || number == EXCP_DATA_ABORT;
	if (ret->has_address)
		memcpy(&ret->address, blob + g->c.places.address, sizeof(ret->address));
}

/*
 * An ERET that is illegal has been carried out but for the change of EL, and what is at *pc then is in an illegal
 * state.
 * Source: pseudocode SetPSTATEFromPSR.
 */
static uint64_t event_of_trap(struct mmu_guest *g, uint64_t *pc, uint64_t *pstate)
{
	const uint64_t taken = GUEST_PSTATE_N | GUEST_PSTATE_Z | GUEST_PSTATE_C | GUEST_PSTATE_V | GUEST_PSTATE_D |
			       GUEST_PSTATE_A | GUEST_PSTATE_I | GUEST_PSTATE_F | GUEST_PSTATE_PAN;
	struct system_register spsr = system_register(4, 0, 0, 0);

	switch ((enum mmu_guest_trap)g->stop.number) {
	case MMU_GUEST_TRAP_FLOATING:
		return FLOATING_TRAPPED;
	case MMU_GUEST_TRAP_STACK:
		return SP_ALIGNMENT;
	case MMU_GUEST_TRAP_RETURN:
		break;
	}
	guest_system_register(g, &spsr, false);
	*pstate = (*pstate & ~taken) | (spsr.value & taken) | GUEST_PSTATE_IL;
	*pc = guest_register(g, g->c.ids.elr);
	return ILLEGAL_STATE;
}

/* From SP_EL0 to SP_EL1: the engine keeps the selected one in SP. */
static void use_own_stack(struct mmu_guest *g)
{
	guest_set_register(g, g->c.ids.sp_el0, guest_register(g, g->c.ids.sp));
	guest_set_register(g, g->c.ids.sp, guest_register(g, g->c.ids.sp_el1));
}

/* The engine derives EL and translation regime anew only when a system register is written. */
static void set_pstate(struct mmu_guest *g, uint64_t value)
{
	struct system_register contextidr = system_register(13, 0, 0, 1);

	guest_set_register(g, g->c.ids.pstate, value);
	guest_system_register(g, &contextidr, false);
	guest_system_register(g, &contextidr, true);
}

static void enter(struct mmu_guest *g, const struct mmu_guest_event *event, uint64_t pc, uint64_t pstate)
{
	const uint64_t masked = GUEST_PSTATE_D | GUEST_PSTATE_A | GUEST_PSTATE_I | GUEST_PSTATE_F;
	const uint64_t kept = GUEST_PSTATE_N | GUEST_PSTATE_Z | GUEST_PSTATE_C | GUEST_PSTATE_V |
			      GUEST_PSTATE_DIT;
	struct system_register spsr = system_register(4, 0, 0, 0), sctlr = system_register(1, 0, 0, 0);
	bool el1 = pstate & GUEST_PSTATE_EL, pan;

	guest_set_register(g, g->c.ids.esr, event->code);
	if (event->has_address)
		guest_set_register(g, g->c.ids.far_, event->address);
	guest_set_register(g, g->c.ids.elr, pc);
	spsr.value = pstate;
	guest_system_register(g, &spsr, true);
	guest_system_register(g, &sctlr, false);
	if (!el1 || !(pstate & GUEST_PSTATE_SP))
		use_own_stack(g);
	pan = (pstate & GUEST_PSTATE_PAN) || !(sctlr.value & ARM64_SCTLR_SPAN);
	set_pstate(g, (pstate & kept) | masked | GUEST_PSTATE_SP | (pan ? GUEST_PSTATE_PAN : 0) |
		      (GUEST_PSTATE_EL & -GUEST_PSTATE_EL));
}

bool guest_arm64_handle(struct mmu_guest *g, uint64_t *pc)
{
	uint64_t vbar = guest_register(g, g->c.ids.vbar), pstate = guest_register(g, g->c.ids.pstate);
	struct mmu_guest_event event = { .kind = MMU_GUEST_EVENT_SYNCHRONOUS, .code = UNKNOWN_REASON };
	uint64_t handler = vbar, at = g->stop.pc;

	if (!vbar)
		return false;		/* nobody to deliver to: the host says what it was */
	if (!(pstate & GUEST_PSTATE_EL))
		handler += VECTOR_LOWER;
	else
		handler += pstate & GUEST_PSTATE_SP ? VECTOR_SPX : VECTOR_SP0;
	if (at == handler && (g->stop.access & MMU_ACCESS_FETCH))
		return false;		/* the vector itself cannot be fetched: it would go on for ever */
	switch ((enum mmu_guest_stop_kind)g->stop.kind) {
	case MMU_GUEST_FAULT:
		event_of_fault(g, &event);
		if (g->raised) {
			g->stop.kind = MMU_GUEST_CALLBACK;
			return false;
		}
		break;
	case MMU_GUEST_BUS_ERROR:
		event_of_bus_error(g, &event);
		break;
	case MMU_GUEST_INTERRUPT:
		event_of_interrupt(g, &at, &event);
		break;
	case MMU_GUEST_INVALID:
		break;
	case MMU_GUEST_TRAP:
		event.code = event_of_trap(g, &at, &pstate);
		break;
	case MMU_GUEST_HALTED:
	case MMU_GUEST_SYSCALL:
	case MMU_GUEST_SYSTEM:
	case MMU_GUEST_INTERRUPTED:
	case MMU_GUEST_LIMIT:
	case MMU_GUEST_CALLBACK:
	case MMU_GUEST_ENGINE:
	case MMU_GUEST_TRIPLE_FAULT:
	case MMU_GUEST_EXIT:
	case MMU_GUEST_PROTECTION:
		return false;
	}
	if (g->stop.pc & 3) {		/* before all that the instruction there may do */
		at = g->stop.pc;
		event = (struct mmu_guest_event){ .kind = MMU_GUEST_EVENT_SYNCHRONOUS, .code = PC_ALIGNMENT,
						  .has_address = 1, .address = at };
	}
	enter(g, &event, at, pstate);
	guest_delivered(g, at, &event, handler);
	*pc = handler;
	return true;
}
