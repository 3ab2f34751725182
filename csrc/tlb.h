/* Inside of the softmmu TLB. Twin of mmu/tlb/{table,cpu,softmmu}.py. */
#ifndef MMU_TLB_H
#define MMU_TLB_H
#include "bus.h"

#define TLB_PAGE_MASK (~UINT64_C(0xfff))
#define TLB_NONE UINT64_MAX		/* comparator of a right that is not there */

enum { TLB_PAGE = 4096, TLB_PAGE_SHIFT = 12, TLB_ENTRIES_MIN = 64, TLB_ENTRIES_MAX = 1 << 20 };
enum tlb_kind { TLB_READ = 0, TLB_WRITE = 1, TLB_FETCH = 2 };	/* MMU_ACCESS_* is 1 << kind */

/*
 * When and for whom an entry was filled, in one word: generation << 17 | tag. The tag is a PCID or ASID,
 * or TLB_GLOBAL. A bus that publishes a million maps a second needs four years to use the generations up.
 */
enum { TLB_STAMP_SHIFT = 17, TLB_GLOBAL = 1 << 16 };

/* One cache line. RAM: host address = linear + addend. A window: HPA = linear + addend, by `route`. */
struct tlb_entry {
	uint64_t comparator[3];
	uint64_t addend;
	uint64_t stamp;			/* 0: nothing is here */
	uint64_t page, pa;
	const mmu_route *route;
};

/* All that entries depend on, besides their tag: two registers sets with one key share an index. */
struct tlb_key {
	struct mmu_x86_regs x86;
	struct mmu_arm64_regs arm64;
};

enum { TLB_FILLED = 128 };

struct tlb_table {
	struct tlb_entry *slots;
	/* Slots filled since the last complete flush, unless they are more than TLB_FILLED: others are empty. */
	uint32_t filled[TLB_FILLED], filled_count;
	struct tlb_entry victims[MMU_TLB_VICTIMS];
	uint32_t turn;
	bool dirty;			/* something was filled since the last complete flush */
	bool has_large;
	bool odd;			/* some RAM was at host addresses that are not multiples of 8 */
	uint64_t large, large_mask;	/* pages larger than TLB_PAGE lie in this block */
	uint64_t selected;		/* value of mmu_tlb.changes when it was last selected */
	struct tlb_key key;
};

/* What becomes of an address before it is looked for. [0], [1]: by the bit `select`. */
struct tlb_linear {
	uint64_t mask;
	uint64_t metadata[2];		/* bits that take the value of bit `sign` */
	uint8_t sign[2], select;
	bool plain;			/* nothing */
};

struct tlb_watch { uint64_t first, last; uint32_t access; };

enum tlb_arch { TLB_UNSET = 0, TLB_X86 = 1, TLB_ARM64 = 2 };

/* What the registers mean for the TLB. */
struct tlb_cpu {
	enum tlb_arch arch;
	struct mmu_x86_regs x86;
	struct mmu_arm64_regs arm64;
	uint32_t space;			/* PCID or ASID */
	bool two_ranges;		/* arm64: pages may belong to one ASID */
	bool nested;
	bool bus_error_faults, faults_invalidate;
	struct tlb_linear data, fetch, flush;
};

struct mmu_tlb {
	uint32_t entries, count, index;	/* count: of tables in use */
	uint64_t changes;		/* of registers and by flushes: a walk during which it grows is not kept */
	struct tlb_cpu cpu;
	struct tlb_table tables[MMU_TLB_INDEXES];
	struct tlb_watch watches[MMU_TLB_WATCHPOINTS];
	uint32_t watch_count, watched_count;
	struct mmu_tlb_watched watched[MMU_TLB_WATCHED];
	struct mmu_tlb_stats stats;
};

/* A walk that succeeded. `size`: bytes, of the page as invalidations see it; 0: as large as can be. */
struct tlb_found {
	uint64_t pa, size;
	uint32_t allowed;
	bool writable, is_global;
};

static inline uint64_t tlb_linear(const struct tlb_linear *l, uint64_t va)
{
	unsigned half = va >> l->select & 1;
	uint64_t metadata = l->metadata[half];
	uint64_t copied = -(va >> l->sign[half] & 1);	/* all ones or zeroes */

	return ((va & ~metadata) | (copied & metadata)) & l->mask;
}

static inline uint64_t tlb_stamp(uint64_t generation, uint32_t tag)
{
	return generation << TLB_STAMP_SHIFT | tag;
}

/* The generation of the map that is current; never older than what the port notes. Port entered. */
static inline uint64_t tlb_generation(const mmu_port *port)
{
	/* Acquire: pairs with the release of the epoch in replace() of bus.c. */
	return atomic_load_explicit(&port->bus->epoch, memory_order_acquire);
}

static inline bool tlb_live(const struct tlb_entry *e, uint64_t generation)
{
	return e->stamp >> TLB_STAMP_SHIFT == generation;
}

static inline bool tlb_serves(const struct tlb_entry *e, uint64_t page, uint32_t space)
{
	uint32_t tag = e->stamp & ((UINT32_C(1) << TLB_STAMP_SHIFT) - 1);

	return e->page == page && (tag == space || tag == TLB_GLOBAL);
}

static inline struct tlb_table *tlb_table(struct mmu_tlb *tlb)
{
	return &tlb->tables[tlb->index];
}

static inline struct tlb_entry *tlb_slot(const struct mmu_tlb *tlb, const struct tlb_table *t,
					 uint64_t page)
{
	return &t->slots[page >> TLB_PAGE_SHIFT & (tlb->entries - 1)];
}

int tlb_cpu_x86(struct tlb_cpu *cpu, struct tlb_key *key, const struct mmu_x86_regs *regs, bool *keeps);
void tlb_cpu_arm64(struct tlb_cpu *cpu, struct tlb_key *key, mmu_port *port,
		   const struct mmu_arm64_regs *regs);
int tlb_walk(const struct tlb_cpu *cpu, mmu_port *port, uint64_t va, enum tlb_kind kind,
	     struct tlb_found *ret,
	     struct mmu_tlb_fault *fault_ret);

uint64_t tlb_table_flush(struct mmu_tlb *tlb, struct tlb_table *t, const struct mmu_tlb_scope *scope,
			 uint64_t generation);
/* The page of s->first alone, whatever the size of the page that it is a part of. */
uint64_t tlb_table_forget(struct mmu_tlb *tlb, struct tlb_table *t, const struct mmu_tlb_scope *s,
			  uint64_t generation);
bool tlb_is_watched(const struct mmu_tlb *tlb, uint64_t first, uint64_t last, uint32_t access);

/* What an entry says of a page: where va is, and which MMU_ACCESS_READ, WRITE and FETCH need no other walk. */
struct tlb_page {
	uint64_t pa;
	uint32_t allowed;
	bool walked;			/* no entry did: set whatever comes back */
};

/* Translates va alone; the port is entered. MMU_OK, MMU_FAULTED or negative. */
int tlb_page(struct mmu_tlb *tlb, mmu_port *port, uint64_t va, enum tlb_kind kind, struct tlb_page *ret,
	     struct mmu_tlb_fault *fault_ret);

/* va..va+size-1, all in one page: the port is entered. MMU_OK, MMU_FAULTED or negative. */
int tlb_part(struct mmu_tlb *tlb, mmu_port *port, uint64_t va, uint64_t size, enum tlb_kind kind,
	     struct mmu_tlb_part *ret, struct mmu_tlb_fault *fault_ret);

/* As mmu_tlb_read() and mmu_tlb_write(); the port is entered. */
int tlb_read(struct mmu_tlb *tlb, mmu_port *port, uint64_t va, uint8_t *data, uint64_t size,
	     enum tlb_kind kind,
	     struct mmu_tlb_part *parts, uint64_t part_count, struct mmu_tlb_fault *fault_ret);
int tlb_write(struct mmu_tlb *tlb, mmu_port *port, uint64_t va, const uint8_t *data, uint64_t size,
	      struct mmu_tlb_part *parts, uint64_t part_count, struct mmu_tlb_fault *fault_ret);

#endif
