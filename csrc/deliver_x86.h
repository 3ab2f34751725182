/* Inside of the delivery of exceptions to x86-64 guests. */
#ifndef MMU_DELIVER_X86_H
#define MMU_DELIVER_X86_H
#include "deliver.h"

enum { DE = 0, DB = 1, BP = 3, OF = 4, UD = 6, DF = 8, TS = 10, NP = 11, SS = 12, GP = 13, PF = 14, AC = 17,
       MC = 18 };

/* A set of vectors, all below 32. */
#define VECTOR(n) (UINT32_C(1) << (n))
#define WITH_CODE (VECTOR(DF) | VECTOR(TS) | VECTOR(NP) | VECTOR(SS) | VECTOR(GP) | VECTOR(PF) | VECTOR(AC))

static inline bool in_set(uint32_t set, uint32_t vector)
{
	return vector < 32 && (set >> vector & 1);
}

/* A field of a descriptor. */
static inline uint64_t get(uint64_t word, uint64_t mask)
{
	return (word & mask) / (mask & -mask);
}

static inline uint64_t put(uint64_t mask, uint64_t value)
{
	return value * (mask & -mask) & mask;
}

static inline bool x86_is_canonical(uint64_t va)
{
	return va + (UINT64_C(1) << 47) < UINT64_C(1) << 48;
}

enum { CR8 = 8 };

/* What the caches of flat segments hold of their descriptors. */
#define FLAT_CODE (GUEST_SEGMENT_P | GUEST_SEGMENT_S | GUEST_SEGMENT_L | GUEST_SEGMENT_G | put(GUEST_SEGMENT_TYPE, 11))
#define FLAT_CODE_32 (FLAT_CODE ^ GUEST_SEGMENT_L ^ GUEST_SEGMENT_DB)
#define FLAT_DATA (GUEST_SEGMENT_P | GUEST_SEGMENT_S | GUEST_SEGMENT_DB | GUEST_SEGMENT_G | put(GUEST_SEGMENT_TYPE, 3))

struct x86_switch {
	uint32_t cs, ss;
	uint64_t code, stack;		/* descriptors; stack 0: SS stays */
	uint32_t cpl;
};

/* state_x86.c */
void x86_switch_segments(struct mmu_guest *g, const struct x86_switch *to);
void x86_take_interrupt(struct mmu_guest *g, struct mmu_guest_event *event);
/* Whether this is 64-bit code; the engine may hold code of 32 bits for it, once paging is off. */
bool x86_in_64_bit_code(struct mmu_guest *g);
/* Whether it is, and in long mode. */
bool x86_is_wide(struct mmu_guest *g, const struct mmu_x86_regs *now);
/* Whether CS.L is set, which says nothing outside of long mode. */
bool x86_is_marked_long(struct mmu_guest *g);
uint64_t guest_msr(struct mmu_guest *g, uint32_t number);

/* Of a register that DR7.GD protects: a #DB before it. */
void x86_debug_access(struct mmu_guest *g);

/* system_x86.c */
bool x86_carry_out(struct mmu_guest *g, uint64_t *pc);

/* guest_control.c, guest_msr.c */
bool guest_control_permitted(struct mmu_guest *g, const struct mmu_x86_regs *now, uint32_t control, uint64_t value);
bool guest_msr_exists(uint32_t number);
bool guest_msr_permitted(const struct mmu_x86_regs *now, uint32_t number, uint64_t value);

/* Delivery of one exception as it goes. */
struct delivery {
	struct mmu_guest *g;
	struct mmu_guest_event event, second;	/* second: what delivery itself raised */
	uint64_t pc, rsp, flags, cs, ss;
};

/* enter_x86.c */
void x86_event_of_fault(struct mmu_guest *g, const struct mmu_guest_stop *stop, struct mmu_guest_event *ret);
int x86_enter(struct delivery *d, uint64_t *handler_ret);

#endif
