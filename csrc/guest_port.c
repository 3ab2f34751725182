/*
 * Who may use which I/O port. The engine permits them all.
 * Source: Intel SDM vol. 1, 'Input/Output', 'Protected-Mode I/O'; vol. 2, 'IN', 'INS/INSB/INSW/INSD'.
 */
#include "deliver.h"
#include "site_x86.h"

enum { PE = 1, IOPL_SHIFT = 12, TSS_FREE = 9, TSS_BUSY = 11, TSS_TYPE_SHIFT = 8, TSS_MAP_BASE = 0x66 };

/* A load of the CPU itself, of two bytes of the TSS. False: g->stop says why. Bytes that nobody answers are 0. */
static bool load(struct mmu_guest *g, uint64_t va, uint64_t *ret)
{
	struct mmu_guest_stop stop;
	int rc;

	*ret = 0;
	rc = mmu_guest_load(g, va, 2, MMU_ACCESS_READ | MMU_ACCESS_IMPLICIT, ret, &stop);
	if (rc == MMU_OK || (rc == MMU_FAULTED && stop.kind == MMU_GUEST_BUS_ERROR))
		return true;
	guest_stop(g, rc == MMU_FAULTED ? MMU_GUEST_FAULT : MMU_GUEST_CALLBACK);
	stop.kind = g->stop.kind;
	g->stop = stop;
	return false;
}

static bool deny(struct mmu_guest *g)
{
	guest_stop(g, MMU_GUEST_PROTECTION);
	return false;
}

/* What the bit map says. A TR that was never loaded has none, nor has a TSS of 16 bits. */
static bool permitted(struct mmu_guest *g, uint32_t port, uint32_t size)
{
	struct engine_table tss = guest_table(g, g->c.ids.tr);
	uint32_t type = tss.flags >> TSS_TYPE_SHIFT & 15;
	uint64_t at, word;

	if ((type != TSS_FREE && type != TSS_BUSY) || tss.limit < TSS_MAP_BASE + 1)
		return deny(g);
	if (!load(g, tss.base + TSS_MAP_BASE, &at))
		return false;
	at += port / 8;
	if (at + 1 > tss.limit)		/* two bytes are read, whatever the port's place in the first one */
		return deny(g);
	if (!load(g, tss.base + at, &word))
		return false;
	return word >> port % 8 & ((1u << size) - 1) ? deny(g) : true;
}

/* Whether the instruction under way may use `size` ports from `port` on; if not, g->stop says why. */
bool guest_port_permitted(struct mmu_guest *g, uint32_t port, uint32_t size)
{
	const struct mmu_guest_ids *id = &g->c.ids;
	uint64_t cr0 = 0, cs = 0, flags = 0;	/* wider than the engine writes */
	int ids[] = { id->cr0, id->cs, id->flags };
	void *values[] = { &cr0, &cs, &flags };

	if (g->port_permitted && g->port_pc == guest_register(g, id->pc)) {
		g->port_permitted = false;
		return true;
	}
	g->c.engine.reg_read_batch(g->c.engine.uc, ids, values, sizeof(ids) / sizeof(ids[0]));
	if (!(cr0 & PE))
		return true;
	if (!(flags & GUEST_RFLAGS_VM) && (cs & 3) <= (flags & GUEST_RFLAGS_IOPL) >> IOPL_SHIFT)
		return true;
	return permitted(g, port & 0xffff, size);
}

bool guest_port_is_string(const struct x86_instruction *i)
{
	return i->opcode >= OP_INSB && i->opcode <= OP_OUTSD;
}

/* The same for INS or OUTS at pc, before it: the engine touches memory first. It is not asked again at the port. */
bool guest_port_string_permitted(struct mmu_guest *g, uint64_t pc, const struct x86_instruction *i)
{
	const int *general = g->c.ids.general;
	uint64_t count = i->repeated ? guest_register(g, general[RCX]) : 1;
	uint32_t size = i->opcode & 1 ? (i->short_operand ? 2 : 4) : 1;

	g->port_permitted = false;
	if (!(i->short_address ? (uint32_t)count : count))
		return true;
	if (!guest_port_permitted(g, (uint32_t)guest_register(g, general[RDX]), size))
		return false;
	g->port_permitted = true;
	g->port_pc = pc;
	return true;
}
