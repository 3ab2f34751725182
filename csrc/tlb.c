/* The softmmu TLB: lookup, victims, and what a walk puts in. Twin of mmu/tlb/{table,softmmu}.py. */
#include "tlb.h"
#include <stdlib.h>
#include "stripes.h"
#include "tlb_window.h"

_Static_assert(sizeof(struct tlb_entry) == 64, "an entry is one cache line");
_Static_assert(MMU_ACCESS_READ == 1 << TLB_READ && MMU_ACCESS_WRITE == 1 << TLB_WRITE &&
	       MMU_ACCESS_FETCH == 1 << TLB_FETCH, "comparators stand in the order of the access bits");

int mmu_tlb_create(uint32_t entries, mmu_tlb **ret)
{
	mmu_tlb *tlb;

	if (entries < TLB_ENTRIES_MIN || entries > TLB_ENTRIES_MAX || entries & (entries - 1))
		return MMU_ERANGE;
	tlb = calloc(1, sizeof(*tlb));
	if (!tlb)
		return MMU_ENOMEM;
	tlb->entries = entries;
	*ret = tlb;
	return MMU_OK;
}

void mmu_tlb_destroy(mmu_tlb *tlb)
{
	if (!tlb)
		return;
	for (uint32_t i = 0; i < tlb->count; i++)
		free(tlb->tables[i].slots);
	free(tlb);
}

uint32_t mmu_tlb_index(const mmu_tlb *tlb)
{
	return tlb->index;
}

const struct mmu_tlb_stats *mmu_tlb_stats(const mmu_tlb *tlb)
{
	return &tlb->stats;
}

static const struct tlb_entry *place(const struct mmu_tlb *tlb, const struct tlb_table *t, uint32_t i)
{
	return i < tlb->entries ? &t->slots[i] : &t->victims[i - tlb->entries];
}

uint32_t mmu_tlb_kept(const mmu_tlb *tlb, mmu_port *port, uint32_t index, struct mmu_tlb_kept *ret,
		      uint32_t capacity)
{
	uint64_t generation = tlb_generation(port);
	uint32_t count = 0;

	if (index >= tlb->count)
		return 0;
	for (uint32_t i = 0; i < tlb->entries + MMU_TLB_VICTIMS; i++) {
		const struct tlb_entry *e = place(tlb, &tlb->tables[index], i);

		if (!tlb_live(e, generation))
			continue;
		if (count < capacity)
			ret[count] = (struct mmu_tlb_kept){
				.page = e->page, .pa = e->pa, .place = i, .space = e->stamp & 0xffff,
				.is_global = !!(e->stamp & TLB_GLOBAL),
				.comparators = { e->comparator[0], e->comparator[1], e->comparator[2] },
			};
		count++;
	}
	return count;
}

/* ---- lookup ---- */

/* The entry whose comparator of `kind` matches; one of the victims changes places with its slot. */
static const struct tlb_entry *find(struct mmu_tlb *tlb, uint64_t page, enum tlb_kind kind,
				    uint64_t generation, bool *victim)
{
	struct tlb_table *t = tlb_table(tlb);
	struct tlb_entry *slot = tlb_slot(tlb, t, page);
	uint32_t space = tlb->cpu.space;

	*victim = false;
	if (tlb_live(slot, generation) && tlb_serves(slot, page, space) &&
	    (slot->comparator[kind] & (TLB_PAGE_MASK | MMU_TLB_INVALID)) == page)
		return slot;
	for (uint32_t i = 0; i < MMU_TLB_VICTIMS; i++) {
		struct tlb_entry *v = &t->victims[i], swap;

		/* Equal in every bit: flags keep an entry from being found here. */
		if (!tlb_live(v, generation) || !tlb_serves(v, page, space) ||
		    v->comparator[kind] != page)
			continue;
		swap = *v;
		*v = *slot;
		*slot = swap;
		*victim = true;
		return slot;
	}
	return NULL;
}

/* ---- fill ---- */

/* One naturally aligned block around all large pages since the last complete flush. */
static void add_large(struct tlb_table *t, uint64_t page, uint64_t size)
{
	uint64_t mask = size ? -size : 0, address = page;

	if (t->has_large) {
		address = t->large;
		mask &= t->large_mask;
		while ((address ^ page) & mask)
			mask <<= 1;
	}
	t->large = address & mask;
	t->large_mask = mask;
	t->has_large = true;
}

static void insert(struct mmu_tlb *tlb, struct tlb_table *t, const struct tlb_entry *e, uint32_t space,
		   uint64_t size)
{
	struct tlb_entry *slot = tlb_slot(tlb, t, e->page), *lost;
	uint64_t generation = e->stamp >> TLB_STAMP_SHIFT;

	if (size != TLB_PAGE)
		add_large(t, e->page, size);
	t->dirty = true;
	t->odd = t->odd || (e->addend & 7);	/* where there is no RAM it is a multiple */
	for (uint32_t i = 0; i < MMU_TLB_VICTIMS; i++)
		if (tlb_serves(&t->victims[i], e->page, space))
			t->victims[i].stamp = 0;
	if (tlb_live(slot, generation) && !tlb_serves(slot, e->page, space)) {
		lost = &t->victims[t->turn];
		t->turn = (t->turn + 1) % MMU_TLB_VICTIMS;
		tlb->stats.evictions += tlb_live(lost, generation);
		*lost = *slot;
	}
	*slot = *e;
	if (t->filled_count < TLB_FILLED)
		t->filled[t->filled_count] = (uint32_t)(slot - t->slots);
	if (t->filled_count <= TLB_FILLED)
		t->filled_count++;
}

/*
 * What answers at the page: sets the addend, the route and the flags of all three kinds. A page of a window is
 * RAM while a guest has all of it in a mirror.
 */
static void place_page(struct tlb_entry *e, const mmu_port *port, const struct mmu_map *map, uint32_t flags[3])
{
	const uint8_t *mirrored;
	uint32_t i = map_search(map, e->pa);
	const struct mmu_range *r = &map->ranges[i];
	uint64_t offset;

	e->addend = -e->page;
	e->route = NULL;
	flags[TLB_READ] = flags[TLB_WRITE] = flags[TLB_FETCH] = MMU_TLB_MMIO;
	if (i == map->count || e->pa < r->first || r->last - e->pa < TLB_PAGE - 1)
		return;
	offset = r->offset + (e->pa - r->first);
	switch ((enum mmu_range_kind)r->kind) {
	case MMU_RANGE_RAM:
	case MMU_RANGE_ROM:
		e->addend = (uint64_t)(uintptr_t)r->host + offset - e->page;
		flags[TLB_READ] = flags[TLB_FETCH] = 0;
		if (r->kind == MMU_RANGE_RAM)
			flags[TLB_WRITE] = 0;
		else if (!r->io)		/* or else a flash chip: it sees what is stored */
			flags[TLB_WRITE] = MMU_TLB_DISCARD_WRITE;
		return;
	case MMU_RANGE_IO:
		return;
	case MMU_RANGE_STRIPED:
		offset += r->route->base;
		if (offset & (TLB_PAGE - 1))	/* mapped askew: the bus knows how to cut that */
			return;
		mirrored = tlb_window_mirrored(port, r, offset);
		if (mirrored) {
			e->addend = (uint64_t)(uintptr_t)mirrored - e->page;
			flags[TLB_READ] = flags[TLB_WRITE] = flags[TLB_FETCH] = 0;
			return;
		}
		e->addend = offset - e->page;
		e->route = r->route;
		return;
	}
}

static void make_comparators(const struct mmu_tlb *tlb, struct tlb_entry *e,
			     const struct tlb_found *found, enum tlb_kind kind, uint32_t flags[3])
{
	uint32_t allowed = found->allowed | UINT32_C(1) << kind;

	for (unsigned k = TLB_READ; k <= TLB_FETCH; k++) {
		if (k != TLB_FETCH &&
		    tlb_is_watched(tlb, e->page, e->page + TLB_PAGE - 1, UINT32_C(1) << k))
			flags[k] |= MMU_TLB_WATCHPOINT;
		if (allowed >> k & 1)
			e->comparator[k] = e->page | flags[k];
		else if (k == TLB_WRITE && found->writable)
			e->comparator[k] = e->page | flags[k] | MMU_TLB_NOTDIRTY;
		else
			e->comparator[k] = TLB_NONE;
	}
}

/* A page fault removes what is kept of the page: a retry after the tables were mended needs no INVLPG. */
static void forget(struct mmu_tlb *tlb, mmu_port *port, uint64_t address, const struct tlb_cpu *cpu)
{
	const struct mmu_tlb_scope scope = { .first = address, .space = cpu->space, .global_too = 1 };

	for (uint32_t i = 0; i < tlb->count; i++)
		if (tlb->tables[i].dirty)
			tlb->stats.flushed += tlb_table_forget(tlb, &tlb->tables[i], &scope,
							       tlb_generation(port));
}

/* Walks, into *e; the entry is kept unless registers, a flush or the memory map came in between. */
static int fill(struct mmu_tlb *tlb, mmu_port *port, uint64_t va, uint64_t address, enum tlb_kind kind,
		struct tlb_entry *e, struct mmu_tlb_fault *fault)
{
	const struct tlb_cpu cpu = tlb->cpu;	/* a device that the walk reads may give us new registers */
	uint64_t generation = tlb_generation(port), changes = tlb->changes, now;
	struct tlb_table *t = tlb_table(tlb);
	struct tlb_found found;
	uint32_t flags[3];
	int rc = tlb_walk(&cpu, port, va, kind, &found, fault);

	if (rc == MMU_FAULTED) {
		tlb->stats.faults++;
		if (cpu.faults_invalidate)
			forget(tlb, port, address, &cpu);
	}
	if (rc != MMU_OK)
		return rc;
	now = tlb_generation(port);
	e->page = address & TLB_PAGE_MASK;
	e->pa = found.pa & TLB_PAGE_MASK;
	e->stamp = tlb_stamp(now, found.is_global ? TLB_GLOBAL : cpu.space);
	/* Acquire: pairs with the release in bus.c. The map is that of `now` or younger; port_enter() holds it. */
	place_page(e, port, atomic_load_explicit(&port->bus->map, memory_order_acquire), flags);
	make_comparators(tlb, e, &found, kind, flags);
	if (generation == now && changes == tlb->changes) {
		tlb->stats.fills++;
		insert(tlb, t, e, cpu.space, found.size);
	}
	return MMU_OK;
}

static void record_watched(struct mmu_tlb *tlb, uint64_t va, uint64_t size, uint32_t access)
{
	tlb->stats.watched++;
	if (tlb->watched_count < MMU_TLB_WATCHED)
		tlb->watched[tlb->watched_count++] = (struct mmu_tlb_watched){ va, size, access };
}

/* The entry that serves `address`, which va stands for: one that is kept, or *filled after a walk. */
static int look_up(struct mmu_tlb *tlb, mmu_port *port, uint64_t va, uint64_t address, enum tlb_kind kind,
		   struct tlb_entry *filled, const struct tlb_entry **ret, struct mmu_tlb_fault *fault)
{
	const struct tlb_entry *e;
	bool victim;

	if (tlb->cpu.arch == TLB_UNSET)
		return MMU_ERANGE;
	e = find(tlb, address & TLB_PAGE_MASK, kind, tlb_generation(port), &victim);
	if (e && (e->comparator[kind] & MMU_TLB_NOTDIRTY)) {
		tlb->stats.upgrades++;
		e = NULL;
	}
	if (e) {
		tlb->stats.hits++;
		tlb->stats.victim_hits += victim;
		*ret = e;
		return MMU_OK;
	}
	tlb->stats.misses++;
	*ret = filled;
	return fill(tlb, port, va, address, kind, filled, fault);
}

int tlb_page(struct mmu_tlb *tlb, mmu_port *port, uint64_t va, enum tlb_kind kind, struct tlb_page *ret,
	     struct mmu_tlb_fault *fault)
{
	const struct tlb_linear *l = kind == TLB_FETCH ? &tlb->cpu.fetch : &tlb->cpu.data;
	const struct tlb_entry *e;
	struct tlb_entry filled;
	int rc = look_up(tlb, port, va, tlb_linear(l, va), kind, &filled, &e, fault);

	ret->walked = rc != MMU_OK || e == &filled;
	if (rc != MMU_OK)
		return rc;
	ret->pa = e->pa | (va & (TLB_PAGE - 1));
	ret->allowed = 0;
	for (unsigned k = TLB_READ; k <= TLB_FETCH; k++)
		if (!(e->comparator[k] & (MMU_TLB_INVALID | MMU_TLB_NOTDIRTY)))
			ret->allowed |= UINT32_C(1) << k;
	return MMU_OK;
}

int tlb_part(struct mmu_tlb *tlb, mmu_port *port, uint64_t va, uint64_t size, enum tlb_kind kind,
	     struct mmu_tlb_part *ret, struct mmu_tlb_fault *fault)
{
	const struct tlb_linear *l = kind == TLB_FETCH ? &tlb->cpu.fetch : &tlb->cpu.data;
	uint64_t address = tlb_linear(l, va);
	const struct tlb_entry *e;
	struct tlb_entry filled;
	uint32_t flags;
	int rc = look_up(tlb, port, va, address, kind, &filled, &e, fault);

	if (rc != MMU_OK)
		return rc;
	flags = e->comparator[kind] & ~TLB_PAGE_MASK;
	if ((flags & MMU_TLB_WATCHPOINT) &&
	    tlb_is_watched(tlb, address, address + size - 1, UINT32_C(1) << kind))
		record_watched(tlb, va, size, UINT32_C(1) << kind);
	*ret = (struct mmu_tlb_part){
		.va = va, .pa = e->pa | (va & (TLB_PAGE - 1)), .size = size, .flags = flags,
		.generation = e->stamp >> TLB_STAMP_SHIFT,
		.host = flags & MMU_TLB_MMIO ? NULL : (uint8_t *)(uintptr_t)(address + e->addend),
	};
	return MMU_OK;
}
