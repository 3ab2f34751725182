/* Host memory that backs RAM and devices: page aligned, sparse, reserved as one run of addresses. */
typedef struct mmu_hostmem mmu_hostmem;

/* Reserves `size` bytes (rounded up to host pages) of zeroes that cost nothing until touched. */
int mmu_hostmem_create(uint64_t size, mmu_hostmem **ret);
/* Lays bytes 0..size-1 of an open file over the reservation at `offset`, shared. Host page multiples. */
int mmu_hostmem_map_file(mmu_hostmem *mem, uint64_t offset, uint64_t size, int fd);
/* Writes what is mapped from files back to them. */
int mmu_hostmem_sync(mmu_hostmem *mem);
uint8_t *mmu_hostmem_address(const mmu_hostmem *mem);
/* Bytes offset .. offset+size-1, wherever they live now. MMU_ERANGE when they leave the memory. */
int mmu_hostmem_read(const mmu_hostmem *mem, uint64_t offset, void *data, uint64_t size);
int mmu_hostmem_write(mmu_hostmem *mem, uint64_t offset, const void *data, uint64_t size);
/* For the targets of windows: where its bytes live. Made when first asked for, by one thread at a time. */
int mmu_hostmem_places(mmu_hostmem *mem, mmu_places **ret);
/* Plain RAM shows this memory: its bytes must stay. False when some are away now. */
bool mmu_hostmem_fix(mmu_hostmem *mem);
void mmu_hostmem_destroy(mmu_hostmem *mem);
