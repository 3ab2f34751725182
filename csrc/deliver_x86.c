/*
 * Exceptions of x86-64 guests through the guest's own IDT. Twin of mmu/guest/{x86,x86_delivery}.py.
 * Source: Intel SDM vol. 3A, 'Interrupt and Exception Handling'.
 */
#include "decode_x86.h"
#include "deliver_x86.h"

enum { OP_INT1 = 0xf1, OP_LOCK = 0xf0 };

#define CONTRIBUTORY (VECTOR(DE) | VECTOR(TS) | VECTOR(NP) | VECTOR(SS) | VECTOR(GP))

/* ---- one exception, with what it turns into on the way ---- */

/* Bytes of the INT n, INT3 or INT1 before pc: when it cannot be delivered, what follows is a fault of it. */
static uint64_t interrupt_length(struct delivery *d)
{
	uint64_t last;

	if (!guest_peek(d->g, d->pc - 1, 1, &last))
		return 2;
	return (d->event.vector == BP && last == 0xcc) || (d->event.vector == DB && last == 0xf1) ? 1 : 2;
}

/* Source: SDM, 'Interrupt 8: Double Fault Exception', 'Conditions for Generating a Double Fault'. */
static struct mmu_guest_event escalate(const struct mmu_guest_event *first,
				       const struct mmu_guest_event *second)
{
	bool contributes = in_set(CONTRIBUTORY, second->vector);

	if ((in_set(CONTRIBUTORY, first->vector) && contributes) ||
	    (first->vector == PF && (second->vector == PF || contributes)))
		return (struct mmu_guest_event){ .kind = MMU_GUEST_EVENT_INTERRUPT, .vector = DF,
						 .has_code = 1 };
	return *second;
}

static void set_cr2(struct mmu_guest *g, const struct mmu_guest_event *event)
{
	if (event->kind == MMU_GUEST_EVENT_PAGE_FAULT)
		guest_set_register(g, g->c.ids.cr2, event->address);
}

static void read_frame_registers(struct delivery *d)
{
	const struct mmu_guest_ids *id = &d->g->c.ids;
	int ids[] = { id->general[RSP], id->flags, id->cs, id->ss };
	void *values[] = { &d->rsp, &d->flags, &d->cs, &d->ss };

	d->g->c.engine.reg_read_batch(d->g->c.engine.uc, ids, values, sizeof(ids) / sizeof(ids[0]));
}

/* True: *pc is the handler. When a device raises on the way, the guest stands at g->stop.pc; an INT is not done. */
static bool deliver(struct mmu_guest *g, const struct mmu_guest_event *event, uint64_t *pc)
{
	struct delivery d = { .g = g, .event = *event, .pc = *pc };
	uint64_t handler;
	int rc;

	read_frame_registers(&d);
	set_cr2(g, &d.event);
	for (;;) {
		rc = g->raised ? MMU_ECALLBACK : x86_enter(&d, &handler);
		if (rc == MMU_OK) {
			if (d.event.vector == DB && !d.event.software)
				guest_set_register(g, g->c.ids.dr7, guest_register(g, g->c.ids.dr7) & ~GUEST_DR7_GD);
			guest_delivered(g, d.pc, &d.event, handler);
			*pc = handler;
			return true;
		}
		if (d.event.software)
			d.pc -= interrupt_length(&d);
		if (rc < 0) {
			g->stop.kind = MMU_GUEST_CALLBACK;
			if (d.event.software)
				g->stop.pc = d.pc;
			return false;
		}
		if (d.event.vector == DF) {
			g->stop.kind = MMU_GUEST_TRIPLE_FAULT;
			g->stop.event = *event;
			g->stop.number = d.second.vector;
			g->stop.pc = d.pc;
			return false;
		}
		set_cr2(g, &d.second);
		d.event = escalate(&d.event, &d.second);
	}
}

/* ---- stops ---- */

/*
 * An operand of two pages that is read and written: the CPU asks whether it may write the first page before it looks at
 * the second; the engine reads both first.
 */
static void ask_first_page(struct mmu_guest *g, const struct x86_instruction *i)
{
	struct mmu_guest_stop first;
	uint64_t at, pa;

	if ((g->stop.va & (GUEST_PAGE - 1)) || !x86_in_64_bit_code(g))
		return;
	at = guest_operand(g, g->stop.pc, i);
	if (guest_looked(g, mmu_guest_translate(g, at, g->stop.access, &pa, &first)) != MMU_FAULTED)
		return;
	g->stop.va = at;
	g->stop.x86 = first.x86;
}

/* The stop of a fault, with the kind of access that the whole instruction makes. */
static void refine(struct mmu_guest *g)
{
	struct mmu_guest_stop again = g->stop;
	bool non_canonical = g->stop.x86.kind == MMU_FAULT_NON_CANONICAL, writes;
	struct x86_instruction i;
	uint64_t pa;

	if ((g->stop.access & MMU_ACCESS_FETCH) ||
	    (!(g->stop.access & MMU_ACCESS_READ) && !non_canonical))
		return;
	if (!x86_decode_at(g, g->stop.pc, &i))
		return;
	writes = (again.access & MMU_ACCESS_READ) && x86_writes_back(&i);
	if (non_canonical && x86_through_stack(&i, again.access))
		again.access |= MMU_ACCESS_STACK;
	if (writes)
		again.access ^= MMU_ACCESS_READ | MMU_ACCESS_WRITE;
	if (again.access == g->stop.access)
		return;
	if (guest_looked(g, mmu_guest_translate(g, again.va, again.access, &pa, &again)) == MMU_FAULTED) {
		g->stop.x86 = again.x86;
		g->stop.access = again.access;
		if (writes)
			ask_first_page(g, &i);
	}
}

/* There is an IDT, and it is one of long mode. */
static bool can_deliver(struct mmu_guest *g)
{
	return guest_table(g, g->c.ids.idtr).limit && (guest_x86_registers(g).efer & X86_EFER_LMA);
}

/* SYSCALL, which the engine takes for no operation. *pc is after it. */
static bool system_call(struct mmu_guest *g, uint64_t *pc)
{
	const struct mmu_guest_ids *id = &g->c.ids;
	struct engine_msr efer = { .number = MSR_EFER }, star = { .number = MSR_STAR },
			  lstar = { .number = MSR_LSTAR }, mask = { .number = MSR_SFMASK };
	uint64_t flags = 0, at = g->stop.va;
	int ids[] = { id->msr, id->msr, id->msr, id->msr, id->flags };
	void *values[] = { &efer, &star, &lstar, &mask, &flags };
	struct mmu_guest_event undefined = { .kind = MMU_GUEST_EVENT_INTERRUPT, .vector = UD };
	uint32_t selector;

	g->c.engine.reg_read_batch(g->c.engine.uc, ids, values, sizeof(ids) / sizeof(ids[0]));
	if (!(efer.value & X86_EFER_SCE) || !x86_is_wide(g, &(struct mmu_x86_regs){ .efer = efer.value })) {
		if (!can_deliver(g))
			return false;
		g->stop.pc = at;
		if (deliver(g, &undefined, &at)) {
			*pc = at;
			return true;
		}
		return false;
	}
	guest_set_register(g, id->dr6, g->stop.number);	/* the engine has noted a step, if TF was set */
	guest_set_register(g, id->general[RCX], *pc);
	guest_set_register(g, id->general[R11], flags & ~GUEST_RFLAGS_RF);
	guest_set_register(g, id->flags, (flags & ~mask.value & ~GUEST_RFLAGS_RF) | GUEST_RFLAGS_ONE);
	selector = (uint32_t)get(star.value, GUEST_STAR_SYSCALL) & ~UINT32_C(3);
	x86_switch_segments(g, &(struct x86_switch){ .cs = selector, .ss = selector + 8, .code = FLAT_CODE,
						     .stack = FLAT_DATA });
	*pc = lstar.value;
	return true;
}

/* Of IRET and RETF to another privilege: that the stack's segment is not present is #SS, which the engine takes for that
   of the code's. */
static void mend_not_present(struct mmu_guest *g, uint64_t pc, struct mmu_guest_event *event)
{
	struct x86_instruction i;
	uint64_t code;

	if (event->vector != NP || !x86_decode_at(g, pc, &i) ||
	    (i.opcode != OP_IRET && i.opcode != OP_RETF && i.opcode != OP_RETF_N))
		return;
	if (guest_peek_data(g, guest_register(g, g->c.ids.general[RSP]) + (i.wide ? 8 : i.short_operand ? 2 : 4), 2, &code) &&
	    ((code ^ event->code) & 0xfffc))
		event->vector = SS;
}

/* What an instruction that the engine does not know does: INT1 is #DB, as a trap; *pc is then after it. */
static uint32_t unknown_instruction(struct mmu_guest *g, uint64_t *pc)
{
	for (uint64_t at = *pc, byte; at - *pc < X86_LONGEST && guest_peek(g, at, 1, &byte); at++) {
		if (byte == OP_INT1) {
			*pc = at + 1;
			return DB;
		}
		if (!x86_is_prefix((uint8_t)byte) || byte == OP_LOCK)
			break;
	}
	return UD;
}

/* What was carried out here traps when it is done, if the guest steps. */
static bool stepped(struct mmu_guest *g, uint64_t *pc)
{
	struct mmu_guest_event trap = { .kind = MMU_GUEST_EVENT_INTERRUPT, .vector = DB };
	uint64_t dr6 = guest_register(g, g->c.ids.dr6);

	if (!(guest_register(g, g->c.ids.flags) & GUEST_RFLAGS_TF))
		return true;
	guest_set_register(g, g->c.ids.dr6, dr6 | GUEST_DR6_BS);
	g->stop.pc = *pc;
	if (can_deliver(g))
		return deliver(g, &trap, pc);
	g->stop = (struct mmu_guest_stop){ .kind = MMU_GUEST_INTERRUPT, .number = DB, .pc = *pc };
	return false;
}

bool guest_x86_handle(struct mmu_guest *g, uint64_t *pc)
{
	struct mmu_guest_event event = { .kind = MMU_GUEST_EVENT_INTERRUPT };

	*pc = g->stop.pc;
	if (g->stop.kind == MMU_GUEST_SYSCALL)
		return system_call(g, pc) && stepped(g, pc);
	if (g->stop.kind == MMU_GUEST_SYSTEM)
		return x86_carry_out(g, pc) && stepped(g, pc);
	if (g->stop.kind != MMU_GUEST_FAULT && g->stop.kind != MMU_GUEST_INTERRUPT &&
	    g->stop.kind != MMU_GUEST_INVALID && g->stop.kind != MMU_GUEST_PROTECTION)
		return false;
	if (!can_deliver(g))
		return false;		/* nobody to deliver to: the host says what it was */
	if (g->stop.kind == MMU_GUEST_FAULT) {
		refine(g);
		x86_event_of_fault(g, &g->stop, &event);
	} else if (g->stop.kind == MMU_GUEST_INTERRUPT) {
		x86_take_interrupt(g, &event);
		mend_not_present(g, *pc, &event);
	} else if (g->stop.kind == MMU_GUEST_PROTECTION) {
		event.vector = GP;
		event.has_code = 1;
	} else {
		event.vector = unknown_instruction(g, pc);
	}
	return deliver(g, &event, pc);
}
