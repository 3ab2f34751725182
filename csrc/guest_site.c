/*
 * Instructions that we must know of before they run, and of which the engine tells nobody: it translates code only from
 * pages that it asked for, so each new page of code is searched for them, and a hook is put on what may be one. A hook
 * costs nothing elsewhere. What they are is in guest_scan_x86.c and guest_strict.c; see also guest_block.c.
 */
#include "deliver.h"

enum { HOOK_CODE = 1 << 2 };	/* unicorn.h: UC_HOOK_CODE */

/* The instruction at pc is to be run alone. */
void guest_site_run_alone(struct mmu_guest *g, uint64_t pc, uint32_t length)
{
	if (g->phase != GUEST_RUNNING)
		return;
	g->atomic_pc = pc;
	g->atomic_next = pc + length;
	g->event = GUEST_ATOMIC_NEXT;
	g->c.engine.emu_stop(g->c.engine.uc);
}

static void on_arm64_site(struct mmu_guest *g, uint64_t address)
{
	uint64_t word;

	if (guest_peek(g, address, 4, &word) && guest_arm64_permitted(g, address, (uint32_t)word) && g->sharing &&
	    guest_atomic_arm64((uint32_t)word))
		guest_site_run_alone(g, address, 4);
}

/* UC_HOOK_CODE on a site: the instruction at `address` comes next. */
static void on_site(void *uc, uint64_t address, uint32_t size, void *user)
{
	struct mmu_guest *g = user;

	(void)uc;
	if (g->phase == GUEST_PROBING || guest_stopping(g))
		return;
	if (g->phase == GUEST_ATOMIC) {
		if (address != g->atomic_pc)
			g->c.engine.emu_stop(g->c.engine.uc);
		return;
	}
	if (!guest_flags_known(g, address))
		return;
	guest_flags_note(g, address, size);
	if (g->c.arch == MMU_GUEST_X86_64)
		guest_x86_site(g, address);
	else
		on_arm64_site(g, address);
}

/* Calls `callback`, NULL: on_site, before each instruction that begins at first .. last. False: it did before. */
bool guest_site_add(struct mmu_guest *g, uint64_t first, uint64_t last, void *callback)
{
	const struct mmu_guest_engine *e = &g->c.engine;
	struct guest_sites *s = &g->sites;
	size_t hook;

	if (s->full)
		return false;
	for (uint32_t i = 0; i < s->count; i++)
		if (first >= s->at[i].first && last <= s->at[i].last && callback == s->at[i].callback)
			return false;
	if (s->count == SITES) {
		/* One on everything: slow, but none is missed. It goes with the others. */
		first = 1;
		last = 0;
		s->full = true;
		callback = NULL;
	}
	if (e->hook_add(e->uc, &hook, HOOK_CODE, callback ? callback : (void *)(uintptr_t)on_site, g, first, last)) {
		g->tlb.blind = true;
		return false;
	}
	s->at[s->count++] = (struct guest_site){ first, last, hook, callback };
	return true;
}

/*
 * Puts hooks on the page of code at `page` (virtual), which the engine is about to translate from. It comes
 * here again after a store to the page: an entry of its TLB that lets it store lets it fetch no more. False: all code
 * must be translated anew.
 */
bool guest_sites_scan(struct mmu_guest *g, uint64_t page)
{
	if (!g->view.host)
		g->tlb.blind = true;
	else if (g->c.arch == MMU_GUEST_AARCH64)
		return guest_arm64_scan(g, page, g->view.host);
	else
		guest_x86_scan(g, page, g->view.host);
	return true;
}

/* All code is translated anew: hooks on what was there may go. */
void guest_sites_forget(struct mmu_guest *g)
{
	struct guest_sites *s = &g->sites;

	if (s->count <= SITES / 2 && !s->drop)
		return;
	for (uint32_t i = 0; i < s->count; i++)
		mmu_guest_unhook(g, s->at[i].hook);
	s->count = 0;
	s->full = s->drop = false;
}
