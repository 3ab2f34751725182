/* The guest's own TLB, behind that of the engine: a fill walks only when this does not know the page. */
#include "deliver.h"
#include "port.h"
#include "tlb.h"

static void tell_fault(struct mmu_guest *g, const struct mmu_tlb_fault *fault, struct mmu_guest_stop *stop)
{
	if (g->c.arch == MMU_GUEST_X86_64)
		stop->x86 = fault->x86;
	else
		stop->arm64 = fault->arm64;
}

/* A walk past the TLB. */
static int walk_alone(struct mmu_guest *g, uint64_t va, uint32_t access, struct guest_translation *ret,
		      struct mmu_guest_stop *stop)
{
	int rc = guest_walk(g, va, access, ret, stop);

	g->tlb.large |= rc == MMU_OK && ret->size != GUEST_PAGE;
	return rc;
}

/*
 * While a run is traced, what this TLB loses is no victim, and the engine loses all. Else it depended on what the
 * engine still has, whose TLB shrinks with the host's clock, when a page is walked again.
 */
static void lose(struct mmu_guest *g)
{
	struct tlb_table *t = tlb_table(g->tlb.tlb);
	bool any = false;

	for (uint32_t i = 0; i < MMU_TLB_VICTIMS; i++) {
		any |= t->victims[i].stamp != 0;
		t->victims[i].stamp = 0;
	}
	if (any)
		guest_flush_tlb(g);
}

/* As guest_walk(), for an access of the instruction under way; but it walks only on a miss. */
int guest_translate(struct mmu_guest *g, uint64_t va, uint32_t access, struct guest_translation *ret,
		    struct mmu_guest_stop *stop)
{
	enum tlb_kind kind = access == MMU_ACCESS_WRITE ? TLB_WRITE :
			     access == MMU_ACCESS_FETCH ? TLB_FETCH : TLB_READ;
	struct mmu_tlb_fault fault;
	struct port_read read;
	struct tlb_page page;
	int rc, index;

	/* Accesses of other rights than the registers say are none of the TLB's. */
	if (g->tlb.blind || access != UINT32_C(1) << kind)
		return walk_alone(g, va, access, ret, stop);
	index = g->arch->tlb_registers(g);
	if (index < 0)
		return walk_alone(g, va, access, ret, stop);
	read = port_enter(g->c.walk);
	rc = tlb_page(g->tlb.tlb, g->c.walk, va, kind, &page, &fault);
	port_leave(g->c.walk, read);
	if (page.walked)
		guest_count_walk(g, rc);
	if (g->traced)
		lose(g);
	g->tlb.large |= tlb_table(g->tlb.tlb)->has_large;
	if (rc == MMU_OK)
		*ret = (struct guest_translation){ .pa = pa_of(page.pa), .allowed = page.allowed,
						   .index = (uint32_t)index };
	else if (rc == MMU_FAULTED)
		tell_fault(g, &fault, stop);
	return rc;
}

static void flush(struct mmu_guest *g, uint64_t first, uint64_t last)
{
	const struct mmu_tlb_scope scope = { .first = first, .last = last, .indexes = UINT32_MAX,
					     .any_space = 1, .global_too = 1 };

	mmu_tlb_flush(g->tlb.tlb, g->c.walk, &scope);
}

void guest_tlb_flush(struct mmu_guest *g)
{
	flush(g, 0, UINT64_MAX);
	g->tlb.set = false;
}

/*
 * The page of va, of every address space: more than is asked for is never wrong. The engine forgets 4 KiB by itself;
 * of a large page it holds as many pieces as were touched, and all of them must go.
 */
void guest_tlb_flush_page(struct mmu_guest *g, uint64_t va)
{
	flush(g, va, va);
	if (!g->tlb.large)
		return;
	guest_flush_tlb(g);
	g->tlb.large = false;
}

/* ---- arm64: TLBI ---- */

enum { OP2_VMALL = 0, OP2_ASID = 2 };

/* TLBI is about to run. It accesses nothing through the TLB. */
void guest_tlb_invalidate(struct mmu_guest *g, const struct system_register *op)
{
	uint64_t va;

	if (op->op1 || !(op->crm & 1) || op->op2 == OP2_VMALL || op->op2 == OP2_ASID) {
		guest_tlb_flush(g);
		return;
	}
	va = op->value << TLB_PAGE_SHIFT;	/* VA[55:12] stands in bits 43:0 */
	guest_tlb_flush_page(g, mmu_tlb_flush_address(g->tlb.tlb, va));
}
