/* Single accesses to host memory: an aligned one is single-copy atomic. */
#ifndef MMU_MEMORY_H
#define MMU_MEMORY_H
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t mask_of(uint32_t size)
{
	return size >= 8 ? UINT64_MAX : (UINT64_C(1) << (8 * size)) - 1;
}

static inline bool aligned(const void *p, uint64_t size)
{
	return ((uintptr_t)p & (size - 1)) == 0;
}

static inline uint64_t memory_load(const uint8_t *p, uint32_t size)
{
	uint64_t value = 0;

	if (!aligned(p, size)) {	/* only where the host maps a region askew */
		memcpy(&value, p, size);
		return value;
	}
	switch (size) {
	case 1: return __atomic_load_n(p, __ATOMIC_RELAXED);
	case 2: return __atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_RELAXED);
	case 4: return __atomic_load_n((const uint32_t *)(const void *)p, __ATOMIC_RELAXED);
	case 8: return __atomic_load_n((const uint64_t *)(const void *)p, __ATOMIC_RELAXED);
	}
	return 0;
}

static inline void memory_store(uint8_t *p, uint32_t size, uint64_t value)
{
	if (!aligned(p, size)) {
		memcpy(p, &value, size);
		return;
	}
	switch (size) {
	case 1: __atomic_store_n(p, (uint8_t)value, __ATOMIC_RELAXED); break;
	case 2: __atomic_store_n((uint16_t *)(void *)p, (uint16_t)value, __ATOMIC_RELAXED); break;
	case 4: __atomic_store_n((uint32_t *)(void *)p, (uint32_t)value, __ATOMIC_RELAXED); break;
	case 8: __atomic_store_n((uint64_t *)(void *)p, value, __ATOMIC_RELAXED); break;
	}
}

/* A page-table update orders what came before it: sequentially consistent, as LOCK CMPXCHG is. */
static inline uint64_t memory_exchange(uint8_t *p, uint32_t size, uint64_t expected, uint64_t desired)
{
	if (size == 4) {
		uint32_t old = (uint32_t)expected;

		__atomic_compare_exchange_n((uint32_t *)(void *)p, &old, (uint32_t)desired, false,
					    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
		return old;
	}
	__atomic_compare_exchange_n((uint64_t *)(void *)p, &expected, desired, false,
				    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	return expected;
}

#endif
