/* arm64 faults as the guest sees them. The twin of mmu/arm64/faults.py, which names the sources. */
#include "mmu.h"

static bool is_external(const struct mmu_arm64_fault *f)
{
	return f->kind == MMU_FAULT_BUS;
}

static unsigned target_el(const struct mmu_arm64_fault *f, const struct mmu_arm64_regs *regs)
{
	unsigned el = regs->el & 3;

	if (el == 3 || (is_external(f) && (regs->scr_el3 & ARM64_SCR_EA)))
		return 3;
	if (el == 2 || f->stage == 2 || (el == 0 && (regs->hcr_el2 & ARM64_HCR_TGE)))
		return 2;
	return is_external(f) && (regs->hcr_el2 & ARM64_HCR_TEA) ? 2 : 1;
}

static uint32_t levelled(int level, uint32_t code, uint32_t minus_1)
{
	return level < 0 ? minus_1 : code + ((uint32_t)level & 3);
}

static uint32_t fault_status(const struct mmu_arm64_fault *f)
{
	switch ((enum mmu_fault)f->kind) {
	case MMU_FAULT_NOT_PRESENT:
		return levelled(f->level, MMU_ARM64_FSC_TRANSLATION,
				MMU_ARM64_FSC_TRANSLATION_MINUS_1);
	case MMU_FAULT_ADDRESS_SIZE:
		return levelled(f->level, MMU_ARM64_FSC_ADDRESS_SIZE,
				MMU_ARM64_FSC_ADDRESS_SIZE_MINUS_1);
	case MMU_FAULT_BUS:
		return levelled(f->level, MMU_ARM64_FSC_EXTERNAL_ON_WALK,
				MMU_ARM64_FSC_EXTERNAL_ON_WALK_MINUS_1);
	case MMU_FAULT_ACCESS_FLAG:
		return levelled(f->level, MMU_ARM64_FSC_ACCESS_FLAG, 0);
	case MMU_FAULT_PERMISSION:
		return levelled(f->level, MMU_ARM64_FSC_PERMISSION, 0);
	case MMU_FAULT_ALIGNMENT:
		return MMU_ARM64_FSC_ALIGNMENT;
	case MMU_FAULT_UNSUPPORTED_ATOMIC:
		return MMU_ARM64_FSC_UNSUPPORTED_ATOMIC;
	case MMU_FAULT_NONE:
	case MMU_FAULT_RESERVED_BIT:
	case MMU_FAULT_NON_CANONICAL:
	case MMU_FAULT_PROTECTION_KEY:
	case MMU_FAULT_MISCONFIGURATION:
		break;		/* not on this architecture */
	}
	return 0;
}

uint32_t mmu_arm64_esr(const struct mmu_arm64_fault *f, const struct mmu_arm64_regs *regs)
{
	bool fetch = f->access & MMU_ACCESS_FETCH, same = target_el(f, regs) == (regs->el & 3);
	uint32_t class = fetch ? MMU_ARM64_EC_INSTRUCTION_ABORT_LOWER : MMU_ARM64_EC_DATA_ABORT_LOWER;
	uint32_t esr = (class + same) << 26 | (uint32_t)ARM64_ESR_IL | fault_status(f);

	if (f->access & MMU_ACCESS_MAINTENANCE)
		esr |= (uint32_t)ARM64_ESR_CM;
	if (f->access & (MMU_ACCESS_WRITE | MMU_ACCESS_MAINTENANCE))
		esr |= (uint32_t)ARM64_ESR_WNR;
	if (f->on_table)
		esr |= (uint32_t)ARM64_ESR_S1PTW;
	if (is_external(f) && f->result != MMU_MEMTX_DECODE_ERROR)
		esr |= (uint32_t)ARM64_ESR_EA;
	return esr;
}
