/* What software sees of a fault. Twin of mmu/x86/faults.py. */
#include "walk_x86.h"

enum { VECTOR_SS = 12, VECTOR_GP = 13, VECTOR_PF = 14, VECTOR_MC = 18 };

static uint64_t page_fault_code(const struct mmu_x86_regs *regs, const struct mmu_x86_fault *f)
{
	bool nxe = (regs->cr4 & X86_CR4_PAE) && (regs->efer & X86_EFER_NXE);
	uint64_t code = 0;

	if (f->kind != MMU_FAULT_NOT_PRESENT)
		code |= X86_PAGEFAULTCODE_P;
	if (f->access & MMU_ACCESS_WRITE)
		code |= X86_PAGEFAULTCODE_WR;
	if (regs->cpl == 3 && !(f->access & MMU_ACCESS_IMPLICIT))
		code |= X86_PAGEFAULTCODE_US;
	if (f->kind == MMU_FAULT_RESERVED_BIT)
		code |= X86_PAGEFAULTCODE_RSVD;
	if ((f->access & MMU_ACCESS_FETCH) && (nxe || (regs->cr4 & X86_CR4_SMEP)))
		code |= X86_PAGEFAULTCODE_ID;
	if (f->protection_key)
		code |= X86_PAGEFAULTCODE_PK;
	if (f->access & MMU_ACCESS_SHADOW_STACK)
		code |= X86_PAGEFAULTCODE_SS;
	return code;
}

static uint64_t npf_info(const struct mmu_x86_fault *f)
{
	uint64_t info = X86_NPFINFO_US | (f->on_table ? X86_NPFINFO_TABLE : X86_NPFINFO_FINAL);

	if (f->kind != MMU_FAULT_NOT_PRESENT)
		info |= X86_NPFINFO_P;
	if (f->wanted & MMU_ACCESS_WRITE)
		info |= X86_NPFINFO_WR;
	if (f->kind == MMU_FAULT_RESERVED_BIT)
		info |= X86_NPFINFO_RSVD;
	if (f->wanted & MMU_ACCESS_FETCH)
		info |= X86_NPFINFO_ID;
	if ((f->access & MMU_ACCESS_SHADOW_STACK) && !f->on_table)
		info |= X86_NPFINFO_SS;
	return info;
}

static uint64_t ept_qualification(const struct mmu_x86_fault *f)
{
	const uint64_t rights = X86_EPTQUALIFICATION_READABLE | X86_EPTQUALIFICATION_WRITABLE |
				X86_EPTQUALIFICATION_EXECUTABLE;
	uint64_t granted = f->granted * (rights & -rights);	/* R, W, X stand in the same order */
	uint64_t q = (f->wanted & 7) | (granted & rights) | X86_EPTQUALIFICATION_LINEAR_VALID;

	if (!f->on_table)
		q |= X86_EPTQUALIFICATION_FINAL;
	if ((f->access & MMU_ACCESS_SHADOW_STACK) && !f->on_table)
		q |= X86_EPTQUALIFICATION_SHADOW_STACK;
	return q;
}

static void exit_event(const struct mmu_x86_regs *regs, const struct mmu_x86_fault *f, struct mmu_x86_event *ret)
{
	ret->address = f->gpa;
	if (regs->stage2 == MMU_X86_STAGE2_NPT) {
		ret->kind = MMU_X86_EXIT_NPF;
		ret->code = npf_info(f);
	} else if (f->kind == MMU_FAULT_MISCONFIGURATION) {
		ret->kind = MMU_X86_EXIT_EPT_MISCONFIGURATION;
	} else {
		ret->kind = MMU_X86_EXIT_EPT_VIOLATION;
		ret->code = ept_qualification(f);
	}
}

void mmu_x86_exception(const struct mmu_x86_regs *regs, const struct mmu_x86_fault *fault,
		       struct mmu_x86_event *ret)
{
	struct x86_linear linear;

	*ret = (struct mmu_x86_event){ .kind = MMU_X86_EXCEPTION };
	if (fault->kind == MMU_FAULT_BUS) {
		ret->vector = VECTOR_MC;
		ret->address = fault->entry_address;
	} else if (fault->stage == 2) {
		exit_event(regs, fault, ret);
	} else if (fault->kind == MMU_FAULT_NON_CANONICAL) {
		bool through_ss = (fault->access & (MMU_ACCESS_STACK | MMU_ACCESS_SHADOW_STACK)) == MMU_ACCESS_STACK;

		ret->vector = through_ss ? VECTOR_SS : VECTOR_GP;
	} else {
		ret->vector = VECTOR_PF;
		ret->code = page_fault_code(regs, fault);
		x86_linear_setup(&linear, regs, fault->access);
		ret->address = x86_linear(&linear, fault->va);
	}
}
