/* Many x86 walks at once: groups of them in flight, what that cannot do one by one. */
#include "walk_x86_flight.h"

enum { BLOCK = 4096 };		/* walks between looks at the map of the bus */

static int one(struct x86_walk *w, uint64_t va, struct mmu_x86_result *ret)
{
	struct mmu_x86_translation found;
	struct mmu_x86_event event;
	int rc = x86_walk_one(w, va, &found);

	if (rc < 0)
		return rc;
	if (rc == MMU_OK) {
		*ret = (struct mmu_x86_result){ .pa = found.pa, .page_size = (uint32_t)found.page_size };
		return MMU_OK;
	}
	mmu_x86_exception(w->regs, w->fault, &event);
	*ret = (struct mmu_x86_result){ .status = w->fault->kind, .error_code = event.code };
	return MMU_OK;
}

static int block(struct x86_batch *b, const uint64_t *vas, uint64_t count, struct mmu_x86_result *out)
{
	for (uint64_t at = 0; at < count; at += X86_GROUP) {
		uint32_t n = count - at < X86_GROUP ? (uint32_t)(count - at) : X86_GROUP;
		uint32_t slow = n == X86_GROUP ? UINT32_MAX : (UINT32_C(1) << n) - 1;

		if (b->fast)
			slow = x86_fly(b, vas + at, n, out + at);
		for (; slow; slow &= slow - 1) {
			uint32_t i = (uint32_t)__builtin_ctz(slow);
			int rc = one(&b->walk, vas[at + i], &out[at + i]);

			if (rc < 0)
				return rc;
		}
	}
	return MMU_OK;
}

int mmu_x86_walk_many(mmu_port *port, const struct mmu_x86_regs *regs, const uint64_t *vas, uint64_t count,
		      uint32_t access, uint32_t options, struct mmu_x86_result *ret)
{
	struct mmu_x86_fault fault;
	struct x86_batch b = { 0 };
	int rc = MMU_OK;

	if (!x86_access_valid(access) || regs->stage2 > MMU_X86_STAGE2_EPT)
		return MMU_ERANGE;
	for (uint64_t at = 0; at < count && rc == MMU_OK; at += BLOCK) {
		/* Anew for each block: the writer of the map waits for nobody longer than that. */
		struct port_read read = port_enter(port);

		x86_walk_setup(&b.walk, port, regs, access, options);
		b.walk.fault = &fault;
		b.map = read.map;
		b.window = NULL;
		if (!at)
			x86_flight_setup(&b);
		b.fast = b.fast && !port->trace;
		rc = block(&b, vas + at, count - at < BLOCK ? count - at : BLOCK, ret + at);
		port_leave(port, read);
	}
	return rc;
}
