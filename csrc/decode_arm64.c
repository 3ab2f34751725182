/* A64: masks and values of the manual's tables. What they leave unallocated counts as its neighbours. */
#include "decode_arm64.h"

static uint32_t field(uint32_t word, unsigned high, unsigned low)
{
	return word >> low & ((UINT32_C(1) << (high - low + 1)) - 1);
}

static int64_t signed_field(uint32_t word, unsigned high, unsigned low)
{
	int64_t value = field(word, high, low), sign = INT64_C(1) << (high - low);

	return (value ^ sign) - sign;
}

bool arm64_is_floating(uint32_t word)
{
	return (word & 0x0e000000) == 0x0e000000 ||	/* data processing */
	       (word & 0x0e000000) == 0x0c000000 ||	/* loads and stores */
	       (word & 0xffdfffc0) == 0xd51b4400;	/* MRS and MSR of FPCR and FPSR */
}

static bool is_load_or_store(uint32_t word)
{
	return (word & 0x0a000000) == 0x08000000;
}

static bool is_literal(uint32_t word)
{
	return (word & 0x3b000000) == 0x18000000;
}

static bool is_prefetch(uint32_t word)
{
	return (word & 0xffc00000) == 0xf9800000 ||	/* unsigned offset */
	       (word & 0xffe00c00) == 0xf8800000 ||	/* PRFUM */
	       (word & 0xffe00c00) == 0xf8a00800 ||	/* register offset */
	       (word & 0xff000000) == 0xd8000000;	/* literal */
}

bool arm64_through_sp(uint32_t word)
{
	return is_load_or_store(word) && field(word, 9, 5) == ARM64_SP && !is_literal(word) && !is_prefetch(word);
}

/* By how much a load or store moves its base, 1 for a register; 0 when it does not. */
static int64_t writeback(uint32_t word)
{
	unsigned opc = field(word, 31, 30), vector = field(word, 26, 26);

	if ((word & 0x3a800000) == 0x28800000)		/* pairs */
		return signed_field(word, 21, 15) * (INT64_C(1) << (vector ? 2 + opc : 2 + opc / 2));
	if ((word & 0x3b200400) == 0x38000400)		/* post- and pre-indexed */
		return signed_field(word, 20, 12);
	if ((word & 0xff200c00) == 0xf8200c00)		/* LDRAA, LDRAB */
		return signed_field(word, 20, 12) * 8;
	return (word & 0xbe800000) == 0x0c800000;	/* structures of SIMD */
}

bool arm64_moves_sp(uint32_t word)
{
	bool from_sp = field(word, 9, 5) == ARM64_SP;

	if ((word & 0xffffffe0) == 0xd5184100)		/* MSR SP_EL0 */
		return true;
	if (is_load_or_store(word))
		return from_sp && writeback(word) & 15;
	if (field(word, 4, 0) != ARM64_SP)
		return false;
	if ((word & 0x3f800000) == 0x11000000)		/* ADD, SUB (immediate) */
		return !from_sp || (!field(word, 22, 22) && field(word, 21, 10) & 15);
	return (word & 0x3fe00000) == 0x0b200000 ||	/* ADD, SUB (extended register) */
	       ((word & 0x1f800000) == 0x12000000 && field(word, 30, 29) != 3);	/* AND, ORR, EOR (immediate) */
}

bool arm64_is_eret(uint32_t word)
{
	return word == 0xd69f03e0 || (word | 0x400) == 0xd69f0fff;
}

bool arm64_writes_control(uint32_t word)
{
	return (word & 0xffffffe0) == 0xd5181000 || (word & 0xffffffe0) == 0xd5181040;
}

/* ---- operands ---- */

static bool literal(uint32_t word, struct arm64_operand *o)
{
	unsigned opc = field(word, 31, 30), vector = field(word, 26, 26);

	o->base = ARM64_XZR;
	o->offset = signed_field(word, 23, 5) * 4;
	o->size = (uint8_t)(vector ? 4u << opc : opc == 1 ? 8 : 4);
	return true;
}

static bool pair(uint32_t word, struct arm64_operand *o)
{
	unsigned opc = field(word, 31, 30), scale = field(word, 26, 26) ? 2 + opc : 2 + opc / 2;

	o->size = (uint8_t)(1u << scale);
	o->offset = field(word, 24, 23) == 1 ? 0 : signed_field(word, 21, 15) * (INT64_C(1) << scale);
	o->write = !field(word, 22, 22);
	return true;
}

static bool one(uint32_t word, struct arm64_operand *o)
{
	unsigned opc = field(word, 23, 22), vector = field(word, 26, 26), kind = field(word, 11, 10);
	unsigned scale = field(word, 31, 30) | (vector ? (opc & 2) << 1 : 0);

	o->size = (uint8_t)(1u << scale);
	o->write = vector ? !(opc & 1) : !opc;
	if (field(word, 24, 24)) {
		o->offset = (int64_t)field(word, 21, 10) << scale;
	} else if (!field(word, 21, 21)) {
		o->offset = kind == 1 ? 0 : signed_field(word, 20, 12);
	} else if (kind == 2) {
		o->index = (uint8_t)(field(word, 20, 16) == 31 ? ARM64_XZR : field(word, 20, 16));
		o->option = (uint8_t)field(word, 15, 13);
		o->shift = (uint8_t)(field(word, 12, 12) ? scale : 0);
	} else {
		o->write = false;
		return (word & 0x3ffffc00) == 0x38bfc000;	/* LDAPR */
	}
	return true;
}

static bool structure(uint32_t word, struct arm64_operand *o)
{
	unsigned scale = field(word, 24, 24) ? field(word, 15, 14) : field(word, 11, 10), size = field(word, 11, 10);

	if (field(word, 24, 24) && scale == 2)
		scale = size & 1 ? 3 : 2;
	else if (field(word, 24, 24) && scale == 3)
		scale = size;		/* LD1R */
	o->size = (uint8_t)(1u << scale);
	o->write = !field(word, 22, 22);
	return true;
}

bool arm64_operand(uint32_t word, struct arm64_operand *ret)
{
	*ret = (struct arm64_operand){ .base = (uint8_t)field(word, 9, 5), .index = ARM64_XZR };
	if (!is_load_or_store(word) || is_prefetch(word))
		return false;
	switch (field(word, 29, 24)) {
	case 0x08:
		ret->size = (uint8_t)(1u << field(word, 31, 30));
		ret->write = !field(word, 22, 22);
		return (word & 0x00a00000) == 0x00800000;	/* LDAR, STLR, LDLAR, STLLR */
	case 0x19:
		ret->size = (uint8_t)(1u << field(word, 31, 30));
		ret->write = !field(word, 23, 22);
		ret->offset = signed_field(word, 20, 12);
		return !(word & 0x00200c00);		/* LDAPUR, STLUR */
	case 0x18: case 0x1c:
		return literal(word, ret);
	case 0x28: case 0x29: case 0x2c: case 0x2d:
		return pair(word, ret);
	case 0x38: case 0x39: case 0x3c: case 0x3d:
		return one(word, ret);
	case 0x0c: case 0x0d:
		return structure(word, ret);
	}
	return false;
}
