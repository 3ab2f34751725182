/* The x86 page walk. Twin of mmu/x86/walk.py, which says why: same answers, same bus accesses. */
#include "walk_x86.h"

#define DATA_OR_FETCH (MMU_ACCESS_READ | MMU_ACCESS_WRITE | MMU_ACCESS_FETCH)
#define PHYSICAL ((UINT64_C(1) << 52) - 1)

enum { RESTARTS = 1024, PAGE_SIZE_4K = 4096 };

static const struct x86_level five_level[] = X86_LEVELS_FIVE_LEVEL;
static const struct x86_level pae[] = X86_LEVELS_PAE;
static const struct x86_level two_level[] = X86_LEVELS_TWO_LEVEL;
static const struct x86_level two_level_pse[] = X86_LEVELS_TWO_LEVEL_PSE;
static const struct x86_level ept_five_level[] = X86_LEVELS_EPT_FIVE_LEVEL;

bool x86_access_valid(uint32_t access)
{
	uint32_t known = DATA_OR_FETCH | MMU_ACCESS_IMPLICIT | MMU_ACCESS_STACK | MMU_ACCESS_SHADOW_STACK;
	uint32_t kind = access & DATA_OR_FETCH;

	if (access & ~known || !kind || (kind & (kind - 1)))
		return false;
	return kind != MMU_ACCESS_FETCH || access == MMU_ACCESS_FETCH;
}

/* LME without PAE cannot be entered; whoever says so gets the 32-bit paging that PAE=0 stands for. */
static bool long_mode(const struct mmu_x86_regs *regs)
{
	return (regs->cr0 & X86_CR0_PG) && (regs->cr4 & X86_CR4_PAE) && (regs->efer & X86_EFER_LME);
}

static void paging_setup(struct x86_paging *p, uint64_t cr3, uint64_t cr4, uint64_t efer, uint8_t phys_bits)
{
	p->beyond = phys_bits >= 52 ? 0 : PHYSICAL >> phys_bits << phys_bits;
	p->no_xd = efer & X86_EFER_NXE ? 0 : UINT64_MAX;
	if (!(cr4 & X86_CR4_PAE)) {
		p->levels = cr4 & X86_CR4_PSE ? two_level_pse : two_level;
		p->root = cr3 & X86_CR332_ADDR;
	} else if (!(efer & X86_EFER_LME)) {
		p->levels = pae;
		p->root = cr3 & X86_CR3PAE_ADDR;
	} else {
		p->levels = cr4 & X86_CR4_LA57 ? five_level : five_level + 1;
		p->root = cr3 & X86_CR3_ADDR;
	}
}

static void ept_setup(struct x86_paging *p, const struct mmu_x86_regs *regs)
{
	bool five = (regs->stage2_root & X86_EPTP_LENGTH) == 4 * (X86_EPTP_LENGTH & -X86_EPTP_LENGTH);

	p->beyond = regs->stage2_phys_bits >= 52 ? 0 : PHYSICAL >> regs->stage2_phys_bits << regs->stage2_phys_bits;
	p->no_xd = 0;
	p->levels = five ? ept_five_level : ept_five_level + 1;
	p->root = regs->stage2_root & X86_EPTP_ADDR;
}

void x86_linear_setup(struct x86_linear *l, const struct mmu_x86_regs *regs, uint32_t access)
{
	bool wide = long_mode(regs), la57 = regs->cr4 & X86_CR4_LA57;

	*l = (struct x86_linear){ .mask = wide ? UINT64_MAX : UINT32_MAX, .sign = { 63, 63 },
				  .top = !wide ? 63 : la57 ? 56 : 47 };
	if (!wide || (access & (MMU_ACCESS_FETCH | MMU_ACCESS_IMPLICIT)))
		return;
	if (regs->cr4 & X86_CR4_LAM_SUP)
		l->sign[1] = la57 ? 56 : 47;
	if (regs->cr3 & X86_CR3_LAM_U57)
		l->sign[0] = 56;
	else if (regs->cr3 & X86_CR3_LAM_U48)
		l->sign[0] = 47;
	for (int i = 0; i < 2; i++)
		l->metadata[i] = (UINT64_C(1) << 63) - (UINT64_C(1) << l->sign[i]);
}

/* Everything about a walk that the address does not change, for a caller that holds the port's map.
   w->fault and w->steps are the caller's. */
void x86_walk_setup(struct x86_walk *w, mmu_port *port, const struct mmu_x86_regs *regs, uint32_t access,
		    uint32_t options)
{
	w->port = port;
	w->regs = regs;
	w->access = access;
	w->wanted = access & DATA_OR_FETCH;
	w->update = options & MMU_X86_UPDATE;
	w->paging = regs->cr0 & X86_CR0_PG;
	w->long_mode = long_mode(regs);
	x86_linear_setup(&w->linear, regs, access);
	paging_setup(&w->stage1, regs->cr3, regs->cr4, regs->efer, regs->phys_bits);
	if (regs->stage2 == MMU_X86_STAGE2_NPT)
		paging_setup(&w->stage2, regs->stage2_root, regs->stage2_cr4, regs->stage2_efer,
			     regs->stage2_phys_bits);
	else if (regs->stage2 == MMU_X86_STAGE2_EPT)
		ept_setup(&w->stage2, regs);
	x86_rules_setup(&w->rules, regs, w->long_mode, access);
	w->ram = port_ram(port);
}

/*
 * The kinds of access to which this pointer is this linear address. LAM masks pointers of data
 * accesses and not of fetches, so one may say nothing about the other.
 */
static uint32_t same_address(const struct x86_walk *w, uint64_t address)
{
	uint32_t fetch = MMU_ACCESS_FETCH, data = MMU_ACCESS_READ | MMU_ACCESS_WRITE;
	uint32_t mine = w->wanted & fetch ? fetch : data;
	struct x86_linear other;

	if (!w->long_mode || !((w->regs->cr3 & (X86_CR3_LAM_U57 | X86_CR3_LAM_U48)) ||
			       (w->regs->cr4 & X86_CR4_LAM_SUP)))
		return fetch | data;
	x86_linear_setup(&other, w->regs, mine == fetch ? MMU_ACCESS_READ : fetch);
	return x86_linear(&other, w->va) == address ? fetch | data : mine;
}

/* Stage 1 granted the access: marks the leaf, then translates the final address. */
static int finish(struct x86_walk *w, const struct x86_request *rq, struct x86_leaf *leaf, uint32_t rights,
		  struct mmu_x86_translation *ret)
{
	const struct x86_format *f = leaf->entry.format;
	uint64_t flags = f->accessed | (w->wanted & MMU_ACCESS_WRITE ? f->dirty : 0);
	uint64_t size = UINT64_C(1) << leaf->entry.level->shift;
	struct x86_host host = { .writable = true, .executable = true, .dirty = true };
	int rc = x86_entry_mark(w, &leaf->entry, &leaf->host, flags & ~leaf->entry.value, rq);

	if (rc)
		return rc;
	host.pa = pa_of(x86_frame(&leaf->entry) | (rq->address & (size - 1)));
	if (w->regs->stage2 != MMU_X86_STAGE2_NONE) {
		rc = x86_stage2(w, &(struct x86_request){ .address = host.pa.v, .stage = 2, .wanted = w->wanted },
				&host);
		if (rc)
			return rc;
		if (host.linear < size)
			size = host.linear;
		rights &= MMU_ACCESS_READ | (host.writable ? MMU_ACCESS_WRITE : 0) |
			  (host.executable ? MMU_ACCESS_FETCH : 0);
		if (w->regs->stage2 == MMU_X86_STAGE2_EPT && !(host.granted & MMU_ACCESS_READ))
			rights &= ~(uint32_t)MMU_ACCESS_READ;
	}
	if (!(leaf->entry.value & f->dirty) || !host.dirty)
		rights &= ~(uint32_t)MMU_ACCESS_WRITE;
	rights &= same_address(w, rq->address);
	*ret = (struct mmu_x86_translation){ .pa = host.pa.v, .page_size = size, .allowed = rights,
		.writable = leaf->writable && host.writable, .user = leaf->user,
		.executable = leaf->executable && host.executable,
		.global_page = (leaf->entry.value & X86_PTE_G) && (w->regs->cr4 & X86_CR4_PGE) };
	return MMU_OK;
}

/* CR0.PG=0: the linear address is the physical or guest-physical one. */
static int unpaged(struct x86_walk *w, uint64_t address, struct mmu_x86_translation *ret)
{
	struct x86_host host = { .pa = pa_of(address), .linear = PAGE_SIZE_4K, .writable = true,
				 .executable = true, .dirty = true, .granted = DATA_OR_FETCH };
	uint32_t rights;

	if (w->regs->stage2 != MMU_X86_STAGE2_NONE) {
		int rc = x86_stage2(w, &(struct x86_request){ .address = address, .stage = 2,
							      .wanted = w->wanted }, &host);

		if (rc)
			return rc;
	}
	rights = (host.writable && host.dirty ? MMU_ACCESS_WRITE : 0) | (host.executable ? MMU_ACCESS_FETCH : 0);
	if (w->regs->stage2 != MMU_X86_STAGE2_EPT || (host.granted & MMU_ACCESS_READ))
		rights |= MMU_ACCESS_READ;
	*ret = (struct mmu_x86_translation){ .pa = host.pa.v, .page_size = host.linear,
		.allowed = rights & w->rules.kinds, .writable = host.writable, .user = true,
		.executable = host.executable };
	return MMU_OK;
}

static int attempt(struct x86_walk *w, struct mmu_x86_translation *ret)
{
	struct x86_request rq = { .address = x86_linear(&w->linear, w->va), .stage = 1,
				  .wanted = w->wanted };
	uint32_t rights, denied;
	struct x86_leaf leaf;
	int rc;

	if (!w->paging)
		return unpaged(w, rq.address, ret);
	if (!x86_canonical(&w->linear, rq.address))
		return x86_fault(w, MMU_FAULT_NON_CANONICAL, &rq, NULL);
	rc = x86_descend(w, &w->stage1, w->regs->stage2 != MMU_X86_STAGE2_NONE, &rq, &leaf);
	if (rc)
		return rc;
	rights = x86_rights(&w->rules, &leaf);
	denied = x86_key_denies(&w->rules, &leaf);
	if (!(rights & ~denied & w->wanted)) {
		x86_fault(w, rights & w->wanted ? MMU_FAULT_PROTECTION_KEY : MMU_FAULT_PERMISSION, &rq,
			  &leaf.entry);
		if (denied & w->wanted)
			w->fault->protection_key = (uint8_t)(1 + leaf.key);
		return MMU_FAULTED;
	}
	return finish(w, &rq, &leaf, rights & ~denied & w->rules.kinds, ret);
}

/* One address, after x86_walk_setup(). */
int x86_walk_one(struct x86_walk *w, uint64_t va, struct mmu_x86_translation *ret)
{
	const struct x86_request rq = { .stage = 1 };
	int rc;

	w->va = va;
	for (int i = 0; i < RESTARTS; i++) {
		if (w->steps)
			w->steps->count = 0;
		rc = attempt(w, ret);
		if (rc != X86_LOST)
			return rc;
	}
	return x86_fault(w, MMU_FAULT_BUS, &rq, NULL);
}

int mmu_x86_walk(mmu_port *port, const struct mmu_x86_regs *regs, uint64_t va, uint32_t access,
		 uint32_t options, struct mmu_x86_translation *ret,
		 struct mmu_x86_fault *fault_ret, struct mmu_steps *steps)
{
	struct port_read read;
	struct x86_walk w;
	int rc;

	if (!x86_access_valid(access) || regs->stage2 > MMU_X86_STAGE2_EPT)
		return MMU_ERANGE;
	read = port_enter(port);
	x86_walk_setup(&w, port, regs, access, options);
	w.fault = fault_ret;
	w.steps = steps;
	rc = x86_walk_one(&w, va, ret);
	port_leave(port, read);
	return rc;
}
