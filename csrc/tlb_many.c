/*
 * Batches of loads and stores. An aligned access whose comparator has no flag is one memory access; one
 * to a window goes by the route that the entry keeps; whatever else goes the way of single accesses.
 */
#include "memory.h"
#include "tlb.h"
#include "window.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

enum { BLOCK = 4096 };			/* accesses between looks at the map of the bus */
enum { SPLIT = 2 };			/* an access of 8 bytes lies in at most so many pages */

struct batch {
	struct mmu_tlb *tlb;
	mmu_port *port;
	const uint64_t *vas;
	uint8_t *values;		/* read by stores */
	uint8_t *status;
	struct mmu_tlb_fault *fault;
	enum tlb_kind kind;
};

/*
 * What the fast path needs of the TLB, taken anew after anything that may change it. A value, so that
 * no store to guest memory can be one to it.
 */
struct look {
	const struct tlb_entry *slots;
	uint64_t mask, stamp, global;
	struct tlb_linear linear;
	bool fast;			/* nobody traces the port */
};

static ALWAYS_INLINE struct look look(const struct batch *b)
{
	uint64_t generation = tlb_generation(b->port);

	return (struct look){
		.slots = tlb_table(b->tlb)->slots, .mask = b->tlb->entries - 1,
		.stamp = tlb_stamp(generation, b->tlb->cpu.space),
		.global = tlb_stamp(generation, TLB_GLOBAL),
		.linear = b->tlb->cpu.data, .fast = !b->port->trace,
	};
}

/* Device memory behind a window; NULL where the bus must say what happens. The piece is aligned. */
static ALWAYS_INLINE uint8_t *window(const struct mmu_route *route, uint64_t hpa, uint32_t size,
				     const struct mmu_target **target_ret)
{
	const struct mmu_span *span = route_span(route, hpa);
	const struct mmu_target *target;
	const struct mmu_slot *slot;
	uint64_t dpa;

	if (!span || hpa < span->first)
		return NULL;
	slot = span_slot(route, span, hpa);
	if (slot->kind != MMU_SLOT_DEVICE)
		return NULL;
	target = &route->targets[slot->target];
	dpa = slot_dpa(slot, hpa).v;
	if (dpa >= target->size || target->size - dpa < size)
		return NULL;
	*target_ret = target;
	return target->host + dpa;
}

/* Where an aligned access ends: RAM, or device memory (*counted: the target); NULL: elsewhere. */
static ALWAYS_INLINE uint8_t *hit(const struct look *l, uint64_t va, uint32_t size, enum tlb_kind kind,
				  const struct mmu_target **counted)
{
	uint64_t address = l->linear.plain ? va : tlb_linear(&l->linear, va);
	uint64_t page = address & (TLB_PAGE_MASK | (size - 1));
	const struct tlb_entry *e = &l->slots[address >> TLB_PAGE_SHIFT & l->mask];

	*counted = NULL;
	if (e->stamp != l->stamp && e->stamp != l->global)
		return NULL;
	if (page == e->comparator[kind])
		return (uint8_t *)(uintptr_t)(address + e->addend);
	if ((page | MMU_TLB_MMIO) != e->comparator[kind] || !e->route || (page & ~TLB_PAGE_MASK))
		return NULL;
	return window(e->route, address + e->addend, size, counted);
}

static __attribute__((noinline)) int slow(const struct batch *b, uint64_t i, uint32_t size)
{
	struct mmu_tlb_part parts[SPLIT];
	uint8_t *value = b->values + i * size;
	int rc;

	if (b->kind == TLB_WRITE) {
		rc = tlb_write(b->tlb, b->port, b->vas[i], value, size, parts, SPLIT, b->fault);
	} else {
		memset(value, 0, size);
		rc = tlb_read(b->tlb, b->port, b->vas[i], value, size, TLB_READ, parts, SPLIT, b->fault);
	}
	if (rc != MMU_FAULTED || !b->status)
		return rc;
	b->status[i] = (uint8_t)b->fault->kind;
	if (b->kind == TLB_READ)
		memset(value, 0, size);
	return MMU_OK;
}

static ALWAYS_INLINE int run(const struct batch *b, uint64_t first, uint64_t end, const uint32_t size,
			     const enum tlb_kind kind)
{
	struct mmu_tlb_stats *stats = &b->tlb->stats;
	const uint64_t *vas = b->vas;
	uint64_t others = 0, windows = 0, i;
	struct look l = look(b);
	int rc = MMU_OK;

	for (i = first; i < end; i++) {
		uint8_t *value = b->values + i * size;
		const struct mmu_target *counted;
		uint8_t *host = l.fast ? hit(&l, vas[i], size, kind, &counted) : NULL;
		uint64_t word = 0;

		if (!host) {
			others++;
			rc = slow(b, i, size);
			if (rc != MMU_OK)
				break;
			l = look(b);
			continue;
		}
		if (counted) {
			striped_count(b->port, counted, kind == TLB_WRITE, size);
			windows++;
		}
		if (kind == TLB_WRITE) {
			memcpy(&word, value, size);
			memory_store(host, size, word);
		} else {
			word = memory_load(host, size);
			memcpy(value, &word, size);
		}
	}
	stats->hits += i - first - others + (rc != MMU_OK);
	stats->bus += windows;
	return rc;
}

static int run_block(const struct batch *b, uint64_t first, uint64_t end, uint32_t size)
{
	bool write = b->kind == TLB_WRITE;

	switch (size) {
	case 1: return write ? run(b, first, end, 1, TLB_WRITE) : run(b, first, end, 1, TLB_READ);
	case 2: return write ? run(b, first, end, 2, TLB_WRITE) : run(b, first, end, 2, TLB_READ);
	case 4: return write ? run(b, first, end, 4, TLB_WRITE) : run(b, first, end, 4, TLB_READ);
	case 8: return write ? run(b, first, end, 8, TLB_WRITE) : run(b, first, end, 8, TLB_READ);
	}
	return MMU_ERANGE;
}

static int many(const struct batch *b, uint64_t count, uint32_t size)
{
	int rc = MMU_OK;

	if (b->tlb->cpu.arch == TLB_UNSET)
		return MMU_ERANGE;
	for (uint64_t at = 0; at < count && rc == MMU_OK; at += BLOCK) {
		/* Anew for each block: what a writer of the map replaced waits for nobody longer than that. */
		struct port_read read = port_enter(b->port);

		rc = run_block(b, at, count - at < BLOCK ? count : at + BLOCK, size);
		port_leave(b->port, read);
	}
	return rc;
}

int mmu_tlb_load_many(mmu_tlb *tlb, mmu_port *port, const uint64_t *vas, uint64_t count, uint32_t size,
		      void *values, uint8_t *status, struct mmu_tlb_fault *fault)
{
	struct batch b = { .tlb = tlb, .port = port, .vas = vas, .values = values, .status = status,
			   .fault = fault, .kind = TLB_READ };

	return many(&b, count, size);
}

int mmu_tlb_store_many(mmu_tlb *tlb, mmu_port *port, const uint64_t *vas, uint64_t count, uint32_t size,
		       const void *values, uint8_t *status, struct mmu_tlb_fault *fault)
{
	/* Written through only by loads; one body serves both directions. */
	struct batch b = { .tlb = tlb, .port = port, .vas = vas, .values = (uint8_t *)(uintptr_t)values,
			   .status = status, .fault = fault, .kind = TLB_WRITE };

	return many(&b, count, size);
}
