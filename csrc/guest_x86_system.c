/*
 * System instructions of x86 that the engine carries out wrongly: what a CPU says to each, before it runs.
 * Source: Intel SDM vol. 2. Twin of mmu/guest/x86_system.py, but for what needs memory: models of emulators have that
 * as the engine has it.
 */
#include "decode_x86.h"
#include "deliver_x86.h"

enum { WORD = 8, FRAME = 5 * WORD };	/* bytes; of IRETQ's frame */
enum { XCR0_X87 = 1, XCR0_SSE = 2 };

struct question {
	struct mmu_guest *g;
	const struct x86_instruction *i;
	struct mmu_x86_regs now;
	uint64_t pc;
	bool wide;			/* supposed to be in 64-bit code */
};

static uint64_t general(const struct question *q, int number)
{
	return number < 0 ? 0 : guest_register(q->g, q->g->c.ids.general[number & 15]);
}

static enum x86_verdict permits(bool permitted)
{
	return permitted ? X86_RUNS : X86_REFUSED;
}

/* EDX:EAX. */
static uint64_t pair(const struct question *q)
{
	return general(q, RDX) << 32 | (uint32_t)general(q, RAX);
}

/* A word that the instruction is about to read. False: it cannot, and it is for the engine to say so. */
static bool peek(const struct question *q, uint64_t va, uint64_t *ret)
{
	return guest_peek_data(q->g, va, WORD, ret);
}

static enum x86_verdict move_to_control(const struct question *q)
{
	uint64_t value = general(q, q->i->rm);

	if (!guest_control_permitted(q->g, &q->now, q->i->control, q->wide ? value : (uint32_t)value))
		return X86_REFUSED;
	return q->i->control == CR8 ? X86_OURS : X86_RUNS;
}

/* MOV from and to a debug register. 4 and 5 are 6 and 7, where there are such. */
static enum x86_verdict move_debug(const struct question *q)
{
	bool write = q->i->opcode == OP_MOV_DR;
	uint32_t number = q->i->control;

	if (number >= 8 || ((number & ~1u) == 4 && (q->now.cr4 & X86_CR4_DE)))
		return X86_RUNS;		/* into the engine's #UD */
	if (guest_register(q->g, q->g->c.ids.dr7) & GUEST_DR7_GD)
		return X86_DEBUG;
	return permits(!write || number < 4 || !q->wide || !(general(q, q->i->rm) >> 32));
}

static enum x86_verdict msr(const struct question *q)
{
	uint32_t number = (uint32_t)general(q, RCX);

	if (q->i->opcode == OP_RDMSR ? !guest_msr_exists(number) : !guest_msr_permitted(&q->now, number, pair(q)))
		return X86_REFUSED;
	return number == MSR_CLOCK ? X86_OURS : X86_RUNS;
}

static enum x86_verdict fast_call(const struct question *q)
{
	if (!(q->now.cr0 & X86_CR0_PE) || !(guest_msr(q->g, MSR_SYSENTER_CS) & ~UINT64_C(3)))
		return X86_REFUSED;
	if (q->i->opcode == OP_SYSEXIT && (q->now.cpl || (q->wide && q->i->wide && (
		!x86_is_canonical(general(q, RCX)) || !x86_is_canonical(general(q, RDX))))))
		return X86_REFUSED;
	return X86_OURS;
}

static enum x86_verdict sysret(const struct question *q)
{
	if (!(q->now.efer & X86_EFER_SCE) || !q->wide || (!q->i->wide && !x86_is_wide(q->g, &q->now)))
		return X86_UNDEFINED;
	if (q->now.cpl || (q->i->wide && !x86_is_canonical(general(q, RCX))))
		return X86_REFUSED;
	return general(q, R11) & (GUEST_RFLAGS_VM | GUEST_RFLAGS_RF | GUEST_RFLAGS_VIF | GUEST_RFLAGS_VIP) ? X86_OURS
													    : X86_RUNS;
}

/* IRETQ and RETFQ to an address that is not canonical; whose frame can be read at all. */
static enum x86_verdict far_return(const struct question *q)
{
	uint32_t size = q->i->opcode == OP_IRET ? FRAME : 2 * WORD;
	uint64_t stack = general(q, RSP), target, last;

	if (q->i->opcode == OP_IRET)
		exclusive_want(&q->g->exclusive, EXCLUSIVE_RESUMES, true);
	if (!q->i->wide || !q->wide || !peek(q, stack, &target) || x86_is_canonical(target))
		return X86_RUNS;
	return permits(!peek(q, stack + size - WORD, &last));
}

/* LGDT and LIDT, whose operand is a limit of 2 bytes, and a base. */
static enum x86_verdict table(const struct question *q)
{
	uint64_t base;

	if (!q->wide || !peek(q, guest_operand(q->g, q->pc, q->i) + 2, &base))
		return X86_RUNS;
	return permits(x86_is_canonical(base));
}

static enum x86_verdict xsetbv(const struct question *q)
{
	uint64_t value = pair(q);

	if (!(q->now.cr4 & X86_CR4_OSXSAVE) || q->i->short_operand || q->i->repeated)
		return X86_RUNS;		/* into the engine's #UD */
	return permits(value == XCR0_X87 || value == (XCR0_X87 | XCR0_SSE));	/* XCR0 is the only one */
}

static enum x86_verdict system_group(const struct question *q)
{
	if (!q->i->memory)
		return q->i->reg == (MODRM_XSETBV >> 3 & 7) && (q->i->rm & 7) == (MODRM_XSETBV & 7) ? xsetbv(q) : X86_RUNS;
	return q->i->reg == REG_LGDT || q->i->reg == REG_LIDT ? table(q) : X86_RUNS;
}

/* LTR of no task. */
static enum x86_verdict task(const struct question *q)
{
	uint64_t selector = general(q, q->i->rm);

	if (q->i->reg != REG_LTR || !(q->now.cr0 & X86_CR0_PE) || (q->i->memory && (!q->wide ||
	    !guest_peek_data(q->g, guest_operand(q->g, q->pc, q->i), sizeof(uint16_t), &selector))))
		return X86_RUNS;
	return permits(selector & 0xfffc);
}

/* Where a program has none of these. */
static enum x86_verdict privileged(const struct question *q)
{
	switch (q->i->opcode) {
	case OP_LOAD_CR: return q->i->control == CR8 ? X86_OURS : X86_RUNS;
	case OP_MOV_CR: return move_to_control(q);
	case OP_LOAD_DR: case OP_MOV_DR: return move_debug(q);
	case OP_RDMSR: case OP_WRMSR: return msr(q);
	case OP_SYSTEM: return system_group(q);
	case OP_TABLES: return task(q);
	}
	return X86_RUNS;
}

static enum x86_verdict judge(const struct question *q)
{
	switch (q->i->opcode) {
	case OP_RDPMC: return X86_REFUSED;	/* there are no counters */
	case OP_SYSENTER: case OP_SYSEXIT: return fast_call(q);
	case OP_SYSRET: return sysret(q);
	case OP_IRET: case OP_RETF: case OP_RETF_N: return far_return(q);
	}
	return q->now.cpl ? X86_RUNS : privileged(q);	/* RUNS: into the engine's #GP */
}

static bool is_judged(const struct x86_instruction *i)
{
	switch (i->opcode) {
	case OP_LOAD_CR: case OP_MOV_CR: case OP_LOAD_DR: case OP_MOV_DR: case OP_RDMSR: case OP_WRMSR: case OP_RDPMC:
	case OP_SYSENTER: case OP_SYSEXIT: case OP_SYSRET: case OP_TABLES: case OP_IRET: case OP_RETF: case OP_RETF_N:
		return !i->vex;
	case OP_SYSTEM:
		return !i->vex && !(i->memory && i->reg == REG_INVLPG);
	}
	return false;
}

/* What is to become of the instruction at pc, which comes next. */
enum x86_verdict guest_system_verdict(struct mmu_guest *g, uint64_t pc, const struct x86_instruction *i)
{
	struct question q = { .g = g, .i = i, .pc = pc, .wide = true };
	enum x86_verdict verdict;

	if (!is_judged(i))
		return X86_RUNS;
	q.now = guest_x86_registers(g);
	verdict = judge(&q);
	/* To find out whether this is 64-bit code takes longer than all the rest. */
	if (verdict == X86_RUNS || x86_is_wide(g, &q.now))
		return verdict;
	q.wide = false;
	return i->any_rex ? X86_RUNS : judge(&q);	/* INC or DEC, and not this one yet */
}
