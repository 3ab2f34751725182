/*
 * Guests: what stands between an instruction engine (unicorn, reached by the addresses of its
 * functions: nothing here links to it) and the bus. The engine asks for each missing TLB entry and
 * hands over each access that is not plain RAM; the answers come from our walkers and from ports.
 *
 * One guest belongs to one thread at a time; mmu_guest_interrupt() alone may come from another.
 */
typedef struct mmu_guest mmu_guest;

enum mmu_guest_arch { MMU_GUEST_X86_64 = 0, MMU_GUEST_AARCH64 = 1 };

/* The engine's functions that C calls, with the types that unicorn.h gives them. */
struct mmu_guest_engine {
	void *uc;
	int (*reg_read)(void *uc, int id, void *value);
	int (*reg_read_batch)(void *uc, int *ids, void **values, int count);
	int (*emu_start)(void *uc, uint64_t begin, uint64_t until, uint64_t timeout, size_t count);
	int (*emu_stop)(void *uc);
	int (*control)(void *uc, int control, ...);
	int (*context_save)(void *uc, void *context);
	int (*context_restore)(void *uc, void *context);
	int (*reg_write)(void *uc, int id, const void *value);
	int (*hook_add)(void *uc, size_t *hook, int type, void *callback, void *user, uint64_t begin,
			uint64_t end, ...);
	int (*hook_del)(void *uc, size_t hook);
};

/* The engine's numbers of registers. Unused ones stay 0. */
struct mmu_guest_ids {
	int pc, sp;				/* sp: of arm64 */
	int cr0, cr2, cr3, cr4, cr8, dr6, dr7, cs, ss, flags, msr, gdtr, idtr, ldtr, tr;	/* x86 */
	int general[16];			/* x86: as instructions number them */
	int pstate, ttbr0, ttbr1, mair, coprocessor;					/* arm64 */
	int vbar, elr, esr, far_, sp_el0, sp_el1;
	int x[31];
};

/* Byte offsets in a context blob of what the engine has no register for; see mmu/guest/context.py. */
struct mmu_guest_places {
	uint32_t segments, stride, hflags, error_code, software, previous, sse;	/* x86 */
	uint32_t syndrome, address;						/* arm64 */
};

/* Physical addresses hpa .. hpa+size-1, whole pages, are plain RAM that the engine knows at `engine`. */
struct mmu_guest_ram { uint64_t hpa, size, engine; };

/* Host memory, whole pages, that the engine knows at `engine`. */
struct mmu_guest_bank { uint8_t *host; uint64_t size, engine; };

/* How pages of windows may be served, besides access by access through the bus: as RAM, in place where a page lies
   in one piece in one device, or gathered in a mirror. A set. */
enum mmu_guest_service { MMU_GUEST_DIRECT = 1, MMU_GUEST_MIRROR = 2 };

/* EAX, EBX, ECX and EDX of a leaf and a subleaf; UINT32_MAX: of the subleaves that have no row before. */
struct mmu_guest_cpuid { uint32_t leaf, subleaf, registers[4]; };

struct mmu_guest_config {
	uint32_t arch;			/* enum mmu_guest_arch */
	uint32_t phys_bits;		/* physical address bits of the guest's CPU */
	mmu_bus *bus;
	/* Whose traffic is whose: the guest's data, page walks, code read ahead of execution, and
	   the replays that find an exact address (not part of what the guest did). */
	mmu_port *data, *walk, *code, *probe;
	mmu_port *io;			/* x86: of the bus of IN and OUT; NULL: it has none */
	mmu_port *blocks;		/* counts what moves between devices and the mirror */
	mmu_mirror *mirror;		/* of the bus; NULL: none. The engine has it at mmu_guest_mirror_base(). */
	uint8_t *shadow;		/* host memory of the code pages, mmu_guest_shadow_size() bytes */
	void *context, *bus_context, *tried_context;	/* three of the engine's context blobs */
	struct mmu_guest_engine engine;
	struct mmu_guest_ids ids;
	struct mmu_guest_places places;
	/* x86: what CPUID answers where the engine does not; without what follows CR4. Unused rows are 0. */
	struct mmu_guest_cpuid cpuid[8];
	uint32_t deliver;		/* nonzero: exceptions go to the guest's handlers without the host */
};

/* Where the engine must know things: its physical addresses are not those of the bus. Everything
   that is not plain RAM is one MMIO region at MMU_GUEST_BUS, offset = address on the bus. Nothing
   may be mapped at MMU_GUEST_NOWHERE (one page); MMU_GUEST_SCRATCH is one page of RAM. */
uint64_t mmu_guest_bus_base(void);
uint64_t mmu_guest_bus_size(void);
uint64_t mmu_guest_whole_base(void);
uint64_t mmu_guest_ram_base(void);
uint64_t mmu_guest_shadow_base(void);
uint64_t mmu_guest_shadow_size(void);
uint64_t mmu_guest_mirror_base(void);
uint64_t mmu_guest_scratch_base(void);
uint64_t mmu_guest_nowhere_base(void);

/* The callbacks, for the engine's hooks; the user data of all of them is the guest. */
struct mmu_guest_hooks {
	void *fill, *unmapped, *interrupt, *block, *code, *system, *mrs, *rdtsc, *rdtscp, *cpuid, *syscall;
	void *port_in, *port_out, *translated, *x86_translated, *access;
	void *bus_read, *bus_write, *whole_read, *whole_write;
};
void mmu_guest_hooks(struct mmu_guest_hooks *ret);

enum mmu_guest_stop_kind {
	MMU_GUEST_HALTED = 0,		/* HLT, WFI */
	MMU_GUEST_FAULT = 1,		/* a walk refused: `va`, `access`, and the fault of the arch */
	MMU_GUEST_INTERRUPT = 2,	/* the engine's exception `number` */
	MMU_GUEST_INVALID = 3,		/* an instruction that the engine does not know */
	MMU_GUEST_BUS_ERROR = 4,	/* external abort: `va`, `access`, `hpa`, `result` */
	MMU_GUEST_SYSCALL = 5,		/* at `va`; the PC is after it; `number`: DR6 before it */
	MMU_GUEST_SYSTEM = 6,		/* x86: an instruction that the engine does not carry out */
	MMU_GUEST_INTERRUPTED = 7,	/* mmu_guest_interrupt() */
	MMU_GUEST_LIMIT = 8,		/* the last instruction allowed has run, or exception: number 1 */
	MMU_GUEST_CALLBACK = 9,		/* a device's callback failed; the host holds the reason */
	MMU_GUEST_ENGINE = 10,		/* the engine failed with error `number` */
	MMU_GUEST_TRIPLE_FAULT = 11,	/* x86: `event` could not be delivered; vector `number` came last */
	MMU_GUEST_EXIT = 12,		/* mmu_guest_exit() with value `number` */
	MMU_GUEST_PROTECTION = 13,	/* x86: #GP(0) that the engine does not raise */
	MMU_GUEST_TRAP = 14		/* arm64: an exception that the engine does not raise: `number` is a mmu_guest_trap */
};

enum mmu_guest_trap {
	MMU_GUEST_TRAP_FLOATING = 0,	/* FP or SIMD, of CPACR_EL1.FPEN */
	MMU_GUEST_TRAP_STACK = 1,	/* SP is not aligned */
	MMU_GUEST_TRAP_RETURN = 2	/* ERET, which the stop stands at, goes where no CPU goes */
};

enum mmu_guest_event_kind {
	MMU_GUEST_EVENT_INTERRUPT = 0,	/* x86: an exception that no walk caused, or INT n */
	MMU_GUEST_EVENT_PAGE_FAULT = 1,
	MMU_GUEST_EVENT_WALK = 2,	/* x86: another exception that a walk caused */
	MMU_GUEST_EVENT_ABORT = 3,	/* arm64: of a walk */
	MMU_GUEST_EVENT_EXTERNAL = 4,	/* arm64: the bus refused the access itself */
	MMU_GUEST_EVENT_SYNCHRONOUS = 5	/* arm64: any other */
};

/* What the guest's CPU reports. */
struct mmu_guest_event {
	uint64_t code;			/* x86: the error code; arm64: ESR */
	uint64_t address;		/* CR2, FAR */
	uint32_t kind;			/* enum mmu_guest_event_kind */
	uint32_t vector;		/* x86 */
	int32_t level;			/* of the fault, for ABORT */
	uint8_t has_code, has_address;
	uint8_t software;		/* INT n */
	uint8_t reserved;
};

struct mmu_guest_stop {
	uint32_t kind, number;
	uint64_t pc;
	uint64_t va, hpa;
	uint32_t access;		/* MMU_ACCESS_* */
	uint32_t result;		/* MMU_MEMTX_* */
	uint32_t size;			/* bytes of the access as far as the engine tells, 0 unknown */
	uint32_t exact;			/* nonzero: va is exact, else it is the page's first byte */
	struct mmu_x86_fault x86;
	struct mmu_arm64_fault arm64;
	struct mmu_guest_event event;
};

/* An exception that the guest's own handler got; pc: of the instruction that it belongs to. */
struct mmu_guest_delivered {
	uint64_t pc, handler;
	struct mmu_guest_event event;
};

struct mmu_guest_counters {
	uint64_t fills;			/* TLB misses that the engine asked about */
	uint64_t walks;			/* page walks: for fills that the guest's own TLB does not answer, and for
					   exception delivery */
	uint64_t faults;		/* walks that refused */
	uint64_t bus_reads, bus_writes;	/* accesses of at most 4 bytes that left the engine */
	uint64_t shadows;		/* pages of code copied out of windows or devices */
	uint64_t mirrored, direct;	/* pages of windows that became RAM: in the mirror, in place */
	uint64_t mirror_full;		/* pages that did not, because memory was out */
	uint64_t steps;			/* instructions run alone because they write to a page of code */
	uint64_t bus_errors;
	uint64_t port_reads, port_writes;	/* x86 IN and OUT */
	uint64_t instructions;		/* counted only under a limit */
	uint64_t exceptions;		/* delivered to handlers of the guest, without the host */
	/* The first bus error of the run; error_access 0: none yet */
	uint64_t error_hpa;
	uint32_t error_size, error_access, error_result;
	uint32_t reserved;
};

/* Copies the configuration; what it points to must outlive the guest. MMU_ERANGE on an unknown arch. */
int mmu_guest_create(const struct mmu_guest_config *config, mmu_guest **ret);
/* The engine is about to go: gives everything back. After it only mmu_guest_exit(), mmu_guest_interrupt() and
   mmu_guest_destroy() are allowed, and only the last does anything. Not during a run; twice is fine. */
void mmu_guest_close(mmu_guest *guest);
void mmu_guest_destroy(mmu_guest *guest);
/* Replaces what is known of RAM, as the bus's map is now: sorted by hpa, apart, whole pages, else MMU_ERANGE. Not during
   a run. */
int mmu_guest_set_ram(mmu_guest *guest, const struct mmu_guest_ram *ram, uint32_t count);
/* Replaces what is known of host memory that pages of windows may be in. MMU_ENOMEM. Not during a run. */
int mmu_guest_set_banks(mmu_guest *guest, const struct mmu_guest_bank *banks, uint32_t count);
/* Whether other machines may use the same memory: atomic instructions are then atomic for all, and much slower.
   Before mmu_guest_begin(). */
void mmu_guest_set_shared(mmu_guest *guest, bool shared);
/* The same for one that may run already: it shares memory from now on. Any thread but one that is in a run. */
void mmu_guest_share(mmu_guest *guest);
/* Whether the next run is to have the trace of any other that begins alike, on this guest or a new one; it walks more.
   Before mmu_guest_begin(). */
void mmu_guest_set_traced(mmu_guest *guest, bool traced);
/* Whether accesses to windows come as a whole, as those to devices do. Before mmu_guest_begin(). */
void mmu_guest_set_whole(mmu_guest *guest, bool whole);

/* Takes a hook away, before mmu_guest_flush() or mmu_guest_begin(): of translations, the engine then knows wrong ones. */
void mmu_guest_unhook(mmu_guest *guest, uint64_t hook);
/* The mirror, once it is known. Not during a run. */
void mmu_guest_set_mirror(mmu_guest *guest, mmu_mirror *mirror);
/* Drops every copy of code, translation and TLB entry: memory or registers changed behind the engine. */
void mmu_guest_flush(mmu_guest *guest);
/* A run begins: forgets the first bus error, what was delivered, and everything as mmu_guest_flush() does. At most so
   many instructions may run and exceptions be delivered, 0: any number; that of instructions takes effect only with
   the code hook in place. `services`: a set of MMU_GUEST_DIRECT and MMU_GUEST_MIRROR. */
void mmu_guest_begin(mmu_guest *guest, uint64_t instructions, uint64_t exceptions, uint32_t services);
/* A run is over: pages of windows are no RAM any more, what the guest wrote is in the devices. Twice is fine. */
void mmu_guest_end(mmu_guest *guest);
/* The exceptions delivered since it began, the first ones when they were more than *count_ret. */
const struct mmu_guest_delivered *mmu_guest_delivered(const mmu_guest *guest, uint32_t *count_ret);

/* Runs from pc until something stops it. MMU_OK and *ret. */
int mmu_guest_run(mmu_guest *guest, uint64_t pc, struct mmu_guest_stop *ret);
/* Ends the run that is under way or the next one. Any thread, any number of times, also when it is closed. */
void mmu_guest_interrupt(mmu_guest *guest);
/* Withdraws it. */
void mmu_guest_resume(mmu_guest *guest);
/* A mmu_io_write_fn; ctx: a guest, whose run ends with MMU_GUEST_EXIT and the value. Any thread. */
int mmu_guest_exit(void *ctx, uint64_t offset, uint32_t size, uint64_t value);
/* Whether that was called since mmu_guest_resume(), and *ret: the value. For runs that are not made here. */
bool mmu_guest_exited(const mmu_guest *guest, uint32_t *ret);

/*
 * What the guest's CPU itself does to memory: one access of 1, 2, 4 or 8 bytes at a virtual address,
 * cut at page ends, with the present registers and privilege. `access` is a set of MMU_ACCESS_*.
 * MMU_OK, MMU_FAULTED (stop_ret: va, access, fault, or kind MMU_GUEST_BUS_ERROR), MMU_ECALLBACK.
 */
int mmu_guest_load(mmu_guest *guest, uint64_t va, uint32_t size, uint32_t access, uint64_t *ret,
		   struct mmu_guest_stop *stop_ret);
int mmu_guest_store(mmu_guest *guest, uint64_t va, uint32_t size, uint32_t access, uint64_t value,
		    struct mmu_guest_stop *stop_ret);
/* Translates without side effects (no accessed or dirty flags, no counters), with MMU_ACCESS_IMPLICIT
   as the supervisor (arm64: EL1 without PAN). Same results. */
int mmu_guest_translate(mmu_guest *guest, uint64_t va, uint32_t access, uint64_t *pa_ret,
			struct mmu_guest_stop *stop_ret);

const struct mmu_guest_counters *mmu_guest_counters(const mmu_guest *guest);
/* What the guest's clock showed last, and will go on from. Not during a run. */
uint64_t mmu_guest_time(const mmu_guest *guest);
void mmu_guest_set_time(mmu_guest *guest, uint64_t time);
/* What it shows now: it moves on at each look. */
uint64_t mmu_guest_look(mmu_guest *guest);

/* The length of the x86-64 instruction that begins at code[0], in bits 15:8, and what it does to its memory operand, as
   far as faults depend on it. A set: 1 it writes what it reads; 2, 4: what it reads, writes, goes through SS. Negative:
   `size` bytes are none. */
int mmu_guest_decode(const uint8_t *code, uint32_t size);

/* While the ports of data and of walks are traced: how much each had recorded after each walk. */
struct mmu_guest_mark { uint64_t data, walk; };
/* Writes marks[0..capacity-1] from now on, NULL ends it. Returns how many walks there were since the last call. */
uint64_t mmu_guest_trace(mmu_guest *guest, struct mmu_guest_mark *marks, uint64_t capacity);
