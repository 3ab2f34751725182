/*
 * Atomic instructions of a guest that shares memory with other machines.
 *
 * The engine carries them out as a load and a store, which is atomic for its own guest alone. So where memory
 * is shared each is run by itself, with all its accesses sent to the bus, and what it stores replaces exactly
 * what it loaded: a compare-and-exchange. When that was lost to somebody else the registers are put back and
 * the instruction begins again, as on a CPU that lost the line.
 *
 * So it is for naturally aligned operands of up to 8 bytes. For others (CMPXCHG16B, CASP, STXP, what is not aligned)
 * it begins again while no other machine runs: the bus lock of exclusive.h. Against the host, which may write at any
 * time, these are not atomic. Registers of devices are read and written as they are.
 */
#include "guest.h"

/* One load by the engine, at most 4 bytes. They come in order of address. */
void guest_atomic_read(struct mmu_guest *g, uint64_t hpa, uint32_t size, uint64_t value)
{
	struct guest_atomic *a = &g->atomic;

	if (a->size && hpa == a->hpa + a->size && a->size + size <= 8) {
		a->loaded |= value << (8 * a->size);
		a->size += size;
	} else {
		a->hpa = hpa;
		a->size = size;
		a->loaded = value;
		a->stored_size = 0;
	}
}

/* Puts `value` into `size` bytes at hpa if they still are `expected`; else a->lost. For 1 and 2 bytes the word
   around them is exchanged, whatever the rest of it is. */
static int replace(struct mmu_guest *g, uint64_t hpa, uint32_t size, uint64_t expected, uint64_t value)
{
	uint32_t width = size < 4 ? 4 : size, shift = 8 * (uint32_t)(hpa % width);
	uint64_t mask = (size == 8 ? UINT64_MAX : (UINT64_C(1) << (8 * size)) - 1) << shift;
	uint64_t base = hpa - hpa % width, word = expected << shift, old;
	int rc;

	if (size < 4) {
		rc = mmu_port_load(g->c.data, base, width, &word);
		if (rc != MMU_MEMTX_OK)
			return rc;
	}
	for (;;) {
		if ((word & mask) != (expected << shift & mask))
			break;
		rc = mmu_port_exchange(g->c.data, base, width, word, (word & ~mask) | (value << shift & mask), &old);
		if (rc != MMU_MEMTX_OK || old == word)
			return rc;
		word = old;
	}
	g->atomic.lost = true;
	return MMU_MEMTX_OK;
}

/* One store by the engine: kept until all that was loaded is to be replaced. MMU_MEMTX_* or negative. */
int guest_atomic_write(struct mmu_guest *g, uint64_t hpa, uint32_t size, uint64_t value)
{
	struct guest_atomic *a = &g->atomic;

	if (a->lost)
		return MMU_MEMTX_OK;
	if (!a->size || a->alone)
		return mmu_port_store(g->c.data, hpa, size, value);
	if (hpa != a->hpa + a->stored_size || a->stored_size + size > a->size ||
	    a->hpa & (a->size - 1) || a->size & (a->size - 1)) {
		a->lost = a->wide = true;
		return MMU_MEMTX_OK;
	}
	a->storing = a->stored_size ? a->storing | value << (8 * a->stored_size) : value;
	a->stored_size += size;
	if (a->stored_size < a->size)
		return MMU_MEMTX_OK;
	a->stored_size = 0;
	return replace(g, a->hpa, a->size, a->loaded, a->storing);
}

/* What only looks alike is run alone in vain. Source: Arm ARM DDI 0487, C4.1 'Loads and Stores'. */
bool guest_atomic_arm64(uint32_t word)
{
	return (word & 0x3b200c00) == 0x38200000 ||	/* LDADD, SWP, ... */
	       (word & 0x3fa07c00) == 0x08a07c00 ||	/* CAS */
	       (word & 0xbfe07c00) == 0x08607c00 ||	/* CASPA, CASPAL */
	       (word & 0x3fc00000) == 0x08000000;	/* STXR, STLXR, STXP, STLXP, CASP, CASPL */
}
