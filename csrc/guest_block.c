/*
 * Blocks of x86 code that the engine has translated and not run yet. Here instructions begin where they are seen to, so
 * what is too frequent among bytes that only look like it is found here and not by guest_sites_scan(): RCL and RCR of
 * memory, whose faults lose the flags unless a hook has noted them before.
 */
#include "decode_x86.h"
#include "deliver.h"

/* Whether a byte and the one behind it may be opcode and ModRM of RCL or RCR of memory. */
static bool may_rotate(uint8_t opcode, uint8_t modrm)
{
	return ((opcode & 0xfe) == 0xc0 || (opcode & 0xfc) == 0xd0) && (modrm >> 4 & 3) == 1 && modrm >> 6 != 3;
}

static bool worth_a_look(const uint8_t *code, uint32_t size)
{
	for (uint32_t i = 0; i + 1 < size; i++)
		if (may_rotate(code[i], code[i + 1]))
			return true;
	return false;
}

/*
 * The block was translated, and must be anew when a hook belongs into it. A site of guest_sites_scan() that is there
 * may not be in it: its last page is searched in the midst of its translation.
 */
static bool lacks_hook(struct mmu_guest *g, uint64_t pc, uint32_t size)
{
	uint8_t code[GUEST_BLOCK_MOST];
	struct x86_instruction i;
	bool lacks = false;

	if (size > sizeof(code))
		return false;
	size = guest_peek_code(g, pc, size, code);
	if (!worth_a_look(code, size))
		return false;
	for (uint32_t at = 0; at < size && x86_decode(code + at, size - at, &i); at += i.length)
		if (x86_rotates_through_carry(&i))
			lacks |= guest_site_add(g, pc + at, pc + at, (void *)(uintptr_t)guest_flags_on_code);
	return lacks;
}

/* The block comes next. */
void guest_block_check(struct mmu_guest *g, uint64_t pc, uint32_t size)
{
	if (!lacks_hook(g, pc, size))
		return;
	g->code_stale = true;
	if (g->phase == GUEST_PROBING || guest_stopping(g))
		return;
	g->event = GUEST_CODE_FULL;
	g->stop.access = MMU_ACCESS_FETCH;	/* none of its instructions was counted */
	g->c.engine.emu_stop(g->c.engine.uc);
}

/* UC_HOOK_EDGE_GENERATED. The engine does not tell of what it translates before a first block has run to its end. */
void guest_on_x86_translated(void *uc, const struct engine_block *block, const void *before, void *user)
{
	struct mmu_guest *g = user;

	(void)uc;
	(void)before;
	exclusive_want(&g->exclusive, EXCLUSIVE_SEARCHES, false);
	guest_block_check(g, block->pc, block->size);
}
