/*
 * The way into a handler of an x86-64 guest: gate, code segment, stack, frame.
 * Source: Intel SDM vol. 3A, 'Exception and Interrupt Handling in 64-bit Mode'.
 */
#include "deliver_x86.h"

enum { INTERRUPT_GATE = 14, TRAP_GATE = 15, CODE = 8, CONFORMING = 4, TSS_RSP0 = 4, TSS_IST1 = 0x24,
       GATE_SIZE = 16, FRAME_WORDS = 6 };

#define NO_RESUME (VECTOR(DB) | VECTOR(BP) | VECTOR(OF) | VECTOR(DF) | VECTOR(MC))

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

void x86_event_of_fault(struct mmu_guest *g, const struct mmu_guest_stop *stop, struct mmu_guest_event *ret)
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
	x86_event_of_fault(d->g, &stop, &d->second);
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
	if (!x86_is_canonical(*ret - 8) || !x86_is_canonical(*ret - 8 * FRAME_WORDS))
		return raise(d, SS, ext), MMU_FAULTED;
	return MMU_OK;
}

static int push_frame(struct delivery *d, uint32_t kind, uint64_t *stack)
{
	bool resume = !d->event.software && !in_set(NO_RESUME, d->event.vector);
	/* The engine keeps RF for longer than the instruction behind an IRET that sets it. */
	uint64_t flags = (d->flags & ~GUEST_RFLAGS_RF) | (resume ? GUEST_RFLAGS_RF : 0);
	uint64_t words[FRAME_WORDS] = { d->ss, d->rsp, flags, d->cs, d->pc, d->event.code };
	bool with_code = in_set(WITH_CODE, d->event.vector) && !d->event.software;
	int rc = MMU_OK;

	for (unsigned i = 0; i < FRAME_WORDS - (with_code ? 0u : 1u) && rc == MMU_OK; i++) {
		*stack -= 8;
		rc = own(d, *stack, words[i], kind, NULL);
	}
	return rc;
}

/* Builds the frame and switches to the handler. When it fails nothing has changed but for bytes of the frame. */
int x86_enter(struct delivery *d, uint64_t *handler_ret)
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
	if (rc == MMU_OK && !x86_is_canonical(handler))
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
	x86_switch_segments(d->g, &to);
	guest_set_register(d->g, d->g->c.ids.general[RSP], stack);
	guest_set_register(d->g, d->g->c.ids.flags, d->flags & ~cleared);
	*handler_ret = handler;
	return MMU_OK;
}
