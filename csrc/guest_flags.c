/*
 * x86: the flags before an instruction that has a code hook.
 *
 * The engine works flags out when somebody wants them: it keeps what they follow from, and a word that says how. A hook
 * wants them, and what the engine notes to go back to when the instruction cannot be carried out is what they were
 * worked out from; so they are noted here.
 *
 * Before a hook the engine writes that word unless it is the one of the hook before in the block; but in between a load
 * that misses the TLB, or CLC, may have written another one, and the hook is told wrong flags. The word of the first
 * instruction of a block is none that any other has; and nothing is in between when the instruction before had a hook.
 */
#include "decode_x86.h"
#include "deliver.h"

/* Whether the instruction at pc, whose hook this is, is the first of its block. False: it will be, when the engine has
   stopped. */
bool guest_flags_afresh(struct mmu_guest *g, uint64_t pc)
{
	if (pc == g->block.pc)
		return true;
	g->event = GUEST_AFRESH;
	g->c.engine.emu_stop(g->c.engine.uc);
	return false;
}

/* Whether the engine tells the flags before the instruction at pc, whose hook this is. False: it will, when it has
   stopped. */
bool guest_flags_known(struct mmu_guest *g, uint64_t pc)
{
	if (!g->c.ids.flags || pc == g->block.pc || (g->block.hooked && g->hooked_at == pc && g->block.hooks))
		return true;
	return !g->block.hooks++ || (g->block.hooked && g->hooked_end == pc) || guest_flags_afresh(g, pc);
}

/* For each code hook. */
void guest_flags_note(struct mmu_guest *g, uint64_t pc, uint32_t length)
{
	g->block.hooked = true;
	g->hooked_at = pc;
	g->hooked_end = pc + length;
	if (g->c.ids.flags)
		g->flags = guest_register(g, g->c.ids.flags);
}

/* UC_HOOK_CODE on what needs no more than that: see guest_block.c. */
void guest_flags_on_code(void *uc, uint64_t address, uint32_t size, void *user)
{
	struct mmu_guest *g = user;

	(void)uc;
	if (g->phase != GUEST_PROBING && !guest_stopping(g) && guest_flags_known(g, address))
		guest_flags_note(g, address, size);
}

/*
 * A block begins with the instruction whose hook was called last in the block before. If it is all of it, the
 * instruction stores to the block that it was in, and is begun once more, alone; the engine has lost the flags. Rounds
 * of a repeated comparison are blocks too, and have flags of their own.
 */
void guest_flags_again(struct mmu_guest *g, uint64_t pc, uint32_t size)
{
	struct x86_instruction i;

	if (g->c.ids.flags && x86_decode_at(g, pc, &i) && i.length == size && !x86_compares_strings(&i))
		guest_set_register(g, g->c.ids.flags, g->flags);
}

/* For each look-up, each port and each look at what the host has: the instruction under way goes on. */
void guest_flags_keep(struct mmu_guest *g)
{
	if (g->block.hooked && g->arch->keep_flags)
		g->arch->keep_flags(g);
}

/* Whether the engine ended in an instruction that had a hook, which it did not carry out; SYSCALL it passes over. */
static bool are_lost(const struct mmu_guest *g, uint64_t pc, bool invalid)
{
	if (!g->c.ids.flags || !g->block.hooked || g->event == GUEST_CALLED || (g->event == GUEST_NO_EVENT && !invalid))
		return false;
	return pc == g->hooked_at ||
	       (g->event == GUEST_STOPPED && g->stop.kind == MMU_GUEST_SYSCALL && pc - g->hooked_at < X86_LONGEST);
}

/* The block begins that an IRET went to, and was translated for its RF. The engine keeps that for longer than one
   instruction, and PUSHF shows it. */
void guest_flags_resume(struct mmu_guest *g)
{
	uint64_t flags = guest_register(g, g->c.ids.flags);

	exclusive_want(&g->exclusive, EXCLUSIVE_RESUMES, false);
	if (flags & GUEST_RFLAGS_RF)
		guest_set_register(g, g->c.ids.flags, flags & ~GUEST_RFLAGS_RF);
}

/* The engine has ended at pc; `invalid`: at an instruction that is none. */
void guest_flags_put_back(struct mmu_guest *g, uint64_t pc, bool invalid)
{
	if (are_lost(g, pc, invalid))
		guest_set_register(g, g->c.ids.flags, g->flags);
}
