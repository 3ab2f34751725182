/* PAR_EL1 after an AT instruction of stage 1 alone. The twin of mmu/arm64/par.py, which names the sources. */
#include "walk_arm64_rights.h"

enum { NON_CACHEABLE = 0x44, OUTER_SHAREABLE = 2 };

/* A MAIR byte. */
static bool is_device(uint64_t attr)
{
	return !(attr >> 4);
}

uint64_t mmu_arm64_par(const struct mmu_arm64_regs *regs, uint64_t va, const struct mmu_arm64_translation *t)
{
	const struct mmu_arm64_stage *leaf = &t->stage1;
	uint64_t attr = 0, sh = OUTER_SHAREABLE;	/* while stage 1 is off: Device-nGnRnE */
	bool upper = va >> 55 & 1;

	if (leaf->level != ARM64_STAGE_OFF) {
		attr = regs->mair_el1 >> (8 * FIELD(leaf->descriptor, ARM64_STAGE1LEAF_ATTRINDX)) & 0xff;
		if (!is_device(attr) && attr != NON_CACHEABLE)
			sh = leaf->form < MMU_ARM64_FORM_K4_DS ? FIELD(leaf->descriptor, ARM64_STAGE1LEAF_SH) :
			     upper ? FIELD(regs->tcr_el1, ARM64_TCR_SH1) : FIELD(regs->tcr_el1, ARM64_TCR_SH0);
	}
	return (t->pa & ARM64_PAR_PA) | sh * (ARM64_PAR_SH & -ARM64_PAR_SH) | ARM64_PAR_NS | ARM64_PAR_RES11 |
	       attr * (ARM64_PAR_ATTR & -ARM64_PAR_ATTR);
}

uint64_t mmu_arm64_par_fault(const struct mmu_arm64_regs *regs, const struct mmu_arm64_fault *fault)
{
	uint64_t status = mmu_arm64_esr(fault, regs) & ARM64_ESR_FSC;

	return ARM64_PARFAULT_F | status * (ARM64_PARFAULT_FST & -ARM64_PARFAULT_FST) | ARM64_PARFAULT_RES11;
}
