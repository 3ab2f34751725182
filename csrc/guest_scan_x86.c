/* Search of x86 code for what guest_site_x86.c wants to know of. Instructions may begin anywhere, so bytes that are none
   are found as well; where they are too many, guest_block.c waits for the engine to say where instructions begin. */
#include "deliver_x86.h"
#include "site_x86.h"

enum { OP_0F = 0x0f, REX_W = 0x48, LOCK = 0xf0, VEX3 = 0xc4, VEX2 = 0xc5 };

/* Prefixes before code[at], as far as they are on this page. */
static uint32_t first_prefix(const uint8_t *code, uint32_t at)
{
	while (at && x86_is_prefix(code[at - 1]))
		at--;
	return at;
}

/* REP or REPNE stands before code[at], or may stand on the page before. */
static bool may_be_repeated(const uint8_t *code, uint32_t at)
{
	uint32_t first = first_prefix(code, at);

	return !first || memchr(code + first, X86_REP, at - first) || memchr(code + first, X86_REPNE, at - first);
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
	case OP_MOV_DR & 0xff: case OP_EXTRQ & 0xff: case OP_INSERTQ & 0xff:
		return true;
	case OP_MOVNT & 0xff:
		return may_be_repeated(code, at);	/* else it is one of SSE */
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

	return left > 1 && site_serializes(OP_TABLES | code[at + 1], left > 2 ? code[at + 2] >> 3 & 7 : 2);
}

/* The instruction whose opcode is at code[at], or on the page behind; `more`: bytes from there to the next one. */
static void add_x86(struct mmu_guest *g, uint64_t page, const uint8_t *code, uint32_t at, uint32_t more)
{
	uint32_t first = first_prefix(code, at), before = 0;

	if (!first && page >= GUEST_PAGE)	/* prefixes may stand on the page before */
		before = X86_LONGEST - 1;
	guest_site_add(g, page + first - before, page + (at < GUEST_PAGE ? at : GUEST_PAGE - 1) + more, NULL);
}

static bool may_be_atomic(const uint8_t *code, uint32_t at)
{
	struct x86_instruction i;

	return !x86_decode(code + at, (uint32_t)GUEST_PAGE - at, &i) || site_is_atomic(&i);	/* or it goes on behind the page */
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
	return site_is_avx(&i);
}

/*
 * INS, or OUTS with a prefix such as REP. An OUTS without one is settled at the port, where it has loaded already;
 * its opcodes are frequent within other instructions.
 */
static bool may_be_string(const uint8_t *code, uint32_t at)
{
	return !(code[at] & 2) || !at || x86_is_prefix(code[at - 1]);
}

struct search { const uint8_t *code; bool user, sharing, wide; };

enum { NO_SITE = -1 };

/* For what begins at code[at], but for prefixes: NO_SITE, or how far from there what comes behind must be known of. */
static int look(const struct search *s, uint32_t at)
{
	const uint8_t *code = s->code;

	switch (code[at]) {
	case OP_0F:
		return may_be_ours(code, at) || (s->sharing && may_serialize(code, at)) ? 0 : NO_SITE;
	case VEX3: case VEX2:
		return may_be_avx(code, at) ? 0 : NO_SITE;
	case LOCK: case OP_XCHG: case OP_XCHG + 1:
		return s->sharing && may_be_atomic(code, at) ? X86_LONGEST : NO_SITE;
	case OP_INSB: case OP_INSB + 1: case OP_OUTSD - 1: case OP_OUTSD:
		return s->user && may_be_string(code, at) ? 0 : NO_SITE;
	case OP_CMPSB: case OP_CMPSB + 1: case OP_SCASB: case OP_SCASB + 1:
		return may_be_repeated(code, at) ? 1 : NO_SITE;
	case OP_IRET: case OP_RETF: case OP_RETF_N:	/* without REX.W to 32 bits, which are always canonical */
		if (s->sharing && !s->wide && code[at] == OP_IRET)
			return 0;
		return !at || (code[at - 1] & 0xf8) == REX_W ? 0 : NO_SITE;	/* the byte alone is frequent */
	}
	return NO_SITE;
}

void guest_x86_scan(struct mmu_guest *g, uint64_t page, const uint8_t *code)
{
	const struct search search = { code, guest_register(g, g->c.ids.cs) & 3, g->sharing,
				       g->sharing && x86_in_64_bit_code(g) };

	for (uint32_t at = 0; at < GUEST_PAGE; at++) {
		int more = look(&search, at);

		if (more != NO_SITE)
			add_x86(g, page, code, at, (uint32_t)more);
	}
	/* What begins the page behind may be translated before that is searched: whether it has a hook is asked first. */
	guest_site_add(g, page + GUEST_PAGE, page + GUEST_PAGE, NULL);
	if (x86_is_prefix(code[GUEST_PAGE - 1]))
		add_x86(g, page, code, GUEST_PAGE, 0);
}
