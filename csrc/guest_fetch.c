/*
 * Which instruction of x86 the fault of a fetch belongs to.
 *
 * The engine translates a block before it runs any of it. When the block goes on on a page that cannot be fetched, the
 * instructions before that page are still to run, up to the first that is there as well.
 *
 * A near branch to an address that is not canonical is #GP(0) of its own, and nothing of it happens. The engine carries
 * it out and faults at the target. So the branch is looked for, at the end of the block that ran last, and what it did
 * to registers is undone. What CALL pushed stays, below RSP.
 * Source: Intel SDM vol. 2, 'CALL', 'Jcc', 'JMP', 'LOOP/LOOPcc', 'RET': '64-Bit Mode Exceptions'.
 */
#include "decode_x86.h"
#include "deliver_x86.h"

enum { WORD = 8 };			/* bytes that CALL pushes */

enum { OP_JCC = 0x70, OP_RET_N = 0xc2, OP_RET = 0xc3, OP_LOOPNE = 0xe0, OP_LOOP = 0xe2, OP_JRCXZ = 0xe3, OP_CALL = 0xe8,
       OP_JMP = 0xe9, OP_JMP_SHORT = 0xeb, OP_INDIRECT = 0xff, OP_JCC_NEAR = 0x180, REG_CALL = 2, REG_JMP = 4 };

static void add(struct mmu_guest *g, uint32_t number, int64_t value)
{
	int id = g->c.ids.general[number];

	guest_set_register(g, id, guest_register(g, id) + (uint64_t)value);
}

/* Of the RET before `end`. The engine takes it for a signed number. */
static int16_t released(struct mmu_guest *g, uint64_t end)
{
	uint64_t low, high;

	if (!guest_peek(g, end - 2, 1, &low) || !guest_peek(g, end - 1, 1, &high))
		return 0;
	return (int16_t)(low | high << 8);
}

static bool is_conditional(const struct x86_instruction *i)
{
	return (i->opcode & ~15u) == OP_JCC || (i->opcode & ~15u) == OP_JCC_NEAR ||
	       (i->opcode >= OP_LOOPNE && i->opcode <= OP_JRCXZ);
}

/* The instruction before `end` is i. False: it is no near branch. */
static bool undo(struct mmu_guest *g, uint64_t end, const struct x86_instruction *i)
{
	switch (i->opcode) {
	case OP_RET_N:
		add(g, RSP, -WORD - released(g, end));
		return true;
	case OP_RET:
		add(g, RSP, -WORD);
		return true;
	case OP_CALL:
		add(g, RSP, WORD);
		return true;
	case OP_INDIRECT:
		if (i->reg == REG_CALL)
			add(g, RSP, WORD);
		return i->reg == REG_CALL || i->reg == REG_JMP;
	case OP_JMP: case OP_JMP_SHORT:
		return true;
	}
	if (!is_conditional(i) || g->stop.pc == end)	/* not taken */
		return false;
	if (i->opcode <= OP_LOOP && i->opcode >= OP_LOOPNE)
		add(g, RCX, 1);
	return true;
}

/* Where the engine must go before the fetch that g->stop tells of has faulted; 0: it is there. */
uint64_t guest_fetch_reaches(struct mmu_guest *g)
{
	uint64_t pc = g->stop.pc, page = g->stop.va & GUEST_PAGE_MASK, at = pc;
	struct x86_instruction i;

	if (!(g->stop.access & MMU_ACCESS_FETCH) || (pc & GUEST_PAGE_MASK) + GUEST_PAGE != page)
		return 0;
	while (at != page && x86_decode_at(g, at, &i) && i.length <= page - at)
		at += i.length;
	return at == pc ? 0 : at;
}

/* The fetch that g->stop tells of has faulted. */
void guest_branch_undo(struct mmu_guest *g)
{
	uint64_t at = g->block.pc, left = g->block.size;
	struct x86_instruction i;

	if (g->stop.x86.kind != MMU_FAULT_NON_CANONICAL || g->stop.va != g->stop.pc || left > GUEST_BLOCK_MOST)
		return;
	for (; left && x86_decode_at(g, at, &i) && i.length <= left; left -= i.length, at += i.length)
		if (i.length == left && undo(g, at + left, &i))
			g->stop.pc = at;
}
