/*
 * x86 instructions that flush the TLB: INVLPG, INVPCID, MOV to a control register, WRMSR. The engine tells
 * nobody of them. But it translates code only from pages that it asked for; so each new page of code is
 * searched for their bytes, and a hook is put on what may be one. A hook costs nothing elsewhere.
 */
#include "decode_x86.h"
#include "deliver.h"

enum { HOOK_CODE = 1 << 2 };	/* unicorn.h: UC_HOOK_CODE */
enum { OP_0F = 0x0f, OP_SYSTEM = 0x101, OP_MOV_CR = 0x122, OP_WRMSR = 0x130, OP_INVPCID = 0x282, REG_INVLPG = 7,
       RCX = 1 };

static uint64_t general(struct mmu_guest *g, int8_t number)
{
	return number < 0 ? 0 : guest_register(g, g->c.ids.general[number & 15]);
}

static void flush_page(struct mmu_guest *g, const struct x86_instruction *i)
{
	if (i->odd)
		guest_tlb_flush(g);
	else
		guest_tlb_flush_page(g, general(g, i->base) + (general(g, i->index) << i->scale) +
					(uint64_t)(int64_t)i->displacement);
}

/* UC_HOOK_CODE on a site: the instruction at `address` comes next. It accesses nothing through the TLB, so what
   is flushed before it is not filled again until it has run. */
static void on_site(void *uc, uint64_t address, uint32_t size, void *user)
{
	struct mmu_guest *g = user;
	struct x86_instruction i;
	uint8_t code[X86_LONGEST];
	uint32_t count;

	(void)uc;
	(void)size;
	if (g->phase == GUEST_PROBING || guest_stopping(g))
		return;
	for (count = 0; count < X86_LONGEST; count++) {
		uint64_t byte;

		if (!guest_peek(g, address + count, 1, &byte))
			break;
		code[count] = (uint8_t)byte;
	}
	if (!x86_decode(code, count, &i)) {
		guest_tlb_flush(g);
	} else if (i.opcode == OP_SYSTEM && i.reg == REG_INVLPG && i.memory) {
		flush_page(g, &i);
	} else if (i.opcode == OP_MOV_CR || i.opcode == OP_INVPCID) {
		guest_tlb_flush(g);
	} else if (i.opcode == OP_WRMSR && (uint32_t)general(g, RCX) == MSR_EFER) {
		guest_tlb_flush(g);
		guest_flush_tlb(g);	/* the engine's, which forgets to */
	}
}

static void add(struct mmu_guest *g, uint64_t first, uint64_t last)
{
	const struct mmu_guest_engine *e = &g->c.engine;
	struct guest_sites *s = &g->sites;
	size_t hook;

	for (uint32_t i = 0; i < s->count; i++)
		if (first >= s->at[i].first && last <= s->at[i].last)
			return;
	if (s->count == SITES ||
	    e->hook_add(e->uc, &hook, HOOK_CODE, (void *)(uintptr_t)on_site, g, first, last)) {
		g->tlb.blind = true;
		return;
	}
	s->at[s->count++] = (struct guest_site){ first, last, hook };
}

/* Whether the opcode whose 0F is at code[at] may be one of ours; what lies on the next page may. */
static bool may_flush(const uint8_t *code, uint32_t at)
{
	uint32_t left = (uint32_t)GUEST_PAGE - at;

	if (code[at] != OP_0F)
		return false;
	if (left == 1)
		return true;
	switch (code[at + 1]) {
	case OP_MOV_CR & 0xff: case OP_WRMSR & 0xff:
		return true;
	case OP_SYSTEM & 0xff:
		return left == 2 || ((code[at + 2] >> 3 & 7) == REG_INVLPG && code[at + 2] >> 6 != 3);
	case 0x38:
		return left == 2 || code[at + 2] == (OP_INVPCID & 0xff);
	}
	return false;
}

/*
 * Puts hooks on the page of code at `page` (virtual), which the engine is about to translate from. It comes
 * here again after a store to the page: an entry of its TLB that lets it store lets it fetch no more.
 */
void guest_sites_scan(struct mmu_guest *g, uint64_t page)
{
	const uint8_t *code = g->view.host, *found;
	uint32_t at = 0, first, before;

	if (g->c.arch != MMU_GUEST_X86_64)
		return;
	if (!code) {
		g->tlb.blind = true;
		return;
	}
	for (; (found = memchr(code + at, OP_0F, GUEST_PAGE - at)); at++) {
		at = (uint32_t)(found - code);
		if (!may_flush(code, at))
			continue;
		for (first = at; first && x86_is_prefix(code[first - 1]);)
			first--;
		/* Prefixes may stand on the page before. */
		before = first || page < GUEST_PAGE ? 0 : X86_LONGEST - 1;
		add(g, page + first - before, page + at);
	}
	for (first = GUEST_PAGE; first && x86_is_prefix(code[first - 1]);)
		first--;
	if (first < GUEST_PAGE)		/* or the opcode on the page behind */
		add(g, page + first, page + GUEST_PAGE - 1);
}

/* All code is translated anew: hooks on what was there may go. */
void guest_sites_forget(struct mmu_guest *g)
{
	struct guest_sites *s = &g->sites;

	if (s->count <= SITES / 2)
		return;
	for (uint32_t i = 0; i < s->count; i++)
		g->c.engine.hook_del(g->c.engine.uc, s->at[i].hook);
	s->count = 0;
}
