/* Stage 2: what a guest-physical address is to the host. Twin of mmu/x86/nested.py. */
#include "walk_x86.h"

#define DATA_OR_FETCH (MMU_ACCESS_READ | MMU_ACCESS_WRITE | MMU_ACCESS_FETCH)

/* EPT entries grant R, W and X in bits 0 to 2, as MMU_ACCESS_READ, WRITE and FETCH are numbered. */
_Static_assert(X86_EPTPTE_R == MMU_ACCESS_READ && X86_EPTPTE_W == MMU_ACCESS_WRITE &&
	       X86_EPTPTE_X == MMU_ACCESS_FETCH, "EPT rights and accesses share their numbers");

uint32_t x86_table_access(const struct mmu_x86_regs *regs)
{
	if (regs->stage2 == MMU_X86_STAGE2_NPT)
		return MMU_ACCESS_WRITE;
	return regs->stage2_root & X86_EPTP_AD ? MMU_ACCESS_READ | MMU_ACCESS_WRITE : MMU_ACCESS_READ;
}

static int npt(struct x86_walk *w, const struct x86_request *rq, struct x86_host *host)
{
	struct x86_leaf leaf;
	struct x86_entry *e = &leaf.entry;
	bool write = rq->wanted & MMU_ACCESS_WRITE;
	uint64_t flags, size;
	int rc = x86_descend(w, &w->stage2, false, rq, &leaf);

	if (rc)
		return rc;
	if (!leaf.user || (write && !leaf.writable) || ((rq->wanted & MMU_ACCESS_FETCH) && !leaf.executable))
		return x86_fault(w, MMU_FAULT_PERMISSION, rq, e);
	flags = e->format->accessed | (write ? e->format->dirty : 0);
	rc = x86_entry_mark(w, e, &leaf.host, flags & ~e->value, rq);
	if (rc)
		return rc;
	size = UINT64_C(1) << e->level->shift;
	*host = (struct x86_host){ .pa = pa_of(x86_frame(e) | (rq->address & (size - 1))), .linear = size,
				   .writable = leaf.writable, .executable = leaf.executable,
				   .dirty = e->value & e->format->dirty, .leaf = *e };
	return MMU_OK;
}

/* 'EPT Misconfigurations': writable but not readable, a reserved bit, a reserved memory type. */
static bool misconfigured(const struct x86_paging *paging, const struct x86_entry *e)
{
	uint64_t type = (e->value & X86_EPTPTE_MT) / (X86_EPTPTE_MT & -X86_EPTPTE_MT);

	if ((e->value & (X86_EPTPTE_R | X86_EPTPTE_W)) == X86_EPTPTE_W)
		return true;
	if (e->value & x86_reserved(paging, e->format))
		return true;
	return e->format == &e->level->leaf && (type == 2 || type == 3 || type == 7);
}

static int ept_fault(struct x86_walk *w, uint32_t kind, const struct x86_request *rq,
		     const struct x86_entry *e, uint32_t granted)
{
	x86_fault(w, kind, rq, e);
	w->fault->granted = (uint8_t)granted;
	return MMU_FAULTED;
}

static int ept_leaf(struct x86_walk *w, const struct x86_request *rq, struct x86_entry *e, uint32_t granted,
		    struct x86_host *host)
{
	const struct x86_host itself = { .writable = true };
	bool flags = w->regs->stage2_root & X86_EPTP_AD;
	uint64_t size = UINT64_C(1) << e->level->shift;

	if (rq->wanted & ~granted)
		return ept_fault(w, MMU_FAULT_PERMISSION, rq, e, granted);
	if (flags) {
		uint64_t set = e->format->accessed | (rq->wanted & MMU_ACCESS_WRITE ? e->format->dirty : 0);
		int rc = x86_entry_mark(w, e, &itself, set & ~e->value, rq);

		if (rc)
			return rc;
	}
	*host = (struct x86_host){ .pa = pa_of(x86_frame(e) | (rq->address & (size - 1))), .linear = size,
				   .writable = granted & MMU_ACCESS_WRITE,
				   .executable = granted & MMU_ACCESS_FETCH,
				   .dirty = !flags || (e->value & e->format->dirty),
				   .granted = (uint8_t)granted, .leaf = *e };
	return MMU_OK;
}

static int ept(struct x86_walk *w, const struct x86_request *rq, struct x86_host *host)
{
	const struct x86_host itself = { .writable = true };
	uint64_t table = w->stage2.root;
	uint32_t granted = DATA_OR_FETCH;
	struct x86_entry e;

	for (const struct x86_level *level = w->stage2.levels;; level++) {
		uint64_t index = (rq->address >> level->shift) & ((UINT64_C(1) << level->index_bits) - 1);
		int rc;

		e.pa = pa_of(table + index * level->size);
		e.gpa = ipa_of(e.pa.v);
		rc = x86_entry_read(w, level, rq, &e);
		if (rc)
			return rc;
		granted &= (uint32_t)e.value;
		if (!(e.value & DATA_OR_FETCH))
			return ept_fault(w, MMU_FAULT_NOT_PRESENT, rq, &e, granted);
		if (misconfigured(&w->stage2, &e))
			return ept_fault(w, MMU_FAULT_MISCONFIGURATION, rq, &e, granted);
		if (e.format == &level->leaf)
			return ept_leaf(w, rq, &e, granted, host);
		if (w->regs->stage2_root & X86_EPTP_AD) {
			rc = x86_entry_mark(w, &e, &itself, e.format->accessed & ~e.value, rq);
			if (rc)
				return rc;
		}
		table = e.value & e.format->address;
	}
}

/* MMU_OK and *host, or MMU_FAULTED, X86_LOST, negative. regs->stage2 is not NONE. */
int x86_stage2(struct x86_walk *w, const struct x86_request *rq, struct x86_host *host)
{
	const struct x86_level *top = w->stage2.levels;

	/* Wider than the tables reach: not present, without a read. */
	if (rq->address >> (top->shift + top->index_bits))
		return x86_fault(w, MMU_FAULT_NOT_PRESENT, rq, NULL);
	return w->regs->stage2 == MMU_X86_STAGE2_NPT ? npt(w, rq, host) : ept(w, rq, host);
}
