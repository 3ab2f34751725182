/* As much of an instruction as tells where it ends and what it does to its memory operand. Twin of mmu/guest/x86_decode.py. */
#ifndef MMU_DECODE_X86_H
#define MMU_DECODE_X86_H
#include <stdbool.h>
#include <stdint.h>

enum { X86_LONGEST = 15 };		/* bytes of an instruction */
enum { X86_FS = 0x64, X86_GS = 0x65 };	/* prefixes: of the segments that have a base in 64-bit code */
enum { X86_REPNE = 0xf2, X86_REP = 0xf3 };	/* prefixes */
/* As `opcode` below. MOV_CR, MOV_DR: to such a register; LOAD_CR, LOAD_DR: from one. GROUP_15: FXSAVE, CLFLUSH, ... */
enum { OP_RETF_N = 0xca, OP_RETF = 0xcb, OP_IRET = 0xcf, OP_TABLES = 0x100, OP_SYSTEM = 0x101, OP_SYSRET = 0x107,
       OP_LOAD_CR = 0x120, OP_LOAD_DR = 0x121, OP_MOV_CR = 0x122, OP_MOV_DR = 0x123, OP_WRMSR = 0x130, OP_RDMSR = 0x132,
       OP_RDPMC = 0x133, OP_SYSENTER = 0x134, OP_SYSEXIT = 0x135, OP_GROUP_15 = 0x1ae };
/* ModRM.reg of group 15, with memory; with a register. */
enum { X86_FXSAVE = 0, X86_FXRSTOR = 1, X86_LDMXCSR = 2, X86_STMXCSR = 3, X86_XSAVE = 4, X86_XRSTOR = 5, X86_XSAVEOPT = 6,
       X86_CLFLUSH = 7, X86_WRFSBASE = 2, X86_WRGSBASE = 3 };
/* As `reg`: of OP_TABLES and, in memory, of OP_SYSTEM, where XSETBV is none. */
enum { REG_LTR = 3, REG_LGDT = 2, REG_LIDT = 3, REG_INVLPG = 7, MODRM_XSETBV = 0xd1 };

/* Of 64-bit code. `opcode`: map << 8 | byte, the maps being those of one byte (0), 0F (1), 0F38 (2), 0F3A (3). */
struct x86_instruction {
	uint32_t opcode;
	uint8_t reg;			/* ModRM.reg, without REX */
	uint8_t control, rm;		/* of ModRM, both registers as REX numbers them */
	bool any_rex;			/* also one that counts for nothing */
	uint8_t length;			/* bytes */
	bool lock, vex, has_modrm;
	uint8_t repeated;		/* X86_REP, X86_REPNE or 0 */
	bool short_operand, short_address;	/* prefixes 66, 67 */
	bool wide;			/* REX.W; not of VEX */
	bool memory;			/* ModRM stands for memory */
	bool stack_base;		/* and its address counts from RSP or RBP, without FS or GS */
	/* Its address is base + (index << scale) + displacement, registers as REX numbers them, -1 none; `relative`: and
	   where the next instruction begins; of 32 bits with short_address; and the base of `segment`, X86_FS, X86_GS or
	   0. See guest_operand(). */
	bool relative;
	uint8_t segment;
	int8_t base, index;
	uint8_t scale;
	int32_t displacement;
};

/* A prefix that may stand before an opcode. */
bool x86_is_prefix(uint8_t byte);

/* Decodes the instruction that begins at code[0]. False: `size` bytes are too few, or it is none of ours. */
bool x86_decode(const uint8_t *code, uint32_t size, struct x86_instruction *ret);
/* Whether it writes the memory that it reads. */
bool x86_writes_back(const struct x86_instruction *i);
/* Bytes of the operand in memory of an instruction for which the engine loads twice as many; 0: it is none. */
uint32_t x86_loaded_twice(const struct x86_instruction *i);
/* Whether it is BT, BTS, BTR or BTC with a register, which says as well where in memory. */
bool x86_bit_string(const struct x86_instruction *i);
/* Whether it is CMPS or SCAS under REPE or REPNE. */
bool x86_compares_strings(const struct x86_instruction *i);
/* Whether it is IN, OUT, INS, OUTS, a repeated MOVS, STOS or LODS, a far branch, PUSHF, CPUID, RDTSC, RDTSCP, LAR, LSL,
   VERR or VERW: they leave the flags, or all but ZF. */
bool x86_keeps_flags(const struct x86_instruction *i);
/* Whether it is RCL or RCR of memory. */
bool x86_rotates_through_carry(const struct x86_instruction *i);
/* Whether an access of that kind (MMU_ACCESS_*) goes through SS. */
bool x86_through_stack(const struct x86_instruction *i, uint32_t access);

#endif
