/*
 * Accesses of the guest that leave the engine, at most 4 bytes at a time.
 *
 * Blocks of windows that were accessed before are remembered with the place of their memory, so that the
 * next access need not ask the decoders again. What is remembered holds for one map of the bus, and only
 * while nobody traces and no block of device memory is away from home.
 */
#include <assert.h>
#include <stddef.h>
#include "guest.h"
#include "bus.h"
#include "memory.h"
#include "window.h"

bool guest_is_device(const struct mmu_guest *g, uint64_t hpa)
{
	struct port_read read = port_enter(g->c.probe);
	const struct mmu_map *map = read.map;
	uint32_t i = map_search(map, hpa);
	bool device = i < map->count && hpa >= map->ranges[i].first &&
		      map->ranges[i].kind == MMU_RANGE_IO;

	port_leave(g->c.probe, read);
	return device;
}

/* Counts an error that the guest caused, and keeps the first. */
void guest_bus_error(struct mmu_guest *g, uint64_t hpa, uint32_t size, uint32_t access, int result)
{
	g->counters.bus_errors++;
	if (!g->counters.error_access) {
		g->counters.error_hpa = hpa;
		g->counters.error_size = size;
		g->counters.error_access = access;
		g->counters.error_result = (uint32_t)result;
	}
}

/* A piece of an access failed: an abort where the architecture has one, else only counted. */
void guest_bus_failed(struct mmu_guest *g, uint64_t hpa, uint32_t size, uint32_t access, int result)
{
	if (result < 0) {	/* by a device, whose accesses all have the PC of their instruction: guest_on_access() */
		guest_stop(g, MMU_GUEST_CALLBACK);
		guest_undo(g);
		return;
	}
	if (!g->arch->aborts) {
		guest_bus_error(g, hpa, size, access, result);
		return;
	}
	if (guest_stopping(g))	/* the first one stands */
		return;
	guest_stop(g, MMU_GUEST_BUS_ERROR);
	g->stop.hpa = hpa;
	g->stop.size = size;
	g->stop.access = access;
	g->stop.result = (uint32_t)result;
	/* The engine writes the destination of a load even when told to stop: keep what was there. */
	g->c.engine.context_save(g->c.engine.uc, g->c.bus_context);
	g->c.engine.emu_stop(g->c.engine.uc);
}

/* ---- blocks that were accessed before ---- */

static struct guest_near *near_slot(struct mmu_guest *g, uint64_t hpa)
{
	return &g->near[hpa / NEAR_BLOCK % NEAR_SLOTS];
}

/* The access is one for guest_bus_read_far() or guest_bus_write_far() from the start: while an instruction is run alone
   or the engine is being stopped, and when accesses are traced. The engine runs nothing within another access. */
static inline bool is_far(const struct mmu_guest *g)
{
	uint64_t busy;		/* one load for both */

	static_assert(offsetof(struct mmu_guest, event) == offsetof(struct mmu_guest, phase) + sizeof(g->phase) &&
		      sizeof(g->phase) + sizeof(g->event) == sizeof(busy), "side by side");
	memcpy(&busy, &g->phase, sizeof(busy));
	return busy | (uintptr_t)g->c.data->trace;
}

/* What is remembered is true of the bus as it is now, and the access is aligned and in its block. */
static inline bool near_holds(const struct mmu_port *port, const struct guest_near *near, uint64_t hpa, uint32_t size)
{
	uint64_t differs = (near->hpa ^ hpa) & (~(NEAR_BLOCK - 1) | (size - 1));

	/* Acquire: pairs with the releases in replace() of bus.c and in places.c. Who noted the epoch that came behind
	   a change sees the change; for who noted the one before, the writer waits. */
	return !(differs | (near->state ^ atomic_load_explicit(&port->bus->state, memory_order_acquire)));
}

/* Remembers the block of an access that the bus carried out, when it lies in one piece in a device. */
static void near_fill(struct mmu_guest *g, uint64_t hpa)
{
	uint64_t block = hpa - hpa % NEAR_BLOCK, run = NEAR_BLOCK;
	struct port_read read = port_enter(g->c.data);
	struct guest_near *near = near_slot(g, hpa);
	const struct mmu_target *target = NULL;
	uint8_t *host = NULL;
	uint32_t i = map_search(read.map, block);
	const struct mmu_range *r = &read.map->ranges[i];

	if (i < read.map->count && r->kind == MMU_RANGE_STRIPED && block >= r->first &&
	    r->last - block >= NEAR_BLOCK - 1) {
		uint64_t in_route = r->route->base + r->offset + (block - r->first);

		if (in_route % NEAR_BLOCK == 0)
			striped_find(r->route, in_route, false, &run, &host, &target);
	}
	if (host && run == NEAR_BLOCK && aligned(host, 8) && target->number < g->c.data->targets &&
	    g->c.bus->membarrier)
		*near = (struct guest_near){ block, read.map->serial << AWAY_BITS, host,
					     &g->c.data->counts[target->number] };
	port_leave(g->c.data, read);
}

/* ---- callbacks of the engine ---- */

/* What a device may have done, for the host or by itself, or another machine meanwhile. */
void guest_device_acted(struct mmu_guest *g)
{
	if (guest_map_changed(g))
		guest_flush_tlb(g);
	guest_code_drop(g);
}

/* A piece of the store under way failed. The engine goes on with the others, and those that are RAM for it are stored
   whatever is said here; so all are. */
static bool is_aborted(const struct mmu_guest *g)
{
	return g->event == GUEST_STOPPED && g->stop.kind == MMU_GUEST_BUS_ERROR;
}

/* Out of line, so that the near way saves no registers. */
__attribute__((noinline)) uint64_t guest_bus_read_far(struct mmu_guest *g, uint64_t hpa, uint32_t size)
{
	uint64_t value = 0;
	int rc;

	if (g->phase == GUEST_PROBING) {
		if (!guest_is_device(g, hpa))
			mmu_port_load(g->c.probe, hpa, size, &value);
		return value;
	}
	if (guest_stopping(g))	/* the rest of an access that is being given up */
		return 0;
	g->counters.bus_reads++;
	rc = mmu_port_load(g->c.data, hpa, size, &value);
	guest_device_acted(g);
	if (g->phase == GUEST_ATOMIC)
		guest_atomic_read(g, hpa, size, value);
	if (rc != MMU_MEMTX_OK)
		guest_bus_failed(g, hpa, size, MMU_ACCESS_READ, rc);
	else
		near_fill(g, hpa);
	return value;
}

__attribute__((noinline)) void guest_bus_write_far(struct mmu_guest *g, uint64_t hpa, uint32_t size, uint64_t value)
{
	int rc;

	if (g->phase == GUEST_PROBING || (guest_stopping(g) && !is_aborted(g)))
		return;
	g->counters.bus_writes++;
	if (g->phase == GUEST_ATOMIC && !guest_is_device(g, hpa))
		rc = guest_atomic_write(g, hpa, size, value);
	else
		rc = mmu_port_store(g->c.data, hpa, size, value);
	guest_device_acted(g);
	if (rc != MMU_MEMTX_OK)
		guest_bus_failed(g, hpa, size, MMU_ACCESS_WRITE, rc);
	else
		near_fill(g, hpa);
}

/* Called by the engine; hpa is the offset in its region, see GUEST_BUS_BASE. */
uint64_t guest_bus_read(void *uc, uint64_t hpa, unsigned int size, void *user)
{
	struct mmu_guest *g = user;
	struct mmu_port *port = g->c.data;
	const struct guest_near *near = near_slot(g, hpa);
	struct port_read read;
	uint64_t value;

	(void)uc;
	if (is_far(g))
		return guest_bus_read_far(g, hpa, size);
	read = port_note(port);
	if (__builtin_expect(!near_holds(port, near, hpa, size), 0)) {
		port_leave(port, read);
		return guest_bus_read_far(g, hpa, size);
	}
	value = memory_load_aligned(near->host + hpa % NEAR_BLOCK, size);
	if (hostfile_any_failed()) {	/* of this block, perhaps: the port finds out */
		port_leave(port, read);
		return guest_bus_read_far(g, hpa, size);
	}
	near->count->single[0][size / 2]++;
	g->counters.bus_reads++;
	port_leave(port, read);
	return value;
}

void guest_bus_write(void *uc, uint64_t hpa, unsigned int size, uint64_t value, void *user)
{
	struct mmu_guest *g = user;
	struct mmu_port *port = g->c.data;
	const struct guest_near *near = near_slot(g, hpa);
	struct port_read read;

	(void)uc;
	if (is_far(g)) {
		guest_bus_write_far(g, hpa, size, value);
		return;
	}
	read = port_note(port);
	if (__builtin_expect(!near_holds(port, near, hpa, size), 0)) {
		port_leave(port, read);
		guest_bus_write_far(g, hpa, size, value);
		return;
	}
	if (__builtin_expect(size == 4, 1))
		memory_store_aligned(near->host + hpa % NEAR_BLOCK, 4, value);
	else
		memory_store_aligned(near->host + hpa % NEAR_BLOCK, size, value);
	if (hostfile_any_failed()) {
		port_leave(port, read);
		guest_bus_write_far(g, hpa, size, value);
		return;
	}
	near->count->single[1][size / 2]++;
	g->counters.bus_writes++;
	port_leave(port, read);
}
