/* MMIO regions: which accesses a device takes, and how one is cut or widened to what it implements. */
#include "io.h"
#include "memory.h"

static bool io_accepts(const struct mmu_io *io, uint64_t offset, uint32_t size)
{
	return size >= io->valid_min && size <= io->valid_max &&
	       (io->unaligned || !(offset & (size - 1)));
}

static uint32_t io_chunk(const struct mmu_io *io, uint32_t size)
{
	if (size < io->impl_min)
		return io->impl_min;
	return size > io->impl_max ? io->impl_max : size;
}

int io_load(const struct mmu_io *io, uint64_t offset, uint32_t size, uint64_t *ret)
{
	uint32_t chunk = io_chunk(io, size);
	uint64_t value = 0;
	int result = MMU_MEMTX_OK;

	*ret = 0;
	if (!io_accepts(io, offset, size))
		return MMU_MEMTX_DECODE_ERROR;
	for (uint32_t i = 0; i < size; i += chunk) {
		uint64_t part = 0;
		int rc = io->read(io->ctx, offset + i, chunk, &part);

		if (rc < 0)
			return rc;
		result |= rc;
		value |= (part & mask_of(chunk)) << (8 * i);
	}
	*ret = value & mask_of(size);
	return result;
}

int io_store(const struct mmu_io *io, uint64_t offset, uint32_t size, uint64_t value)
{
	uint32_t chunk = io_chunk(io, size);
	int result = MMU_MEMTX_OK;

	if (!io_accepts(io, offset, size))
		return MMU_MEMTX_DECODE_ERROR;
	for (uint32_t i = 0; i < size; i += chunk) {
		int rc = io->write(io->ctx, offset + i, chunk, (value >> (8 * i)) & mask_of(chunk));

		if (rc < 0)
			return rc;
		result |= rc;
	}
	return result;
}
