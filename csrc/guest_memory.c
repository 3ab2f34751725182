/* What the engine sees as memory: plain RAM by its address, everything else through ports. */
#include "guest.h"
#include "bus.h"
#include "stripes.h"

/* Whether the page is still the RAM that the engine has at `engine`: the map changed since the table was made. */
static bool is_still(struct mmu_guest *g, uint64_t page, uint64_t engine)
{
	struct port_read read = port_enter(g->c.probe);
	uint32_t i = map_search(read.map, page);
	const struct mmu_range *r = &read.map->ranges[i];
	bool found = i < read.map->count && r->kind == MMU_RANGE_RAM && page >= r->first &&
		     r->last - page >= GUEST_PAGE - 1 &&
		     (uint8_t *)r->host + r->offset + (page - r->first) == guest_window_host(g, engine);

	port_leave(g->c.probe, read);
	return found;
}

/* Engine address of a page of plain RAM; false when pa is anything else. */
bool guest_ram_find(struct mmu_guest *g, paddr_t pa, uint64_t *engine_ret)
{
	uint32_t lo = 0, hi = g->ram_count, at = g->ram_last;

	if (at >= g->ram_count || pa.v - g->ram[at].hpa >= g->ram[at].size) {
		while (lo < hi) {
			uint32_t mid = lo + (hi - lo) / 2;

			if (pa.v - g->ram[mid].hpa < g->ram[mid].size || pa.v < g->ram[mid].hpa)
				hi = mid;
			else
				lo = mid + 1;
		}
		if (lo == g->ram_count || pa.v - g->ram[lo].hpa >= g->ram[lo].size)
			return false;
		g->ram_last = at = lo;
	}
	*engine_ret = g->ram[at].engine + ((pa.v - g->ram[at].hpa) & GUEST_PAGE_MASK);
	return g->ram_serial == bus_serial(g->c.bus) ||
	       is_still(g, pa.v & GUEST_PAGE_MASK, *engine_ret);
}

/* A page that is no RAM for the engine. Accesses come whole but to windows, where that costs as much again. */
static struct guest_place bus_place(struct mmu_guest *g, paddr_t page)
{
	struct page_key key = { NULL, page.v };
	bool whole = true;
	const struct mmu_range *r;
	struct port_read read;
	uint64_t offset;
	uint32_t i;

	read = port_enter(g->c.probe);
	i = map_search(read.map, page.v);
	r = &read.map->ranges[i];
	if (i < read.map->count && page.v >= r->first && r->last - page.v >= GUEST_PAGE - 1) {
		offset = r->offset + (page.v - r->first);
		if (r->kind == MMU_RANGE_STRIPED) {
			offset += r->route->base;
			whole = g->in_whole;
		}
		if (!(offset & (GUEST_PAGE - 1)) && r->kind == MMU_RANGE_IO)
			key = (struct page_key){ r->io, offset };
		else if (!(offset & (GUEST_PAGE - 1)) && r->kind == MMU_RANGE_STRIPED)
			key = (struct page_key){ NULL, offset };
	}
	port_leave(g->c.probe, read);
	return (struct guest_place){ key, (whole ? GUEST_WHOLE_BASE : GUEST_BUS_BASE) + page.v, false };
}

/* RAM over a file that cannot give the page any more: accesses must come to the bus, which says so. */
static bool ram_failed(struct mmu_guest *g, paddr_t page)
{
	uint8_t *host;

	return hostfile_any() && (!mmu_port_host(g->c.probe, page.v, GUEST_PAGE, false, &host) || guest_page_failed(host));
}

/* Where a page is; `claim`: a page of a window may become RAM for it. */
struct guest_place guest_place(struct mmu_guest *g, paddr_t page, bool claim)
{
	uint64_t engine;

	if ((guest_ram_find(g, page, &engine) && !ram_failed(g, page)) || guest_window_find(g, page, claim, &engine))
		return (struct guest_place){ { NULL, engine }, engine, true };
	return bus_place(g, page);
}

/* ---- what the CPU itself reads and writes ---- */

static int translate(struct mmu_guest *g, uint64_t va, uint32_t access, paddr_t *ret,
		     struct mmu_guest_stop *stop)
{
	struct guest_translation t;
	int rc = guest_walk(g, va, access, &t, stop);

	if (rc == MMU_OK) {
		*ret = t.pa;
	} else if (rc == MMU_FAULTED) {
		stop->kind = MMU_GUEST_FAULT;
		stop->va = va;
		stop->access = access;
		stop->exact = 1;
	}
	return rc;
}

static int failed(struct mmu_guest *g, uint64_t va, uint64_t hpa, uint32_t size, uint32_t access,
		  int rc, struct mmu_guest_stop *stop)
{
	if (rc < 0)
		return rc;
	guest_bus_error(g, hpa, size, access, rc);
	*stop = (struct mmu_guest_stop){ .kind = MMU_GUEST_BUS_ERROR, .va = va, .hpa = hpa, .exact = 1,
		.access = access, .size = size, .result = (uint32_t)rc };
	return MMU_FAULTED;
}

/* Both pages of an access are translated before anything happens to either. */
static int translate_ends(struct mmu_guest *g, uint64_t va, uint32_t size, uint32_t access,
			  paddr_t pa[2], uint32_t *first_size, struct mmu_guest_stop *stop)
{
	uint64_t room = GUEST_PAGE - (va & (GUEST_PAGE - 1));
	int rc;

	if (size != 1 && size != 2 && size != 4 && size != 8)
		return MMU_ERANGE;
	*stop = (struct mmu_guest_stop){ 0 };
	*first_size = size <= room ? size : (uint32_t)room;
	rc = translate(g, va, access, &pa[0], stop);
	if (rc == MMU_OK && size > room)
		rc = translate(g, va + room, access, &pa[1], stop);
	return rc;
}

static int load(mmu_guest *g, uint64_t va, uint32_t size, uint32_t access, uint64_t *ret,
		struct mmu_guest_stop *stop)
{
	uint32_t first, chunk;
	uint64_t value = 0;
	paddr_t pa[2];
	int rc = translate_ends(g, va, size, access, pa, &first, stop);

	if (rc != MMU_OK)
		return rc;
	chunk = first == size ? size : 1;
	for (uint32_t i = 0; i < size; i += chunk) {
		uint64_t hpa = i < first ? pa[0].v + i : pa[1].v + (i - first), part;

		rc = mmu_port_load(g->c.data, hpa, chunk, &part);
		if (rc != MMU_MEMTX_OK)
			return failed(g, va + i, hpa, chunk, access, rc, stop);
		value |= part << (8 * i);
	}
	*ret = value;
	return MMU_OK;
}

static bool is_code(struct mmu_guest *g, paddr_t page)
{
	struct guest_place place = guest_place(g, page, false);

	return guest_code_find(g, &place.key) || guest_alias_is_code(g, page, NULL);
}

static int store(mmu_guest *g, uint64_t va, uint32_t size, uint32_t access, uint64_t value,
		 struct mmu_guest_stop *stop)
{
	uint32_t first, chunk;
	paddr_t pa[2];
	int rc = translate_ends(g, va, size, access, pa, &first, stop);

	if (rc != MMU_OK)
		return rc;
	chunk = first == size ? size : 1;
	for (uint32_t i = 0; i < size; i += chunk) {
		uint64_t hpa = i < first ? pa[0].v + i : pa[1].v + (i - first);

		/* The engine does not see this store: what it translated from there is stale. */
		if (is_code(g, pa_of(hpa & GUEST_PAGE_MASK)))
			g->code_stale = true;
		rc = mmu_port_store(g->c.data, hpa, chunk, value >> (8 * i));
		if (rc != MMU_MEMTX_OK)
			return failed(g, va + i, hpa, chunk, access, rc, stop);
	}
	return MMU_OK;
}

/* For the host between two runs, too: another machine may be alone now. */
static bool come_in(mmu_guest *g)
{
	if (atomic_load_explicit(&g->exclusive.inside, memory_order_relaxed))
		return false;
	exclusive_enter(&g->exclusive);
	return true;
}

int mmu_guest_load(mmu_guest *g, uint64_t va, uint32_t size, uint32_t access, uint64_t *ret,
		   struct mmu_guest_stop *stop)
{
	bool came = come_in(g);
	int rc = load(g, va, size, access, ret, stop);

	if (came)
		exclusive_leave(&g->exclusive);
	return rc;
}

int mmu_guest_store(mmu_guest *g, uint64_t va, uint32_t size, uint32_t access, uint64_t value,
		    struct mmu_guest_stop *stop)
{
	bool came = come_in(g);
	int rc = store(g, va, size, access, value, stop);

	if (came)
		exclusive_leave(&g->exclusive);
	return rc;
}

int mmu_guest_translate(mmu_guest *g, uint64_t va, uint32_t access, uint64_t *pa_ret,
			struct mmu_guest_stop *stop)
{
	struct guest_translation t;
	int rc;

	*stop = (struct mmu_guest_stop){ .kind = MMU_GUEST_FAULT, .va = va, .access = access, .exact = 1 };
	rc = g->arch->walk(g, g->c.probe, va, access, false, &t, stop);
	if (rc == MMU_OK)
		*pa_ret = t.pa.v;
	return rc;
}
