/* x86-64 for the guest: which registers a walk needs, and which accesses are the CPU's own. */
#include "decode_x86.h"
#include "deliver_x86.h"

enum { RFLAGS_AC = 1 << 18, OPERAND = 10 };	/* OPERAND: bytes of a far pointer */

struct mmu_x86_regs guest_x86_registers(struct mmu_guest *g)
{
	const struct mmu_guest_ids *id = &g->c.ids;
	struct mmu_x86_regs regs = { .phys_bits = (uint8_t)g->c.phys_bits };
	struct engine_msr efer = { .number = MSR_EFER };
	uint64_t flags = 0, cs = 0;	/* wider than the engine writes */
	int ids[] = { id->cr0, id->cr3, id->cr4, id->cs, id->flags, id->msr };
	void *values[] = { &regs.cr0, &regs.cr3, &regs.cr4, &cs, &flags, &efer };

	g->c.engine.reg_read_batch(g->c.engine.uc, ids, values, sizeof(ids) / sizeof(ids[0]));
	if (regs.cr3 & X86_CR3_NOFLUSH) {	/* says something to MOV CR3 and is not kept; but by the engine */
		regs.cr3 &= ~X86_CR3_NOFLUSH;
		guest_set_register(g, id->cr3, regs.cr3);
	}
	regs.efer = efer.value;
	regs.cpl = cs & 3;
	regs.ac = (flags & RFLAGS_AC) != 0;
	return regs;
}

/* Which of the engine's TLBs an entry goes to. */
static int x86_index(const struct mmu_x86_regs *regs)
{
	return (regs->cpl == 3) | regs->ac << 1;
}

static int x86_walk(struct mmu_guest *g, mmu_port *port, uint64_t va, uint32_t access, bool update,
		    struct guest_translation *ret, struct mmu_guest_stop *stop)
{
	struct mmu_x86_regs regs = guest_x86_registers(g);
	struct mmu_x86_translation t;
	int rc = mmu_x86_walk(port, &regs, va, access, update ? MMU_X86_UPDATE : 0, &t, &stop->x86,
			      NULL);

	if (rc == MMU_OK)
		*ret = (struct guest_translation){ .pa = pa_of(t.pa), .size = t.page_size,
			.allowed = t.allowed, .index = (uint32_t)x86_index(&regs) };
	return rc;
}

static int x86_tlb_registers(struct mmu_guest *g)
{
	struct mmu_x86_regs regs = guest_x86_registers(g);

	if (!g->tlb.set || memcmp(&regs, &g->tlb.x86, sizeof(regs))) {
		int rc = mmu_tlb_set_x86(g->tlb.tlb, g->c.walk, &regs);

		if (rc != MMU_OK)
			return rc;
		g->tlb.x86 = regs;
		g->tlb.set = true;
	}
	return x86_index(&regs);
}

/* One-byte and 0F two-byte opcodes that read a descriptor; groups by the reg field of ModRM. */
static bool loads_descriptor(uint64_t code)
{
	uint32_t op = code & 0xff, reg = (code >> 11) & 7;

	if (op == 0x0f) {
		op = (code >> 8) & 0xff;
		reg = (code >> 19) & 7;
		return op == 0x02 || op == 0x03 || op == 0xa1 || op == 0xa9 || op == 0xb2 ||
		       op == 0xb4 || op == 0xb5 || (op == 0x00 && reg >= 2);
	}
	return op == 0x8e || op == 0xca || op == 0xcb || op == 0xcf ||
	       (op == 0xff && (reg == 3 || reg == 5));
}

bool x86_decode_at(struct mmu_guest *g, uint64_t pc, struct x86_instruction *ret)
{
	uint8_t code[X86_LONGEST];

	return x86_decode(code, guest_peek_code(g, pc, sizeof(code), code), ret);
}

static bool descriptor_instruction(struct mmu_guest *g)
{
	uint64_t pc = guest_register(g, g->c.ids.pc), byte, code = 0;

	for (int i = 0; i < 14; i++, pc++) {
		if (!guest_peek(g, pc, 1, &byte))
			return false;
		if (!x86_is_prefix((uint8_t)byte))
			break;
	}
	for (uint32_t i = 0; i < 3; i++) {
		if (!guest_peek(g, pc + i, 1, &byte))
			break;
		code |= byte << (8 * i);
	}
	return loads_descriptor(code);
}

struct engine_table guest_table(struct mmu_guest *g, int id)
{
	struct engine_table table = { 0 };

	g->c.engine.reg_read(g->c.engine.uc, id, &table);
	return table;
}

static bool table_on_page(struct mmu_guest *g, int id, uint64_t page)
{
	struct engine_table table = guest_table(g, id);

	return table.limit && page - (table.base & GUEST_PAGE_MASK) <=
			      ((table.base & (GUEST_PAGE - 1)) + table.limit);
}

/* The engine loads 16 bytes for some operands of 8, and 8 for some of 4. */
static bool x86_loads_too_much(struct mmu_guest *g)
{
	const struct mmu_guest_stop *stop = &g->stop;
	struct x86_instruction i;
	uint64_t behind;
	uint32_t size;

	if (stop->kind != MMU_GUEST_FAULT || stop->exact || !(stop->access & MMU_ACCESS_READ) ||
	    !x86_decode_at(g, stop->pc, &i) || !(size = x86_loaded_twice(&i)) || !x86_in_64_bit_code(g))
		return false;
	behind = guest_operand(g, stop->pc, &i) + size;
	return ((behind - 1) & GUEST_PAGE_MASK) != stop->va && ((behind + size - 1) & GUEST_PAGE_MASK) == stop->va;
}

static uint64_t general(struct mmu_guest *g, int8_t number)
{
	return number < 0 ? 0 : guest_register(g, g->c.ids.general[number & 15]);
}

/* How far from its operand's address a BT, BTS, BTR or BTC with a register works, in bytes: whole operands. */
static uint64_t bit_string_offset(struct mmu_guest *g, const struct x86_instruction *i)
{
	uint64_t bit = general(g, (int8_t)i->control);

	if (!x86_bit_string(i))
		return 0;
	if (i->wide)
		return (uint64_t)((int64_t)bit >> 6) * 8;
	return i->short_operand ? (uint64_t)((int16_t)bit >> 4) * 2 : (uint64_t)((int32_t)bit >> 5) * 4;
}

/* The address of the operand in memory of the 64-bit instruction at pc, which comes next. */
uint64_t guest_operand(struct mmu_guest *g, uint64_t pc, const struct x86_instruction *i)
{
	struct engine_msr base = { .number = i->segment == X86_FS ? MSR_FS_BASE : MSR_GS_BASE };
	uint64_t at = general(g, i->base) + (general(g, i->index) << i->scale) + (uint64_t)(int64_t)i->displacement;

	if (i->relative)
		at += pc + i->length;
	at += bit_string_offset(g, i);	/* in the width of addresses */
	if (i->short_address)
		at = (uint32_t)at;
	if (i->segment)
		g->c.engine.reg_read(g->c.engine.uc, g->c.ids.msr, &base);
	return at + base.value;
}

/* Little-endian bytes of data, at most 8, without an effect on tables, counters or devices. False: there are none. */
bool guest_peek_data(struct mmu_guest *g, uint64_t va, uint32_t size, uint64_t *ret)
{
	struct mmu_guest_stop unused;
	struct guest_translation t;
	uint64_t bytes;
	uint32_t part;

	*ret = 0;
	for (uint32_t i = 0; i < size; i += part) {
		uint64_t at = va + i, room = GUEST_PAGE - (at & (GUEST_PAGE - 1));

		part = room < size ? 1 : size - i;
		if (guest_looked(g, x86_walk(g, g->c.probe, at, MMU_ACCESS_READ, false, &t, &unused)) != MMU_OK ||
		    guest_is_device(g, t.pa.v) || mmu_port_load(g->c.probe, t.pa.v, part, &bytes) != MMU_MEMTX_OK)
			return false;
		*ret |= bytes << (8 * i);
	}
	return true;
}

/* Whether the program's own operand, in memory or on the stack, begins or ends on the page. */
static bool operand_on_page(struct mmu_guest *g, uint64_t page)
{
	uint64_t pc = guest_register(g, g->c.ids.pc), at;
	struct x86_instruction i;

	if (!x86_decode_at(g, pc, &i))
		return false;
	at = i.memory ? guest_operand(g, pc, &i) : general(g, RSP);
	return at + OPERAND - 1 - page < GUEST_PAGE + OPERAND - 1;
}

/* A user program that loads a segment makes the CPU read descriptors with supervisor rights. */
static uint32_t x86_kind_of_access(struct mmu_guest *g, uint64_t va)
{
	if ((guest_register(g, g->c.ids.cs) & 3) != 3)
		return 0;
	if (!table_on_page(g, g->c.ids.gdtr, va) && !table_on_page(g, g->c.ids.ldtr, va))
		return 0;
	return descriptor_instruction(g) && !operand_on_page(g, va) ? MMU_ACCESS_IMPLICIT : 0;
}

/*
 * Before a look-up or a port the engine goes back to what the flags of a hooked instruction were worked out from, and
 * leaves what they are. Most instructions say so again behind their accesses; these have said it before them.
 */
static void x86_keep_flags(struct mmu_guest *g)
{
	struct x86_instruction i;

	if (guest_register(g, g->c.ids.pc) == g->hooked_at && x86_decode_at(g, g->hooked_at, &i) && x86_keeps_flags(&i))
		guest_set_register(g, g->c.ids.flags, g->flags);
}

const struct guest_arch guest_x86 = { .walk = x86_walk, .kind_of_access = x86_kind_of_access,
				       .tlb_registers = x86_tlb_registers, .handle = guest_x86_handle,
				       .loads_too_much = x86_loads_too_much, .fetch_reaches = guest_fetch_reaches,
				       .undo_branch = guest_branch_undo, .keep_flags = x86_keep_flags,
				       .notes_blocks = true };
