/*
 * Batches of arm64 walks. A group goes the fast way as far as that leads (walk_arm64_fast.c); the rest
 * of it are lanes that advance one entry at a time in turn.
 */
#include "bus.h"
#include "walk_arm64.h"

struct batch {
	const struct arm64_request *q;
	const struct mmu_arm64_regs *regs;
	const uint64_t *vas;
	struct mmu_arm64_result *ret;
};

static int finish(const struct batch *b, int rc, const struct arm64_lane *lane,
		  struct mmu_arm64_fault *f, struct mmu_arm64_result *ret)
{
	struct mmu_arm64_translation found;

	if (rc == MMU_OK)
		rc = arm64_lane_finish(b->q, lane, &found, f);
	if (rc == MMU_OK)
		*ret = (struct mmu_arm64_result){ found.pa, found.page_size, MMU_FAULT_NONE, 0 };
	if (rc != MMU_FAULTED)
		return rc;
	*ret = (struct mmu_arm64_result){ 0, 0, f->kind, mmu_arm64_esr(f, b->regs) };
	return MMU_OK;
}

/* Goes on with the walks of rest[0..n-1], n at most ARM64_GROUP; MMU_OK or MMU_ECALLBACK. */
static int walk_lanes(const struct batch *b, const struct arm64_rest *rest, unsigned n)
{
	struct arm64_lane lanes[ARM64_GROUP];
	struct mmu_arm64_fault fault = { 0 };
	uint8_t active[ARM64_GROUP];
	unsigned left = 0;

	for (unsigned k = 0; k < n; k++) {
		unsigned i = rest[k].index;
		int rc = arm64_lane_begin(b->q, &lanes[i], va_of(b->vas[i]), &fault);

		if (rc == ARM64_MORE) {
			if (rest[k].level != ARM64_STAGE_OFF)
				arm64_lane_skip(&lanes[i], &rest[k]);
			active[left++] = (uint8_t)i;
		} else if (finish(b, rc, &lanes[i], &fault, &b->ret[i]) != MMU_OK) {
			return MMU_ECALLBACK;
		}
	}
	while (left) {
		unsigned still = 0;

		for (unsigned k = 0; k < left; k++) {
			unsigned i = active[k];
			int rc;

			fault.va = b->vas[i];
			rc = arm64_lane_step(b->q, &lanes[i], &fault);
			if (rc == ARM64_MORE)
				active[still++] = (uint8_t)i;
			else if (finish(b, rc, &lanes[i], &fault, &b->ret[i]) != MMU_OK)
				return MMU_ECALLBACK;
		}
		left = still;
	}
	return MMU_OK;
}

/* Puts those of 0..n-1 whose address lies in the upper half, or not, into index. Returns how many. */
static unsigned of_half(const struct batch *b, unsigned n, bool upper, uint8_t *index)
{
	unsigned count = 0;

	for (unsigned i = 0; i < n; i++) {
		index[count] = (uint8_t)i;
		count += arm64_upper(b->q, b->vas[i]) == upper;
	}
	return count;
}

static void from_the_beginning(const uint8_t *index, unsigned n, struct arm64_rest *rest)
{
	for (unsigned k = 0; k < n; k++)
		rest[k] = (struct arm64_rest){ .index = index[k], .level = ARM64_STAGE_OFF };
}

/* One group of at most ARM64_GROUP; fast[half] is NULL where that half must go the slow way. */
static int walk_group(const struct batch *b, unsigned n, const struct mmu_map *map,
		      const struct arm64_fast *fast[2])
{
	struct arm64_rest rest[ARM64_GROUP];
	uint8_t index[ARM64_GROUP];

	for (unsigned upper = 0; upper < 2; upper++) {
		unsigned count = of_half(b, n, upper, index);

		if (fast[upper])
			count = arm64_fast_walk(fast[upper], map, b->vas, index, count, b->ret, rest);
		else
			from_the_beginning(index, count, rest);
		if (count && walk_lanes(b, rest, count) != MMU_OK)
			return MMU_ECALLBACK;
	}
	return MMU_OK;
}

enum { FAST_FROM = 256 };	/* addresses: fewer do not pay for the table of rights */

static bool worth_fast(const struct arm64_request *q, uint64_t count)
{
	return count >= FAST_FROM && !q->stage2.enabled && !q->port->trace;
}

int mmu_arm64_walk_many(mmu_port *port, const struct mmu_arm64_regs *regs, const uint64_t *vas,
			uint64_t count, uint32_t access, uint32_t options,
			struct mmu_arm64_result *ret)
{
	struct arm64_request q;
	struct arm64_fast fast[2];
	const struct arm64_fast *ways[2] = { NULL, NULL };
	int rc = arm64_request_init(&q, port, regs, access, options);

	if (rc != MMU_OK)
		return rc;
	for (unsigned upper = 0; upper <= q.two_ranges; upper++) {
		arm64_stage1_init(&q, regs, upper);
		if (worth_fast(&q, count) && arm64_fast_init(&fast[upper], &q, &q.stage1[upper]))
			ways[upper] = &fast[upper];
	}
	for (uint64_t i = 0; i < count && rc == MMU_OK; i += ARM64_GROUP) {
		struct batch b = { .q = &q, .regs = regs, .vas = vas + i, .ret = ret + i };
		unsigned n = count - i < ARM64_GROUP ? (unsigned)(count - i) : ARM64_GROUP;
		/* Held for a group only: a writer need not wait for the whole batch to free an old map. */
		struct port_read read = port_enter(port);
		struct map_ram ram = port_ram(port);

		q.ram = &ram;
		rc = walk_group(&b, n, read.map, ways);
		port_leave(port, read);
	}
	return rc;
}
