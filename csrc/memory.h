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

/* p is aligned to size: 1, 2, 4 or 8. */
static inline uint64_t memory_load_aligned(const uint8_t *p, uint32_t size)
{
	if (size == 8)
		return __atomic_load_n((const uint64_t *)(const void *)p, __ATOMIC_RELAXED);
	if (size == 4)
		return __atomic_load_n((const uint32_t *)(const void *)p, __ATOMIC_RELAXED);
	if (size == 2)
		return __atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_RELAXED);
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static inline void memory_store_aligned(uint8_t *p, uint32_t size, uint64_t value)
{
	if (size == 8)
		__atomic_store_n((uint64_t *)(void *)p, value, __ATOMIC_RELAXED);
	else if (size == 4)
		__atomic_store_n((uint32_t *)(void *)p, (uint32_t)value, __ATOMIC_RELAXED);
	else if (size == 2)
		__atomic_store_n((uint16_t *)(void *)p, (uint16_t)value, __ATOMIC_RELAXED);
	else
		__atomic_store_n(p, (uint8_t)value, __ATOMIC_RELAXED);
}

/* At any alignment; askew only where the host maps a region so, and then it may tear. */
static inline uint64_t memory_load(const uint8_t *p, uint32_t size)
{
	uint64_t value = 0;

	if (aligned(p, size))
		return memory_load_aligned(p, size);
	memcpy(&value, p, size);
	return value;
}

static inline void memory_store(uint8_t *p, uint32_t size, uint64_t value)
{
	if (aligned(p, size))
		memory_store_aligned(p, size, value);
	else
		memcpy(p, &value, size);
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
