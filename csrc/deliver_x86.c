/*
 * Exceptions of x86-64 guests through the guest's own IDT. Twin of mmu/guest/{x86,x86_delivery}.py.
 * Source: Intel SDM vol. 3A, 'Interrupt and Exception Handling' and 'Exception and Interrupt Handling in 64-bit Mode'.
 */
#include "decode_x86.h"
#include "deliver.h"

enum { DE = 0, DB = 1, BP = 3, OF = 4, UD = 6, DF = 8, TS = 10, NP = 11, SS = 12, GP = 13, PF = 14, AC = 17,
       MC = 18 };
enum { INTERRUPT_GATE = 14, TRAP_GATE = 15, CODE = 8, CONFORMING = 4, TSS_RSP0 = 4, TSS_IST1 = 0x24,
       GATE_SIZE = 16, FRAME_WORDS = 6, RCX = 1, RSP = 4, R11 = 11, OP_INT1 = 0xf1, OP_LOCK = 0xf0 };
enum segment { SEGMENT_CS = 1, SEGMENT_SS = 2 };	/* in the engine's order */
/* The engine's summary of the segments, beside the CPL: 64-bit code, and no segment but FS and GS has a base. */
enum { MODE_CPL = 3, MODE_64 = 1 << 15 | 1 << 5 | 1 << 4, MODE_BASES = 1 << 6 };

/* A set of vectors, all below 32. */
#define VECTOR(n) (UINT32_C(1) << (n))
#define WITH_CODE (VECTOR(DF) | VECTOR(TS) | VECTOR(NP) | VECTOR(SS) | VECTOR(GP) | VECTOR(PF) | VECTOR(AC))
#define CONTRIBUTORY (VECTOR(DE) | VECTOR(TS) | VECTOR(NP) | VECTOR(SS) | VECTOR(GP))
#define NO_RESUME (VECTOR(DB) | VECTOR(BP) | VECTOR(OF) | VECTOR(DF) | VECTOR(MC))
/* What the caches of flat segments hold of their descriptors. */
#define FLAT_CODE (GUEST_SEGMENT_P | GUEST_SEGMENT_S | GUEST_SEGMENT_L | GUEST_SEGMENT_G | type_of(11))
#define FLAT_DATA (GUEST_SEGMENT_P | GUEST_SEGMENT_S | GUEST_SEGMENT_DB | GUEST_SEGMENT_G | type_of(3))

/* Delivery of one exception as it goes. */
struct delivery {
	struct mmu_guest *g;
	struct mmu_guest_event event, second;	/* second: what delivery itself raised */
	uint64_t pc, rsp, flags, cs, ss;
};

static bool in_set(uint32_t set, uint32_t vector)
{
	return vector < 32 && (set >> vector & 1);
}

static uint64_t get(uint64_t word, uint64_t mask)
{
	return (word & mask) / (mask & -mask);
}

static uint64_t put(uint64_t mask, uint64_t value)
{
	return value * (mask & -mask) & mask;
}

static uint64_t type_of(uint64_t type)
{
	return put(GUEST_SEGMENT_TYPE, type);
}

/* ---- what the engine keeps apart from its registers ---- */

static void blob_put(uint8_t *blob, uint32_t at, uint32_t value)
{
	memcpy(blob + at, &value, sizeof(value));
}

static uint32_t blob_get(const uint8_t *blob, uint32_t at)
{
	uint32_t value;

	memcpy(&value, blob + at, sizeof(value));
	return value;
}

static void put_segment(struct mmu_guest *g, uint8_t *blob, enum segment number, uint32_t selector,
			uint64_t descriptor)
{
	uint32_t at = g->c.places.segments + g->c.places.stride * (uint32_t)number;

	blob_put(blob, at, selector);
	memset(blob + at + 8, 0, 8);
	blob_put(blob, at + 16, UINT32_MAX);
	blob_put(blob, at + 20, (uint32_t)(descriptor >> 32) & 0x00f0ff00);
}

struct x86_switch {
	uint32_t cs, ss;
	uint64_t code, stack;		/* descriptors; stack 0: SS stays */
	uint32_t cpl;
};

/* Loads segments of 64-bit code and the CPL; what the engine makes of them it keeps apart from both. */
static void switch_segments(struct mmu_guest *g, const struct x86_switch *to)
{
	uint8_t *blob = guest_blob_save(g);
	uint32_t mode = blob_get(blob, g->c.places.hflags) & ~(uint32_t)(MODE_CPL | MODE_BASES);

	put_segment(g, blob, SEGMENT_CS, to->cs, to->code);
	if (to->stack)
		put_segment(g, blob, SEGMENT_SS, to->ss, to->stack);
	blob_put(blob, g->c.places.hflags, mode | MODE_64 | to->cpl);
	guest_blob_restore(g);
}

/* What the engine stopped for. It must forget it, or it takes the next one for a double fault. */
static void take_interrupt(struct mmu_guest *g, struct mmu_guest_event *event)
{
	const struct mmu_guest_places *at = &g->c.places;
	uint8_t *blob = guest_blob_save(g);

	*event = (struct mmu_guest_event){ .kind = MMU_GUEST_EVENT_INTERRUPT, .vector = g->stop.number };
	event->software = blob_get(blob, at->software) != 0;
	event->has_code = in_set(WITH_CODE, event->vector) && !event->software;
	if (event->has_code)
		event->code = blob_get(blob, at->error_code);
	blob_put(blob, at->previous, UINT32_MAX);
	blob_put(blob, at->software, 0);
	guest_blob_restore(g);
}

/* ---- what delivery itself may raise; false: d->second ---- */

static bool raise(struct delivery *d, uint32_t vector, uint64_t code)
{
	d->second = (struct mmu_guest_event){ .kind = MMU_GUEST_EVENT_INTERRUPT, .vector = vector,
					      .code = code, .has_code = 1 };
	return false;
}

/* With the error code of a selector or, as a gate's, of a vector. */
static bool raise_selector(struct delivery *d, uint32_t vector, uint64_t selector, uint64_t more)
{
	return raise(d, vector, (selector & (GUEST_SELECTORCODE_TI | GUEST_SELECTORCODE_INDEX)) | more);
}

static void event_of_fault(struct mmu_guest *g, const struct mmu_guest_stop *stop,
			   struct mmu_guest_event *ret)
{
	struct mmu_x86_regs regs = guest_x86_registers(g);
	struct mmu_x86_fault fault = stop->x86;
	struct mmu_x86_event event;

	fault.va = stop->va;
	fault.access = stop->access;
	mmu_x86_exception(&regs, &fault, &event);
	*ret = (struct mmu_guest_event){ .kind = MMU_GUEST_EVENT_WALK, .vector = event.vector,
		.code = event.code, .address = event.address,
		.has_code = in_set(WITH_CODE, event.vector) };
	if (event.vector == PF)
		ret->kind = MMU_GUEST_EVENT_PAGE_FAULT;
}

/* A load or (value_ret NULL) store of the CPU itself. Bytes that nobody answered are 0. MMU_OK, MMU_FAULTED
   (d->second) or negative. */
static int own(struct delivery *d, uint64_t va, uint64_t value, uint32_t kind, uint64_t *value_ret)
{
	struct mmu_guest_stop stop;
	int rc;

	if (value_ret) {
		*value_ret = 0;
		rc = mmu_guest_load(d->g, va, 8, MMU_ACCESS_READ | kind, value_ret, &stop);
	} else {
		rc = mmu_guest_store(d->g, va, 8, MMU_ACCESS_WRITE | kind, value, &stop);
	}
	if (rc != MMU_FAULTED)
		return rc;
	if (stop.kind != MMU_GUEST_FAULT)
		return MMU_OK;		/* a bus error: it is counted */
	event_of_fault(d->g, &stop, &d->second);
	return MMU_FAULTED;
}

static int own_load(struct delivery *d, uint64_t va, uint64_t *ret)
{
	return own(d, va, 0, MMU_ACCESS_IMPLICIT, ret);
}

/* ---- the steps of delivery: MMU_OK, MMU_FAULTED (d->second) or negative ---- */

static int read_gate(struct delivery *d, uint64_t gate[2])
{
	struct engine_table idt = guest_table(d->g, d->g->c.ids.idtr);
	uint64_t at = (uint64_t)d->event.vector * GATE_SIZE, name = (uint64_t)d->event.vector << 3;
	uint64_t more = GUEST_SELECTORCODE_IDT | (d->event.software ? 0 : GUEST_SELECTORCODE_EXT);
	uint64_t type;
	int rc;

	if (at + (GATE_SIZE - 1) > idt.limit)
		return raise_selector(d, GP, name, more), MMU_FAULTED;
	rc = own_load(d, idt.base + at, &gate[0]);
	if (rc == MMU_OK)
		rc = own_load(d, idt.base + at + 8, &gate[1]);
	if (rc != MMU_OK)
		return rc;
	type = get(gate[0], GUEST_GATELOW_TYPE);
	if ((gate[0] & GUEST_GATELOW_S) || (type != INTERRUPT_GATE && type != TRAP_GATE) ||
	    (d->event.software && get(gate[0], GUEST_GATELOW_DPL) < (d->cs & 3)))
		return raise_selector(d, GP, name, more), MMU_FAULTED;
	if (!(gate[0] & GUEST_GATELOW_P))
		return raise_selector(d, NP, name, more), MMU_FAULTED;
	return MMU_OK;
}

static int read_code_segment(struct delivery *d, uint64_t selector, uint64_t *ret)
{
	const struct mmu_guest_ids *id = &d->g->c.ids;
	struct engine_table table = guest_table(d->g, selector & 4 ? id->ldtr : id->gdtr);
	uint64_t ext = d->event.software ? 0 : GUEST_SELECTORCODE_EXT;
	int rc;

	if (!(selector & ~UINT64_C(3)))
		return raise(d, GP, ext), MMU_FAULTED;
	if ((selector & ~UINT64_C(7)) + 7 > table.limit)
		return raise_selector(d, GP, selector, ext), MMU_FAULTED;
	rc = own_load(d, table.base + (selector & ~UINT64_C(7)), ret);
	if (rc != MMU_OK)
		return rc;
	if (!(*ret & GUEST_SEGMENT_S) || !(get(*ret, GUEST_SEGMENT_TYPE) & CODE) ||
	    get(*ret, GUEST_SEGMENT_DPL) > (d->cs & 3))
		return raise_selector(d, GP, selector, ext), MMU_FAULTED;
	if (!(*ret & GUEST_SEGMENT_P))
		return raise_selector(d, NP, selector, ext), MMU_FAULTED;
	if (!(*ret & GUEST_SEGMENT_L) || (*ret & GUEST_SEGMENT_DB))
		return raise_selector(d, GP, selector, ext), MMU_FAULTED;
	return MMU_OK;
}

static bool is_canonical(uint64_t va)
{
	return va + (UINT64_C(1) << 47) < UINT64_C(1) << 48;
}

/* RSP before the frame: the present one, or one of the TSS. */
static int find_stack(struct delivery *d, uint64_t ist, uint32_t cpl, uint64_t *ret)
{
	struct engine_table tss = guest_table(d->g, d->g->c.ids.tr);
	uint64_t at = ist ? TSS_IST1 + 8 * (ist - 1) : TSS_RSP0 + 8 * (uint64_t)cpl;
	uint64_t ext = d->event.software ? 0 : GUEST_SELECTORCODE_EXT;
	int rc = MMU_OK;

	*ret = d->rsp;
	if (ist || cpl != (d->cs & 3)) {
		if (at + 7 > tss.limit)
			return raise_selector(d, TS, tss.selector, ext), MMU_FAULTED;
		rc = own_load(d, tss.base + at, ret);
	}
	if (rc != MMU_OK)
		return rc;
	*ret &= ~UINT64_C(15);
	if (!is_canonical(*ret - 8) || !is_canonical(*ret - 8 * FRAME_WORDS))
		return raise(d, SS, ext), MMU_FAULTED;
	return MMU_OK;
}

static int push_frame(struct delivery *d, uint32_t kind, uint64_t *stack)
{
	bool resume = !d->event.software && !in_set(NO_RESUME, d->event.vector);
	uint64_t words[FRAME_WORDS] = { d->ss, d->rsp, d->flags | (resume ? GUEST_RFLAGS_RF : 0), d->cs,
					d->pc, d->event.code };
	bool with_code = in_set(WITH_CODE, d->event.vector) && !d->event.software;
	int rc = MMU_OK;

	for (unsigned i = 0; i < FRAME_WORDS - (with_code ? 0u : 1u) && rc == MMU_OK; i++) {
		*stack -= 8;
		rc = own(d, *stack, words[i], kind, NULL);
	}
	return rc;
}

/* Builds the frame and switches to the handler. When it fails nothing has changed but for bytes of the frame. */
static int enter(struct delivery *d, uint64_t *handler_ret)
{
	uint64_t gate[2], descriptor, stack, cleared, handler;
	uint32_t cpl = d->cs & 3, before = cpl, selector;
	struct x86_switch to;
	int rc = read_gate(d, gate);

	if (rc != MMU_OK)
		return rc;
	selector = (uint32_t)get(gate[0], GUEST_GATELOW_SELECTOR);
	rc = read_code_segment(d, selector, &descriptor);
	if (rc != MMU_OK)
		return rc;
	if (!(get(descriptor, GUEST_SEGMENT_TYPE) & CONFORMING))
		cpl = (uint32_t)get(descriptor, GUEST_SEGMENT_DPL);
	handler = get(gate[0], GUEST_GATELOW_OFFSET_LOW) | get(gate[0], GUEST_GATELOW_OFFSET_MID) << 16 |
		  get(gate[1], GUEST_GATEHIGH_OFFSET_HIGH) << 32;
	rc = find_stack(d, get(gate[0], GUEST_GATELOW_IST), cpl, &stack);
	if (rc == MMU_OK && !is_canonical(handler))
		return raise(d, GP, d->event.software ? 0 : GUEST_SELECTORCODE_EXT), MMU_FAULTED;
	if (rc == MMU_OK)
		rc = push_frame(d, cpl != before ? MMU_ACCESS_IMPLICIT : 0, &stack);
	if (rc != MMU_OK)
		return rc;
	to = (struct x86_switch){ .cs = (selector & ~UINT32_C(3)) | cpl, .code = descriptor, .cpl = cpl };
	if (cpl != before) {
		to.ss = cpl;		/* a null selector */
		to.stack = FLAT_DATA | put(GUEST_SEGMENT_DPL, cpl);
	}
	cleared = GUEST_RFLAGS_TF | GUEST_RFLAGS_NT | GUEST_RFLAGS_RF | GUEST_RFLAGS_VM;
	if (get(gate[0], GUEST_GATELOW_TYPE) == INTERRUPT_GATE)
		cleared |= GUEST_RFLAGS_IF;
	switch_segments(d->g, &to);
	guest_set_register(d->g, d->g->c.ids.general[RSP], stack);
	guest_set_register(d->g, d->g->c.ids.flags, d->flags & ~cleared);
	*handler_ret = handler;
	return MMU_OK;
}

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

static bool deliver(struct mmu_guest *g, const struct mmu_guest_event *event, uint64_t *pc)
{
	struct delivery d = { .g = g, .event = *event, .pc = *pc };
	uint64_t handler;
	int rc;

	read_frame_registers(&d);
	set_cr2(g, &d.event);
	for (;;) {
		rc = enter(&d, &handler);
		if (rc == MMU_OK) {
			guest_delivered(g, d.pc, &d.event, handler);
			*pc = handler;
			return true;
		}
		if (rc < 0) {
			g->stop.kind = MMU_GUEST_CALLBACK;
			return false;
		}
		if (d.event.software)
			d.pc -= interrupt_length(&d);
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

/* The stop of a fault, with the kind of access that the whole instruction makes. */
static void refine(struct mmu_guest *g)
{
	struct mmu_guest_stop again = g->stop;
	bool non_canonical = g->stop.x86.kind == MMU_FAULT_NON_CANONICAL;
	struct x86_instruction i;
	uint8_t code[X86_LONGEST];
	uint32_t size;
	uint64_t pa;

	if ((g->stop.access & MMU_ACCESS_FETCH) ||
	    (!(g->stop.access & MMU_ACCESS_READ) && !non_canonical))
		return;
	for (size = 0; size < X86_LONGEST; size++) {
		uint64_t byte;

		if (!guest_peek(g, g->stop.pc + size, 1, &byte))
			break;
		code[size] = (uint8_t)byte;
	}
	if (!x86_decode(code, size, &i))
		return;
	if (non_canonical && x86_through_stack(&i, again.access))
		again.access |= MMU_ACCESS_STACK;
	if ((again.access & MMU_ACCESS_READ) && x86_writes_back(&i))
		again.access ^= MMU_ACCESS_READ | MMU_ACCESS_WRITE;
	if (again.access == g->stop.access)
		return;
	if (mmu_guest_translate(g, again.va, again.access, &pa, &again) == MMU_FAULTED) {
		g->stop.x86 = again.x86;
		g->stop.access = again.access;
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
	if (!(efer.value & X86_EFER_SCE)) {
		if (!can_deliver(g))
			return false;
		if (deliver(g, &undefined, &at)) {
			*pc = at;
			return true;
		}
		return false;
	}
	guest_set_register(g, id->general[RCX], *pc);
	guest_set_register(g, id->general[R11], flags & ~GUEST_RFLAGS_RF);
	guest_set_register(g, id->flags, (flags & ~mask.value & ~GUEST_RFLAGS_RF) | GUEST_RFLAGS_ONE);
	selector = (uint32_t)get(star.value, GUEST_STAR_SYSCALL) & ~UINT32_C(3);
	switch_segments(g, &(struct x86_switch){ .cs = selector, .ss = selector + 8, .code = FLAT_CODE,
						 .stack = FLAT_DATA });
	*pc = lstar.value;
	return true;
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

bool guest_x86_handle(struct mmu_guest *g, uint64_t *pc)
{
	struct mmu_guest_event event = { .kind = MMU_GUEST_EVENT_INTERRUPT };

	*pc = g->stop.pc;
	if (g->stop.kind == MMU_GUEST_SYSCALL)
		return system_call(g, pc);
	if (g->stop.kind != MMU_GUEST_FAULT && g->stop.kind != MMU_GUEST_INTERRUPT &&
	    g->stop.kind != MMU_GUEST_INVALID && g->stop.kind != MMU_GUEST_PROTECTION)
		return false;
	if (!can_deliver(g))
		return false;		/* nobody to deliver to: the host says what it was */
	if (g->stop.kind == MMU_GUEST_FAULT) {
		refine(g);
		event_of_fault(g, &g->stop, &event);
	} else if (g->stop.kind == MMU_GUEST_INTERRUPT) {
		take_interrupt(g, &event);
	} else if (g->stop.kind == MMU_GUEST_PROTECTION) {
		event.vector = GP;
		event.has_code = 1;
	} else {
		event.vector = unknown_instruction(g, pc);
	}
	return deliver(g, &event, pc);
}
