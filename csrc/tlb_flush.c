/* What leaves a softmmu TLB: flushes, and what changes of registers and of watchpoints demand. */
#include "tlb.h"
#include <stdlib.h>
#include <string.h>

static bool covers(const struct mmu_tlb_scope *s, const struct tlb_entry *e)
{
	uint32_t tag = e->stamp & ((UINT32_C(1) << TLB_STAMP_SHIFT) - 1);

	if (tag == TLB_GLOBAL)
		return s->global_too;
	return s->any_space || tag == s->space;
}

/* Pages first..last (addresses of pages, inclusive). */
static bool remove_entry(struct tlb_entry *e, uint64_t first, uint64_t last,
			 const struct mmu_tlb_scope *s, uint64_t generation)
{
	bool live = tlb_live(e, generation);

	if (!e->stamp || e->page < first || e->page > last || !covers(s, e))
		return false;
	e->stamp = 0;
	return live;
}

static bool meets_large(const struct tlb_table *t, uint64_t first, uint64_t last)
{
	return t->has_large && first <= (t->large | ~t->large_mask) && t->large <= last;
}

/* All slots, or those that hold something when they are few. */
static uint64_t flush_slots(const struct mmu_tlb *tlb, struct tlb_table *t, const struct mmu_tlb_scope *s,
			    uint64_t generation)
{
	bool few = t->filled_count <= TLB_FILLED;
	uint32_t count = few ? t->filled_count : tlb->entries;
	uint64_t gone = 0;

	for (uint32_t i = 0; i < count; i++)
		gone += remove_entry(&t->slots[few ? t->filled[i] : i], 0, TLB_PAGE_MASK, s, generation);
	return gone;
}

uint64_t tlb_table_flush(struct mmu_tlb *tlb, struct tlb_table *t, const struct mmu_tlb_scope *s,
			 uint64_t generation)
{
	uint64_t first = s->first & TLB_PAGE_MASK, last = s->last & TLB_PAGE_MASK, gone = 0;
	uint64_t more = (last - first) >> TLB_PAGE_SHIFT;	/* pages, less one */

	if (more >= tlb->entries || meets_large(t, s->first, s->last)) {
		first = 0;
		last = TLB_PAGE_MASK;
		gone += flush_slots(tlb, t, s, generation);
	} else {
		for (uint64_t i = 0; i <= more; i++)
			gone += remove_entry(tlb_slot(tlb, t, first + (i << TLB_PAGE_SHIFT)), first,
					     last, s, generation);
	}
	for (uint32_t i = 0; i < MMU_TLB_VICTIMS; i++)
		gone += remove_entry(&t->victims[i], first, last, s, generation);
	if (!first && last == TLB_PAGE_MASK && s->any_space && s->global_too) {
		t->dirty = t->has_large = t->odd = false;
		t->filled_count = 0;
	}
	return gone;
}

uint64_t mmu_tlb_flush_address(const mmu_tlb *tlb, uint64_t va)
{
	return tlb_linear(&tlb->cpu.flush, va);
}

uint64_t mmu_tlb_flush(mmu_tlb *tlb, mmu_port *port, const struct mmu_tlb_scope *s)
{
	uint64_t generation = tlb_generation(port), gone = 0;

	if (s->first > s->last)
		return 0;
	tlb->changes++;
	tlb->stats.flushes++;
	for (uint32_t i = 0; i < tlb->count; i++) {
		if (!(s->indexes >> i & 1))
			continue;
		if (tlb->tables[i].dirty)
			gone += tlb_table_flush(tlb, &tlb->tables[i], s, generation);
		else
			tlb->stats.elided++;
	}
	tlb->stats.flushed += gone;
	return gone;
}

uint64_t tlb_table_forget(struct mmu_tlb *tlb, struct tlb_table *t, const struct mmu_tlb_scope *s,
			  uint64_t generation)
{
	uint64_t page = s->first & TLB_PAGE_MASK;
	uint64_t gone = remove_entry(tlb_slot(tlb, t, page), page, page, s, generation);

	for (uint32_t i = 0; i < MMU_TLB_VICTIMS; i++)
		gone += remove_entry(&t->victims[i], page, page, s, generation);
	return gone;
}

/* ---- registers ---- */

static bool same_key(const struct tlb_key *a, const struct tlb_key *b)
{
	/* pa_range is the last field; behind it there may be padding. */
	const size_t arm64 = offsetof(struct mmu_arm64_regs, pa_range) + sizeof(a->arm64.pa_range);

	return !memcmp(&a->x86, &b->x86, sizeof(a->x86)) && !memcmp(&a->arm64, &b->arm64, arm64);
}

/* The table of *key: the one it has, a new one, or the one that was selected longest ago. */
static int select_table(struct mmu_tlb *tlb, mmu_port *port, const struct tlb_key *key, uint32_t *ret)
{
	const struct mmu_tlb_scope all = { .last = UINT64_MAX, .any_space = 1, .global_too = 1 };
	uint32_t oldest = 0;
	struct tlb_table *t;

	for (uint32_t i = 0; i < tlb->count; i++) {
		if (same_key(&tlb->tables[i].key, key)) {
			*ret = i;
			return MMU_OK;
		}
		if (tlb->tables[i].selected < tlb->tables[oldest].selected)
			oldest = i;
	}
	if (tlb->count < MMU_TLB_INDEXES) {
		size_t size = (size_t)tlb->entries * sizeof(struct tlb_entry);

		t = &tlb->tables[tlb->count];
		t->slots = aligned_alloc(sizeof(struct tlb_entry), size);
		if (!t->slots)
			return MMU_ENOMEM;
		memset(t->slots, 0, size);
		*ret = tlb->count++;
	} else {
		t = &tlb->tables[oldest];
		tlb->stats.flushed += tlb_table_flush(tlb, t, &all, tlb_generation(port));
		t->turn = 0;
		*ret = oldest;
	}
	t->key = *key;
	return MMU_OK;
}

static int set_cpu(struct mmu_tlb *tlb, mmu_port *port, const struct tlb_cpu *cpu,
		   const struct tlb_key *key)
{
	uint32_t index;
	int rc = select_table(tlb, port, key, &index);

	if (rc != MMU_OK)
		return rc;
	tlb->cpu = *cpu;
	tlb->index = index;
	tlb->changes++;
	tlb->tables[index].selected = tlb->changes;
	return MMU_OK;
}

/* What MOV to CR0, CR3 and CR4 remove: up to two scopes. */
static unsigned x86_flushes(const struct tlb_cpu *old, const struct tlb_cpu *new, bool keeps,
			    struct mmu_tlb_scope *ret)
{
	const struct mmu_x86_regs *was = &old->x86, *now = &new->x86;
	uint64_t cleared = was->cr4 & ~now->cr4, set = now->cr4 & ~was->cr4;
	struct mmu_tlb_scope scope = { .last = UINT64_MAX, .indexes = UINT32_MAX, .global_too = 1 };
	unsigned n = 0;

	scope.any_space = (was->cr0 & ~now->cr0 & X86_CR0_PG) || ((cleared | set) & X86_CR4_PGE) ||
			  (cleared & X86_CR4_PCIDE);
	scope.space = old->space;
	if (scope.any_space || ((cleared | set) & X86_CR4_PAE) || (set & X86_CR4_SMEP))
		ret[n++] = scope;
	if (was->cr3 != now->cr3 && !keeps) {
		scope.any_space = scope.global_too = 0;
		scope.space = new->space;
		ret[n++] = scope;
	}
	return n;
}

int mmu_tlb_set_x86(mmu_tlb *tlb, mmu_port *port, const struct mmu_x86_regs *regs)
{
	struct mmu_tlb_scope scopes[2];
	struct tlb_cpu cpu;
	struct tlb_key key;
	unsigned n = 0;
	bool keeps;
	int rc;

	if (tlb->cpu.arch != TLB_UNSET && tlb->cpu.arch != TLB_X86)
		return MMU_ERANGE;
	rc = tlb_cpu_x86(&cpu, &key, regs, &keeps);
	if (rc != MMU_OK)
		return rc;
	if (tlb->cpu.arch == TLB_X86)
		n = x86_flushes(&tlb->cpu, &cpu, keeps, scopes);
	for (unsigned i = 0; i < n; i++)
		mmu_tlb_flush(tlb, port, &scopes[i]);
	return set_cpu(tlb, port, &cpu, &key);
}

int mmu_tlb_set_arm64(mmu_tlb *tlb, mmu_port *port, const struct mmu_arm64_regs *regs)
{
	struct tlb_cpu cpu;
	struct tlb_key key;

	if (tlb->cpu.arch != TLB_UNSET && tlb->cpu.arch != TLB_ARM64)
		return MMU_ERANGE;
	tlb_cpu_arm64(&cpu, &key, port, regs);
	return set_cpu(tlb, port, &cpu, &key);
}

/* ---- watchpoints ---- */

bool tlb_is_watched(const struct mmu_tlb *tlb, uint64_t first, uint64_t last, uint32_t access)
{
	for (uint32_t i = 0; i < tlb->watch_count; i++) {
		const struct tlb_watch *w = &tlb->watches[i];

		if ((w->access & access) && first <= w->last && w->first <= last)
			return true;
	}
	return false;
}

/* The pages are filled anew, with flags that fit. */
static void refill(struct mmu_tlb *tlb, mmu_port *port, uint64_t first, uint64_t last)
{
	mmu_tlb_flush(tlb, port,
		      &(struct mmu_tlb_scope){ .first = first, .last = last, .indexes = UINT32_MAX,
							  .any_space = 1, .global_too = 1 });
}

int mmu_tlb_watch(mmu_tlb *tlb, mmu_port *port, uint64_t first, uint64_t last, uint32_t access)
{
	if (tlb->watch_count == MMU_TLB_WATCHPOINTS || first > last || !access ||
	    access & ~(uint32_t)(MMU_ACCESS_READ | MMU_ACCESS_WRITE))
		return MMU_ERANGE;
	tlb->watches[tlb->watch_count++] = (struct tlb_watch){ first, last, access };
	refill(tlb, port, first, last);
	return MMU_OK;
}

int mmu_tlb_unwatch(mmu_tlb *tlb, mmu_port *port, uint64_t first, uint64_t last, uint32_t access)
{
	for (uint32_t i = 0; i < tlb->watch_count; i++) {
		const struct tlb_watch *w = &tlb->watches[i];

		if (w->first != first || w->last != last || w->access != access)
			continue;
		tlb->watches[i] = tlb->watches[--tlb->watch_count];
		refill(tlb, port, first, last);
		return MMU_OK;
	}
	return MMU_ERANGE;
}

uint32_t mmu_tlb_take_watched(mmu_tlb *tlb, struct mmu_tlb_watched *ret)
{
	uint32_t count = tlb->watched_count;

	memcpy(ret, tlb->watched, count * sizeof(*ret));
	tlb->watched_count = 0;
	return count;
}
