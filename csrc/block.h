/* Inside of blocks: bytes of an initiator's memory on their way to or from the bus. */
#ifndef MMU_BLOCK_H
#define MMU_BLOCK_H
#include <string.h>
#include "bus.h"
#include "hostfile.h"
#include "memory.h"

/* They go to the bus when `write`. */
struct block {
	mmu_port *port;
	uint8_t *data;
	bool write;
};

static inline uint64_t block_least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* After the copy, when pages of files have failed: clears what such a page gave. MMU_MEMTX_* bits. */
int block_suspect(const struct block *b, const uint8_t *host, uint64_t size);
/* All of it is of one window. MMU_MEMTX_* bits. */
int block_window(const struct block *b, const mmu_route *route, uint64_t hpa, uint64_t size);

/* Copies from or to host memory. MMU_MEMTX_* bits. */
static inline int block_memory(const struct block *b, uint8_t *host, uint64_t size)
{
	uint64_t value;

	/* What one instruction can move must not tear. */
	if (size == 8 && aligned(host, 8)) {
		if (b->write) {
			memcpy(&value, b->data, 8);
			memory_store_aligned(host, 8, value);
		} else {
			value = memory_load_aligned(host, 8);
			memcpy(b->data, &value, 8);
		}
	} else if (b->write) {
		memcpy(host, b->data, size);
	} else {
		memcpy(b->data, host, size);
	}
	return hostfile_any_failed() ? block_suspect(b, host, size) : MMU_MEMTX_OK;
}

/* Nobody answers: `result`, and bytes that are read are 0. */
static inline int block_nobody(const struct block *b, uint64_t size, int result)
{
	if (!b->write)
		memset(b->data, 0, size);
	return result;
}

#endif
