/* Inside of the x86 walker. Twin of mmu/x86/{walk,descent,nested,rights}.py. */
#ifndef MMU_WALK_X86_H
#define MMU_WALK_X86_H
#include "port.h"

/* One kind of entry: masks of its fields, 0 where it has none. */
struct x86_format {
	uint64_t reserved, address, xd, key;
	uint32_t high;			/* Pde4M: bits that stand for physical address bits 39:32 */
	uint32_t accessed, dirty;
	uint8_t rights;			/* nonzero: has R/W and U/S */
	uint8_t number;			/* index in mmu.x86.format.ENTRIES */
};

struct x86_level {
	uint8_t number, shift, index_bits, size;
	uint8_t leaf_only;
	uint64_t ps;			/* the bit that makes an entry a leaf, where there are both kinds */
	struct x86_format table, leaf;
};

#define X86_HIGH_SHIFT 19		/* Pde4M.HIGH, bits 20:13, to bits 39:32 */

enum { X86_LOST = 2 };			/* besides MMU_OK, MMU_FAULTED and negative: begin again */

/* One stage's tables. */
struct x86_paging {
	const struct x86_level *levels;
	uint64_t root;
	uint64_t beyond;		/* physical address bits above MAXPHYADDR */
	uint64_t no_xd;			/* EFER.NXE=0: XD is reserved */
};

/* How a class of pages is judged; see mmu/x86/rights.py. */
struct x86_rules {
	bool user;			/* a user-mode access */
	bool shadow_stack;
	bool obey_rw;			/* writes need R/W */
	bool no_user_data, no_user_fetch;	/* SMAP, SMEP */
	bool keys[2];			/* PKS, PKE: by page, supervisor or user */
	bool wp;
	uint32_t key_rights[2];
	uint32_t kinds;			/* MMU_ACCESS_* that this kind of access can be at all */
};

/* What becomes of a pointer before paging. [1]: bit 63 is set. */
struct x86_linear {
	uint64_t mask;			/* 32 or 64 bits */
	uint64_t metadata[2];		/* bits that take the value of bit `sign` */
	uint8_t sign[2];
	uint8_t top;			/* lowest of the bits that must be equal; 32-bit addresses: 63 */
};

/* What one call works with. */
struct x86_walk {
	mmu_port *port;
	const struct mmu_x86_regs *regs;
	uint64_t va;
	uint32_t access;		/* as the caller gave it */
	uint32_t wanted;		/* READ, WRITE or FETCH of it */
	bool update, paging, long_mode;
	struct x86_linear linear;
	struct x86_paging stage1, stage2;
	struct x86_rules rules;
	struct map_ram ram;
	struct mmu_x86_fault *fault;
	struct mmu_steps *steps;
};

struct x86_entry {
	const struct x86_level *level;
	const struct x86_format *format;
	uint64_t value;
	paddr_t pa;
	ipa_t gpa;
};

/* What is asked of one stage. Stage 1: address is linear; stage 2: guest-physical. */
struct x86_request {
	uint64_t address;
	uint32_t wanted;
	uint8_t stage;
	bool on_table;
};

/* What stage 2 made of a guest-physical address. */
struct x86_host {
	paddr_t pa;
	uint64_t linear;		/* size of the aligned block that is translated alike; 0: no limit */
	bool writable, executable, dirty;	/* dirty: a write needs no further update */
	uint8_t granted;		/* EPT: MMU_ACCESS_* */
	struct x86_entry leaf;
};

struct x86_leaf {
	struct x86_entry entry;
	struct x86_host host;		/* of the entry */
	bool writable, user, executable, shadow_stack;
	uint8_t key;
};

void x86_walk_setup(struct x86_walk *w, mmu_port *port, const struct mmu_x86_regs *regs, uint32_t access,
		    uint32_t options);
void x86_linear_setup(struct x86_linear *l, const struct mmu_x86_regs *regs, uint32_t access);
bool x86_access_valid(uint32_t access);
int x86_walk_one(struct x86_walk *w, uint64_t va, struct mmu_x86_translation *ret);

/* Fills w->fault and returns MMU_FAULTED. entry may be NULL. */
int x86_fault(struct x86_walk *w, uint32_t kind, const struct x86_request *rq, const struct x86_entry *entry);
int x86_entry_read(struct x86_walk *w, const struct x86_level *level, const struct x86_request *rq,
		   struct x86_entry *entry);
int x86_entry_mark(struct x86_walk *w, struct x86_entry *entry, const struct x86_host *host, uint64_t missing,
		   const struct x86_request *rq);
int x86_descend(struct x86_walk *w, const struct x86_paging *paging, bool nested,
		const struct x86_request *rq, struct x86_leaf *leaf);
int x86_stage2(struct x86_walk *w, const struct x86_request *rq, struct x86_host *host);
uint32_t x86_table_access(const struct mmu_x86_regs *regs);
uint64_t x86_frame(const struct x86_entry *entry);

void x86_rules_setup(struct x86_rules *r, const struct mmu_x86_regs *regs, bool long_mode, uint32_t access);
uint32_t x86_rights(const struct x86_rules *r, const struct x86_leaf *page);
uint32_t x86_key_denies(const struct x86_rules *r, const struct x86_leaf *page);

/* The address that paging sees. See linear_address() of the reference. */
static inline uint64_t x86_linear(const struct x86_linear *l, uint64_t va)
{
	uint64_t metadata = l->metadata[va >> 63];
	uint64_t copied = -(va >> l->sign[va >> 63] & 1);	/* all ones or zeroes */

	return ((va & ~metadata) | (copied & metadata)) & l->mask;
}

static inline bool x86_canonical(const struct x86_linear *l, uint64_t address)
{
	uint64_t high = address >> l->top;

	return high == 0 || high == UINT64_MAX >> l->top;
}

static inline uint64_t x86_reserved(const struct x86_paging *p, const struct x86_format *f)
{
	return f->reserved | p->beyond | (f->xd & p->no_xd) | ((p->beyond >> X86_HIGH_SHIFT) & f->high);
}

#endif
