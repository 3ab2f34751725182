/*
 * Accesses in one piece. The engine hands over what is not RAM in pieces: 4 bytes of 8, the aligned words around an
 * unaligned load, single bytes of an unaligned store. So the bus is there a second time, as a region that permits
 * nothing: of each access that is not permitted the engine tells before it cuts it, with the PC of its instruction, and
 * goes on when it is told to. A load goes to the bus there, and the pieces that follow are answered from it. A store
 * goes there with the last of its pieces: the engine tells of its value before it turns the bytes of MOVBE round.
 *
 * A load that leaves its page goes to the bus in two parts, the second one when its first piece comes; a store that
 * does, byte by byte. The engine does not tell of an access that only ends here: it comes in pieces.
 */
#include "guest.h"

/* `size`: 1 to 8. */
static int load(struct mmu_guest *g, uint64_t hpa, uint32_t size, uint64_t *ret)
{
	int result = MMU_MEMTX_OK;

	*ret = 0;
	for (uint32_t done = 0, n; done < size; done += n) {
		uint64_t part;
		int rc;

		n = UINT32_C(1) << (31 - __builtin_clz(size - done));
		rc = mmu_port_load(g->c.data, hpa + done, n, &part);
		if (rc < 0)
			return rc;
		result |= rc;
		*ret |= part << (8 * done);
	}
	return result;
}

static bool begin_load(struct mmu_guest *g, uint64_t hpa, uint32_t size)
{
	uint64_t room = GUEST_PAGE - (hpa & (GUEST_PAGE - 1)), first = hpa & ~(uint64_t)(size - 1);
	struct guest_whole *w = &g->whole;
	int rc;

	*w = (struct guest_whole){ .kind = ENGINE_READ, .size = size < room ? size : (uint32_t)room, .hpa = hpa,
		.first = first, .end = first + (size <= room && first != hpa ? 2 * size : size) };
	w->rest = size - w->size;
	g->counters.bus_reads++;
	rc = load(g, hpa, w->size, &w->value);
	if (rc != MMU_MEMTX_OK)
		guest_bus_failed(g, hpa, w->size, MMU_ACCESS_READ, rc);
	return rc >= 0;
}

static void begin_store(struct mmu_guest *g, uint64_t hpa, uint32_t size)
{
	bool leaves = (hpa & (GUEST_PAGE - 1)) + size > GUEST_PAGE;

	g->whole = (struct guest_whole){ .kind = leaves ? 0 : ENGINE_WRITE, .size = size, .hpa = hpa, .first = hpa,
		.end = hpa + size };
}

/* Not while an instruction is replayed or given up; memory of one that is run alone is for guest_atomic.c. */
static bool wants(const struct mmu_guest *g, uint64_t hpa)
{
	if (g->phase == GUEST_PROBING || guest_stopping(g))
		return false;
	return g->phase != GUEST_ATOMIC || guest_is_device(g, hpa);
}

/* UC_HOOK_MEM_READ_PROT, _WRITE_PROT over GUEST_WHOLE_BASE. False: the engine must end here. */
bool guest_on_access(void *uc, int type, uint64_t address, int size, int64_t value, void *user)
{
	struct mmu_guest *g = user;
	const struct guest_whole *w = &g->whole;
	uint64_t hpa = address - GUEST_WHOLE_BASE;

	(void)uc;
	(void)value;
	if (!wants(g, hpa) || size <= 0 || size > 8 || size & (size - 1))
		return true;
	guest_flags_keep(g);
	if (type == ENGINE_READ_DENIED)
		return begin_load(g, hpa, (uint32_t)size);
	if (w->kind != ENGINE_WRITE || hpa < w->first || hpa >= w->end)	/* or a byte of it: the engine asks for each */
		begin_store(g, hpa, (uint32_t)size);
	return true;
}

/* A piece of a load on the next page, of which `rest` bytes are wanted. */
static uint64_t load_rest(struct mmu_guest *g, uint64_t hpa, uint32_t size)
{
	uint32_t at = hpa & (GUEST_PAGE - 1), left = g->whole.rest > at ? g->whole.rest - at : 0;
	uint64_t value = 0;
	int rc;

	if (!left)
		return 0;
	g->counters.bus_reads++;
	rc = load(g, hpa, left < size ? left : size, &value);
	guest_device_acted(g);
	if (rc != MMU_MEMTX_OK)
		guest_bus_failed(g, hpa, left < size ? left : size, MMU_ACCESS_READ, rc);
	return value;
}

/* Called by the engine; hpa is the offset in its region. */
uint64_t guest_whole_read(void *uc, uint64_t hpa, unsigned int size, void *user)
{
	struct mmu_guest *g = user;
	struct guest_whole *w = &g->whole;
	uint64_t value = 0;

	(void)uc;
	if (!wants(g, hpa) || (w->kind != ENGINE_READ && !w->rest))
		return guest_bus_read_far(g, hpa, size);
	if (w->kind != ENGINE_READ)
		return load_rest(g, hpa, size);
	for (uint32_t i = 0; i < size; i++)
		if (hpa + i - w->hpa < w->size)
			value |= (w->value >> (8 * (hpa + i - w->hpa)) & 0xff) << (8 * i);
	if (hpa + size == w->end)
		w->kind = 0;
	guest_device_acted(g);
	return value;
}

void guest_whole_write(void *uc, uint64_t hpa, unsigned int size, uint64_t value, void *user)
{
	struct mmu_guest *g = user;
	struct guest_whole *w = &g->whole;
	int rc;

	(void)uc;
	if (!wants(g, hpa) || w->kind != ENGINE_WRITE || hpa < w->first || hpa >= w->end) {
		guest_bus_write_far(g, hpa, size, value);
		return;
	}
	w->value |= value << (8 * (hpa - w->hpa));
	if (hpa + size != w->end)
		return;
	w->kind = 0;
	g->counters.bus_writes++;
	rc = mmu_port_store(g->c.data, w->hpa, w->size, w->value);
	guest_device_acted(g);
	if (rc != MMU_MEMTX_OK)
		guest_bus_failed(g, w->hpa, w->size, MMU_ACCESS_WRITE, rc);
}
