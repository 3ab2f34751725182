/*
 * System instructions of x86 that the engine does not carry out, or not as a CPU would: guest_x86_system.c stops before
 * them, and here they are done. Source: Intel SDM vol. 2. Twin of mmu/guest/x86_system.py.
 */
#include "decode_x86.h"
#include "deliver_x86.h"

enum { SYSRET_FLAGS = 0x3c7fd7 };

static uint64_t get_general(struct mmu_guest *g, uint32_t number)
{
	return guest_register(g, g->c.ids.general[number]);
}

static void set_general(struct mmu_guest *g, uint32_t number, uint64_t value)
{
	guest_set_register(g, g->c.ids.general[number], value);
}

static uint64_t clock_register(struct mmu_guest *g, const struct x86_instruction *i, uint64_t after)
{
	uint64_t time;

	if (i->opcode == OP_WRMSR) {
		g->time = get_general(g, RDX) << 32 | (uint32_t)get_general(g, RAX);
	} else {
		time = mmu_guest_look(g);
		set_general(g, RAX, (uint32_t)time);
		set_general(g, RDX, time >> 32);
	}
	return after;
}

static uint64_t task_priority(struct mmu_guest *g, const struct x86_instruction *i, uint64_t after)
{
	if (i->opcode == OP_MOV_CR)
		guest_set_register(g, g->c.ids.cr8, get_general(g, i->rm));
	else
		set_general(g, i->rm, guest_register(g, g->c.ids.cr8));
	return after;
}

/* Into flat segments from `selector` on, the code's and the stack's. */
static void switch_to(struct mmu_guest *g, uint64_t selector, uint64_t code, uint32_t cpl)
{
	uint64_t dpl = put(GUEST_SEGMENT_DPL, cpl);
	uint32_t cs = (uint32_t)((selector & 0xfffc) | cpl);

	x86_switch_segments(g, &(struct x86_switch){ .cs = cs, .ss = cs + 8, .code = code | dpl, .stack = FLAT_DATA | dpl,
						     .cpl = cpl });
}

static uint64_t sysenter(struct mmu_guest *g, const struct x86_instruction *i, uint64_t after)
{
	uint64_t half = guest_msr(g, MSR_EFER) & X86_EFER_LMA ? UINT64_MAX : UINT32_MAX;
	uint64_t flags = guest_register(g, g->c.ids.flags) & ~(GUEST_RFLAGS_VM | GUEST_RFLAGS_IF | GUEST_RFLAGS_RF);

	(void)i;
	(void)after;
	guest_set_register(g, g->c.ids.flags, flags);
	switch_to(g, guest_msr(g, MSR_SYSENTER_CS), half == UINT64_MAX ? FLAT_CODE : FLAT_CODE_32, 0);
	set_general(g, RSP, guest_msr(g, MSR_SYSENTER_ESP) & half);
	return guest_msr(g, MSR_SYSENTER_EIP) & half;
}

static uint64_t sysexit(struct mmu_guest *g, const struct x86_instruction *i, uint64_t after)
{
	uint64_t half = i->wide ? UINT64_MAX : UINT32_MAX, selector = guest_msr(g, MSR_SYSENTER_CS);

	(void)after;
	switch_to(g, selector + (i->wide ? 32 : 16), i->wide ? FLAT_CODE : FLAT_CODE_32, 3);
	set_general(g, RSP, get_general(g, RCX) & half);
	return get_general(g, RDX) & half;
}

/* With flags that the engine would take or leave. */
static uint64_t sysret(struct mmu_guest *g, const struct x86_instruction *i, uint64_t after)
{
	uint32_t selector = (uint32_t)get(guest_msr(g, MSR_STAR), GUEST_STAR_SYSRET);
	uint64_t dpl = put(GUEST_SEGMENT_DPL, 3), target = get_general(g, RCX);

	(void)after;
	guest_set_register(g, g->c.ids.flags, (get_general(g, R11) & SYSRET_FLAGS) | GUEST_RFLAGS_ONE);
	x86_switch_segments(g, &(struct x86_switch){ .cs = ((selector + (i->wide ? 16 : 0)) & 0xffff) | 3,
		.ss = ((selector + 8) & 0xffff) | 3, .code = (i->wide ? FLAT_CODE : FLAT_CODE_32) | dpl,
		.stack = FLAT_DATA | dpl, .cpl = 3 });
	return i->wide ? target : (uint32_t)target;
}

/* Returns where it goes on. */
typedef uint64_t carry_out(struct mmu_guest *g, const struct x86_instruction *i, uint64_t after);

static carry_out *find(uint32_t opcode)
{
	switch (opcode) {
	case OP_RDMSR: case OP_WRMSR: return clock_register;
	case OP_LOAD_CR: case OP_MOV_CR: return task_priority;
	case OP_SYSENTER: return sysenter;
	case OP_SYSEXIT: return sysexit;
	case OP_SYSRET: return sysret;
	}
	return NULL;
}

/* The instruction at *pc; *pc is then the next one's. False: it is none of these. */
bool x86_carry_out(struct mmu_guest *g, uint64_t *pc)
{
	struct x86_instruction i;
	carry_out *function = x86_decode_at(g, *pc, &i) ? find(i.opcode) : NULL;

	if (function)
		*pc = function(g, &i, *pc + i.length);
	return function;
}
