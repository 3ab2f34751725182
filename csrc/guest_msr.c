/*
 * Which model-specific registers the CPU has, and what WRMSR refuses with #GP(0). The engine reads 0 from those that
 * nobody has, and writes whatever it is given. Twin of mmu/guest/x86_msr.py; the tables are in mmu/guest/format.py.
 * Source: Intel SDM vol. 2, 'RDMSR', 'WRMSR'.
 */
#include "deliver_x86.h"

/* LMA is the CPU's own: what is written there counts for nothing. */
#define EFER_BITS (X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE)

struct msr { uint32_t first, last, step, rule; uint64_t reserved; };

static const struct msr msrs[] = GUEST_MSRS;
static const uint8_t mtrr_types[] = GUEST_MTRR_TYPES, pat_types[] = GUEST_PAT_TYPES;

static const struct msr *find(uint32_t number)
{
	for (const struct msr *m = msrs; m < msrs + sizeof(msrs) / sizeof(*msrs); m++)
		if (number >= m->first && number <= m->last && !((number - m->first) % m->step))
			return m;
	return NULL;
}

bool guest_msr_exists(uint32_t number)
{
	return find(number);
}

/* Whether each of the lowest bytes is one of so many types. */
static bool are_types(uint64_t value, uint32_t bytes, const uint8_t *types, size_t count)
{
	for (uint32_t i = 0; i < bytes; i++)
		if (!memchr(types, (int)(value >> (8 * i) & 0xff), count))
			return false;
	return true;
}

static bool efer_permitted(const struct mmu_x86_regs *now, uint64_t value)
{
	return !(value & ~EFER_BITS) && (!(now->cr0 & X86_CR0_PG) || !((value ^ now->efer) & X86_EFER_LME));
}

bool guest_msr_permitted(const struct mmu_x86_regs *now, uint32_t number, uint64_t value)
{
	const struct msr *m = find(number);

	if (!m || (value & m->reserved))
		return false;
	switch ((enum mmu_x86_msr)m->rule) {
	case MMU_X86_MSR_READ_ONLY: return false;
	case MMU_X86_MSR_ADDRESS: return x86_is_canonical(value);
	case MMU_X86_MSR_TYPE: return are_types(value, 1, mtrr_types, sizeof(mtrr_types));
	case MMU_X86_MSR_TYPES: return are_types(value, 8, mtrr_types, sizeof(mtrr_types));
	case MMU_X86_MSR_PAT: return are_types(value, 8, pat_types, sizeof(pat_types));
	case MMU_X86_MSR_EFER: return efer_permitted(now, value);
	case MMU_X86_MSR_BITS: case MMU_X86_MSR_CLOCK: break;
	}
	return true;
}
