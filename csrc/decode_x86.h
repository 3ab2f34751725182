/* As much of an instruction as tells what it does to its memory operand. Twin of mmu/guest/x86_decode.py. */
#ifndef MMU_DECODE_X86_H
#define MMU_DECODE_X86_H
#include <stdbool.h>
#include <stdint.h>

enum { X86_LONGEST = 15 };		/* bytes of an instruction */
enum { OP_MOV_CR = 0x122, OP_WRMSR = 0x130 };	/* as `opcode` below; MOV to a control register */

/* Of 64-bit code. `opcode`: map << 8 | byte, the maps being those of one byte (0), 0F (1), 0F38 (2), 0F3A (3). */
struct x86_instruction {
	uint32_t opcode;
	uint8_t reg;			/* ModRM.reg, without REX */
	uint8_t control, rm;		/* of MOV to and from control registers, as REX numbers them */
	bool any_rex;			/* also one that counts for nothing */
	uint8_t length;			/* bytes; right for those that x86_writes_back() */
	bool lock, repeated, vex, has_modrm;
	bool short_operand, short_address;	/* prefixes 66, 67 */
	bool memory;			/* ModRM stands for memory */
	bool stack_base;		/* and its address counts from RSP or RBP, without a segment prefix */
	/* Its address is base + (index << scale) + displacement, registers as REX numbers them, -1 none; `odd`: or else. */
	bool odd;
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
/* Whether it is RCL or RCR of memory. */
bool x86_rotates_through_carry(const struct x86_instruction *i);
/* Whether an access of that kind (MMU_ACCESS_*) goes through SS. */
bool x86_through_stack(const struct x86_instruction *i, uint32_t access);

#endif
