/* What registers mean for a softmmu TLB, and its walks. Twin of mmu/tlb/cpu.py, which names the sources. */
#include "tlb.h"
#include "walk_arm64.h"
#include "walk_x86.h"

enum { X86_PCID = 0xfff, X86_USER = 3 };

static struct tlb_linear linear_of_x86(const struct mmu_x86_regs *regs, uint32_t access)
{
	struct x86_linear l;

	x86_linear_setup(&l, regs, access);
	return (struct tlb_linear){
		.mask = l.mask, .metadata = { l.metadata[0], l.metadata[1] }, .sign = { l.sign[0],
			l.sign[1] },
		.select = 63, .plain = l.mask == UINT64_MAX && !l.metadata[0] && !l.metadata[1],
	};
}

/* Fills *cpu; *keeps: the load of CR3 asked to keep entries. MMU_ERANGE for a stage 2 that there is none of. */
int tlb_cpu_x86(struct tlb_cpu *cpu, struct tlb_key *key, const struct mmu_x86_regs *regs, bool *keeps)
{
	bool pcide = regs->cr4 & X86_CR4_PCIDE;
	struct mmu_x86_regs *r = &cpu->x86;

	if (regs->stage2 > MMU_X86_STAGE2_EPT)
		return MMU_ERANGE;
	*keeps = pcide && (regs->cr3 & X86_CR3_NOFLUSH);
	*cpu = (struct tlb_cpu){ .arch = TLB_X86, .x86 = *regs, .faults_invalidate = true };
	r->cr3 &= ~X86_CR3_NOFLUSH;
	cpu->space = pcide ? r->cr3 & X86_PCID : 0;
	cpu->nested = regs->stage2 != MMU_X86_STAGE2_NONE;
	cpu->bus_error_faults = regs->bus_error == MMU_X86_BUS_MACHINE_CHECK;
	cpu->data = linear_of_x86(r, MMU_ACCESS_READ);
	cpu->fetch = linear_of_x86(r, MMU_ACCESS_FETCH);
	cpu->flush = cpu->fetch;	/* INVLPG knows no metadata */
	*key = (struct tlb_key){ .x86 = *r };
	key->x86.cr3 = 0;
	key->x86.cpl = r->cpl == X86_USER ? X86_USER : 0;
	key->x86.ac = r->ac && r->cpl != X86_USER && (r->cr4 & X86_CR4_SMAP);
	return MMU_OK;
}

static struct tlb_linear linear_of_arm64(const struct arm64_request *q)
{
	struct tlb_linear l = { .mask = UINT64_MAX, .sign = { 55, 55 }, .select = 55, .plain = true };

	for (unsigned half = 0; half < 2; half++)
		if (q->stage1[half && q->two_ranges].tbi) {
			l.metadata[half] = UINT64_C(0xff) << 56;
			l.plain = false;
		}
	return l;
}

static uint32_t asid_of(const struct mmu_arm64_regs *regs, const struct arm64_request *q)
{
	bool el1 = q->regime_el == 1;
	uint64_t tcr = el1 ? regs->tcr_el1 : regs->tcr_el2, ttbr;

	if (!q->two_ranges)
		return 0;
	if (tcr & ARM64_TCR_A1)
		ttbr = el1 ? regs->ttbr1_el1 : regs->ttbr1_el2;
	else
		ttbr = el1 ? regs->ttbr0_el1 : regs->ttbr0_el2;
	return (uint32_t)(ttbr >> 48) & (tcr & ARM64_TCR_AS ? 0xffff : 0xff);
}

static void key_of_arm64(struct mmu_arm64_regs *key, const struct mmu_arm64_regs *regs, bool el10)
{
	*key = *regs;
	key->ttbr0_el1 = key->ttbr1_el1 = key->ttbr0_el2 = key->ttbr1_el2 = key->ttbr0_el3 = 0;
	key->vttbr_el2 = 0;
	if (el10)		/* the VMID stays */
		key->vttbr_el2 = regs->vttbr_el2 >> 48 & (regs->vtcr_el2 & ARM64_VTCR_VS ?
							  0xffff : 0xff);
	key->uao = 0;
	key->pan = regs->pan && regs->el;
}

void tlb_cpu_arm64(struct tlb_cpu *cpu, struct tlb_key *key, mmu_port *port,
		   const struct mmu_arm64_regs *regs)
{
	struct arm64_request q;

	*cpu = (struct tlb_cpu){ .arch = TLB_ARM64, .arm64 = *regs, .bus_error_faults = true };
	cpu->flush = (struct tlb_linear){
		.mask = UINT64_MAX, .metadata = { UINT64_C(0xff) << 56, UINT64_C(0xff) << 56 },
		.sign = { 55, 55 }, .select = 55,
	};
	for (unsigned fetch = 0; fetch < 2; fetch++) {
		arm64_request_init(&q, port, regs, fetch ? MMU_ACCESS_FETCH : MMU_ACCESS_READ, 0);
		for (unsigned upper = 0; upper <= q.two_ranges; upper++)
			arm64_stage1_init(&q, regs, upper);
		*(fetch ? &cpu->fetch : &cpu->data) = linear_of_arm64(&q);
	}
	cpu->space = asid_of(regs, &q);
	cpu->two_ranges = q.two_ranges;
	cpu->nested = q.stage2.enabled;
	*key = (struct tlb_key){ 0 };
	key_of_arm64(&key->arm64, regs, q.regime_el == 1);
}

static int walk_x86(const struct tlb_cpu *cpu, mmu_port *port, uint64_t va, uint32_t access,
		    struct tlb_found *ret, struct mmu_tlb_fault *fault)
{
	struct mmu_x86_translation found;
	int rc = mmu_x86_walk(port, &cpu->x86, va, access, MMU_X86_UPDATE, &found, &fault->x86, NULL);

	if (rc == MMU_FAULTED)
		fault->kind = fault->x86.kind;
	if (rc != MMU_OK)
		return rc;
	*ret = (struct tlb_found){ .pa = found.pa, .size = cpu->nested ? 0 : found.page_size,
				   .allowed = found.allowed, .writable = found.writable,
				   .is_global = found.global_page };
	return MMU_OK;
}

static int walk_arm64(const struct tlb_cpu *cpu, mmu_port *port, uint64_t va, uint32_t access,
		      struct tlb_found *ret, struct mmu_tlb_fault *fault)
{
	struct mmu_arm64_translation found;
	int rc = mmu_arm64_walk(port, &cpu->arm64, va, access, MMU_ARM64_UPDATE, &found,
				&fault->arm64, NULL);
	bool tagged;

	if (rc == MMU_FAULTED)
		fault->kind = fault->arm64.kind;
	if (rc != MMU_OK)
		return rc;
	tagged = cpu->two_ranges && found.stage1.level != ARM64_STAGE_OFF &&
		 (found.stage1.descriptor & ARM64_STAGE1LEAF_NG);
	*ret = (struct tlb_found){ .pa = found.pa, .size = cpu->nested ? 0 : found.page_size,
				   .allowed = found.allowed, .writable = found.writable, .is_global = !tagged };
	return MMU_OK;
}

/* *cpu is the caller's own: what a device does during the walk must not change it. */
int tlb_walk(const struct tlb_cpu *cpu, mmu_port *port, uint64_t va, enum tlb_kind kind,
	     struct tlb_found *ret,
	     struct mmu_tlb_fault *fault)
{
	uint32_t access = UINT32_C(1) << kind;
	int rc = MMU_ERANGE;

	switch (cpu->arch) {
	case TLB_UNSET:
		return MMU_ERANGE;
	case TLB_X86:
		rc = walk_x86(cpu, port, va, access, ret, fault);
		break;
	case TLB_ARM64:
		rc = walk_arm64(cpu, port, va, access, ret, fault);
		break;
	}
	if (rc == MMU_FAULTED) {
		fault->va = va;
		fault->access = access;
		fault->on_data = fault->result = 0;
	}
	return rc;
}
