/* Kinds of x86 instructions that a guest is stopped before: for the search for them, and when one comes. */
#ifndef MMU_SITE_X86_H
#define MMU_SITE_X86_H
#include "decode_x86.h"

/* As x86_instruction.opcode; more of them are in decode_x86.h. */
enum { OP_INSB = 0x6c, OP_OUTSD = 0x6f, OP_XCHG = 0x86, OP_CMPSB = 0xa6, OP_SCASB = 0xae, OP_INVD = 0x108,
       OP_WBINVD = 0x109, OP_MOVNT = 0x12b, OP_EXTRQ = 0x178, OP_INSERTQ = 0x179, OP_GROUP_9 = 0x1c7, OP_INVPCID = 0x282 };
enum { REG_CMPXCHG8B = 1, REG_RDRAND = 6 };	/* as `reg`, of group 9 */

/* LOCK, or XCHG, which needs none. */
static inline bool site_is_atomic(const struct x86_instruction *i)
{
	return x86_writes_back(i) && (i->lock || i->opcode == OP_XCHG || i->opcode == OP_XCHG + 1);
}

/*
 * VEX instructions but those of BMI1 and BMI2, which work on general registers. The CPU has no AVX, yet the
 * engine takes those of 128 bits for the SSE instructions of the same opcode, with one operand less.
 */
static inline bool site_is_avx(const struct x86_instruction *i)
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
static inline bool site_serializes(uint32_t opcode, uint8_t reg)
{
	switch (opcode) {
	case OP_IRET: case OP_INVD: case OP_WBINVD: case OP_MOV_CR: case OP_MOV_DR: case OP_WRMSR: case OP_INVPCID:
		return true;
	case OP_TABLES: case OP_SYSTEM:	/* LLDT, LTR; LGDT, LIDT, INVLPG */
		return reg == 2 || reg == 3 || (opcode == OP_SYSTEM && reg == REG_INVLPG);
	}
	return false;
}

#endif
