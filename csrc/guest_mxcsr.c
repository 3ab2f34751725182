/*
 * MXCSR. The engine keeps the exceptions that SSE met apart from it, and never looks at them again; it takes bits of it
 * that are reserved; what FZ says it tells the x87 and not SSE. So before an instruction that stores MXCSR, or loads
 * it, the flags go to where they belong, and FZ to what computes.
 * Source: Intel SDM vol. 1, 'MXCSR Control and Status Register'; vol. 2, 'LDMXCSR', 'FXRSTOR', 'XRSTOR', 'XSAVE'.
 */
#include "decode_x86.h"
#include "deliver_x86.h"

/* Bytes from mmu_guest_places.sse; see mmu/guest/context.py. */
enum { SSE_FLAGS = 2, SSE_FLUSH = 4, SSE_MXCSR = 8 };
/* What is met is numbered as in MXCSR; and a result that was denormal and became 0. */
enum { MET = 0x3d, MET_FLUSHED = 1 << 7 };
enum { MXCSR_UE = 1 << 4, MXCSR_PE = 1 << 5, MXCSR_FZ = 1 << 15 };
#define MXCSR_RESERVED UINT32_C(0xffff0000)
enum { XCR0_SSE = 1 << 1, SAVED_MXCSR = 24 };	/* SAVED_MXCSR: bytes from where FXSAVE and XSAVE begin */
enum { NM = 7 };

/* By ModRM.reg, with memory. */
static const struct use {
	bool loads, extended;		/* MXCSR; of the XSAVE family */
	uint32_t enabled;		/* by this bit of CR4 */
} uses[X86_CLFLUSH] = {
	[X86_FXSAVE] = { false, false, X86_CR4_OSFXSR },
	[X86_FXRSTOR] = { true, false, X86_CR4_OSFXSR },
	[X86_LDMXCSR] = { true, false, X86_CR4_OSFXSR },
	[X86_STMXCSR] = { false, false, X86_CR4_OSFXSR },
	[X86_XSAVE] = { false, true, X86_CR4_OSXSAVE },
	[X86_XRSTOR] = { true, true, X86_CR4_OSXSAVE },
	[X86_XSAVEOPT] = { false, true, X86_CR4_OSXSAVE },
};

/* What MXCSR will hold; NULL: that is not known. */
static void settle(struct mmu_guest *g, const uint32_t *next)
{
	uint8_t *sse = guest_blob_save(g) + g->c.places.sse;
	uint8_t met = sse[SSE_FLAGS], flush = next ? (*next & MXCSR_FZ) != 0 : sse[SSE_FLUSH];
	uint32_t mxcsr;

	if (!met && flush == sse[SSE_FLUSH])
		return;
	memcpy(&mxcsr, sse + SSE_MXCSR, sizeof(mxcsr));
	mxcsr |= (met & MET) | (met & MET_FLUSHED ? MXCSR_UE | MXCSR_PE : 0);
	memcpy(sse + SSE_MXCSR, &mxcsr, sizeof(mxcsr));
	sse[SSE_FLAGS] = 0;
	sse[SSE_FLUSH] = flush;
	guest_blob_restore(g);
}

/* What the instruction at pc will load MXCSR from. It never is where XCR0 has no SSE; then no such area is in use. */
static bool peek_next(struct mmu_guest *g, uint64_t pc, const struct x86_instruction *i, uint32_t *ret)
{
	uint64_t at = guest_operand(g, pc, i), value;

	if (uses[i->reg].extended && !(guest_register(g, g->c.ids.general[RAX]) & XCR0_SSE))
		return false;
	if (!guest_peek_data(g, i->reg == X86_LDMXCSR ? at : at + SAVED_MXCSR, sizeof(*ret), &value))
		return false;
	*ret = (uint32_t)value;
	return true;
}

static bool refuse(struct mmu_guest *g, enum mmu_guest_stop_kind kind, uint32_t number)
{
	guest_stop(g, kind);
	g->stop.number = number;
	return false;
}

/*
 * Before the instruction at pc, of group 15 with memory but CLFLUSH; `wide`: in 64-bit code, or its operand is not
 * known. False: it is not to be, and g->stop says why.
 */
bool guest_mxcsr(struct mmu_guest *g, uint64_t pc, const struct x86_instruction *i, bool wide)
{
	const struct use *use = &uses[i->reg];
	uint64_t cr0 = guest_register(g, g->c.ids.cr0);
	uint32_t next;

	if ((use->extended && (i->short_operand || i->repeated)) || !(guest_register(g, g->c.ids.cr4) & use->enabled) ||
	    (!use->extended && (cr0 & (X86_CR0_EM | X86_CR0_TS))))
		return true;		/* it faults by itself */
	if (cr0 & X86_CR0_TS)
		return refuse(g, MMU_GUEST_INTERRUPT, NM);
	if (!wide || !use->loads || !peek_next(g, pc, i, &next)) {
		settle(g, NULL);
		return true;
	}
	if (next & MXCSR_RESERVED)
		return refuse(g, MMU_GUEST_PROTECTION, 0);
	settle(g, &next);
	return true;
}
