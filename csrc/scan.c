/*
 * Streams what a tree of page tables maps: a walk in depth over all entries, which stops where the
 * levels end, whatever the entries refer to.
 */
#include <assert.h>
#include "bus.h"
#include "port.h"

static_assert(sizeof(struct mmu_mapping) == 32, "numpy reads the records");

/* One call of mmu_scan_next(). */
struct stream {
	struct mmu_port *port;
	const struct mmu_scan_format *format;
	struct mmu_scan *scan;
	struct mmu_mapping *out;
	uint64_t capacity, count, budget;
	const uint8_t *host[MMU_SCAN_LEVELS];	/* of the tables on the way down that are plain memory */
	/* Neighbours mostly differ in their address only: what the last page's bits meant is kept. */
	const struct mmu_scan_entry *known;
	uint64_t known_bits, known_flags;
};

/* ---- formats ---- */

static bool entry_is_sane(const struct mmu_scan_entry *entry)
{
	if (entry->parts > MMU_SCAN_PARTS || entry->rules > MMU_SCAN_RULES)
		return false;
	for (uint32_t i = 0; i < MMU_SCAN_PARTS; i++)
		if (entry->part[i].lo > 63 || entry->part[i].low > 63)
			return false;
	return true;
}

static bool format_is_sane(const struct mmu_scan_format *format)
{
	if (format->levels < 1 || format->levels > MMU_SCAN_LEVELS || format->sign > 64)
		return false;
	for (uint32_t d = 0; d < format->levels; d++) {
		const struct mmu_scan_level *level = &format->level[d];

		if (level->shift > 63 || level->bits < 1 || level->bits > 24 || level->shift + level->bits > 64)
			return false;
		if (level->width != 4 && level->width != 8)
			return false;
		if (!entry_is_sane(&level->table) || !entry_is_sane(&level->leaf))
			return false;
		if (d + 1 == format->levels && level->table.parts)
			return false;
		if (d && level->shift + level->bits != format->level[d - 1].shift)
			return false;
	}
	return true;
}

static uint64_t span_of(const struct mmu_scan_level *level)
{
	return UINT64_C(1) << level->shift;
}

static uint64_t address_in(const struct mmu_scan_entry *form, uint64_t entry)
{
	const struct mmu_scan_part *a = &form->part[0], *b = &form->part[1];

	return (entry & a->mask) >> a->lo << a->low | (entry & b->mask) >> b->lo << b->low;
}

static uint64_t address_mask(const struct mmu_scan_entry *form)
{
	return form->part[0].mask | form->part[1].mask;	/* an unused part is zero */
}

static uint64_t flags_of(struct stream *s, const struct mmu_scan_entry *form, uint64_t entry)
{
	uint64_t flags = 0, bits = entry & ~address_mask(form);

	if (s->known == form && s->known_bits == bits)
		return s->known_flags;
	for (uint32_t i = 0; i < form->rules; i++)
		if ((entry & form->rule[i].mask) == form->rule[i].value)
			flags |= form->rule[i].flags;
	s->known = form;
	s->known_bits = bits;
	s->known_flags = flags;
	return flags;
}

static bool is(const struct mmu_scan_entry *form, uint64_t entry)
{
	return form->parts && (entry & form->mask) == form->value;
}

/* ---- tables ---- */

/* Bytes of the table as one run of plain, aligned memory, or NULL: then every entry is an access of its own. */
static const uint8_t *host_of(struct stream *s, const struct mmu_scan_level *level, uint64_t table)
{
	uint64_t size = (uint64_t)level->width << level->bits;
	uint8_t *host;

	if (s->port->trace || mmu_port_host(s->port, table, size, false, &host) < size)
		return NULL;
	return (uintptr_t)host & (level->width - 1) ? NULL : host;
}

static int load(struct stream *s, const struct mmu_scan_level *level, uint32_t depth, uint64_t index,
		uint64_t *ret)
{
	const uint8_t *host = s->host[depth];
	int rc = MMU_MEMTX_OK;

	if (host && level->width == 8)
		*ret = __atomic_load_n((const uint64_t *)(const void *)host + index, __ATOMIC_RELAXED);
	else if (host)
		*ret = __atomic_load_n((const uint32_t *)(const void *)host + index, __ATOMIC_RELAXED);
	if (!host || hostfile_any_failed())
		rc = mmu_port_load(s->port, s->scan->frame[depth].table + index * level->width,
				   level->width, ret);
	if (s->format->swap)
		*ret = __builtin_bswap64(*ret) >> (64 - 8 * level->width);
	return rc;
}

/* Goes down into a table, to the first entry that the scan is about. */
static void enter(struct stream *s, uint32_t depth, uint64_t table, uint64_t low, uint64_t denied)
{
	const struct mmu_scan_level *level = &s->format->level[depth];
	struct mmu_scan *scan = s->scan;

	scan->depth = depth;
	scan->frame[depth] = (struct mmu_scan_frame){
		.table = table, .low = low, .denied = denied,
		.index = scan->first > low ? (scan->first - low) >> level->shift : 0,
	};
	s->host[depth] = host_of(s, level, table);
}

/* ---- records ---- */

static void put(struct stream *s, const struct mmu_mapping *mapping)
{
	s->out[s->count++] = *mapping;
}

static bool joins(const struct mmu_mapping *a, const struct mmu_mapping *b, uint64_t trouble, uint32_t width)
{
	if (a->flags != b->flags || a->va + a->size != b->va || b->va == 0)
		return false;
	if (a->flags & trouble)		/* entries of one table, one after the other */
		return b->pa > a->pa && (b->pa - a->pa) / width == a->size / b->size &&
		       (b->pa ^ a->pa) < 4096;
	return a->pa + a->size == b->pa && b->pa != 0;
}

/* The addresses that the caller knows. */
static uint64_t shown(const struct mmu_scan_format *format, uint64_t low)
{
	uint32_t unused = format->sign ? 64 - format->sign : 0;

	return (uint64_t)((int64_t)(low << unused) >> unused) + format->base;
}

/* The record in the next slot counts, or joins the one that waits, or waits. Two slots were free. */
static void emit(struct stream *s, const struct mmu_scan_level *level)
{
	struct mmu_mapping *slot = &s->out[s->count];
	uint64_t trouble = s->format->bus_error | s->format->invalid;
	struct mmu_scan *scan = s->scan;
	bool waits = scan->merge || slot->flags & trouble;

	if (!waits && !scan->waiting) {
		s->count++;
		return;
	}
	if (scan->waiting && joins(&scan->pending, slot, trouble, level->width)) {
		scan->pending.size += slot->size;
		return;
	}
	struct mmu_mapping mapping = *slot;

	if (scan->waiting)
		put(s, &scan->pending);
	scan->waiting = waits;
	if (waits)
		scan->pending = mapping;
	else
		put(s, &mapping);
}

/* ---- the scan ---- */

/* A record of an entry that is no page. */
static void trouble(struct stream *s, const struct mmu_scan_level *level, const struct mmu_scan_frame *frame,
		    uint64_t index, uint64_t flags)
{
	s->out[s->count] = (struct mmu_mapping){
		.va = shown(s->format, frame->low + (index << level->shift)), .size = span_of(level),
		.pa = frame->table + index * level->width, .flags = flags,
	};
	emit(s, level);
}

/* What one entry that is present is: a record, or a table to go down into. */
static void take(struct stream *s, const struct mmu_scan_level *level, const struct mmu_scan_frame *frame,
		 uint64_t index, uint64_t entry)
{
	uint64_t low = frame->low + (index << level->shift);
	bool leaf = is(&level->leaf, entry);
	const struct mmu_scan_entry *form = leaf ? &level->leaf : &level->table;
	struct mmu_mapping *slot = &s->out[s->count];

	if ((!leaf && !is(form, entry)) || entry & form->reserved) {
		trouble(s, level, frame, index, s->format->invalid);
		return;
	}
	if (!leaf) {
		enter(s, s->scan->depth + 1, address_in(form, entry), low,
		      frame->denied | flags_of(s, form, entry));
		return;
	}
	slot->va = shown(s->format, low);
	slot->pa = address_in(form, entry);
	slot->size = span_of(level);
	slot->flags = flags_of(s, form, entry) & ~frame->denied;
	if ((slot->flags & s->format->with) == s->format->with)
		slot->flags &= ~s->format->without;
	emit(s, level);
}

/* Entries of the table where the scan stands, until it ends or another table is entered. */
static int run(struct stream *s)
{
	struct mmu_scan *scan = s->scan;
	uint32_t depth = scan->depth;
	const struct mmu_scan_level *level = &s->format->level[depth];
	struct mmu_scan_frame *frame = &scan->frame[depth];

	while (scan->depth == depth && s->count + 2 <= s->capacity && s->budget) {
		uint64_t index = frame->index, entry = 0;
		int rc;

		if (index >> level->bits || frame->low + (index << level->shift) > scan->last) {
			if (depth == 0)
				scan->done = 1;
			else
				scan->depth = depth - 1;
			return MMU_OK;
		}
		frame->index++;
		s->budget--;
		rc = load(s, level, depth, index, &entry);
		if (rc < 0)
			return rc;
		if (rc != MMU_MEMTX_OK)
			trouble(s, level, frame, index, s->format->bus_error);
		else if (entry & level->present)
			take(s, level, frame, index, entry);
	}
	return MMU_OK;
}

int mmu_scan_begin(const struct mmu_scan_format *format, uint64_t root, uint64_t first,
		   uint64_t last, uint32_t merge, struct mmu_scan *ret)
{
	if (!format_is_sane(format) || first > last)
		return MMU_ERANGE;
	*ret = (struct mmu_scan){ .first = first, .last = last, .merge = merge };
	ret->frame[0].table = root;
	ret->frame[0].index = first >> format->level[0].shift;
	return MMU_OK;
}

int mmu_scan_next(mmu_port *port, const struct mmu_scan_format *format, struct mmu_scan *scan,
		  uint64_t budget, struct mmu_mapping *ret, uint64_t capacity, uint64_t *count_ret)
{
	struct stream s = {
		.port = port, .format = format, .scan = scan, .out = ret, .capacity = capacity,
		.budget = budget,
	};
	struct port_read read;
	int rc = MMU_OK;

	if (!format_is_sane(format) || scan->depth >= format->levels || capacity < 2)
		return MMU_ERANGE;
	read = port_enter(port);
	for (uint32_t d = 0; d <= scan->depth; d++)
		s.host[d] = host_of(&s, &format->level[d], scan->frame[d].table);
	while (rc == MMU_OK && !scan->done && s.budget && s.count + 2 <= capacity)
		rc = run(&s);
	port_leave(port, read);
	if (rc < 0) {
		scan->done = 1;
		return rc;
	}
	if (scan->done && scan->waiting && s.count < capacity) {
		put(&s, &scan->pending);
		scan->waiting = 0;
	}
	*count_ret = s.count;
	return MMU_OK;
}
