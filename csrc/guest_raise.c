/*
 * A device whose callback raises. The guest is to stand at the instruction, with the registers of before it.
 *
 * The engine ends behind the access that failed, at its instruction, but a load of arm64 has its destination by then.
 * Some instructions make all accesses within one call of the engine, which goes on with them, and then to the end of
 * the block. From the first access to a device on these have hooks, and what stands behind them: which one was called
 * last says whether such an instruction is under way, and the one behind it ends the engine.
 */
#include "guest.h"
#include "bus.h"
#include "map.h"

/* Whether code must be translated anew, with hooks, before the page is accessed: that may call a device. */
bool guest_meets_device(struct mmu_guest *g, paddr_t page)
{
	struct port_read read;
	const struct mmu_map *map;

	if (g->devices)
		return false;
	read = port_enter(g->c.probe);
	map = read.map;
	for (uint32_t i = map_search(map, page.v); i < map->count && map->ranges[i].first <= page.v + GUEST_PAGE - 1; i++)
		g->devices |= map->ranges[i].io != NULL;
	port_leave(g->c.probe, read);
	return g->devices && g->unhooked;
}

/* UC_HOOK_CODE on what goes on, and behind it. */
static void on_going_on(void *uc, uint64_t address, uint32_t size, void *user)
{
	struct mmu_guest *g = user;

	(void)uc;
	(void)size;
	if (g->phase != GUEST_PROBING && !guest_stopping(g) && guest_flags_known(g, address))
		guest_flags_note(g, address);
}

/* For each such instruction that is met in code. True: the hook is new. */
bool guest_hook_going_on(struct mmu_guest *g, uint64_t pc, uint32_t length)
{
	if (g->devices)
		return guest_site_add(g, pc, pc + length, (void *)(uintptr_t)on_going_on);
	g->unhooked = true;
	return false;
}

/* The device that was accessed last has. */
void guest_raised(struct mmu_guest *g)
{
	bool goes_on = g->block.hooked && g->arch->goes_on(g, g->hooked_at);

	guest_stop(g, MMU_GUEST_CALLBACK);
	if (goes_on || g->arch->aborts) {
		g->c.engine.context_save(g->c.engine.uc, g->c.bus_context);
		g->undo = goes_on ? UNDO_ALL : UNDO_REGISTERS;
	}
	g->c.engine.emu_stop(g->c.engine.uc);
}
