/*
 * Pages that the guest ran code from, and a copy of each.
 *
 * The engine translates code only from plain memory, so of other pages it runs the copy, the shadow. The copy
 * of a page that is plain memory tells what was there when it became code. What the guest itself stores to
 * code is seen as it happens (guest_fill.c); what others write is found by comparing, after the bus counted
 * a write of theirs: when a device was accessed, at a TLB miss, and when the run goes on after a stop, which the
 * first of these writes asks for. From then on the guest looks now and then until none comes any more.
 *
 * Nobody counts what the guests of other machines store. Where memory is shared with them code is compared when the
 * architecture says that it is seen: on x86 at instructions that serialize, on arm64 after an IC of any machine,
 * which is broadcast, at the next block, and an ISB ends a block. And now and then, so that a loop ends that another
 * machine patches and that does none of this. Comparing knows nothing of how stores come to memory, by which window,
 * mirror or mapping; to have them tell instead, all machines would need to give up their right to store to what is
 * code of any.
 */
#include "guest.h"
#include <string.h>

/* unicorn.h: UC_CTL_WRITE(UC_CTL_TB_REMOVE_CACHE, 2) */
enum { CONTROL_REMOVE_CACHE = 9 | 2 << 26 | 1 << 30 };
enum { HOOK_MEM_WRITE_PROT = 1 << 8 };	/* unicorn.h: UC_HOOK_MEM_WRITE_PROT */

static uint32_t code_hash(struct page_key key)
{
	uint64_t number = key.page / GUEST_PAGE + (uintptr_t)key.device;

	return (uint32_t)((number * UINT64_C(0x9e3779b97f4a7c15)) >> 32) % CODE_SLOTS;
}

/* The slot that holds the page, or the free one where it would stand. CODE_LIMIT keeps one free. */
static struct code_page *code_slot(struct mmu_guest *g, const struct page_key *key)
{
	uint32_t i = code_hash(*key);

	while (g->code[i].used &&
	       (g->code[i].key.page != key->page || g->code[i].key.device != key->device))
		i = (i + 1) % CODE_SLOTS;
	return &g->code[i];
}

/* What is known of a page as code; NULL when the guest did not run from it. */
struct code_page *guest_code_find(struct mmu_guest *g, const struct page_key *key)
{
	struct code_page *code = code_slot(g, key);

	return code->used ? code : NULL;
}

/* Notes that the guest runs from this page. NULL when there are too many: flush first. */
struct code_page *guest_code_enter(struct mmu_guest *g, const struct page_key *key)
{
	struct code_page *code = code_slot(g, key);

	if (code->used)
		return code;
	if (g->code_count == CODE_LIMIT)
		return NULL;
	*code = (struct code_page){ .key = *key, .used = 1 };
	g->code_order[g->code_count++] = (uint16_t)(code - g->code);
	return code;
}

static uint64_t shadow_offset(const struct mmu_guest *g, const struct code_page *code)
{
	return (uint64_t)(code - g->code) * GUEST_PAGE;
}

uint64_t guest_code_engine(const struct mmu_guest *g, const struct code_page *code)
{
	return GUEST_SHADOW_BASE + shadow_offset(g, code);
}

const uint8_t *guest_code_host(const struct mmu_guest *g, const struct code_page *code)
{
	return g->c.shadow + shadow_offset(g, code);
}

/* The slots that are in use, and not all of them: there are many, and most were never touched. */
void guest_code_forget(struct mmu_guest *g)
{
	while (g->code_count) {
		struct code_page *code = &g->code[g->code_order[--g->code_count]];

		if (code->hook)
			mmu_guest_unhook(g, code->hook);
		code->used = 0;
	}
	guest_alias_forget(g);
}

/*
 * Has the engine look at all stores to a page of code. It looks at the first one only, and at all of a page that has a
 * hook on memory. This hook is never called: all memory of the engine may be written. False: there is none.
 */
bool guest_code_see_stores(struct mmu_guest *g, struct code_page *code)
{
	if (code->hook)
		return true;
	return !g->c.engine.hook_add(g->c.engine.uc, &code->hook, HOOK_MEM_WRITE_PROT,
				     (void *)(uintptr_t)guest_unmapped, g, code->engine, code->engine + GUEST_PAGE - 1);
}

static uint8_t *copy_of(const struct mmu_guest *g, const struct code_page *code)
{
	return g->c.shadow + shadow_offset(g, code);
}

/* Copies the page into its shadow; on success it is in use. Returns MMU_MEMTX_* bits (bytes that failed are 0) or MMU_ECALLBACK. */
int guest_code_shadow(struct mmu_guest *g, struct code_page *code, paddr_t page)
{
	int result = mmu_port_read(g->c.code, page.v, copy_of(g, code), GUEST_PAGE);

	code->shadowed = result == MMU_MEMTX_OK;
	code->pa = page;
	g->counters.shadows += code->shadowed;
	return result;
}

/* Keeps what is in the page, which the engine has as plain memory at `host`. */
void guest_code_keep(struct mmu_guest *g, struct code_page *code, const uint8_t *host)
{
	if (code->host == host)
		return;
	code->host = host;
	memcpy(copy_of(g, code), host, GUEST_PAGE);
}

/* ---- what others write ---- */

/* Brings the copy up to date. True when it was not. */
static bool renew(struct mmu_guest *g, struct code_page *code)
{
	const uint8_t *now = code->host;
	uint8_t page[GUEST_PAGE];

	if (code->shadowed) {
		/* Not counted: this is how we look, not how the guest fetches. Bytes that fail read as 0. */
		if (mmu_port_read(g->c.probe, code->pa.v, page, GUEST_PAGE) < 0)
			return false;
		now = page;
	}
	if (!now || !memcmp(copy_of(g, code), now, GUEST_PAGE))
		return false;
	memcpy(copy_of(g, code), now, GUEST_PAGE);
	return true;
}

/* Others wrote to memory since this was last asked. */
static bool written(struct mmu_guest *g)
{
	/* Acquire: pairs with bus_wrote(): the bytes are seen. */
	uint64_t written = atomic_load_explicit(&g->c.bus->written, memory_order_acquire);
	bool news = written != g->written;

	g->written = written;
	return news;
}

/*
 * In how many blocks of instructions the next look is due whatever happens. A comparison of a page takes about as long
 * as 50 blocks, a flush and what is then translated again as 50000: so looks never take more than a part of the time.
 */
enum { LOOK_BLOCKS = 1 << 14, LOOK_BLOCKS_PER_PAGE = 1 << 8, LOOK_BLOCKS_AFTER_CHANGE = 1 << 18 };

/* Sees to it that the guest looks in a while, when there may be a reason by then. */
void guest_code_look_later(struct mmu_guest *g)
{
	if (!g->look_in && (g->sharing || atomic_load_explicit(&g->c.bus->told, memory_order_relaxed)))
		g->look_in = LOOK_BLOCKS;
	exclusive_want(&g->exclusive, EXCLUSIVE_COUNTS, g->look_in);
}

/* Whether somebody may have written to code: others were counted, or it is time to look. */
static bool suspected(struct mmu_guest *g)
{
	bool counted = written(g), told = exclusive_fetches_anew(&g->exclusive), look = g->look;

	g->look = false;
	if (look && !counted) {
		atomic_store(&g->c.bus->told, false);	/* the next one who writes is to call; see bus_wrote() */
		counted = g->written != atomic_load(&g->c.bus->written);
	}
	guest_code_look_later(g);
	return counted || told || (look && g->sharing);
}

/* Whether others wrote to code since this or guest_code_drop() was last called, as far as is known; if so, flush. */
bool guest_code_changed(struct mmu_guest *g)
{
	bool changed = false;

	if (!suspected(g))
		return false;
	for (uint32_t i = 0; i < g->code_count; i++)
		changed |= renew(g, &g->code[g->code_order[i]]);
	if (g->look_in)
		g->look_in = changed ? LOOK_BLOCKS_AFTER_CHANGE : LOOK_BLOCKS + g->code_count * LOOK_BLOCKS_PER_PAGE;
	return changed;
}

/*
 * The instruction that comes next serializes: behind it runs what is in memory now. True: code was changed, g->event
 * says so, and the instruction is to begin again. It does so once, or others could keep the guest there by storing.
 */
bool guest_code_serialize(struct mmu_guest *g)
{
	bool again = g->serialized;

	if (!g->sharing || g->phase == GUEST_PROBING || guest_stopping(g))
		return false;
	g->serialized = false;
	if (again)
		return false;
	g->look = true;
	g->serialized = guest_code_changed(g);
	if (g->serialized)
		g->event = GUEST_MAP_CHANGED;
	return g->serialized;
}

/* Makes the engine forget what others wrote over, from a callback of it: no effect but that. */
void guest_code_drop(struct mmu_guest *g)
{
	enum guest_phase phase = g->phase;

	if (!written(g))
		return;
	g->phase = GUEST_DROPPING;
	for (uint32_t i = 0; i < g->code_count; i++) {
		struct code_page *code = &g->code[g->code_order[i]];

		if (!renew(g, code))
			continue;
		code->scanned = 0;
		g->dropping = code->engine;
		g->c.engine.control(g->c.engine.uc, CONTROL_REMOVE_CACHE, code->va,
				    code->va + GUEST_PAGE - 1);
		g->code_stale |= code->many;	/* at the next stop, what ran at other addresses too */
	}
	g->phase = phase;
	guest_flush_tlb(g);
}

/* From now on until guest_code_unwatch() others' writes are counted. Twice is fine, for both. */
void guest_code_watch(struct mmu_guest *g)
{
	if (!g->watching)
		atomic_fetch_add_explicit(&g->c.bus->watchers, 1, memory_order_relaxed);
	g->watching = true;
}

void guest_code_unwatch(struct mmu_guest *g)
{
	if (g->watching)
		atomic_fetch_sub_explicit(&g->c.bus->watchers, 1, memory_order_relaxed);
	g->watching = false;
}
