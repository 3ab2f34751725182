/* Inside of the guest: shared by the callbacks, the code copies and the two architectures. */
#ifndef MMU_GUEST_H
#define MMU_GUEST_H
#include <pthread.h>
#include "address.h"
#include "bus.h"
#include "exclusive.h"
#include "guest_engine.h"
#include "hostfile.h"
#include "mirror.h"
#include "mmu.h"

/* Pages of code that the guest ran since the last flush: a hash by address, a slot's number is also
   the number of its shadow page. */
#define CODE_SLOTS 8192u
#define CODE_LIMIT (CODE_SLOTS / 4 * 3)

/* A page by what it is and not by where it is shown: RAM by its engine address, a window's by the
   address in the window, a device's by the device and the offset. */
struct page_key { const void *device; uint64_t page; };

struct code_page {
	struct page_key key;
	uint64_t va;		/* where it ran first, and with which of the engine's TLBs */
	uint32_t index;
	uint8_t used, shadowed;
	uint8_t many;		/* it ran elsewhere as well */
	uint8_t scanned;	/* by guest_sites_scan(), and not written since */
	uint64_t engine;	/* where the engine runs it */
	const uint8_t *host;	/* of plain memory */
	paddr_t pa;		/* of a shadow */
	size_t hook;		/* for stores to it, 0: none; see guest_code_see_stores() */
};

enum guest_phase {
	GUEST_RUNNING,
	GUEST_PROBING,	/* replaying one instruction for an exact address: no effect may escape */
	GUEST_ATOMIC,	/* running one atomic instruction, all of its data on the bus */
	GUEST_STEPPING,	/* running one instruction that writes to a page of code */
	GUEST_DROPPING	/* the engine looks up what it is to forget: see guest_code_drop() */
};

/* Why the engine was stopped without telling anyone. */
enum guest_event {
	GUEST_NO_EVENT, GUEST_STOPPED, GUEST_CODE_WRITE, GUEST_CODE_FULL, GUEST_ATOMIC_NEXT,
	GUEST_MAP_CHANGED,
	GUEST_AFRESH,		/* the instruction at PC is to begin a block: see guest_flags.c */
	GUEST_STRICTER,		/* code is to be searched for other things than it was: see guest_strict.c */
	GUEST_CALLED		/* exclusive_call(): between two blocks, the run loop looks at what it is */
};

#define DELIVERED_KEPT 4096u

struct guest_probe {
	uint64_t page;		/* virtual page of the fault; of a bus error, unknown until it is met */
	uint64_t hpa;		/* bus error: the piece that failed */
	int type;		/* enum engine_access */
	bool by_hpa;
	bool page_met;
	bool begun;		/* the block of the instruction; another one is none of the probe's */
	uint64_t va;		/* the answer */
	uint32_t bytes;
	bool hit;
};

/* The page of code that was translated last, as the engine sees it. */
struct guest_view {
	uint64_t va;
	const uint8_t *host;	/* NULL: none */
};

/* The block of instructions that ran last; size 0: none that the PC comes from. */
struct guest_block {
	uint64_t pc;
	uint32_t size;
	uint16_t hooks;		/* x86: how many of its instructions had one, the first not counted: see guest_flags.c */
	bool hooked;		/* one of them had; mmu_guest.hooked_at is the last */
	bool fetched;		/* code was, behind a hook of this block */
};
enum { GUEST_BLOCK_MOST = 2 * 4096 };	/* bytes; the engine ends one before */

/* A page of a window, and where the engine has it as RAM; 0: it has not, accesses go to the bus. */
struct guest_window { uint64_t hpa, engine; bool used; };

/* A block of a window that the guest accessed: where it begins, the state of the bus in which it lies there, 0: none,
   and where its traffic is counted. A block is never in two granules. */
#define NEAR_BLOCK UINT64_C(256)
#define NEAR_SLOTS 64u
struct guest_near { uint64_t hpa, state; uint8_t *host; struct port_count *count; };

/* What the guest must give back when it lets go of its windows. */
struct guest_pin { struct mmu_places *places; uint64_t dpa; };

struct guest_windows {
	uint32_t services;		/* of this run: MMU_GUEST_* */
	struct guest_window *slots;	/* a hash by address */
	uint32_t slot_count, slots_used;
	uint32_t *pages;		/* of the mirror */
	struct guest_pin *pins;
	uint32_t page_count, page_space, pin_count, pin_space;
};

/*
 * Translations that outlive the engine's, which has few entries and drops them often. They go when the
 * architecture says so: the hooks on TLBI, and on the x86 instructions that guest_scan_x86.c finds.
 */
enum { GUEST_TLB_ENTRIES = 4096 };
struct guest_tlb {
	mmu_tlb *tlb;
	bool blind;			/* code may hold a flush that no hook is on: nothing is answered */
	bool set;			/* the registers below are those of the TLB */
	bool large;			/* the engine may hold pieces of large pages, each as a page of its own */
	struct mmu_x86_regs x86;
	struct mmu_arm64_regs arm64;
};

/* Places (virtual, inclusive) with a hook: x86 instructions that may flush the TLB. */
enum { SITES = 4096 };
struct guest_site { uint64_t first, last; size_t hook; void *callback; };
struct guest_sites {
	struct guest_site at[SITES + 1];
	uint32_t count;
	bool full;			/* the last one is on everything */
	bool drop;			/* all: the hook that counts is to be the first, or a trace that of a new guest */
};

/* The atomic instruction under way: what it loaded last, and how much of that it has stored anew. */
struct guest_atomic {
	uint64_t hpa, loaded, storing;
	uint32_t size, stored_size;
	bool lost;			/* to somebody else, who stored there in between: nothing was stored */
	bool wide;			/* lost, as no compare-and-exchange covers it: it must be alone */
	bool alone;			/* no other machine runs meanwhile */
};

/* The access under way that the bus had as a whole: enum engine_access, 0: none. Pieces at first..end - 1 are of it; it
   has `size` bytes from hpa on, and `rest` more on the next page. */
struct guest_whole {
	uint32_t kind, size, rest;
	uint64_t hpa, value, first, end;
};

/* A repeated CMPS or SCAS: RCX at its next round, RFLAGS before its first. */
struct guest_string { uint64_t pc, left, flags; bool under_way; };

/* The blocks at home of each page of code, and a bit for each that says which need not be searched for. */
enum { ALIAS_BLOCKS = GUEST_PAGE / PLACE_BLOCK + 1, ALIAS_BITS = 1 << 16 };
struct guest_aliases {
	bool any;			/* the bus shows memory at more than one place; else all of this is unused */
	uint64_t bits[ALIAS_BITS / 64];
	const uint8_t *block[CODE_SLOTS][ALIAS_BLOCKS];
};

struct mmu_guest {
	struct mmu_guest_config c;
	const struct guest_arch *arch;
	struct mmu_guest_ram *ram;
	uint32_t ram_count, ram_last;	/* ram_last: where the last search ended */
	uint64_t ram_serial;		/* of the bus's map that `ram` was taken from */
	struct mmu_guest_bank *banks;
	uint32_t bank_count;
	struct guest_windows windows;
	struct guest_tlb tlb;
	enum guest_phase phase;
	enum guest_event event;
	struct mmu_guest_stop stop;
	struct guest_probe probe;
	struct guest_view view;
	struct guest_block block;
	uint64_t until;			/* where the engine ends by itself; see run_once() */
	uint64_t serial;		/* of the bus's map that all is true of */
	bool code_stale;		/* code or its copies may differ from memory */
	bool watching;			/* the bus counts what others write */
	uint64_t written;		/* how much they had, when code was last compared */
	uint32_t look_in;		/* blocks until others' writes are looked for whatever happens; 0: never */
	bool look;			/* the guest must see now what other machines stored to code */
	bool serialized;		/* what comes next has looked and begins again, now that code was dropped */
	uint64_t dropping;		/* what the engine's look-up finds meanwhile */
	uint32_t code_count;
	struct exclusive exclusive;
	_Atomic bool shared;		/* other machines may use the same memory; others set it, exclusive */
	bool sharing;			/* what of that was known when code was searched for atomic instructions */
	struct guest_atomic atomic;
	struct guest_whole whole;
	bool traced;			/* this run is to have the trace of any other that begins alike */
	bool in_whole;			/* this run asks for that in windows as well */
	uint64_t atomic_pc, atomic_next;	/* the instruction under way, and the one behind it */
	uint64_t counted_at;		/* the instruction that was counted last */
	uint64_t time;			/* what the time stamp counter or the timer counter shows */
	uint64_t limit, exception_limit;	/* values of counters that end the run; 0: none */
	uint64_t hooked_at, hooked_end;	/* the instruction that a code hook was called for */
	uint64_t flags;			/* x86: RFLAGS before it */
	uint32_t watch;			/* arm64: what code was searched for */
	uint64_t port_pc;
	bool port_permitted;		/* the INS or OUTS at port_pc was found to be */
	bool undo;			/* bus_context is what the CPU must go back to */
	bool raised;			/* a device did while something was looked at; see guest_looked() */
	bool again;			/* the instruction that is stepped is begun for the second time: it was counted */
	uint64_t surplus;		/* | 1: a page that the instruction under way loads from and does not need; 0: none */
	struct guest_string string;
	uint32_t delivered_count;
	struct mmu_guest_mark *marks;
	uint64_t mark_count, mark_capacity;
	bool closed;			/* there is no engine any more */
	_Atomic bool interrupted, exited;
	_Atomic uint32_t exit_value;
	struct mmu_guest_counters counters;
	struct guest_near near[NEAR_SLOTS];
	/* What is large and seldom looked at comes last. */
	uint16_t code_order[CODE_LIMIT];	/* the slots in use */
	struct guest_sites sites;
	struct code_page code[CODE_SLOTS];
	struct mmu_guest_delivered delivered[DELIVERED_KEPT];
	struct guest_aliases aliases;
};

struct guest_translation {
	paddr_t pa;
	uint64_t size;		/* bytes of its page, when it was walked */
	uint32_t allowed;	/* MMU_ACCESS_* */
	uint32_t index;		/* differs when the engine keeps the entry in another TLB */
};

/* One architecture. */
struct guest_arch {
	/* MMU_OK (*ret), MMU_FAULTED (the arch's fault in *stop) or MMU_ECALLBACK. */
	int (*walk)(struct mmu_guest *g, mmu_port *port, uint64_t va, uint32_t access, bool update,
		    struct guest_translation *ret, struct mmu_guest_stop *stop);
	/* Tells the TLB of the registers as they are. Returns guest_translation.index; negative on failure. */
	int (*tlb_registers)(struct mmu_guest *g);
	/* MMU_ACCESS_* bits that the instruction under way adds to a data access. */
	uint32_t (*kind_of_access)(struct mmu_guest *g, uint64_t va);
	/* Delivers what g->stop tells of: true to go on at *pc, false when the host must see g->stop. */
	bool (*handle)(struct mmu_guest *g, uint64_t *pc);
	/* Whether the engine needed the page of the load that faulted, and the instruction does not; NULL: never. */
	bool (*loads_too_much)(struct mmu_guest *g);
	/* A fetch has faulted: how far the engine must go on before that counts, 0: it does now. NULL: always. */
	uint64_t (*fetch_reaches)(struct mmu_guest *g);
	/* It may be a fault of the branch to there; NULL: never. */
	void (*undo_branch)(struct mmu_guest *g);
	/* What code must be searched for, as registers are; NULL: always the same. */
	uint32_t (*watch)(struct mmu_guest *g);
	/* An instruction that had a hook looks up data, or is at a port; NULL: nothing to do. */
	void (*keep_flags)(struct mmu_guest *g);
	bool notes_blocks;	/* guest_block_check() of each that is translated */
	uint32_t pc_mask;	/* bits of the PC that must be 0 */
	bool aborts;		/* a bus error is an exception and not a value of 0 */
};

extern const struct guest_arch guest_x86, guest_arm64;

/* Where a page is for the engine. */
struct guest_place {
	struct page_key key;
	uint64_t engine;
	bool plain;		/* RAM for the engine; else its accesses come to the bus */
};

/* guest_window.c */
bool guest_window_find(struct mmu_guest *g, paddr_t page, bool claim, uint64_t *engine_ret);
bool guest_page_failed(const uint8_t *host);
const uint8_t *guest_window_host(const struct mmu_guest *g, uint64_t engine);
void guest_windows_flush(struct mmu_guest *g);
void guest_windows_give(struct mmu_guest *g);

/* guest_memory.c */
bool guest_ram_find(struct mmu_guest *g, paddr_t pa, uint64_t *engine_ret);
struct guest_place guest_place(struct mmu_guest *g, paddr_t page, bool claim);

/* guest_code.c */
struct code_page *guest_code_find(struct mmu_guest *g, const struct page_key *key);
struct code_page *guest_code_enter(struct mmu_guest *g, const struct page_key *key);
int guest_code_shadow(struct mmu_guest *g, struct code_page *code, paddr_t page);
void guest_code_keep(struct mmu_guest *g, struct code_page *code, const uint8_t *host);
bool guest_code_see_stores(struct mmu_guest *g, struct code_page *code);
bool guest_code_changed(struct mmu_guest *g);
void guest_code_drop(struct mmu_guest *g);
void guest_code_look_later(struct mmu_guest *g);
bool guest_code_serialize(struct mmu_guest *g);
void guest_code_forget(struct mmu_guest *g);
void guest_code_watch(struct mmu_guest *g);
void guest_code_unwatch(struct mmu_guest *g);
uint64_t guest_code_engine(const struct mmu_guest *g, const struct code_page *code);
const uint8_t *guest_code_host(const struct mmu_guest *g, const struct code_page *code);

/* guest_alias.c */
void guest_alias_enter(struct mmu_guest *g, const struct code_page *code, paddr_t page);
bool guest_alias_is_code(struct mmu_guest *g, paddr_t page, const struct code_page *code);
void guest_alias_forget(struct mmu_guest *g);

/* guest_bus.c */
void guest_device_acted(struct mmu_guest *g);
bool guest_is_device(const struct mmu_guest *g, uint64_t hpa);
void guest_bus_failed(struct mmu_guest *g, uint64_t hpa, uint32_t size, uint32_t access, int result);
void guest_bus_error(struct mmu_guest *g, uint64_t hpa, uint32_t size, uint32_t access, int result);
uint64_t guest_bus_read_far(struct mmu_guest *g, uint64_t hpa, uint32_t size);
void guest_bus_write_far(struct mmu_guest *g, uint64_t hpa, uint32_t size, uint64_t value);
uint64_t guest_bus_read(void *uc, uint64_t hpa, unsigned int size, void *user);
void guest_bus_write(void *uc, uint64_t hpa, unsigned int size, uint64_t value, void *user);

/* guest_whole.c */
bool guest_on_access(void *uc, int type, uint64_t address, int size, int64_t value, void *user);
uint64_t guest_whole_read(void *uc, uint64_t hpa, unsigned int size, void *user);
void guest_whole_write(void *uc, uint64_t hpa, unsigned int size, uint64_t value, void *user);

/* guest_fill.c */
bool guest_fill(void *uc, uint64_t va, int type, struct engine_tlb_entry *ret, void *user);
bool guest_unmapped(void *uc, int type, uint64_t address, int size, int64_t value, void *user);
void guest_probe(struct mmu_guest *g);
/*
 * Around each walk and access that tells more of a stop than the engine does. A device that raises then is heard at
 * the end, or the guest would get what was found without the look.
 */
static inline int guest_looked(struct mmu_guest *g, int rc)
{
	g->raised |= rc == MMU_ECALLBACK;
	return rc;
}

bool guest_peek(struct mmu_guest *g, uint64_t va, uint32_t size, uint64_t *ret);
uint32_t guest_peek_code(struct mmu_guest *g, uint64_t va, uint32_t size, uint8_t *ret);

/* guest_tlb.c */
int guest_translate(struct mmu_guest *g, uint64_t va, uint32_t access, struct guest_translation *ret,
		    struct mmu_guest_stop *stop);
void guest_tlb_flush(struct mmu_guest *g);
void guest_tlb_flush_page(struct mmu_guest *g, uint64_t va);
struct system_register;
void guest_tlb_invalidate(struct mmu_guest *g, const struct system_register *op);

/* guest_atomic.c */
void guest_atomic_read(struct mmu_guest *g, uint64_t hpa, uint32_t size, uint64_t value);
int guest_atomic_write(struct mmu_guest *g, uint64_t hpa, uint32_t size, uint64_t value);
bool guest_atomic_arm64(uint32_t word);

/* guest_site.c */
bool guest_sites_scan(struct mmu_guest *g, uint64_t page);
bool guest_site_add(struct mmu_guest *g, uint64_t first, uint64_t last, void *callback);
void guest_sites_forget(struct mmu_guest *g);
void guest_site_run_alone(struct mmu_guest *g, uint64_t pc, uint32_t length);

/* guest_hook.c */
void guest_stop(struct mmu_guest *g, enum mmu_guest_stop_kind kind);
void guest_refuse(struct mmu_guest *g, enum mmu_guest_stop_kind kind);
void guest_undo(struct mmu_guest *g);

/* guest_flags.c */
bool guest_flags_afresh(struct mmu_guest *g, uint64_t pc);
bool guest_flags_known(struct mmu_guest *g, uint64_t pc);
void guest_flags_note(struct mmu_guest *g, uint64_t pc, uint32_t length);
void guest_flags_on_code(void *uc, uint64_t address, uint32_t size, void *user);
void guest_flags_keep(struct mmu_guest *g);
void guest_flags_resume(struct mmu_guest *g);
void guest_flags_again(struct mmu_guest *g, uint64_t pc, uint32_t size);
void guest_flags_put_back(struct mmu_guest *g, uint64_t pc, bool invalid);

/* guest.c */
void guest_count_walk(struct mmu_guest *g, int rc);
int guest_walk(struct mmu_guest *g, uint64_t va, uint32_t access, struct guest_translation *ret,
	       struct mmu_guest_stop *stop);
void guest_flush_tlb(struct mmu_guest *g);
uint64_t guest_register(struct mmu_guest *g, int id);

/* Another one for each map of the bus, and whenever a page of a file fails. */
static inline uint64_t guest_map_serial(const struct mmu_guest *g)
{
	return bus_serial(g->c.bus) +
	       atomic_load_explicit(&hostfile_events, memory_order_relaxed);
}

/* Another machine came, which this one did not know of. */
static inline bool guest_sharing_changed(const struct mmu_guest *g)
{
	/* Relaxed: it changes only while this one is outside; see exclusive.h. */
	return atomic_load_explicit(&g->shared, memory_order_relaxed) != g->sharing;
}

/* Memory may not be any more what the engine thinks: windows show something else, a page failed, or it is shared. */
static inline bool guest_map_changed(const struct mmu_guest *g)
{
	return guest_map_serial(g) != g->serial || guest_sharing_changed(g);
}

/* Somebody asked for the end of the run, maybe another thread. */
static inline bool guest_stop_requested(const struct mmu_guest *g)
{
	/* Acquire: pairs with the releases in mmu_guest_interrupt() and mmu_guest_exit(). */
	return atomic_load_explicit(&g->interrupted, memory_order_acquire) ||
	       atomic_load_explicit(&g->exited, memory_order_acquire);
}

static inline bool guest_stopping(const struct mmu_guest *g)
{
	return g->event != GUEST_NO_EVENT;
}

#endif
