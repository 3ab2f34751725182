/*
 * What instructions of group 15 (0F AE) do and the engine leaves out: it takes CLFLUSH for no operation, and a base of
 * FS or GS that no CPU holds. For what it does with MXCSR see guest_mxcsr.c.
 * Source: Intel SDM vol. 2, 'CLFLUSH', 'WRFSBASE/WRGSBASE'.
 */
#include "decode_x86.h"
#include "deliver_x86.h"

/* Translates as a load of one byte does. */
static bool flush_line(struct mmu_guest *g, uint64_t va)
{
	struct guest_translation t;
	int rc = guest_translate(g, va, MMU_ACCESS_READ, &t, &g->stop);

	if (rc == MMU_OK)
		return true;
	guest_stop(g, rc == MMU_FAULTED ? MMU_GUEST_FAULT : MMU_GUEST_CALLBACK);
	g->stop.va = va;
	g->stop.exact = 1;
	g->stop.access = MMU_ACCESS_READ;
	g->stop.size = 1;
	return false;
}

/* With CR4.FSGSBASE; without, it is none. */
static bool write_base(struct mmu_guest *g, uint64_t base)
{
	if (x86_is_canonical(base) || !(guest_register(g, g->c.ids.cr4) & X86_CR4_FSGSBASE))
		return true;
	guest_stop(g, MMU_GUEST_PROTECTION);
	return false;
}

/* Before the instruction at pc. False: it is not to be, and g->stop says why. Of other code than that of 64 bits the
   operand is not known. */
bool guest_group_15(struct mmu_guest *g, uint64_t pc, const struct x86_instruction *i)
{
	bool wide = x86_in_64_bit_code(g);

	if (i->memory && i->reg != X86_CLFLUSH)
		return guest_mxcsr(g, pc, i, wide);
	if (!wide)
		return true;
	if (i->memory)
		return i->short_operand || i->repeated || flush_line(g, guest_operand(g, pc, i));
	if ((i->reg == X86_WRFSBASE || i->reg == X86_WRGSBASE) && i->repeated && i->wide)
		return write_base(g, guest_register(g, g->c.ids.general[i->rm]));
	return true;
}
