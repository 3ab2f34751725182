/* What the delivery of exceptions shares: the engine's registers and blobs, and the record of what was delivered. */
#ifndef MMU_DELIVER_H
#define MMU_DELIVER_H
#include <string.h>
#include "guest_arch.h"

enum { MSR_CLOCK = 0x10, MSR_SYSENTER_CS = 0x174, MSR_SYSENTER_ESP = 0x175, MSR_SYSENTER_EIP = 0x176,
       MSR_EFER = 0xc0000080u, MSR_STAR = 0xc0000081u, MSR_LSTAR = 0xc0000082u, MSR_SFMASK = 0xc0000084u,
       MSR_FS_BASE = 0xc0000100u, MSR_GS_BASE = 0xc0000101u, MSR_TSC_AUX = 0xc0000103u };
/* x86: places in mmu_guest_ids.general. */
enum { RAX = 0, RCX = 1, RDX = 2, RBX = 3, RSP = 4, R11 = 11 };
struct engine_msr { uint32_t number; uint64_t value; };				/* uc_x86_msr */
struct engine_table { uint16_t selector; uint64_t base; uint32_t limit, flags; };	/* uc_x86_mmr */

struct system_register { uint32_t crn, crm, op0, op1, op2; uint64_t value; };	/* uc_arm64_cp_reg */

/* arm64: a system register by its number, written when `write`, else read. */
void guest_system_register(struct mmu_guest *g, struct system_register *r, bool write);

struct mmu_x86_regs guest_x86_registers(struct mmu_guest *g);
struct mmu_arm64_regs guest_arm64_registers(struct mmu_guest *g);
/* Of the descriptor table or task register `id`. */
struct engine_table guest_table(struct mmu_guest *g, int id);
void guest_set_register(struct mmu_guest *g, int id, uint64_t value);
/* The x86 instruction at pc; as x86_decode(). */
struct x86_instruction;
bool x86_decode_at(struct mmu_guest *g, uint64_t pc, struct x86_instruction *ret);
bool guest_peek_data(struct mmu_guest *g, uint64_t va, uint32_t size, uint64_t *ret);
uint64_t guest_operand(struct mmu_guest *g, uint64_t pc, const struct x86_instruction *i);

/* The context blob, filled with the CPU's state; what is written to it counts after guest_blob_restore(). */
uint8_t *guest_blob_save(struct mmu_guest *g);
void guest_blob_restore(struct mmu_guest *g);

/* Notes that the guest's handler was entered for the instruction at pc. */
void guest_delivered(struct mmu_guest *g, uint64_t pc, const struct mmu_guest_event *event, uint64_t handler);

#endif
