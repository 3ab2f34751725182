/*
 * MMIO regions: which accesses a device takes, how one is cut or widened to what it implements, in
 * which order its bytes are, and that a device is not entered from within itself.
 */
#include "io.h"
#include "memory.h"

/* Accesses under way on one thread, innermost first: they nest when a callback uses a bus. */
struct io_frame {
	const void *guard;
	const struct io_frame *outer;
};

/*
 * A thread's own, not a port's: a device that a CPU entered may come back through the port of its DMA.
 * Other threads may be in the same device at the same time; a lock, if it needs one, is its own.
 */
static _Thread_local const struct io_frame *active;

/* Where this thread keeps it; looked up once for an access, since that is a call in a shared library. */
static inline const struct io_frame **innermost_frame(void)
{
	const struct io_frame **here = &active;

	__asm__("" : "+r"(here));
	return here;
}

static bool entered(const struct io_frame *f, const void *guard)
{
	for (; f; f = f->outer)
		if (f->guard == guard)
			return true;
	return false;
}

/* What a callback returned, which is all that a device can do wrong: an outcome, or that it failed. */
static inline int outcome(int rc)
{
	enum { ALL = MMU_MEMTX_ERROR | MMU_MEMTX_DECODE_ERROR | MMU_MEMTX_ACCESS_ERROR };

	if (!(rc & ~ALL))
		return rc;
	return rc < 0 ? MMU_ECALLBACK : MMU_MEMTX_ERROR;
}

/* MMU_MEMTX_OK when the device may be called from within `outer`, else what the access ends with. */
static inline int io_refusal(const struct mmu_io *io, const struct io_frame *outer, uint64_t offset,
			     uint32_t size, bool write)
{
	int yes;

	if (io->accepts) {
		yes = io->accepts(io->ctx, offset, size, write);
		if (yes <= 0)
			return yes < 0 ? MMU_ECALLBACK : MMU_MEMTX_DECODE_ERROR;
	}
	if (size < io->valid_min || size > io->valid_max ||
	    (!io->unaligned && offset & (size - 1)))
		return MMU_MEMTX_DECODE_ERROR;
	if (io->guard && entered(outer, io->guard))
		return MMU_MEMTX_ACCESS_ERROR;
	return MMU_MEMTX_OK;
}

static uint32_t io_chunk(const struct mmu_io *io, uint32_t size)
{
	if (size < io->impl_min)
		return io->impl_min;
	return size > io->impl_max ? io->impl_max : size;
}

/* Where chunk i stands in the value as the device counts: bits to the left, negative: to the right. */
static int chunk_shift(const struct mmu_io *io, uint32_t size, uint32_t chunk, uint32_t i)
{
	return 8 * (io->big_endian ? (int)size - (int)chunk - (int)i : (int)i);
}

static uint64_t shifted(uint64_t value, int shift)
{
	return shift < 0 ? value >> -shift : value << shift;
}

/* Between the device's order of bytes and the bus's, which is little-endian. */
static uint64_t ordered(const struct mmu_io *io, uint32_t size, uint64_t value)
{
	return io->big_endian ? __builtin_bswap64(value) >> (64 - 8 * size) : value;
}

/* In several calls, in one that is wider, or with the bytes in the other order. */
static __attribute__((noinline)) int adjusted_read(const struct mmu_io *io, uint64_t offset, uint32_t size, uint64_t *ret)
{
	uint32_t chunk = io_chunk(io, size);
	int result = MMU_MEMTX_OK;
	uint64_t value = 0;

	for (uint32_t i = 0; io->read && i < size; i += chunk) {
		uint64_t part = 0;
		int rc = outcome(io->read(io->ctx, offset + i, chunk, &part));

		if (rc < 0)
			return rc;
		result |= rc;
		value |= shifted(part & mask_of(chunk), chunk_shift(io, size, chunk, i));
	}
	*ret = ordered(io, size, value & mask_of(size));
	return result;
}

static __attribute__((noinline)) int adjusted_write(const struct mmu_io *io, uint64_t offset, uint32_t size, uint64_t value)
{
	uint32_t chunk = io_chunk(io, size);
	int result = MMU_MEMTX_OK;

	value = ordered(io, size, value);
	for (uint32_t i = 0; io->write && i < size; i += chunk) {
		uint64_t part = shifted(value, -chunk_shift(io, size, chunk, i)) & mask_of(chunk);
		int rc = outcome(io->write(io->ctx, offset + i, chunk, part));

		if (rc < 0)
			return rc;
		result |= rc;
	}
	return result;
}

/* The device takes the access as it is. */
static inline bool direct(const struct mmu_io *io, uint32_t size)
{
	return size >= io->impl_min && size <= io->impl_max && !io->big_endian;
}

int io_load(const struct mmu_io *io, uint64_t offset, uint32_t size, uint64_t *ret)
{
	const struct io_frame **innermost = innermost_frame();
	const struct io_frame frame = { io->guard, *innermost };
	int rc = io_refusal(io, frame.outer, offset, size, false);

	*ret = 0;
	if (rc != MMU_MEMTX_OK)
		return rc;
	*innermost = &frame;
	if (direct(io, size) && io->read) {
		rc = outcome(io->read(io->ctx, offset, size, ret));
		*ret &= mask_of(size);
	} else {
		rc = adjusted_read(io, offset, size, ret);
	}
	*innermost = frame.outer;
	return rc;
}

int io_store(const struct mmu_io *io, uint64_t offset, uint32_t size, uint64_t value)
{
	const struct io_frame **innermost = innermost_frame();
	const struct io_frame frame = { io->guard, *innermost };
	int rc = io_refusal(io, frame.outer, offset, size, true);

	if (rc != MMU_MEMTX_OK)
		return rc;
	*innermost = &frame;
	value &= mask_of(size);
	if (direct(io, size) && io->write)
		rc = outcome(io->write(io->ctx, offset, size, value));
	else
		rc = adjusted_write(io, offset, size, value);
	*innermost = frame.outer;
	return rc;
}
