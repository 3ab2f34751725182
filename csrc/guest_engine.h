/* The engine as the guest sees it: its physical address map, and numbers of unicorn.h. */
#ifndef MMU_GUEST_ENGINE_H
#define MMU_GUEST_ENGINE_H
#include <stdint.h>

#define GUEST_PAGE UINT64_C(4096)
#define GUEST_PAGE_MASK (~(GUEST_PAGE - 1))

/* The engine's physical address map; see guest_api.h. Guest-physical addresses end at 2^52. */
#define GUEST_BUS_BASE (UINT64_C(1) << 52)
#define GUEST_BUS_SIZE (UINT64_C(1) << 52)
#define GUEST_RAM_BASE (UINT64_C(1) << 53)
#define GUEST_SHADOW_BASE (UINT64_C(1) << 54)
#define GUEST_SCRATCH_BASE (UINT64_C(3) << 53)
#define GUEST_MIRROR_BASE (UINT64_C(5) << 53)
#define GUEST_NOWHERE_BASE (UINT64_C(1) << 55)
#define GUEST_WHOLE_BASE (UINT64_C(1) << 56)		/* the bus once more, for accesses that are not to be cut */

/* The engine's types of accesses (unicorn.h, uc_mem_type) and TLB permissions (uc_prot). */
enum engine_access { ENGINE_READ = 16, ENGINE_WRITE = 17, ENGINE_FETCH = 18, ENGINE_READ_DENIED = 23 };
enum engine_permission { ENGINE_MAY_READ = 1, ENGINE_MAY_WRITE = 2, ENGINE_MAY_FETCH = 4 };
struct engine_tlb_entry { uint64_t pa; int permissions; };	/* uc_tlb_entry */

#endif
