/*
 * System instructions of x86 that the engine carries out wrongly: what a CPU says to each, before it runs.
 * Source: Intel SDM vol. 2. Twin of mmu/guest/x86_system.py.
 */
#include "decode_x86.h"
#include "deliver_x86.h"

static uint64_t general(struct mmu_guest *g, uint32_t number)
{
	return guest_register(g, g->c.ids.general[number]);
}

static enum x86_verdict move_to_control(struct mmu_guest *g, const struct x86_instruction *i,
					const struct mmu_x86_regs *now, bool wide)
{
	uint64_t value = general(g, i->rm);

	if (!guest_control_permitted(g, now, i->control, wide ? value : (uint32_t)value))
		return X86_REFUSED;
	return i->control == CR8 ? X86_OURS : X86_RUNS;
}

static enum x86_verdict msr(struct mmu_guest *g, const struct x86_instruction *i, const struct mmu_x86_regs *now)
{
	uint64_t value = general(g, RDX) << 32 | (uint32_t)general(g, RAX);
	uint32_t number = (uint32_t)general(g, RCX);

	if (i->opcode == OP_RDMSR ? !guest_msr_exists(number) : !guest_msr_permitted(now, number, value))
		return X86_REFUSED;
	return number == MSR_CLOCK ? X86_OURS : X86_RUNS;
}

static enum x86_verdict fast_call(struct mmu_guest *g, const struct x86_instruction *i,
				  const struct mmu_x86_regs *now, bool wide)
{
	if (!(now->cr0 & X86_CR0_PE) || !(guest_msr(g, MSR_SYSENTER_CS) & ~UINT64_C(3)))
		return X86_REFUSED;
	if (i->opcode == OP_SYSEXIT && (now->cpl || (wide && i->wide && (!x86_is_canonical(general(g, RCX)) ||
									 !x86_is_canonical(general(g, RDX))))))
		return X86_REFUSED;
	return X86_OURS;
}

/* `wide`: in 64-bit code. */
static enum x86_verdict judge(struct mmu_guest *g, const struct x86_instruction *i, const struct mmu_x86_regs *now,
			      bool wide)
{
	switch (i->opcode) {
	case OP_RDPMC: return X86_REFUSED;	/* there are no counters */
	case OP_SYSENTER: case OP_SYSEXIT: return fast_call(g, i, now, wide);
	}
	if (now->cpl)
		return X86_RUNS;		/* into the engine's #GP */
	switch (i->opcode) {
	case OP_LOAD_CR: return i->control == CR8 ? X86_OURS : X86_RUNS;
	case OP_MOV_CR: return move_to_control(g, i, now, wide);
	case OP_RDMSR: case OP_WRMSR: return msr(g, i, now);
	}
	return X86_RUNS;
}

static bool is_judged(const struct x86_instruction *i)
{
	switch (i->opcode) {
	case OP_LOAD_CR: case OP_MOV_CR: case OP_RDMSR: case OP_WRMSR: case OP_RDPMC: case OP_SYSENTER: case OP_SYSEXIT:
		return !i->vex;
	}
	return false;
}

/* What is to become of the instruction, which comes next. */
enum x86_verdict guest_system_verdict(struct mmu_guest *g, const struct x86_instruction *i)
{
	enum x86_verdict verdict = X86_RUNS;
	struct mmu_x86_regs now;

	if (is_judged(i) && i->lock) {
		verdict = X86_UNDEFINED;
	} else if (is_judged(i)) {
		now = guest_x86_registers(g);
		verdict = judge(g, i, &now, true);
		/* To find out whether this is 64-bit code takes longer than all the rest. */
		if (verdict != X86_RUNS && !x86_is_wide(g, &now))
			verdict = i->any_rex ? X86_RUNS : judge(g, i, &now, false);	/* INC or DEC, and not this one yet */
	}
	return verdict;
}
