/*
 * A softmmu TLB in TCG's manner: virtual accesses through kept translations. The specification is
 * mmu/tlb/softmmu.py; this gives the same answers, hits, victims, walks and bus accesses.
 *
 * For one thread at a time, and with one bus. A port is any that the thread owns.
 */
typedef struct mmu_tlb mmu_tlb;

enum mmu_tlb_limit {
	MMU_TLB_INDEXES = 16,
	MMU_TLB_VICTIMS = 8,
	MMU_TLB_WATCHPOINTS = 8,	/* ranges at a time */
	MMU_TLB_WATCHED = 256		/* hits of them that are kept */
};

/* Low bits of a comparator, which is a page address or, without a right, all ones. */
enum mmu_tlb_flag {
	MMU_TLB_INVALID = 0x800,
	MMU_TLB_NOTDIRTY = 0x400,	/* stores: the tables grant writes, but must be asked once more */
	MMU_TLB_MMIO = 0x200,		/* no host memory of its own: each access goes over the bus */
	MMU_TLB_DISCARD_WRITE = 0x100,	/* stores: ROM */
	MMU_TLB_WATCHPOINT = 0x80	/* loads and stores: a part of the page is watched */
};

/* See Stats in mmu/tlb/softmmu.py. */
struct mmu_tlb_stats {
	uint64_t hits, victim_hits, misses, upgrades, fills, faults, evictions, flushes, elided, flushed, bus,
		 discarded, bus_errors, watched;
};

/* Which entries a flush removes. */
struct mmu_tlb_scope {
	uint64_t first, last;		/* linear addresses, inclusive */
	uint32_t indexes;		/* a set: bit n for index n; indexes that are not in use are skipped */
	uint32_t space;			/* PCID or ASID, at most 0xffff */
	uint8_t any_space, global_too;
};

/* A table walk, or the bus under an access (on_data, with MMU_MEMTX_* bits in `result`). */
struct mmu_tlb_fault {
	uint64_t va;
	uint32_t kind, access;		/* MMU_FAULT_*, MMU_ACCESS_* */
	uint8_t on_data, result;
	struct mmu_x86_fault x86;	/* of a walk, that of the TLB's architecture */
	struct mmu_arm64_fault arm64;
};

/* Bytes of an access in one page, translated: memory that a caller lends for the length of a call. */
struct mmu_tlb_part {
	uint64_t va, pa, size, generation;
	uint8_t *host;
	uint32_t flags;
};

struct mmu_tlb_kept {
	uint64_t page, pa, comparators[3];
	uint32_t place, space;		/* place: of a victim, entries + its number */
	uint8_t is_global;
};

struct mmu_tlb_watched { uint64_t va, size; uint32_t access; };

/* `entries` of each index: a power of two in 64 .. 2^20, else MMU_ERANGE. Registers must follow. */
int mmu_tlb_create(uint32_t entries, mmu_tlb **ret);
void mmu_tlb_destroy(mmu_tlb *tlb);

/* New registers: removes what the architecture says of their change, and selects the index of their
   context. Of one architecture for good: MMU_ERANGE for the other. MMU_ENOMEM leaves all as it was. */
int mmu_tlb_set_x86(mmu_tlb *tlb, mmu_port *port, const struct mmu_x86_regs *regs);
int mmu_tlb_set_arm64(mmu_tlb *tlb, mmu_port *port, const struct mmu_arm64_regs *regs);
uint32_t mmu_tlb_index(const mmu_tlb *tlb);

/* The linear address that an instruction with operand va is about: INVLPG, TLBI. */
uint64_t mmu_tlb_flush_address(const mmu_tlb *tlb, uint64_t va);
/* How many entries were removed. */
uint64_t mmu_tlb_flush(mmu_tlb *tlb, mmu_port *port, const struct mmu_tlb_scope *scope);

/* `access`: of MMU_ACCESS_READ and WRITE. MMU_ERANGE: too many, or (unwatch) not watched. */
int mmu_tlb_watch(mmu_tlb *tlb, mmu_port *port, uint64_t first, uint64_t last, uint32_t access);
int mmu_tlb_unwatch(mmu_tlb *tlb, mmu_port *port, uint64_t first, uint64_t last, uint32_t access);
/* Moves the hits, at most MMU_TLB_WATCHED, to ret; how many they are. */
uint32_t mmu_tlb_take_watched(mmu_tlb *tlb, struct mmu_tlb_watched *ret);

const struct mmu_tlb_stats *mmu_tlb_stats(const mmu_tlb *tlb);
/* What an index keeps: how many entries, of which up to `capacity` are written. */
uint32_t mmu_tlb_kept(const mmu_tlb *tlb, mmu_port *port, uint32_t index, struct mmu_tlb_kept *ret,
		      uint32_t capacity);

/*
 * Bytes va .. va+size-1 (after the last address comes 0). Each page is translated before any byte is
 * touched, into parts[0..part_count-1]: MMU_ERANGE when those are too few. `access`: READ or FETCH.
 * MMU_OK, MMU_FAULTED and *fault_ret, or negative.
 */
int mmu_tlb_read(mmu_tlb *tlb, mmu_port *port, uint64_t va, uint8_t *data, uint64_t size,
		 uint32_t access,
		 struct mmu_tlb_part *parts, uint64_t part_count, struct mmu_tlb_fault *fault_ret);
int mmu_tlb_write(mmu_tlb *tlb, mmu_port *port, uint64_t va, const uint8_t *data, uint64_t size,
		  struct mmu_tlb_part *parts, uint64_t part_count, struct mmu_tlb_fault *fault_ret);

/*
 * One access of `size` (1, 2, 4, 8) bytes for each of vas[0..count-1], in order; values are `size` bytes
 * each, in host byte order. Without `status` the first fault ends it: MMU_FAULTED, *fault_ret. With it a
 * fault writes its MMU_FAULT_* to status[i] (nothing else is written there), a load gives 0, and the rest follows.
 */
int mmu_tlb_load_many(mmu_tlb *tlb, mmu_port *port, const uint64_t *vas, uint64_t count, uint32_t size,
		      void *values, uint8_t *status, struct mmu_tlb_fault *fault_ret);
int mmu_tlb_store_many(mmu_tlb *tlb, mmu_port *port, const uint64_t *vas, uint64_t count, uint32_t size,
		       const void *values, uint8_t *status, struct mmu_tlb_fault *fault_ret);
