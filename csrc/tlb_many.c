/*
 * Batches of loads and stores. As long as groups of aligned accesses all find RAM, or all find one window,
 * the next group is looked up before the present one is accessed, so that the latency of memory hides
 * behind the work. Other groups go access for access: to host memory where there is some, and else the way
 * of single accesses, after which everything is looked up again.
 */
#include "hostfile.h"
#include "memory.h"
#include "tlb.h"
#include "tlb_window.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

enum { BLOCK = 4096 };			/* accesses between looks at the map of the bus */
enum { GROUP = 64 };
enum { SPLIT = 2 };			/* an access of 8 bytes lies in at most so many pages */

struct batch {
	struct mmu_tlb *tlb;
	mmu_port *port;
	const uint64_t *vas;
	uint8_t *values;		/* read by stores */
	uint8_t *status;
	struct mmu_tlb_fault *fault;
};

/*
 * What the fast path needs of the TLB, taken anew after anything that may change it. A value, so that
 * no store to guest memory can be one to it.
 */
struct look {
	const uint8_t *slots;
	uint64_t mask;			/* of the offset of a slot in bytes */
	uint64_t stamp, global;
	struct tlb_linear linear;
	bool fast;	/* nobody traces the port, no RAM is at odd host addresses, no page of a file failed */
	bool away;			/* bytes of windows may not be at home: the bus knows */
};

/* Where the accesses of a group end. */
struct group {
	uint8_t *host[GROUP];
	uint8_t way[GROUP];		/* of a window */
};

static ALWAYS_INLINE struct look look(const struct batch *b)
{
	uint64_t generation = tlb_generation(b->port);
	const struct tlb_table *t = tlb_table(b->tlb);

	return (struct look){
		.slots = (const uint8_t *)t->slots,
		.mask = (uint64_t)(b->tlb->entries - 1) * sizeof(struct tlb_entry),
		.stamp = tlb_stamp(generation, b->tlb->cpu.space),
		.global = tlb_stamp(generation, TLB_GLOBAL),
		.linear = b->tlb->cpu.data, .fast = !b->port->trace && !t->odd && !hostfile_any_failed(),
		.away = window_any_away(b->port),
	};
}

static ALWAYS_INLINE const struct tlb_entry *slot_of(const struct look *l, uint64_t address)
{
	_Static_assert(sizeof(struct tlb_entry) == 1 << 6, "the shift below");
	return (const void *)(l->slots + (address >> (TLB_PAGE_SHIFT - 6) & l->mask));
}

/* 0 when the entry has that stamp and its comparator says `flags` of the page; an unaligned address never. */
static ALWAYS_INLINE uint64_t differs(const struct tlb_entry *e, uint64_t stamp, uint64_t address,
				      uint32_t size, enum tlb_kind kind, uint32_t flags)
{
	uint64_t compared = address & (TLB_PAGE_MASK | (size - 1));

	return (e->stamp ^ stamp) | (compared ^ flags ^ e->comparator[kind]);
}

static ALWAYS_INLINE bool is_ours(const struct look *l, const struct tlb_entry *e)
{
	return e->stamp == l->stamp || e->stamp == l->global;
}

/* The stamp that a group's entries must have: all global or all not, as the first; others go the other way. */
static ALWAYS_INLINE uint64_t stamp_of(const struct look *l, uint64_t va, bool plain)
{
	uint64_t stamp = slot_of(l, plain ? va : tlb_linear(&l->linear, va))->stamp;

	return stamp == l->global ? stamp : l->stamp;
}

/* Where access k of a group ends. 0 when it is a hit in RAM, or in the window `w` where that is not NULL. */
static ALWAYS_INLINE uint64_t look_up(const struct look *l, const struct tlb_window *w, uint64_t va,
				      uint64_t stamp, uint32_t size, enum tlb_kind kind, bool plain,
				      struct group *g, uint32_t k)
{
	uint64_t address = plain ? va : tlb_linear(&l->linear, va);
	const struct tlb_entry *e = slot_of(l, address);
	uint64_t to = address + e->addend;	/* a host address, or an HPA */
	uint64_t bad = differs(e, stamp, address, size, kind, w ? MMU_TLB_MMIO : 0);

	if (w) {
		bad |= ((uintptr_t)e->route ^ (uintptr_t)w->route) | (to - w->first > w->length);
		g->way[k] = (uint8_t)tlb_window_way(w, to);
		g->host[k] = tlb_window_host(w, to, g->way[k]);
	} else {
		g->host[k] = (uint8_t *)(uintptr_t)to;
	}
	__builtin_prefetch(g->host[k]);
	return bad;
}

/* One access to host memory that is aligned. */
static ALWAYS_INLINE void move(uint8_t *host, uint8_t *value, uint32_t size, enum tlb_kind kind)
{
	uint64_t word = 0;

	if (kind == TLB_WRITE) {
		memcpy(&word, value, size);
		memory_store_aligned(host, size, word);
	} else {
		word = memory_load_aligned(host, size);
		memcpy(value, &word, size);
	}
}

static ALWAYS_INLINE void access_one(struct tlb_window *w, const struct group *g, uint32_t k, uint8_t *value,
				     uint32_t size, enum tlb_kind kind)
{
	if (w)
		w->count[g->way[k]]++;
	move(g->host[k], value, size, kind);
}

/* Groups from number `at` on, until one is not as it should be; how many accesses were made. */
static ALWAYS_INLINE uint64_t stream(const struct batch *b, const struct look *l,
				     struct tlb_window *w, uint64_t at, uint64_t end, uint32_t size,
				     enum tlb_kind kind, bool plain)
{
	const uint64_t *vas = b->vas;
	uint8_t *values = b->values + at * size;
	uint64_t i = at, bad = 0, stamp;
	struct group g;

	if (end - i < GROUP)
		return 0;
	stamp = stamp_of(l, vas[i], plain);
	for (uint32_t k = 0; k < GROUP; k++)
		bad |= look_up(l, w, vas[i + k], stamp, size, kind, plain, &g, k);
	/* Two bodies, so that the one that counts holds nothing that need not be there. */
	while (!bad && end - i >= 2 * GROUP) {
		i += GROUP;
		stamp = stamp_of(l, vas[i], plain);
		for (uint32_t k = 0; k < GROUP; k++) {
			access_one(w, &g, k, values + k * size, size, kind);
			bad |= look_up(l, w, vas[i + k], stamp, size, kind, plain, &g, k);
		}
		values += GROUP * size;
	}
	if (!bad) {
		i += GROUP;
		for (uint32_t k = 0; k < GROUP; k++)
			access_one(w, &g, k, values + k * size, size, kind);
	}
	b->tlb->stats.hits += i - at;
	if (w)
		b->tlb->stats.bus += i - at;
	return i - at;
}

/* Device memory behind a window; NULL where the bus must say what happens. The piece is aligned. */
static ALWAYS_INLINE uint8_t *through_window(const mmu_route *route, uint64_t hpa, uint32_t size,
					     const struct mmu_target **target_ret)
{
	const struct mmu_span *span = route_span(route, hpa);
	const struct mmu_target *target;
	const struct mmu_slot *slot;
	uint64_t dpa;
	uint8_t *host;

	if (!span || hpa < span->first)
		return NULL;
	slot = span_slot(route, span, hpa);
	if (slot->kind != MMU_SLOT_DEVICE)
		return NULL;
	target = &route->targets[slot->target];
	dpa = slot_dpa(slot, hpa).v;
	if (dpa >= target->size || target->size - dpa < size)
		return NULL;
	host = target->host + dpa;
	if (!aligned(host, size))
		return NULL;
	*target_ret = target;
	return host;
}

/* Host memory for one access, and whose it is when it is a device's; NULL: the way of single accesses. */
static uint8_t *find(const struct look *l, struct tlb_window *w, uint64_t va, uint32_t size,
		     enum tlb_kind kind, const struct mmu_target **target_ret)
{
	uint64_t address = tlb_linear(&l->linear, va);
	const struct tlb_entry *e = slot_of(l, address);
	uint64_t to = address + e->addend;

	*target_ret = NULL;
	if (!is_ours(l, e))
		return NULL;
	if (!differs(e, e->stamp, address, size, kind, 0))
		return (uint8_t *)(uintptr_t)to;
	if (differs(e, e->stamp, address, size, kind, MMU_TLB_MMIO) || !e->route || l->away)
		return NULL;
	if (!w->route)
		tlb_window_make(w, e->route, to);
	return through_window(e->route, to, size, target_ret);
}

static __attribute__((noinline)) int slow(const struct batch *b, uint64_t i, uint32_t size,
					  enum tlb_kind kind)
{
	struct mmu_tlb_part parts[SPLIT];
	uint8_t *value = b->values + i * size;
	int rc;

	if (kind == TLB_WRITE) {
		rc = tlb_write(b->tlb, b->port, b->vas[i], value, size, parts, SPLIT, b->fault);
	} else {
		memset(value, 0, size);
		rc = tlb_read(b->tlb, b->port, b->vas[i], value, size, TLB_READ, parts, SPLIT,
			      b->fault);
	}
	if (rc != MMU_FAULTED || !b->status)
		return rc;
	b->status[i] = (uint8_t)b->fault->kind;
	if (kind == TLB_READ)
		memset(value, 0, size);
	return MMU_OK;
}

/* Up to n accesses from number `at` on; how many were made before one that must go the other way. */
static uint64_t one_by_one(const struct batch *b, const struct look *l, struct tlb_window *w,
			   uint64_t at, uint64_t n, uint32_t size, enum tlb_kind kind)
{
	uint64_t k;

	for (k = 0; k < n; k++) {
		const struct mmu_target *target;
		uint8_t *host = find(l, w, b->vas[at + k], size, kind, &target);

		if (!host)
			break;
		if (target) {
			striped_count(b->port, target, kind == TLB_WRITE, size);
			b->tlb->stats.bus++;
		}
		move(host, b->values + (at + k) * size, size, kind);
	}
	b->tlb->stats.hits += k;
	return k;
}

/*
 * Pages of files have failed while accesses from..end-1 were made the fast way: those that met one are made again,
 * the way of single accesses, which tells. The TLB is as it was when they were looked up.
 */
static __attribute__((noinline)) int mend(const struct batch *b, const struct look *l, uint64_t from, uint64_t end,
					  uint32_t size, enum tlb_kind kind)
{
	struct tlb_window unused;
	int rc = MMU_OK;

	unused.route = NULL;
	for (uint64_t i = from; i < end && rc == MMU_OK; i++) {
		const struct mmu_target *target;
		const uint8_t *host = find(l, &unused, b->vas[i], size, kind, &target);

		if (!host || !hostfile_hit(host, size))
			continue;
		b->tlb->stats.hits--;
		if (target) {
			b->tlb->stats.bus--;
			window_uncount(b->port, target->number, kind == TLB_WRITE, size);
		}
		rc = slow(b, i, size, kind);
	}
	return rc;
}

/* Whether the next access is one to the window that is ready, as far as its entry tells. */
static ALWAYS_INLINE bool in_window(const struct look *l, const struct tlb_window *w, uint64_t va)
{
	return w->route && slot_of(l, tlb_linear(&l->linear, va))->route == w->route;
}

/* Accesses *at .. end-1, while addresses need what `plain` says; *at is then the next one. */
static ALWAYS_INLINE int run(const struct batch *b, uint64_t *at, uint64_t end, uint32_t size,
			     enum tlb_kind kind, bool plain)
{
	struct look l = look(b);
	uint64_t most = GROUP, n;
	struct tlb_window w;
	int rc;

	w.route = NULL;
	while (*at < end && l.linear.plain == plain) {
		uint64_t from = *at;

		if (l.fast && most == GROUP) {
			if (in_window(&l, &w, b->vas[*at]))
				*at += stream(b, &l, &w, *at, end, size, kind, plain);
			else
				*at += stream(b, &l, NULL, *at, end, size, kind, plain);
		}
		n = end - *at < most ? end - *at : most;
		if (l.fast) {
			uint64_t made = one_by_one(b, &l, &w, *at, n, size, kind);

			*at += made;
			if (hostfile_any_failed()) {
				tlb_window_count(&w, b->port, kind == TLB_WRITE, size);
				w.route = NULL;
				rc = mend(b, &l, from, *at, size, kind);
				if (rc != MMU_OK)
					return rc;
				l = look(b);
				continue;
			}
			most = most == GROUP ? GROUP : 2 * most;
			if (made == n)
				continue;
		}
		/* What a device may see, or change, is settled first. */
		tlb_window_count(&w, b->port, kind == TLB_WRITE, size);
		w.route = NULL;
		rc = slow(b, *at, size, kind);
		if (rc != MMU_OK)
			return rc;
		++*at;
		most = 1;	/* misses come in swarms */
		l = look(b);
	}
	tlb_window_count(&w, b->port, kind == TLB_WRITE, size);
	return MMU_OK;
}

/* All that the compiler should know beforehand is a constant here. */
static int run_kind(const struct batch *b, uint64_t *at, uint64_t end, uint32_t size,
		    enum tlb_kind kind, bool plain)
{
#define RUN(size, kind) (plain ? run(b, at, end, size, kind, true) : run(b, at, end, size, kind, false))
	switch (size) {
	case 1: return kind == TLB_WRITE ? RUN(1, TLB_WRITE) : RUN(1, TLB_READ);
	case 2: return kind == TLB_WRITE ? RUN(2, TLB_WRITE) : RUN(2, TLB_READ);
	case 4: return kind == TLB_WRITE ? RUN(4, TLB_WRITE) : RUN(4, TLB_READ);
	case 8: return kind == TLB_WRITE ? RUN(8, TLB_WRITE) : RUN(8, TLB_READ);
	}
#undef RUN
	return MMU_ERANGE;
}

static int many(const struct batch *b, uint64_t count, uint32_t size, enum tlb_kind kind)
{
	int rc = MMU_OK;

	if (b->tlb->cpu.arch == TLB_UNSET)
		return MMU_ERANGE;
	for (uint64_t at = 0; at < count && rc == MMU_OK;) {
		uint64_t end = count - at < BLOCK ? count : at + BLOCK;
		/* Anew for each block: what a writer of the map replaced waits for nobody longer than that. */
		struct port_read read = port_enter(b->port);

		rc = run_kind(b, &at, end, size, kind, b->tlb->cpu.data.plain);
		port_leave(b->port, read);
		if (kind == TLB_WRITE)
			port_wrote(b->port);
	}
	return rc;
}

int mmu_tlb_load_many(mmu_tlb *tlb, mmu_port *port, const uint64_t *vas, uint64_t count, uint32_t size,
		      void *values, uint8_t *status, struct mmu_tlb_fault *fault)
{
	const struct batch b = { .tlb = tlb, .port = port, .vas = vas, .values = values,
				 .status = status,
				 .fault = fault };

	return many(&b, count, size, TLB_READ);
}

int mmu_tlb_store_many(mmu_tlb *tlb, mmu_port *port, const uint64_t *vas, uint64_t count, uint32_t size,
		       const void *values, uint8_t *status, struct mmu_tlb_fault *fault)
{
	/* Written through only by loads; one body serves both directions. */
	const struct batch b = { .tlb = tlb, .port = port, .vas = vas,
				 .values = (uint8_t *)(uintptr_t)values,
				 .status = status, .fault = fault };

	return many(&b, count, size, TLB_WRITE);
}
