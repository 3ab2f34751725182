/*
 * TLB fills: the engine asks, the walker answers.
 *
 * The engine tells only the page of an address. When a walk refuses, the instruction has had no
 * effect; guest_probe() then runs it once more with every write diverted to a scratch page and the
 * refused page sent to an address where nothing is, and the engine reports the exact address there.
 */
#include <string.h>
#include "guest.h"

static uint32_t access_of(int type)
{
	switch (type) {
	case ENGINE_WRITE: return MMU_ACCESS_WRITE;
	case ENGINE_FETCH: return MMU_ACCESS_FETCH;
	}
	return MMU_ACCESS_READ;
}

static bool answer(struct engine_tlb_entry *ret, uint64_t pa, int permissions)
{
	ret->pa = pa;
	ret->permissions = permissions;
	return true;
}

static bool refuse(struct mmu_guest *g, enum guest_event event, int type)
{
	g->event = event;
	g->stop.access = access_of(type);
	return false;
}

/* The engine translates whole pages, so all of a page of code must be readable. */
static bool fetch_failed(struct mmu_guest *g, uint64_t va, paddr_t page, int result)
{
	uint64_t pc = guest_register(g, g->c.ids.pc);

	guest_stop(g, result < 0 ? MMU_GUEST_CALLBACK : MMU_GUEST_BUS_ERROR);
	g->stop.va = va;
	if ((pc & GUEST_PAGE_MASK) == va) {
		g->stop.va = pc;
		page.v |= pc & (GUEST_PAGE - 1);
	}
	g->stop.exact = 1;
	g->stop.hpa = page.v;
	g->stop.access = MMU_ACCESS_FETCH;
	g->stop.result = (uint32_t)result;
	return false;
}

/* Little-endian bytes va .. va+size-1 of code, at most 8, within a page. False when there are none. */
bool guest_peek(struct mmu_guest *g, uint64_t va, uint32_t size, uint64_t *ret)
{
	struct mmu_guest_stop unused;
	struct guest_translation t;

	*ret = 0;
	if (g->view.host && (va & GUEST_PAGE_MASK) == g->view.va) {
		for (uint32_t i = 0; i < size; i++)
			*ret |= (uint64_t)g->view.host[(va + i) & (GUEST_PAGE - 1)] << (8 * i);
		return true;
	}
	if (guest_looked(g, g->arch->walk(g, g->c.probe, va, MMU_ACCESS_FETCH, false, &t, &unused)) != MMU_OK)
		return false;
	for (uint32_t i = 0; i < size; i++) {
		uint64_t byte;

		if (guest_looked(g, mmu_port_load(g->c.probe, t.pa.v + i, 1, &byte)) != MMU_MEMTX_OK)
			return false;
		*ret |= byte << (8 * i);
	}
	return true;
}

/* Bytes of code, with one walk for each page. Returns how many there are. */
uint32_t guest_peek_code(struct mmu_guest *g, uint64_t va, uint32_t size, uint8_t *ret)
{
	uint32_t done = 0;

	while (done < size) {
		uint64_t at = va + done, room = GUEST_PAGE - (at & (GUEST_PAGE - 1));
		uint32_t part = size - done < room ? size - done : (uint32_t)room;
		struct mmu_guest_stop unused;
		struct guest_translation t;

		if (g->view.host && (at & GUEST_PAGE_MASK) == g->view.va) {
			memcpy(ret + done, g->view.host + (at & (GUEST_PAGE - 1)), part);
			done += part;
			continue;
		}
		if (guest_looked(g, g->arch->walk(g, g->c.probe, at, MMU_ACCESS_FETCH, false, &t, &unused)) != MMU_OK)
			break;
		if (guest_looked(g, mmu_port_read(g->c.probe, t.pa.v, ret + done, part)) != MMU_MEMTX_OK) {
			part = 1;	/* some of them, maybe */
			if (guest_looked(g, mmu_port_read(g->c.probe, t.pa.v, ret + done, part)) != MMU_MEMTX_OK)
				break;
		}
		done += part;
	}
	return done;
}

/*
 * Takes back the right to write a page that has just become code, or ran at a second address, from
 * every TLB entry that may have it.
 */
static void note_place(struct mmu_guest *g, struct code_page *code, uint64_t va, uint32_t index,
		       bool known)
{
	if (!known) {
		code->va = va;
		code->index = index;
	} else if (!code->many && (code->va != va || code->index != index)) {
		code->many = 1;
	} else {
		return;
	}
	guest_flush_tlb(g);
}

/* Looks for what must be known of before it runs, unless that was done and nothing was written since.
   False: code that was translated may have to be anew. */
static bool scan(struct mmu_guest *g, struct code_page *code, uint64_t va, uint32_t index)
{
	bool all;

	if (code->scanned && code->va == va && code->index == index && !code->many)
		return true;
	all = guest_sites_scan(g, va);
	code->scanned = 1;
	return all || g->phase == GUEST_PROBING;
}

/* X alone: the engine keeps a page that is writable and executable on its slow path for good. */
static bool fill_fetch(struct mmu_guest *g, uint64_t va, const struct guest_translation *t,
		       struct engine_tlb_entry *ret)
{
	paddr_t page = pa_of(t->pa.v & GUEST_PAGE_MASK);
	struct guest_place place = guest_place(g, page, g->phase != GUEST_PROBING);
	bool known = guest_code_find(g, &place.key);
	struct code_page *code = guest_code_enter(g, &place.key);
	uint8_t *host;
	bool all;

	if (!code)
		return refuse(g, GUEST_CODE_FULL, ENGINE_FETCH);
	if (!known)
		guest_alias_enter(g, code, page);
	g->view = (struct guest_view){ .va = va };
	if (place.plain) {
		g->view.host = guest_window_host(g, place.engine);
		if (!g->view.host &&
		    mmu_port_host(g->c.probe, page.v, GUEST_PAGE, false, &host) == GUEST_PAGE)
			g->view.host = host;
		code->engine = place.engine;
		if (g->view.host && g->phase != GUEST_PROBING)
			guest_code_keep(g, code, g->view.host);
		all = scan(g, code, va, t->index);
		note_place(g, code, va, t->index, known);
		if (!all)
			return refuse(g, GUEST_MAP_CHANGED, ENGINE_FETCH);
		return answer(ret, place.engine, ENGINE_MAY_FETCH);
	}
	if (!code->shadowed) {
		int result = guest_code_shadow(g, code, page);

		if (result != MMU_MEMTX_OK)
			return fetch_failed(g, va, page, result);
	}
	g->view.host = guest_code_host(g, code);
	code->engine = guest_code_engine(g, code);
	all = scan(g, code, va, t->index);
	note_place(g, code, va, t->index, known);
	if (!all)
		return refuse(g, GUEST_MAP_CHANGED, ENGINE_FETCH);
	return answer(ret, guest_code_engine(g, code), ENGINE_MAY_FETCH);
}

/*
 * The engine sees a store to code in RAM only through the TLB entry that the code came through, which
 * a fill for data replaces. It sees none to the copy of a page. While instructions are counted such a store
 * would count twice and lose the flags, because the engine begins the instruction again.
 */
static bool engine_sees_stores(struct mmu_guest *g, struct code_page *code, uint64_t va, uint32_t index)
{
	return !g->limit && !code->shadowed && !code->many && code->va == va && code->index == index &&
	       guest_code_see_stores(g, code);
}

static bool fill_data(struct mmu_guest *g, uint64_t va, const struct guest_translation *t, int type,
		      struct engine_tlb_entry *ret)
{
	paddr_t page = pa_of(t->pa.v & GUEST_PAGE_MASK);
	struct guest_place place = guest_place(g, page, true);
	struct code_page *code = guest_code_find(g, &place.key);
	bool elsewhere = t->allowed & MMU_ACCESS_WRITE && guest_alias_is_code(g, page, code);
	int permissions = 0;

	if (t->allowed & MMU_ACCESS_READ)
		permissions |= ENGINE_MAY_READ;
	if (t->allowed & MMU_ACCESS_WRITE)
		permissions |= ENGINE_MAY_WRITE;
	if (code && (permissions & ENGINE_MAY_WRITE))
		code->scanned = 0;
	if (elsewhere ||
	    (code && (permissions & ENGINE_MAY_WRITE) && !engine_sees_stores(g, code, va, t->index))) {
		if (type == ENGINE_WRITE && g->phase == GUEST_RUNNING)
			return refuse(g, GUEST_CODE_WRITE, type);
		if (type == ENGINE_WRITE)
			g->code_stale = true;
		else
			permissions &= ~ENGINE_MAY_WRITE;
	}
	if (g->phase != GUEST_ATOMIC)
		return answer(ret, place.engine, permissions);
	if ((code || elsewhere) && (permissions & ENGINE_MAY_WRITE))
		g->code_stale = true;
	return answer(ret, place.plain ? GUEST_BUS_BASE + page.v : place.engine, permissions);
}

/* While probing: the page in question is nowhere, writes to any other go to a scratch page. */
static bool fill_probe(struct mmu_guest *g, uint64_t va, int type, struct engine_tlb_entry *ret)
{
	int permission = type == ENGINE_WRITE ? ENGINE_MAY_WRITE : ENGINE_MAY_READ;
	uint32_t access = access_of(type);
	struct mmu_guest_stop unused;
	struct guest_translation t;
	paddr_t page;

	if (type != ENGINE_FETCH)
		access |= g->arch->kind_of_access(g, va);
	if (!g->probe.by_hpa && va == g->probe.page && type == g->probe.type)
		return answer(ret, GUEST_NOWHERE_BASE, permission);
	if (guest_looked(g, g->arch->walk(g, g->c.probe, va, access, false, &t, &unused)) != MMU_OK)
		return false;
	page = pa_of(t.pa.v & GUEST_PAGE_MASK);
	if (type == ENGINE_FETCH)
		return fill_fetch(g, va, &t, ret);
	if (g->probe.by_hpa && type == g->probe.type && page.v == (g->probe.hpa & GUEST_PAGE_MASK)) {
		g->probe.page = va;
		g->probe.page_met = true;
		return answer(ret, GUEST_NOWHERE_BASE, permission);
	}
	if (type == ENGINE_WRITE)
		return answer(ret, GUEST_SCRATCH_BASE, permission);
	return answer(ret, guest_place(g, page, false).engine, permission);
}

/* When the engine has ended it looks up the byte before `until`: that is no access of the guest. */
static bool is_end(struct mmu_guest *g, uint64_t va)
{
	uint64_t pc;

	if (va != ((g->until - 1) & GUEST_PAGE_MASK))
		return false;
	pc = guest_register(g, g->c.ids.pc);
	return g->until ? (pc & GUEST_PAGE_MASK) != va : pc == 0;
}

/* A miss of an access of the guest. False: the instruction has had no effect, and g->event or g->stop says why. */
static bool fill(struct mmu_guest *g, uint64_t va, int type, struct engine_tlb_entry *ret)
{
	uint32_t access = access_of(type);
	struct guest_translation t;
	int rc;

	if (g->surplus == (va | 1) && type == ENGINE_READ)
		return answer(ret, GUEST_SCRATCH_BASE, ENGINE_MAY_READ);
	if (guest_map_changed(g) || guest_code_changed(g))
		return refuse(g, GUEST_MAP_CHANGED, type);
	if (type != ENGINE_FETCH) {
		access |= g->arch->kind_of_access(g, va);
	} else if (g->arch->pc_mask && (guest_register(g, g->c.ids.pc) & g->arch->pc_mask)) {
		guest_stop(g, MMU_GUEST_INVALID);	/* the first block of all is not told of otherwise */
		return false;
	}
	g->counters.fills++;
	rc = guest_translate(g, va, access, &t, &g->stop);
	if (rc != MMU_OK) {
		guest_stop(g, rc == MMU_FAULTED ? MMU_GUEST_FAULT : MMU_GUEST_CALLBACK);
		g->stop.va = va;
		g->stop.access = access;
		return false;
	}
	if (guest_sharing_changed(g))	/* while a device was asked for the tables */
		return refuse(g, GUEST_MAP_CHANGED, type);
	return type == ENGINE_FETCH ? fill_fetch(g, va, &t, ret) : fill_data(g, va, &t, type, ret);
}

/* UC_HOOK_TLB_FILL. `va` is the first byte of the page, PC is exact. */
bool guest_fill(void *uc, uint64_t va, int type, struct engine_tlb_entry *ret, void *user)
{
	struct mmu_guest *g = user;

	(void)uc;
	if (g->phase == GUEST_DROPPING)
		return answer(ret, g->dropping, ENGINE_MAY_FETCH);
	if (type == ENGINE_FETCH && is_end(g, va))
		return false;
	if (g->phase == GUEST_PROBING)
		return fill_probe(g, va, type, ret);
	if (guest_stopping(g))
		return false;
	if (type == ENGINE_FETCH) {
		g->block.fetched |= g->block.hooked;
		g->block.hooked = false;	/* other instructions come, and their hooks before them */
	} else {
		guest_flags_keep(g);
	}
	return fill(g, va, type, ret);
}

/* UC_HOOK_MEM_UNMAPPED over GUEST_NOWHERE: `address` has the low bits that the fill did not. */
bool guest_unmapped(void *uc, int type, uint64_t address, int size, int64_t value, void *user)
{
	struct mmu_guest *g = user;

	(void)uc;
	(void)type;
	(void)value;
	if (g->phase == GUEST_PROBING && !g->probe.hit) {
		g->probe.hit = true;
		g->probe.va = g->probe.page | (address & (GUEST_PAGE - 1));
		g->probe.bytes = size > 0 ? (uint32_t)size : 0;
	}
	return false;
}

/* Finds the exact address of the data access that g->stop tells of. Leaves registers and memory as they were. */
void guest_probe(struct mmu_guest *g)
{
	const struct mmu_guest_engine *e = &g->c.engine;
	bool bus = g->stop.kind == MMU_GUEST_BUS_ERROR;
	enum guest_event event = g->event;

	g->probe = (struct guest_probe){ .page = g->stop.va, .hpa = g->stop.hpa, .by_hpa = bus,
		.type = g->stop.access & MMU_ACCESS_WRITE ? ENGINE_WRITE : ENGINE_READ };
	e->context_save(e->uc, g->c.tried_context);
	exclusive_call(&g->exclusive);	/* on_block() looks */
	g->phase = GUEST_PROBING;
	guest_flush_tlb(g);
	e->emu_start(e->uc, g->stop.pc, 0, 0, 0);
	g->phase = GUEST_RUNNING;
	g->event = event;
	e->context_restore(e->uc, g->c.tried_context);
	guest_flush_tlb(g);
	if (bus && g->probe.page_met) {
		/* The first byte of the access that lies in the piece. */
		uint64_t piece = g->probe.page | (g->stop.hpa & (GUEST_PAGE - 1));
		bool inside = g->probe.hit && piece < g->probe.va && g->probe.va - piece < g->stop.size;

		g->stop.exact = 1;
		g->stop.va = inside ? g->probe.va : piece;
	} else if (!bus && g->probe.hit) {
		g->stop.exact = 1;
		g->stop.va = g->probe.va;
		g->stop.size = g->probe.bytes;
	}
}
