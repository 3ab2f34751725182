/*
 * Instructions that we must know of before they run, and of which the engine tells nobody: those of x86 that
 * flush the TLB (INVLPG, INVPCID, MOV to a control register, WRMSR) or that it gets wrong (those of guest_x86_system.c
 * and guest_group_15.c, and LOCK before any of these; AVX and SSE4A; RDRAND and RDSEED; INS and OUTS of user programs;
 * CMPXCHG8B and 16B, which take the flags for those of an earlier instruction, and SETcc to memory and repeated
 * comparisons, whose faults lose them: a hook has them worked out before) and, where memory is shared, atomic ones and
 * those that serialize.
 * The engine translates code only from pages that it asked for; so each new page of code is searched for their
 * bytes, and a hook is put on what may be one. A hook costs nothing elsewhere. See also guest_block.c.
 */
#include "decode_x86.h"
#include "deliver_x86.h"

enum { HOOK_CODE = 1 << 2 };	/* unicorn.h: UC_HOOK_CODE */
enum { OP_0F = 0x0f, REX_W = 0x48, OP_INVPCID = 0x282,
       OP_INSB = 0x6c, OP_GROUP_9 = 0x1c7, OP_MOVNT = 0x12b, OP_EXTRQ = 0x178, OP_INSERTQ = 0x179,
       REG_CMPXCHG8B = 1, REG_RDRAND = 6, OP_XCHG = 0x86, LOCK = 0xf0, VEX3 = 0xc4,
       VEX2 = 0xc5 };
enum { OP_INVD = 0x108, OP_WBINVD = 0x109 };

/* LOCK, or XCHG, which needs none. */
static bool is_atomic(const struct x86_instruction *i)
{
	return x86_writes_back(i) && (i->lock || i->opcode == OP_XCHG || i->opcode == OP_XCHG + 1);
}

/*
 * VEX instructions but those of BMI1 and BMI2, which work on general registers. The CPU has no AVX, yet the
 * engine takes those of 128 bits for the SSE instructions of the same opcode, with one operand less.
 */
static bool is_avx(const struct x86_instruction *i)
{
	switch (i->opcode) {
	case 0x2f2: case 0x2f3: case 0x2f5: case 0x2f6: case 0x2f7: case 0x3f0:
		return false;
	}
	return i->vex;
}

/*
 * Behind these the CPU runs what is in memory; CPUID has a hook of its own.
 * Source: Intel SDM vol. 3A, 'Serializing Instructions'.
 */
static bool serializes(uint32_t opcode, uint8_t reg)
{
	switch (opcode) {
	case OP_IRET: case OP_INVD: case OP_WBINVD: case OP_MOV_CR: case OP_MOV_DR: case OP_WRMSR: case OP_INVPCID:
		return true;
	case OP_TABLES: case OP_SYSTEM:	/* LLDT, LTR; LGDT, LIDT, INVLPG */
		return reg == 2 || reg == 3 || (opcode == OP_SYSTEM && reg == REG_INVLPG);
	}
	return false;
}

/* RDRAND and RDSEED, which the host would answer. */
static bool is_random(const struct x86_instruction *i)
{
	return i->opcode == OP_GROUP_9 && !i->memory && i->reg >= REG_RDRAND;
}

/* SSE4A, which no Intel CPU has: EXTRQ, INSERTQ, MOVNTSS, MOVNTSD. */
static bool is_sse4a(const struct x86_instruction *i)
{
	return i->opcode == OP_EXTRQ || i->opcode == OP_INSERTQ || (i->opcode == OP_MOVNT && i->repeated);
}

/* INVLPG. Only of 64-bit code is its operand known. */
static void flush_page(struct mmu_guest *g, uint64_t pc, const struct x86_instruction *i)
{
	if (x86_in_64_bit_code(g))
		guest_tlb_flush_page(g, guest_operand(g, pc, i));
	else
		guest_tlb_flush(g);
}

/* The instruction at pc is to be run alone. */
static void stop_before(struct mmu_guest *g, uint64_t pc, uint32_t length)
{
	if (g->phase != GUEST_RUNNING)
		return;
	g->atomic_pc = pc;
	g->atomic_next = pc + length;
	g->event = GUEST_ATOMIC_NEXT;
	g->c.engine.emu_stop(g->c.engine.uc);
}

static void on_arm64_site(struct mmu_guest *g, uint64_t address)
{
	uint64_t word;

	if (guest_peek(g, address, 4, &word) && guest_arm64_permitted(g, address, (uint32_t)word) && g->sharing &&
	    guest_atomic_arm64((uint32_t)word))
		stop_before(g, address, 4);
}

/* The instruction that comes next is not to be. */
static void refuse(struct mmu_guest *g, enum mmu_guest_stop_kind kind)
{
	guest_stop(g, kind);
	g->c.engine.emu_stop(g->c.engine.uc);
}

/*
 * Each round of a repeated CMPS or SCAS comes here, and the instruction behind it. A round that faults leaves the flags as
 * they were before the first. Source: Intel SDM vol. 2, 'REP/REPE/REPZ/REPNE/REPNZ'.
 */
static void keep_flags(struct mmu_guest *g, uint64_t pc, const struct x86_instruction *i)
{
	struct guest_string *s = &g->string;
	uint64_t count = guest_register(g, g->c.ids.general[RCX]);

	if (!x86_compares_strings(i)) {
		s->under_way = false;
		return;
	}
	if (i->short_address)
		count = (uint32_t)count;
	if (s->under_way && s->pc == pc && s->left == count)
		g->flags = s->flags;
	*s = (struct guest_string){ pc, count - 1, g->flags, true };
}

/* What flushes accesses nothing through the TLB, so what is flushed before it is not filled again until it has run. */
static void on_x86_site(struct mmu_guest *g, uint64_t address)
{
	static const enum mmu_guest_stop_kind stop_of[] = {
		[X86_REFUSED] = MMU_GUEST_PROTECTION, [X86_UNDEFINED] = MMU_GUEST_INVALID, [X86_OURS] = MMU_GUEST_SYSTEM,
		[X86_DEBUG] = MMU_GUEST_INTERRUPT,
	};
	struct x86_instruction i;
	enum x86_verdict verdict;

	if (!x86_decode_at(g, address, &i)) {
		guest_tlb_flush(g);
		return;
	}
	if (i.opcode == OP_GROUP_9 && i.reg == REG_CMPXCHG8B && i.memory)
		guest_set_register(g, g->c.ids.flags, g->flags);	/* now they are worked out for good */
	keep_flags(g, address, &i);
	if (i.lock && !x86_writes_back(&i) && x86_in_64_bit_code(g)) {
		refuse(g, MMU_GUEST_INVALID);
		return;
	}
	verdict = guest_system_verdict(g, address, &i);
	if (verdict != X86_RUNS) {
		refuse(g, stop_of[verdict]);
		if (verdict == X86_DEBUG)
			x86_debug_access(g);
	} else if (serializes(i.opcode, i.reg) && guest_code_serialize(g)) {
		g->c.engine.emu_stop(g->c.engine.uc);
	} else if (i.opcode == OP_SYSTEM && i.reg == REG_INVLPG && i.memory) {
		flush_page(g, address, &i);
	} else if (i.opcode == OP_MOV_CR || i.opcode == OP_INVPCID) {
		guest_tlb_flush(g);
	} else if (i.opcode == OP_WRMSR && (uint32_t)guest_register(g, g->c.ids.general[RCX]) == MSR_EFER) {
		guest_tlb_flush(g);
		guest_flush_tlb(g);	/* the engine's, which forgets to */
	} else if (i.opcode == OP_GROUP_15) {
		if (!guest_group_15(g, address, &i))
			g->c.engine.emu_stop(g->c.engine.uc);
	} else if (is_avx(&i) || is_random(&i) || is_sse4a(&i)) {
		refuse(g, MMU_GUEST_INVALID);
	} else if (guest_port_is_string(&i)) {
		if (!guest_port_string_permitted(g, address, &i))
			g->c.engine.emu_stop(g->c.engine.uc);
	} else if (g->sharing && is_atomic(&i)) {
		stop_before(g, address, i.length);
	}
}

/* UC_HOOK_CODE on a site: the instruction at `address` comes next. */
static void on_site(void *uc, uint64_t address, uint32_t size, void *user)
{
	struct mmu_guest *g = user;

	(void)uc;
	(void)size;
	if (g->phase == GUEST_PROBING || guest_stopping(g))
		return;
	if (g->phase == GUEST_ATOMIC) {
		if (address != g->atomic_pc)
			g->c.engine.emu_stop(g->c.engine.uc);
		return;
	}
	guest_note_flags(g, address);
	if (g->c.arch == MMU_GUEST_X86_64)
		on_x86_site(g, address);
	else
		on_arm64_site(g, address);
}

/* Calls `callback`, NULL: on_site, before each instruction that begins at first .. last. False: it did before. */
bool guest_site_add(struct mmu_guest *g, uint64_t first, uint64_t last, void *callback)
{
	const struct mmu_guest_engine *e = &g->c.engine;
	struct guest_sites *s = &g->sites;
	size_t hook;

	if (s->full)
		return false;
	for (uint32_t i = 0; i < s->count; i++)
		if (first >= s->at[i].first && last <= s->at[i].last && callback == s->at[i].callback)
			return false;
	if (s->count == SITES) {
		/* One on everything: slow, but none is missed. It goes with the others. */
		first = 1;
		last = 0;
		s->full = true;
		callback = NULL;
	}
	if (e->hook_add(e->uc, &hook, HOOK_CODE, callback ? callback : (void *)(uintptr_t)on_site, g, first, last)) {
		g->tlb.blind = true;
		return false;
	}
	s->at[s->count++] = (struct guest_site){ first, last, hook, callback };
	return true;
}

static void add(struct mmu_guest *g, uint64_t first, uint64_t last)
{
	guest_site_add(g, first, last, NULL);
}

/* Whether the opcode whose 0F is at code[at] may be one of ours; what lies on the next page may. */
static bool may_be_ours(const uint8_t *code, uint32_t at)
{
	uint32_t left = (uint32_t)GUEST_PAGE - at;

	if (left == 1)
		return true;
	switch (code[at + 1]) {
	case OP_LOAD_CR & 0xff: case OP_MOV_CR & 0xff: case OP_WRMSR & 0xff: case OP_RDMSR & 0xff: case OP_RDPMC & 0xff:
	case OP_SYSENTER & 0xff: case OP_SYSEXIT & 0xff: case OP_SYSRET & 0xff: case OP_LOAD_DR & 0xff:
	case OP_MOV_DR & 0xff: case OP_MOVNT & 0xff: case OP_EXTRQ & 0xff: case OP_INSERTQ & 0xff:
		return true;
	case 0x90: case 0x91: case 0x92: case 0x93: case 0x94: case 0x95: case 0x96: case 0x97:
	case 0x98: case 0x99: case 0x9a: case 0x9b: case 0x9c: case 0x9d: case 0x9e: case 0x9f:
		return left == 2 || code[at + 2] >> 6 != 3;	/* SETcc to memory */
	case OP_SYSTEM & 0xff:
		return left == 2 || code[at + 2] == MODRM_XSETBV || (code[at + 2] >> 6 != 3 &&
			(0x8cu >> (code[at + 2] >> 3 & 7) & 1));	/* LGDT, LIDT, INVLPG */
	case OP_GROUP_15 & 0xff:
		return left == 2 || code[at + 2] >> 6 != 3 || (code[at + 2] & 0x30) == 0x10;	/* or WRFSBASE, WRGSBASE */
	case OP_TABLES & 0xff:
		return left == 2 || (code[at + 2] >> 3 & 7) == REG_LTR;
	case OP_GROUP_9 & 0xff:
		return left == 2 || (code[at + 2] >> 6 == 3 ? (code[at + 2] >> 3 & 7) >= REG_RDRAND
							    : (code[at + 2] >> 3 & 7) == REG_CMPXCHG8B);
	case 0x38:
		return left == 2 || code[at + 2] == (OP_INVPCID & 0xff);
	}
	return false;
}

/* Of 0F and another byte. */
static bool may_serialize(const uint8_t *code, uint32_t at)
{
	uint32_t left = (uint32_t)GUEST_PAGE - at;

	return left > 1 && serializes(OP_TABLES | code[at + 1], left > 2 ? code[at + 2] >> 3 & 7 : 2);
}

/* In 64-bit code with REX.W: the byte alone is frequent within other instructions. */
static bool may_be_iret(const uint8_t *code, uint32_t at, bool wide)
{
	return !wide || !at || code[at - 1] == REX_W;
}

/* Prefixes before code[at], as far as they are on this page. */
static uint32_t first_prefix(const uint8_t *code, uint32_t at)
{
	while (at && x86_is_prefix(code[at - 1]))
		at--;
	return at;
}

/* The instruction whose opcode is at code[at], or on the page behind; `more`: bytes from there to the next one. */
static void add_x86(struct mmu_guest *g, uint64_t page, const uint8_t *code, uint32_t at, uint32_t more)
{
	uint32_t first = first_prefix(code, at), before = 0;

	if (!first && page >= GUEST_PAGE)	/* prefixes may stand on the page before */
		before = X86_LONGEST - 1;
	add(g, page + first - before, page + (at < GUEST_PAGE ? at : GUEST_PAGE - 1) + more);
}

static bool may_be_atomic(const uint8_t *code, uint32_t at)
{
	struct x86_instruction i;

	return !x86_decode(code + at, (uint32_t)GUEST_PAGE - at, &i) || is_atomic(&i);	/* or it goes on behind the page */
}

/* The first bytes leave many false ones out: ADD RSP, n and MOV with RBP as well have a C4 or C5. */
static bool may_be_avx(const uint8_t *code, uint32_t at)
{
	struct x86_instruction i;

	if (!x86_decode(code + at, (uint32_t)GUEST_PAGE - at, &i))
		return true;
	if (code[at] == VEX3 && (!(code[at + 1] & 0x1f) || (code[at + 1] & 0x1f) > 3))
		return false;		/* no such map */
	if (i.opcode >> 8 == 1 && ((i.opcode & 0xff) < 0x10 || (i.opcode & 0xf0) == 0x40 ||
				   ((i.opcode & 0xff) >= 0x80 && (i.opcode & 0xff) < 0xc2)))
		return false;		/* not with VEX */
	return is_avx(&i);
}

/*
 * INS, or OUTS with a prefix such as REP. An OUTS without one is settled at the port, where it has loaded already;
 * its opcodes are frequent within other instructions.
 */
static bool may_be_string(const uint8_t *code, uint32_t at)
{
	return (code[at] & ~3u) == OP_INSB && (!(code[at] & 2) || !at || x86_is_prefix(code[at - 1]));
}

/* CMPS or SCAS, with a prefix such as REP. */
static bool may_compare_strings(const uint8_t *code, uint32_t at)
{
	uint32_t first = first_prefix(code, at);
	uint8_t op = code[at] & ~1u;

	return (op == 0xa6 || op == 0xae) && (!first || memchr(code + first, X86_REP, at - first) ||
					      memchr(code + first, X86_REPNE, at - first));
}

/* IRETQ and RETFQ. Without REX.W they go to 32 bits, which are always canonical. */
static void add_far_returns(struct mmu_guest *g, uint64_t page, const uint8_t *code)
{
	static const uint8_t opcodes[] = { OP_IRET, OP_RETF, OP_RETF_N };

	for (size_t i = 0; i < sizeof(opcodes); i++) {
		const uint8_t *found = code;

		while ((found = memchr(found, opcodes[i], GUEST_PAGE - (size_t)(found - code)))) {
			uint32_t at = (uint32_t)(found++ - code);

			if (!at || (code[at - 1] & 0xf8) == REX_W)
				add_x86(g, page, code, at, 0);
		}
	}
}

static void scan_x86(struct mmu_guest *g, uint64_t page, const uint8_t *code)
{
	static const uint8_t begins[] = { OP_0F, VEX3, VEX2, LOCK, OP_XCHG, OP_XCHG + 1, OP_IRET };
	bool user = guest_register(g, g->c.ids.cs) & 3, wide = g->sharing && x86_in_64_bit_code(g);

	for (uint32_t i = 0; i < (g->sharing ? sizeof(begins) : 3); i++) {
		const uint8_t *found = code;

		while ((found = memchr(found, begins[i], GUEST_PAGE - (size_t)(found - code)))) {
			uint32_t at = (uint32_t)(found++ - code);
			bool ours = false, atomic = false;

			switch (begins[i]) {
			case OP_0F: ours = may_be_ours(code, at) || (g->sharing && may_serialize(code, at)); break;
			case VEX3: case VEX2: ours = may_be_avx(code, at); break;
			case OP_IRET: ours = may_be_iret(code, at, wide); break;
			default: ours = atomic = may_be_atomic(code, at); break;
			}
			if (ours)
				add_x86(g, page, code, at, atomic ? X86_LONGEST : 0);
		}
	}
	add_far_returns(g, page, code);
	for (uint32_t at = 0; at < GUEST_PAGE; at++) {
		if (user && may_be_string(code, at))
			add_x86(g, page, code, at, 0);
		if (may_compare_strings(code, at))
			add_x86(g, page, code, at, 1);
	}
	if (x86_is_prefix(code[GUEST_PAGE - 1]))
		add_x86(g, page, code, GUEST_PAGE, 0);
}

/*
 * Puts hooks on the page of code at `page` (virtual), which the engine is about to translate from. It comes
 * here again after a store to the page: an entry of its TLB that lets it store lets it fetch no more. False: all code
 * must be translated anew.
 */
bool guest_sites_scan(struct mmu_guest *g, uint64_t page)
{
	if (!g->view.host)
		g->tlb.blind = true;
	else if (g->c.arch == MMU_GUEST_AARCH64)
		return guest_arm64_scan(g, page, g->view.host);
	else
		scan_x86(g, page, g->view.host);
	return true;
}

/* All code is translated anew: hooks on what was there may go. */
void guest_sites_forget(struct mmu_guest *g)
{
	struct guest_sites *s = &g->sites;

	if (s->count <= SITES / 2)
		return;
	for (uint32_t i = 0; i < s->count; i++)
		g->c.engine.hook_del(g->c.engine.uc, s->at[i].hook);
	s->count = 0;
	s->full = false;
}
