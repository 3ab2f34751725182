/* May this access use this page? Twin of mmu/x86/rights.py. */
#include "walk_x86.h"

#define DATA (MMU_ACCESS_READ | MMU_ACCESS_WRITE)

void x86_rules_setup(struct x86_rules *r, const struct mmu_x86_regs *regs, bool long_mode, uint32_t access)
{
	bool implicit = access & MMU_ACCESS_IMPLICIT;

	r->user = regs->cpl == 3 && !implicit;
	r->shadow_stack = access & MMU_ACCESS_SHADOW_STACK;
	r->wp = regs->cr0 & X86_CR0_WP;
	r->obey_rw = r->user || r->wp;
	r->no_user_data = !r->user && (regs->cr4 & X86_CR4_SMAP) && (implicit || !regs->ac);
	r->no_user_fetch = !r->user && (regs->cr4 & X86_CR4_SMEP);
	r->keys[0] = long_mode && (regs->cr4 & X86_CR4_PKS);
	r->keys[1] = long_mode && (regs->cr4 & X86_CR4_PKE);
	r->key_rights[0] = regs->pkrs;
	r->key_rights[1] = regs->pkru;
	r->kinds = DATA;
	if (!implicit && !r->shadow_stack)
		r->kinds |= MMU_ACCESS_FETCH;
}

/* Without protection keys: the MMU_ACCESS_READ, WRITE and FETCH that the page grants. */
uint32_t x86_rights(const struct x86_rules *r, const struct x86_leaf *page)
{
	uint32_t rights = 0;

	if (r->user && !page->user)
		return 0;
	if (page->executable && !(page->user && r->no_user_fetch))
		rights |= MMU_ACCESS_FETCH;
	if (r->shadow_stack)
		return page->shadow_stack && page->user == r->user ? rights | DATA : rights;
	if (page->user && r->no_user_data)
		return rights;
	return rights | MMU_ACCESS_READ | (page->writable || !r->obey_rw ? MMU_ACCESS_WRITE : 0);
}

/* The MMU_ACCESS_READ and WRITE that the protection key forbids. */
uint32_t x86_key_denies(const struct x86_rules *r, const struct x86_leaf *page)
{
	uint32_t bits;

	if (!r->keys[page->user])
		return 0;
	bits = r->key_rights[page->user] >> (2 * page->key);
	if (bits & 1)
		return DATA;
	return (bits & 2) && (r->wp || (page->user && r->user)) ? MMU_ACCESS_WRITE : 0;
}
