/*
 * Accesses in one piece. The engine hands over what is not RAM in pieces: 4 bytes of 8, the aligned words around an
 * unaligned load, single bytes of an unaligned store. Where a run asks for it, a hook sees each access before it is
 * cut. It goes to the bus there, and the pieces that follow are answered from it. That hook takes all loads and stores
 * of the guest off the engine's fast way, also those to RAM, so it is there only when asked for.
 *
 * An access that leaves its page is in pieces all the same, for it lies in two places; and so is one of an atomic
 * instruction that is run alone.
 */
#include "guest.h"

/* UC_HOOK_MEM_READ, _WRITE over the bus: `address` is the engine's. */
void guest_on_access(void *uc, int type, uint64_t address, int size, int64_t value, void *user)
{
	struct mmu_guest *g = user;
	struct guest_whole *w = &g->whole;
	uint64_t hpa = address - GUEST_BUS_BASE, n = (uint32_t)size, first = hpa & ~(n - 1);
	int rc;

	(void)uc;
	w->kind = 0;
	if ((g->phase != GUEST_RUNNING && g->phase != GUEST_STEPPING) || guest_stopping(g) ||
	    !n || n > 8 || n & (n - 1) || (hpa & (GUEST_PAGE - 1)) + n > GUEST_PAGE)
		return;
	w->kind = (uint32_t)type;
	w->hpa = hpa;
	w->size = (uint32_t)n;
	w->value = (uint64_t)value;
	if (type == ENGINE_READ) {
		g->counters.bus_reads++;
		w->end = first == hpa ? hpa + n : first + 2 * n;
		rc = mmu_port_load(g->c.data, hpa, w->size, &w->value);
	} else {
		g->counters.bus_writes++;
		w->end = hpa + n;
		rc = mmu_port_store(g->c.data, hpa, w->size, w->value);
	}
	if (rc != MMU_MEMTX_OK)
		guest_bus_failed(g, hpa, w->size, type == ENGINE_READ ? MMU_ACCESS_READ : MMU_ACCESS_WRITE, rc);
}

/* Whether a piece belongs to what was accessed as a whole. Of a load *ret are its bytes, 0 where they are outside. */
bool guest_whole_piece(struct mmu_guest *g, enum engine_access type, uint64_t hpa, uint32_t size, uint64_t *ret)
{
	struct guest_whole *w = &g->whole;
	uint64_t end = hpa + size;

	*ret = 0;
	if (w->kind != type || end > w->end || end <= (w->hpa & ~(uint64_t)(w->size - 1)))
		return false;
	for (uint32_t i = 0; i < size; i++)
		if (hpa + i - w->hpa < w->size)
			*ret |= (w->value >> (8 * (hpa + i - w->hpa)) & 0xff) << (8 * i);
	if (end == w->end)
		w->kind = 0;
	guest_device_acted(g);
	return true;
}
