/* As much of A64 as is needed to know which instructions a guest may not run. Source: Arm ARM DDI 0487, C4.1. */
#ifndef MMU_DECODE_ARM64_H
#define MMU_DECODE_ARM64_H
#include <stdbool.h>
#include <stdint.h>

enum { ARM64_SP = 31, ARM64_XZR = 32 };

/* How a load or store forms its address: base + offset + (index extended by `option`) << shift. */
struct arm64_operand {
	uint8_t base;		/* X0 .. X30, ARM64_SP; ARM64_XZR: the PC */
	uint8_t index;		/* X0 .. X30, ARM64_XZR: none */
	uint8_t option, shift;
	uint8_t size;		/* bytes that lie together; the whole may be more of them */
	bool write;
	int64_t offset;
};

/* FP and SIMD. SVE the engine traps always, by a class of its own. */
bool arm64_is_floating(uint32_t word);
/* A load or store whose base is SP; a prefetch is none. */
bool arm64_through_sp(uint32_t word);
/* May leave SP at no multiple of 16 where it was at one. */
bool arm64_moves_sp(uint32_t word);
/* ERET, ERETAA, ERETAB. */
bool arm64_is_eret(uint32_t word);
/* MSR of SCTLR_EL1 or CPACR_EL1. */
bool arm64_writes_control(uint32_t word);
/* False for what accesses nothing, and for what the engine checks itself: exclusives and atomics. */
bool arm64_operand(uint32_t word, struct arm64_operand *ret);

#endif
