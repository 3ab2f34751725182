/*
 * A mirror: pages of host memory in the order of bus addresses, to which blocks of device memory move so
 * that an instruction engine can have interleaved memory as RAM. See places_api.h for who sees what.
 */
typedef struct mmu_mirror mmu_mirror;

/* At most `pages` pages of 4 KiB; they cost what is touched. */
int mmu_mirror_create(uint32_t pages, mmu_mirror **ret);
/* Nothing may be in it any more. */
void mmu_mirror_destroy(mmu_mirror *mirror);
uint8_t *mmu_mirror_address(const mmu_mirror *mirror);
uint64_t mmu_mirror_size(const mmu_mirror *mirror);
/* Pages that hold something now. Any thread. */
uint32_t mmu_mirror_used(mmu_mirror *mirror);
