/* Down a tree of ordinary tables. Twin of mmu/x86/descent.py. */
#include "walk_x86.h"

int x86_fault(struct x86_walk *w, uint32_t kind, const struct x86_request *rq, const struct x86_entry *entry)
{
	*w->fault = (struct mmu_x86_fault){ .va = w->va, .kind = kind, .access = w->access, .stage = rq->stage };
	if (entry) {
		w->fault->level = entry->level->number;
		w->fault->entry_address = entry->pa.v;
		w->fault->entry = entry->value;
	}
	if (rq->stage == 2) {
		w->fault->gpa = rq->address;
		w->fault->on_table = rq->on_table;
		w->fault->wanted = (uint8_t)rq->wanted;
	}
	return MMU_FAULTED;
}

/* Reads the entry at entry->pa and finds out its format. */
int x86_entry_read(struct x86_walk *w, const struct x86_level *level, const struct x86_request *rq,
		   struct x86_entry *entry)
{
	int rc = MMU_MEMTX_OK;

	if (!port_ram_load(&w->ram, entry->pa, level->size, &entry->value))
		rc = mmu_port_load(w->port, entry->pa.v, level->size, &entry->value);
	if (rc < 0)
		return rc;
	entry->level = level;
	entry->format = level->leaf_only || (entry->value & level->ps) ? &level->leaf : &level->table;
	if (w->steps) {
		if (w->steps->count < w->steps->capacity)
			w->steps->step[w->steps->count] = (struct mmu_step){
				.address = entry->pa.v, .value = entry->value, .level = level->number,
				.stage = rq->stage, .format = entry->format->number, .size = level->size };
		w->steps->count++;
	}
	if (rc && w->regs->bus_error == MMU_X86_BUS_MACHINE_CHECK)
		return x86_fault(w, MMU_FAULT_BUS, rq, entry);
	return MMU_OK;
}

/* Sets the missing flags in one exchange of the entry's own size. */
int x86_entry_mark(struct x86_walk *w, struct x86_entry *entry, const struct x86_host *host, uint64_t missing,
		   const struct x86_request *rq)
{
	uint64_t old;
	int rc;

	if (!missing)
		return MMU_OK;
	if (!host->writable) {
		const struct x86_request table = { .address = entry->gpa.v, .stage = 2, .on_table = true,
						   .wanted = MMU_ACCESS_READ | MMU_ACCESS_WRITE };

		x86_fault(w, MMU_FAULT_PERMISSION, &table, &host->leaf);
		w->fault->granted = host->granted;
		return MMU_FAULTED;
	}
	if (!w->update)
		return MMU_OK;
	rc = mmu_port_exchange(w->port, entry->pa.v, entry->level->size, entry->value,
			       entry->value | missing, &old);
	if (rc < 0)
		return rc;
	if (rc && w->regs->bus_error == MMU_X86_BUS_MACHINE_CHECK)
		return x86_fault(w, MMU_FAULT_BUS, rq, entry);
	if (old != entry->value)
		return X86_LOST;
	entry->value |= missing;
	return MMU_OK;
}

uint64_t x86_frame(const struct x86_entry *entry)
{
	const struct x86_format *f = entry->format;

	return (entry->value & f->address) | (entry->value & f->high) << X86_HIGH_SHIFT;
}

static uint64_t index_of(const struct x86_level *level, uint64_t address)
{
	return (address >> level->shift) & ((UINT64_C(1) << level->index_bits) - 1);
}

/* Where the bus has the entry that this stage's tables call gpa. */
static int locate(struct x86_walk *w, bool nested, uint64_t gpa, struct x86_host *host)
{
	if (!nested) {
		host->pa = pa_of(gpa);
		host->writable = true;
		return MMU_OK;
	}
	return x86_stage2(w, &(struct x86_request){ .address = gpa, .stage = 2, .on_table = true,
						    .wanted = x86_table_access(w->regs) }, host);
}

int x86_descend(struct x86_walk *w, const struct x86_paging *paging, bool nested,
		const struct x86_request *rq, struct x86_leaf *leaf)
{
	struct x86_entry *entry = &leaf->entry;
	uint64_t table = paging->root;
	bool tables_writable = true;
	int rc;

	leaf->writable = leaf->user = leaf->executable = true;
	for (const struct x86_level *level = paging->levels;; level++) {
		const struct x86_format *f;

		entry->gpa = ipa_of(table + index_of(level, rq->address) * level->size);
		rc = locate(w, nested, entry->gpa.v, &leaf->host);
		if (rc)
			return rc;
		entry->pa = leaf->host.pa;
		rc = x86_entry_read(w, level, rq, entry);
		if (rc)
			return rc;
		f = entry->format;
		if (!(entry->value & X86_PTE_P))
			return x86_fault(w, MMU_FAULT_NOT_PRESENT, rq, entry);
		if (entry->value & x86_reserved(paging, f))
			return x86_fault(w, MMU_FAULT_RESERVED_BIT, rq, entry);
		tables_writable = leaf->writable;
		if (f->rights) {
			leaf->writable &= !!(entry->value & X86_PTE_RW);
			leaf->user &= !!(entry->value & X86_PTE_US);
			leaf->executable &= !(entry->value & f->xd);
		}
		if (f == &level->leaf) {
			leaf->shadow_stack = tables_writable && !(entry->value & X86_PTE_RW) &&
					     (entry->value & f->dirty);
			leaf->key = f->key ? (uint8_t)((entry->value & f->key) / (f->key & -f->key)) : 0;
			return MMU_OK;
		}
		rc = x86_entry_mark(w, entry, &leaf->host, f->accessed & ~entry->value, rq);
		if (rc)
			return rc;
		table = entry->value & f->address;
	}
}
