/* What the files of one architecture offer to the others. */
#ifndef MMU_GUEST_ARCH_H
#define MMU_GUEST_ARCH_H
#include "guest.h"

/* deliver_x86.c, deliver_arm64.c */
bool guest_x86_handle(struct mmu_guest *g, uint64_t *pc);
bool guest_arm64_handle(struct mmu_guest *g, uint64_t *pc);

/* guest_host.c */
int guest_on_rdtsc(void *uc, void *user);
int guest_on_rdtscp(void *uc, void *user);
int guest_on_cpuid(void *uc, void *user);
uint32_t guest_on_mrs(void *uc, int reg, const void *operation, void *user);

/* ---- x86 ---- */

/* guest_fetch.c */
uint64_t guest_fetch_reaches(struct mmu_guest *g);
void guest_branch_undo(struct mmu_guest *g);

/* guest_port.c */
struct x86_instruction;
bool guest_port_permitted(struct mmu_guest *g, uint32_t port, uint32_t size);
bool guest_port_is_string(const struct x86_instruction *i);
bool guest_port_string_permitted(struct mmu_guest *g, uint64_t pc, const struct x86_instruction *i);

/* guest_x86_system.c; what is to become of an instruction: #GP(0), #UD, #DB, or the host carries it out */
enum x86_verdict { X86_RUNS, X86_REFUSED, X86_UNDEFINED, X86_DEBUG, X86_OURS };
enum x86_verdict guest_system_verdict(struct mmu_guest *g, uint64_t pc, const struct x86_instruction *i);

/* guest_group_15.c */
bool guest_group_15(struct mmu_guest *g, uint64_t pc, const struct x86_instruction *i);

/* guest_mxcsr.c */
bool guest_mxcsr(struct mmu_guest *g, uint64_t pc, const struct x86_instruction *i, bool wide);

/* guest_site_x86.c, guest_scan_x86.c */
void guest_x86_site(struct mmu_guest *g, uint64_t address);
void guest_x86_scan(struct mmu_guest *g, uint64_t page, const uint8_t *code);

/* guest_block.c */
void guest_block_check(struct mmu_guest *g, uint64_t pc, uint32_t size);

/* ---- arm64 ---- */

/* guest_arm64_system.c */
uint32_t guest_on_system(void *uc, int reg, const void *operation, void *user);

/* guest_arm64.c */
struct engine_block { uint64_t pc; uint16_t instructions, size; };	/* uc_tb */
void guest_on_translated(void *uc, const struct engine_block *block, const void *before, void *user);
void guest_on_x86_translated(void *uc, const struct engine_block *block, const void *before, void *user);

/* guest_strict.c */
uint32_t guest_arm64_watch(struct mmu_guest *g);
bool guest_arm64_permitted(struct mmu_guest *g, uint64_t pc, uint32_t word);
bool guest_arm64_scan(struct mmu_guest *g, uint64_t page, const uint8_t *code);

#endif
