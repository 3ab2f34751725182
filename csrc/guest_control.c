/*
 * What MOV to a control register refuses with #GP(0), before it writes anything. The engine takes it all.
 * Source: Intel SDM vol. 2, 'MOV - Move to/from Control Registers'; vol. 3A, 'Control Registers', 'IA-32e Mode Related
 * Control Registers'. Twin of mmu/guest/x86_control.py.
 */
#include "deliver_x86.h"

enum { CR8_BITS = 15, CR3_PCID = 0xfff };
enum { DESCRIPTOR_TYPE = 8, TSS_16 = 1, TSS_16_BUSY = 3 };	/* the first: bits before, in its upper word */

/* What makes PAE paging load its pointers when it changes. */
#define CR0_LOADS (X86_CR0_CD | X86_CR0_NW | X86_CR0_PG)
#define CR4_LOADS (X86_CR4_PAE | X86_CR4_PGE | X86_CR4_PSE | X86_CR4_SMEP)

/* Of this CPU: no VME, UMIP, 5-level paging, VMX, SMX, protection keys, CET, user interrupts, LASS, LAM or FRED. */
#define CR4_BITS (X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE | X86_CR4_PAE | X86_CR4_MCE | \
		  X86_CR4_PGE | X86_CR4_PCE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_FSGSBASE | \
		  X86_CR4_PCIDE | X86_CR4_OSXSAVE | X86_CR4_SMEP | X86_CR4_SMAP)
#define CR3_UPPER (X86_CR3_RESERVED | X86_CR3_LAM_U57 | X86_CR3_LAM_U48)

/* Long mode begins in code of other sizes, and knows no TSS of 16 bits. */
static bool may_enter_long_mode(struct mmu_guest *g)
{
	uint32_t task = guest_table(g, g->c.ids.tr).flags >> DESCRIPTOR_TYPE & 15;

	return !x86_is_marked_long(g) && task != TSS_16 && task != TSS_16_BUSY;
}

/* PAE paging loads its four pointers, which must not have a reserved bit. */
static bool pointers_permitted(struct mmu_guest *g, const struct mmu_x86_regs *now, uint64_t cr0, uint64_t cr4,
			       uint64_t cr3)
{
	uint64_t pointer;

	if (!(cr0 & X86_CR0_PG) || !(cr4 & X86_CR4_PAE) || (now->efer & X86_EFER_LME))
		return true;
	for (uint32_t i = 0; i < 4; i++)
		if (mmu_port_load(g->c.probe, (cr3 & X86_CR3PAE_ADDR) + 8 * i, 8, &pointer) == MMU_MEMTX_OK &&
		    (pointer & X86_PAEPDPTE_P) && (pointer & X86_PAEPDPTE_RESERVED))
			return false;
	return true;
}

static bool cr0_permitted(struct mmu_guest *g, const struct mmu_x86_regs *now, uint64_t value)
{
	if ((value & X86_CR0_RESERVED) || ((value & X86_CR0_PG) && !(value & X86_CR0_PE)) ||
	    ((value & X86_CR0_NW) && !(value & X86_CR0_CD)))
		return false;
	if (now->cr0 & ~value & X86_CR0_PG)
		return !(now->cr4 & X86_CR4_PCIDE) && !x86_is_wide(g, now);
	if ((value & ~now->cr0 & X86_CR0_PG) && (now->efer & X86_EFER_LME))
		return (now->cr4 & X86_CR4_PAE) && may_enter_long_mode(g);
	return !((value ^ now->cr0) & CR0_LOADS) || pointers_permitted(g, now, value, now->cr4, now->cr3);
}

static bool cr3_permitted(struct mmu_guest *g, const struct mmu_x86_regs *now, uint64_t value)
{
	return !(value & CR3_UPPER) && (!(value & X86_CR3_NOFLUSH) || (now->cr4 & X86_CR4_PCIDE)) &&
	       pointers_permitted(g, now, now->cr0, now->cr4, value);
}

static bool cr4_permitted(struct mmu_guest *g, const struct mmu_x86_regs *now, uint64_t value)
{
	bool long_mode = now->efer & X86_EFER_LMA;

	if ((value & ~CR4_BITS) || (long_mode && !(value & X86_CR4_PAE)))
		return false;
	if ((value & ~now->cr4 & X86_CR4_PCIDE) && (!long_mode || (now->cr3 & CR3_PCID)))
		return false;
	return !((value ^ now->cr4) & CR4_LOADS) || pointers_permitted(g, now, now->cr0, value, now->cr3);
}

bool guest_control_permitted(struct mmu_guest *g, const struct mmu_x86_regs *now, uint32_t control, uint64_t value)
{
	switch (control) {
	case 0: return cr0_permitted(g, now, value);
	case 3: return cr3_permitted(g, now, value);
	case 4: return cr4_permitted(g, now, value);
	case 8: return !(value & ~(uint64_t)CR8_BITS);
	}
	return true;			/* there is no other one */
}
