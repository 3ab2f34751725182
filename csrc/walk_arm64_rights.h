/* Rights: what descriptors let whom do. The twin of mmu/arm64/permissions.py, which names the sources. */
#ifndef WALK_ARM64_RIGHTS_H
#define WALK_ARM64_RIGHTS_H
#include "walk_arm64.h"

enum { AP_READ_ONLY = 2, AP_EL0 = 1, S2AP_READ = 1, S2AP_WRITE = 2 };

#define FIELD(word, mask) (((word) & (mask)) / ((mask) & -(mask)))

/* `data` (MMU_ACCESS_READ, WRITE) for both privileges, and who may fetch. */
static inline uint32_t both(uint32_t data, bool privileged_fetch, bool user_fetch)
{
	return data | data * MMU_ARM64_USER_READ |
	       (privileged_fetch ? MMU_ARM64_PRIV_FETCH : 0u) |
	       (user_fetch ? MMU_ARM64_USER_FETCH : 0u);
}

/* MMU_ARM64_PRIV_*, USER_*: the access bits, and the access bits times USER_READ. */
static inline uint32_t stage2_rights(const struct arm64_tables *t, uint64_t descriptor)
{
	unsigned s2ap = (unsigned)FIELD(descriptor, ARM64_STAGE2LEAF_S2AP);
	unsigned xn = (unsigned)FIELD(descriptor, ARM64_STAGE2LEAF_XN);

	if (t->hd && (descriptor & ARM64_STAGE2LEAF_DBM))
		s2ap |= S2AP_WRITE;
	return both(s2ap, xn == 0 || xn == 3, xn <= 1);
}

/* MMU_ACCESS_* that one privilege has of a set of rights. */
static inline uint32_t rights_of(uint32_t rights, bool user)
{
	return (user ? rights / MMU_ARM64_USER_READ : rights) & 7;
}

static inline uint32_t one_range_rights(const struct arm64_stage1 *s, uint64_t descriptor,
					uint64_t table, bool write)
{
	bool fetch = !(descriptor & ARM64_STAGE1LEAF_UXN) && !(table & ARM64_STAGE1TABLE_UXNTABLE) &&
		     !(s->wxn && write);

	return MMU_ARM64_PRIV_READ | (write ? MMU_ARM64_PRIV_WRITE : 0u) |
	       (fetch ? MMU_ARM64_PRIV_FETCH : 0u);
}

static inline uint32_t stage1_rights(const struct arm64_stage1 *s, uint64_t descriptor,
				     uint64_t table)
{
	unsigned ap = (unsigned)FIELD(descriptor, ARM64_STAGE1LEAF_AP);
	unsigned ap_table = (unsigned)FIELD(table, ARM64_STAGE1TABLE_APTABLE);
	bool write, user, user_write, fetch, user_fetch;

	if (s->tables.hd && (descriptor & ARM64_STAGE1LEAF_DBM))
		ap &= ~(unsigned)AP_READ_ONLY;
	write = !((ap | ap_table) & AP_READ_ONLY);
	if (!s->two_ranges)
		return one_range_rights(s, descriptor, table, write);
	user = (ap & AP_EL0) && !(ap_table & AP_EL0);
	user_write = user && write;
	/* What EL0 can write the higher EL does not execute. */
	fetch = !(descriptor & ARM64_STAGE1LEAF_PXN) && !(table & ARM64_STAGE1TABLE_PXNTABLE) &&
		!user_write && !(s->wxn && write);
	user_fetch = !(descriptor & ARM64_STAGE1LEAF_UXN) && !(table & ARM64_STAGE1TABLE_UXNTABLE) &&
		     !(s->wxn && user_write);
	return MMU_ARM64_PRIV_READ | (write ? MMU_ARM64_PRIV_WRITE : 0u) |
	       (fetch ? MMU_ARM64_PRIV_FETCH : 0u) | (user ? MMU_ARM64_USER_READ : 0u) |
	       (user_write ? MMU_ARM64_USER_WRITE : 0u) | (user_fetch ? MMU_ARM64_USER_FETCH : 0u);
}

/* MMU_ACCESS_* that the request's privilege may use; PAN counts for data only. */
static inline uint32_t granted(const struct arm64_request *q, const struct arm64_stage1 *s,
			       uint32_t rights)
{
	uint32_t data = MMU_ACCESS_READ | MMU_ACCESS_WRITE;
	uint32_t own = rights_of(rights, q->user);

	if (q->pan && (rights_of(rights, true) & (s->epan ? data | MMU_ACCESS_FETCH : data)))
		own &= ~data;
	return own;
}

#endif
