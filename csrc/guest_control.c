/*
 * What MOV to a control register refuses with #GP(0), before it writes anything. The engine takes it all.
 * Source: Intel SDM vol. 2, 'MOV - Move to/from Control Registers'; vol. 3A, 'Control Registers', 'IA-32e Mode Related
 * Control Registers'. Twin of mmu/guest/x86_control.py.
 */
#include "deliver_x86.h"

enum { CR8_BITS = 15, CR3_PCID = 0xfff };

/* Of this CPU: no VME, UMIP, 5-level paging, VMX, SMX, protection keys, CET, user interrupts, LASS, LAM or FRED. */
#define CR4_BITS (X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE | X86_CR4_PAE | X86_CR4_MCE | \
		  X86_CR4_PGE | X86_CR4_PCE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_FSGSBASE | \
		  X86_CR4_PCIDE | X86_CR4_OSXSAVE | X86_CR4_SMEP | X86_CR4_SMAP)
#define CR3_UPPER (X86_CR3_RESERVED | X86_CR3_LAM_U57 | X86_CR3_LAM_U48)

static bool cr0_permitted(struct mmu_guest *g, const struct mmu_x86_regs *now, uint64_t value)
{
	if ((value & X86_CR0_RESERVED) || ((value & X86_CR0_PG) && !(value & X86_CR0_PE)) ||
	    ((value & X86_CR0_NW) && !(value & X86_CR0_CD)))
		return false;
	if (now->cr0 & ~value & X86_CR0_PG)
		return !(now->cr4 & X86_CR4_PCIDE) && !x86_is_wide(g, now);
	if (value & ~now->cr0 & X86_CR0_PG)
		return !(now->efer & X86_EFER_LME) || (now->cr4 & X86_CR4_PAE);
	return true;
}

static bool cr3_permitted(const struct mmu_x86_regs *now, uint64_t value)
{
	return !(value & CR3_UPPER) && (!(value & X86_CR3_NOFLUSH) || (now->cr4 & X86_CR4_PCIDE));
}

static bool cr4_permitted(const struct mmu_x86_regs *now, uint64_t value)
{
	bool long_mode = now->efer & X86_EFER_LMA;

	if ((value & ~CR4_BITS) || (long_mode && !(value & X86_CR4_PAE)))
		return false;
	return !(value & ~now->cr4 & X86_CR4_PCIDE) || (long_mode && !(now->cr3 & CR3_PCID));
}

bool guest_control_permitted(struct mmu_guest *g, const struct mmu_x86_regs *now, uint32_t control, uint64_t value)
{
	switch (control) {
	case 0: return cr0_permitted(g, now, value);
	case 3: return cr3_permitted(now, value);
	case 4: return cr4_permitted(now, value);
	case 8: return !(value & ~(uint64_t)CR8_BITS);
	}
	return true;			/* there is no other one */
}
