/* x86-64 instructions: the opcode, the operand of ModRM, the length. Source: Intel SDM vol. 2, 'Opcode Map'. */
#include "decode_x86.h"
#include "mmu.h"

enum { MAP_0F = 0x100, MAP_0F38 = 0x200, MAP_0F3A = 0x300 };

struct bytes {
	const uint8_t *at, *end;
};

static bool take(struct bytes *b, uint8_t *ret)
{
	if (b->at == b->end)
		return false;
	*ret = *b->at++;
	return true;
}

/* Bit n of row r: opcode 16 r + n has a ModRM byte. */
static const uint16_t modrm_one_byte[16] = {
	0x0f0f, 0x0f0f, 0x0f0f, 0x0f0f, 0, 0, 0x0a08, 0, 0xffff, 0, 0, 0, 0x00c3, 0xff0f, 0, 0xc0c0,
};
static const uint16_t modrm_0f[16] = {
	0xa00f, 0xffff, 0xff0f, 0, 0xffff, 0xffff, 0xffff, 0xff7f,
	0, 0xffff, 0xf838, 0xffff, 0x00ff, 0xffff, 0xffff, 0x7fff,
};

/* As modrm_*: it has an immediate of one byte, of an operand's size but at most 4 bytes. */
static const uint16_t byte_one_byte[16] = {
	0x1010, 0x1010, 0x1010, 0x1010, 0, 0, 0x0c00, 0xffff, 0x000d, 0, 0x0100, 0x00ff, 0x2043, 0, 0x08ff, 0,
};
static const uint16_t word_one_byte[16] = {
	0x2020, 0x2020, 0x2020, 0x2020, 0, 0, 0x0300, 0, 0x0002, 0, 0x0200, 0xff00, 0x0080, 0, 0x0300, 0,
};
static const uint16_t byte_0f[16] = { 0x8000, 0, 0, 0, 0, 0, 0, 0x000f, 0, 0, 0x1010, 0x0400, 0x0074, 0, 0, 0 };
static const uint16_t word_0f[16] = { 0, 0, 0, 0, 0, 0, 0, 0, 0xffff, 0, 0, 0, 0, 0, 0, 0 };

static bool in_table(const uint16_t *table, uint32_t opcode)
{
	return table[opcode >> 4 & 15] >> (opcode & 15) & 1;
}

static bool has_modrm(uint32_t opcode)
{
	switch (opcode >> 8) {
	case 0: return in_table(modrm_one_byte, opcode);
	case 1: return in_table(modrm_0f, opcode);
	}
	return true;
}

static bool is_segment_prefix(uint8_t byte)
{
	return byte == 0x26 || byte == 0x2e || byte == 0x36 || byte == 0x3e || byte == 0x64 || byte == 0x65;
}

static bool is_rex(uint8_t byte)
{
	return (byte & 0xf0) == 0x40;
}

bool x86_is_prefix(uint8_t byte)
{
	return byte == 0x66 || byte == 0x67 || byte == 0xf0 || byte == 0xf2 || byte == 0xf3 ||
	       is_rex(byte) || is_segment_prefix(byte);
}

/* C4 or C5 was read; *rex: as a REX prefix would say it. */
static bool take_vex(struct bytes *b, uint8_t first, struct x86_instruction *i, uint8_t *rex)
{
	uint8_t one, two, op;

	i->vex = true;
	if (!take(b, &one))
		return false;
	if (first == 0xc4 && !take(b, &two))
		return false;
	if (!take(b, &op))
		return false;
	*rex = first == 0xc4 ? ~one >> 5 & 7 : ~one >> 5 & 4;
	i->opcode = (first == 0xc4 ? (uint32_t)(one & 3) << 8 : MAP_0F) | op;
	return true;
}

static bool take_opcode(struct bytes *b, struct x86_instruction *i, uint8_t *rex)
{
	uint8_t byte;

	if (!take(b, &byte))
		return false;
	if (byte == 0xc4 || byte == 0xc5)
		return take_vex(b, byte, i, rex);
	i->opcode = byte;
	if (byte != 0x0f)
		return true;
	if (!take(b, &byte))
		return false;
	i->opcode = MAP_0F | byte;
	if (byte != 0x38 && byte != 0x3a)
		return true;
	i->opcode = byte == 0x38 ? MAP_0F38 : MAP_0F3A;
	if (!take(b, &byte))
		return false;
	i->opcode |= byte;
	return true;
}

struct prefixes {
	uint8_t rex;
};

static bool take_displacement(struct bytes *b, uint32_t size, struct x86_instruction *i)
{
	uint32_t value = 0;
	uint8_t byte = 0;

	for (uint32_t n = 0; n < size; n++) {
		if (!take(b, &byte))
			return false;
		value |= (uint32_t)byte << (8 * n);
	}
	i->displacement = size == 1 ? (int8_t)byte : (int32_t)value;
	return true;
}

static bool take_memory(struct bytes *b, const struct prefixes *p, uint8_t modrm, struct x86_instruction *i)
{
	uint8_t mod = modrm >> 6, base = modrm & 7, sib = 0, size = mod == 1 ? 1 : mod == 2 ? 4 : 0;
	bool has_sib = base == 4;

	i->index = -1;
	if (has_sib) {
		if (!take(b, &sib))
			return false;
		base = sib & 7;
		i->scale = sib >> 6;
		i->index = (int8_t)((sib >> 3 & 7) | (p->rex & 2) << 2);
		if (i->index == 4)
			i->index = -1;
	}
	i->base = (int8_t)(base | (p->rex & 1) << 3);
	if (base == 5 && !mod) {	/* no base, or RIP */
		size = 4;
		i->base = -1;
		i->relative = !has_sib;
	}
	i->stack_base = !i->segment && (i->base == 4 || i->base == 5);
	return take_displacement(b, size, i);
}

static uint32_t immediate_size(const struct x86_instruction *i)
{
	uint32_t op = i->opcode, word = i->short_operand && !i->wide ? 2 : 4;

	switch (op) {
	case 0xf6:
		return i->reg < 2 ? 1 : 0;	/* TEST */
	case 0xf7:
		return i->reg < 2 ? word : 0;
	case 0xc2: case 0xca:
		return 2;			/* RET n */
	case 0xc8:
		return 3;			/* ENTER */
	case 0xa0: case 0xa1: case 0xa2: case 0xa3:
		return i->short_address ? 4 : 8;	/* an address */
	}
	switch (op >> 8) {
	case 0:
		if ((op & ~7u) == 0xb8 && i->wide)
			return 8;		/* MOV */
		return in_table(byte_one_byte, op) ? 1 : in_table(word_one_byte, op) ? word : 0;
	case 1:
		return in_table(byte_0f, op) ? 1 : in_table(word_0f, op) ? word : 0;
	}
	return op >> 8 == MAP_0F3A >> 8;
}

bool x86_decode(const uint8_t *code, uint32_t size, struct x86_instruction *ret)
{
	struct bytes b = { code, code + (size > X86_LONGEST ? X86_LONGEST : size) };
	struct x86_instruction i = { .base = -1, .index = -1 };
	struct prefixes p = { 0 };
	uint8_t modrm;

	for (; b.at < b.end && x86_is_prefix(*b.at); b.at++) {
		p.rex = is_rex(*b.at) ? *b.at : 0;	/* only the last counts, next to the opcode */
		i.any_rex |= is_rex(*b.at);
		i.segment = (*b.at & 0xfe) == X86_FS ? *b.at : i.segment;
		i.short_address |= *b.at == 0x67;
		i.short_operand |= *b.at == 0x66;
		i.repeated = *b.at == X86_REPNE || *b.at == X86_REP ? *b.at : i.repeated;
		i.lock |= *b.at == 0xf0;
	}
	if (!take_opcode(&b, &i, &p.rex))
		return false;
	i.wide = p.rex & 8;
	i.has_modrm = has_modrm(i.opcode);
	if (i.has_modrm) {
		if (!take(&b, &modrm))
			return false;
		i.reg = modrm >> 3 & 7;
		i.control = i.reg | (p.rex & 4) << 1;
		i.rm = (modrm & 7) | (p.rex & 1) << 3;
		i.memory = modrm >> 6 != 3 && (i.opcode ^ OP_MOV_CR) > 3;	/* MOV CR, MOV DR: any mod is 3 */
		if (i.memory && !take_memory(&b, &p, modrm, &i))
			return false;
	}
	size = immediate_size(&i);
	if ((size_t)(b.end - b.at) < size)
		return false;
	i.length = (uint8_t)(b.at - code + size);
	*ret = i;
	return true;
}

/* Groups by ModRM.reg, a bit for each; others: any. */
static uint32_t writes_back_regs(uint32_t opcode)
{
	switch (opcode) {
	case 0x80: case 0x81: case 0x83:
		return 0x7f;			/* all but CMP */
	case 0x86: case 0x87:			/* XCHG */
	case 0xc0: case 0xc1: case 0xd0: case 0xd1: case 0xd2: case 0xd3:	/* rotations and shifts */
		return 0xff;
	case 0xf6: case 0xf7:
		return 1 << 2 | 1 << 3;		/* NOT, NEG */
	case 0xfe: case 0xff:
		return 1 << 0 | 1 << 1;		/* INC, DEC */
	case MAP_0F | 0xa4: case MAP_0F | 0xa5: case MAP_0F | 0xac: case MAP_0F | 0xad:	/* SHLD, SHRD */
	case MAP_0F | 0xab: case MAP_0F | 0xb3: case MAP_0F | 0xbb:	/* BTS, BTR, BTC */
	case MAP_0F | 0xb0: case MAP_0F | 0xb1:	/* CMPXCHG writes in any case */
	case MAP_0F | 0xc0: case MAP_0F | 0xc1:	/* XADD */
		return 0xff;
	case MAP_0F | 0xba:
		return 0xe0;			/* BTS, BTR, BTC */
	case MAP_0F | 0xc7:
		return 1 << 1;			/* CMPXCHG8B, CMPXCHG16B */
	}
	/* ADD, OR, ADC, SBB, AND, SUB, XOR with memory first; CMP is the eighth row. */
	return opcode < 0x38 && (opcode & 7) < 2 ? 0xff : 0;
}

bool x86_writes_back(const struct x86_instruction *i)
{
	return i->memory && !i->vex && (writes_back_regs(i->opcode) >> i->reg & 1);
}

uint32_t x86_loaded_twice(const struct x86_instruction *i)
{
	bool bare = !i->short_operand && !i->repeated;

	if (!i->memory || i->vex)
		return 0;
	switch (i->opcode) {
	case MAP_0F | 0x2c: case MAP_0F | 0x2d:	/* CVTTPS2PI, CVTPS2PI */
	case MAP_0F | 0x5a:			/* CVTPS2PD */
		return bare ? 8 : 0;
	case MAP_0F | 0xe6:			/* CVTDQ2PD */
		return i->repeated == X86_REP ? 8 : 0;
	case MAP_0F | 0x60: case MAP_0F | 0x61: case MAP_0F | 0x62:	/* PUNPCKL of MMX registers */
		return bare ? 4 : 0;
	}
	return 0;
}

bool x86_bit_string(const struct x86_instruction *i)
{
	return !i->vex && (i->opcode == (MAP_0F | 0xa3) || i->opcode == (MAP_0F | 0xab) || i->opcode == (MAP_0F | 0xb3) ||
			   i->opcode == (MAP_0F | 0xbb));
}

bool x86_compares_strings(const struct x86_instruction *i)
{
	return i->repeated && !i->vex && ((i->opcode & ~1u) == 0xa6 || (i->opcode & ~1u) == 0xae);
}

bool x86_keeps_flags(const struct x86_instruction *i)
{
	if (i->vex)
		return false;
	switch (i->opcode) {
	case 0xa4: case 0xa5: case 0xaa: case 0xab: case 0xac: case 0xad:
		return i->repeated;
	case 0x6c: case 0x6d: case 0x6e: case 0x6f: case 0xe4: case 0xe5: case 0xe6: case 0xe7:
	case 0xec: case 0xed: case 0xee: case 0xef: case OP_RETF: case OP_RETF_N:
	case 0x9c: case MAP_0F | 0x02: case MAP_0F | 0x03:	/* PUSHF, LAR, LSL */
	case MAP_0F | 0x31: case MAP_0F | 0xa2:			/* RDTSC, CPUID */
		return true;
	case OP_TABLES:
		return i->reg == 4 || i->reg == 5;	/* VERR, VERW */
	case OP_SYSTEM:
		return !i->memory && i->reg == 7;	/* RDTSCP */
	case 0xff:
		return i->memory && (i->reg == 3 || i->reg == 5);
	}
	return false;
}

bool x86_rotates_through_carry(const struct x86_instruction *i)
{
	bool shift = i->opcode == 0xc0 || i->opcode == 0xc1 || (i->opcode >= 0xd0 && i->opcode <= 0xd3);

	return i->memory && !i->vex && shift && (i->reg == 2 || i->reg == 3);
}

/* What an instruction does to the stack without saying so; its memory operand is for the opposite. */
static uint32_t stack_access(const struct x86_instruction *i)
{
	uint32_t op = i->opcode;

	if (i->vex)
		return 0;
	if ((op & ~7u) == 0x50 || op == 0x68 || op == 0x6a || op == 0x9c || op == 0xc8 || op == 0xe8 ||
	    op == (MAP_0F | 0xa0) || op == (MAP_0F | 0xa8) || (op == 0xff && (i->reg == 2 || i->reg == 3 || i->reg == 6)))
		return MMU_ACCESS_WRITE;	/* PUSH, PUSHF, ENTER, CALL */
	if ((op & ~7u) == 0x58 || op == 0x8f || op == 0x9d || op == 0xc2 || op == 0xc3 || op == 0xc9 ||
	    op == 0xca || op == 0xcb || op == 0xcf || op == (MAP_0F | 0xa1) || op == (MAP_0F | 0xa9))
		return MMU_ACCESS_READ;		/* POP, POPF, RET, LEAVE, IRET */
	return 0;
}

bool x86_through_stack(const struct x86_instruction *i, uint32_t access)
{
	uint32_t implied = stack_access(i);

	return (implied && ((access & implied) || !i->memory)) || i->stack_base;
}

int mmu_guest_decode(const uint8_t *code, uint32_t size)
{
	struct x86_instruction i;

	if (!x86_decode(code, size, &i))
		return MMU_ERANGE;
	return i.length << 8 | (x86_writes_back(&i) ? 1 : 0) | (x86_through_stack(&i, MMU_ACCESS_READ) ? 2 : 0) |
	       (x86_through_stack(&i, MMU_ACCESS_WRITE) ? 4 : 0);
}
