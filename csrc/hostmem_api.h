/* Host memory that backs RAM and devices: page aligned, sparse, reserved as one run of addresses. */
typedef struct mmu_hostmem mmu_hostmem;

/* Reserves `size` bytes (rounded up to host pages) of zeroes that cost nothing until touched. */
int mmu_hostmem_create(uint64_t size, mmu_hostmem **ret);
/* Asks for huge pages: fewer misses of the host's TLB, but what is touched costs 2 MiB and more at a time. A wish:
   nothing happens where the system has none. */
void mmu_hostmem_advise_huge(mmu_hostmem *mem);
/*
 * Lays bytes 0..size-1 of an open file over the reservation at `offset`, shared. Multiples of the file's pages
 * (of the host's, or hugetlbfs'). MMU_EOVERLAP when a file is there already. From the first call on the process has
 * a handler of SIGBUS: a page that the file cannot give any more fails, and what is not ours is passed on.
 */
int mmu_hostmem_map_file(mmu_hostmem *mem, uint64_t offset, uint64_t size, int fd);
/* Writes what is mapped from files back to them; what was stored to a page that failed is lost. */
int mmu_hostmem_sync(mmu_hostmem *mem);
/* Whether a part of offset .. offset+size-1 failed, and which byte of it is the first. It stays so. */
bool mmu_hostmem_failed(mmu_hostmem *mem, uint64_t offset, uint64_t size, uint64_t *ret);
uint8_t *mmu_hostmem_address(const mmu_hostmem *mem);
/* Bytes offset .. offset+size-1, wherever they live now. MMU_ERANGE when they leave the memory, MMU_FAULTED when a
   page of a file failed: then nothing is known of what was read or written. */
int mmu_hostmem_read(mmu_hostmem *mem, uint64_t offset, void *data, uint64_t size);
int mmu_hostmem_write(mmu_hostmem *mem, uint64_t offset, const void *data, uint64_t size);
/* For the targets of windows: where its bytes live. Made when first asked for; all calls may come from any thread. */
int mmu_hostmem_places(mmu_hostmem *mem, mmu_places **ret);
/* Plain RAM shows this memory: its bytes must stay. False when some are away now. */
bool mmu_hostmem_fix(mmu_hostmem *mem);
void mmu_hostmem_destroy(mmu_hostmem *mem);
