/* MMIO regions. */
#ifndef MMU_IO_H
#define MMU_IO_H
#include "mmu.h"

/* MMU_MEMTX_* bits, or negative. An access that the region does not take is refused, the device uncalled. */
int io_load(const struct mmu_io *io, uint64_t offset, uint32_t size, uint64_t *ret);
int io_store(const struct mmu_io *io, uint64_t offset, uint32_t size, uint64_t value);

#endif
