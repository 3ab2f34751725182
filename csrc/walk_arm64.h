/* Inside of the arm64 walker: the parameters of a walk, and walks that advance one entry at a time. */
#ifndef MMU_WALK_ARM64_H
#define MMU_WALK_ARM64_H
#include "port.h"

enum { ARM64_STAGE_OFF = 4 };		/* level of a stage that is off */
enum { ARM64_FLAT_PAGE = 4096 };	/* bytes: page size while both stages are off */
enum { ARM64_MORE = 2 };		/* a walk goes on; beside MMU_OK and MMU_FAULTED */

/* Where a walk starts and what it may meet; the twin of Tables in mmu/arm64/regime.py. */
struct arm64_tables {
	uint64_t base;
	uint64_t address_mask;		/* of a page; a block has fewer bits */
	uint64_t high_mask;		/* descriptor bits of the address's top, 0: none */
	uint8_t high_shift;		/* left, to their place */
	uint8_t stage, form, valid;
	uint8_t input_bits, output_bits, page_shift, stride;
	uint8_t block_levels;		/* bit L: level L has blocks */
	bool ha, hd, big_endian;
	int8_t start_level;
	uint8_t start_shift;		/* log2 bytes that an entry of the start level covers */
};

struct arm64_stage1 {
	struct arm64_tables tables;
	bool enabled, two_ranges, upper, tbi, epd, e0pd, hpd, wxn, epan;
};

struct arm64_stage2 {
	struct arm64_tables tables;
	bool enabled, ptw;
};

/* What is common to the walks of one request; written once, before they begin. */
struct arm64_request {
	mmu_port *port;
	struct map_ram *ram;		/* of the port, while it is entered; anew after every other access */
	struct mmu_steps *steps;
	uint32_t flags;			/* the access as given */
	uint32_t access;		/* MMU_ACCESS_READ, WRITE or FETCH */
	uint8_t pa_range, regime_el;
	bool two_ranges, update, stage1_only, user, pan;
	bool checked;			/* it needs the right to `access` */
	bool dirties;			/* the page is not clean after it */
	struct arm64_stage1 stage1[2];	/* [1]: the upper half */
	struct arm64_stage2 stage2;
};

/* A walk of one stage. `input` is the VA or the IPA. */
struct arm64_cursor {
	const struct arm64_tables *tables;
	uint64_t input, base, entry_input, descriptor, above;
	paddr_t entry;
	int8_t level;
	uint8_t shift, top;
	bool on_table;
};

struct arm64_lane {
	const struct arm64_stage1 *stage1;
	struct arm64_cursor at;
	uint64_t output;		/* IPA, or PA without stage 2 */
	uint32_t rights;		/* MMU_ARM64_PRIV_*, USER_* of stage 1 */
};

/* Fills *q but for the halves of stage 1. MMU_OK, or MMU_ERANGE for an access that is not one of three. */
int arm64_request_init(struct arm64_request *q, mmu_port *port, const struct mmu_arm64_regs *regs,
		       uint32_t access, uint32_t options);
void arm64_stage1_init(struct arm64_request *q, const struct mmu_arm64_regs *regs, bool upper);

struct arm64_rest;

/* MMU_OK, MMU_FAULTED, ARM64_MORE or MMU_ECALLBACK; with MORE, go on with arm64_lane_step. */
int arm64_lane_begin(const struct arm64_request *q, struct arm64_lane *lane, vaddr_t va,
		     struct mmu_arm64_fault *fault);
/* Moves a lane that has just begun to a later entry of its walk. */
void arm64_lane_skip(struct arm64_lane *lane, const struct arm64_rest *rest);
int arm64_lane_step(const struct arm64_request *q, struct arm64_lane *lane,
		    struct mmu_arm64_fault *fault);
/* After MMU_OK: stage 2 of the output, and the translation. */
int arm64_lane_finish(const struct arm64_request *q, const struct arm64_lane *lane,
		      struct mmu_arm64_translation *ret, struct mmu_arm64_fault *fault);

/* Whether a leaf below tables whose OR is `above` permits the request's access. */
bool arm64_leaf_allows(const struct arm64_request *q, const struct arm64_stage1 *s,
		       uint64_t descriptor, uint64_t above);

/*
 * The ordinary case of a batch: stage 1 alone, tables in memory or in windows, nothing to write back.
 * It answers what it can and hands the rest to lanes just before the entry that it cannot judge; that
 * entry is read again, which nobody can tell: its memory has no side effects, windows count an entry
 * only when it is used, and a port that is traced does not take this way.
 */
enum { ARM64_GROUP = 64 };		/* walks in flight */

struct arm64_fast {
	const struct arm64_request *q;
	const struct arm64_stage1 *s;
	uint8_t allows[1024];		/* by what a leaf and the tables above it say of rights */
};

/* A walk that a lane must go on with. `level` ARM64_STAGE_OFF: from its beginning. */
struct arm64_rest {
	uint64_t entry, above;		/* what to read next, and what was read until then */
	uint8_t index;
	int8_t level;
};

/* False when the half must go the slow way. */
bool arm64_fast_init(struct arm64_fast *fast, const struct arm64_request *q,
		     const struct arm64_stage1 *s);
/* Walks vas[index[0..n-1]]; fills ret, or rest. Returns how many are in rest. The map is held. */
unsigned arm64_fast_walk(const struct arm64_fast *fast, const struct mmu_map *map,
			 const uint64_t *vas, const uint8_t *index, unsigned n,
			 struct mmu_arm64_result *ret, struct arm64_rest *rest);

static inline uint64_t arm64_low_mask(unsigned bits)
{
	return bits >= 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
}

/* The half of the address space that va selects. */
static inline bool arm64_upper(const struct arm64_request *q, uint64_t va)
{
	return q->two_ranges && (va >> 55 & 1);
}

/* Bits of va that address translation takes: pseudocode AArch64.AddrTop. */
static inline unsigned arm64_address_bits(const struct arm64_stage1 *s)
{
	return s->tbi ? 56 : 64;
}

/* Whether stage 1 refuses va before any entry is read; the stage is on. Pseudocode AArch64.VAIsOutOfRange. */
static inline bool arm64_input_refused(const struct arm64_request *q,
				       const struct arm64_stage1 *s, uint64_t va)
{
	unsigned bits = arm64_address_bits(s);
	uint64_t above = (va & arm64_low_mask(bits)) >> s->tables.input_bits;
	uint64_t expected = s->upper ? arm64_low_mask(bits - s->tables.input_bits) : 0;

	return !s->tables.valid || above != expected || s->epd || (s->e0pd && q->user);
}

#endif
