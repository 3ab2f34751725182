/* What the engine keeps apart from the registers of x86: its summary of the segments, and what it stopped for. */
#include "deliver_x86.h"

enum segment { SEGMENT_ES = 0, SEGMENT_CS = 1, SEGMENT_SS = 2, SEGMENT_DS = 3 };	/* in the engine's order */
/* The summary, beside the CPL: code and stack of 32 bits, or 64-bit code; a segment other than FS and GS has a base. */
enum { MODE_CPL = 3, MODE_CS_64 = 1 << 15, MODE_32 = 1 << 5 | 1 << 4, MODE_64 = MODE_CS_64 | MODE_32,
       MODE_BASES = 1 << 6 };

static void blob_put(uint8_t *blob, uint32_t at, uint32_t value)
{
	memcpy(blob + at, &value, sizeof(value));
}

static uint32_t blob_get(const uint8_t *blob, uint32_t at)
{
	uint32_t value;

	memcpy(&value, blob + at, sizeof(value));
	return value;
}

static void put_segment(struct mmu_guest *g, uint8_t *blob, enum segment number, uint32_t selector,
			uint64_t descriptor)
{
	uint32_t at = g->c.places.segments + g->c.places.stride * (uint32_t)number;

	blob_put(blob, at, selector);
	memset(blob + at + 8, 0, 8);
	blob_put(blob, at + 16, UINT32_MAX);
	blob_put(blob, at + 20, (uint32_t)(descriptor >> 32) & 0x00f0ff00);
}

/* And not code of 32 bits, in long mode or not. */
bool x86_in_64_bit_code(struct mmu_guest *g)
{
	return blob_get(guest_blob_save(g), g->c.places.hflags) & MODE_CS_64;
}

bool x86_is_wide(struct mmu_guest *g, const struct mmu_x86_regs *now)
{
	return (now->efer & X86_EFER_LMA) && x86_in_64_bit_code(g);
}

bool x86_is_marked_long(struct mmu_guest *g)
{
	uint32_t at = g->c.places.segments + g->c.places.stride * (uint32_t)SEGMENT_CS;

	return blob_get(guest_blob_save(g), at + 20) & (uint32_t)(GUEST_SEGMENT_L >> 32);
}

uint64_t guest_msr(struct mmu_guest *g, uint32_t number)
{
	struct engine_msr msr = { .number = number };

	g->c.engine.reg_read(g->c.engine.uc, g->c.ids.msr, &msr);
	return msr.value;
}

static bool has_base(const struct mmu_guest *g, const uint8_t *blob, enum segment number)
{
	const uint8_t *at = blob + g->c.places.segments + g->c.places.stride * (uint32_t)number + 8;
	uint64_t base;

	memcpy(&base, at, sizeof(base));
	return base;
}

/* Loads flat segments, of 64-bit code or of 32 bits, and the CPL. */
void x86_switch_segments(struct mmu_guest *g, const struct x86_switch *to)
{
	uint8_t *blob = guest_blob_save(g);
	uint32_t mode = blob_get(blob, g->c.places.hflags) & ~(uint32_t)(MODE_CPL | MODE_BASES | MODE_64);

	if (to->code & GUEST_SEGMENT_L)
		mode |= MODE_64;
	else
		mode |= MODE_32 | (has_base(g, blob, SEGMENT_ES) || has_base(g, blob, SEGMENT_DS) ? MODE_BASES : 0);

	put_segment(g, blob, SEGMENT_CS, to->cs, to->code);
	if (to->stack)
		put_segment(g, blob, SEGMENT_SS, to->ss, to->stack);
	blob_put(blob, g->c.places.hflags, mode | to->cpl);
	guest_blob_restore(g);
}

void x86_debug_access(struct mmu_guest *g)
{
	g->stop.number = DB;
	guest_set_register(g, g->c.ids.dr6, guest_register(g, g->c.ids.dr6) | GUEST_DR6_BD);
}

/* What the engine stopped for. It must forget it, or it takes the next one for a double fault. */
void x86_take_interrupt(struct mmu_guest *g, struct mmu_guest_event *event)
{
	const struct mmu_guest_places *at = &g->c.places;
	uint8_t *blob = guest_blob_save(g);

	*event = (struct mmu_guest_event){ .kind = MMU_GUEST_EVENT_INTERRUPT, .vector = g->stop.number };
	event->software = blob_get(blob, at->software) != 0;
	event->has_code = in_set(WITH_CODE, event->vector) && !event->software;
	if (event->has_code)
		event->code = blob_get(blob, at->error_code);
	blob_put(blob, at->previous, UINT32_MAX);
	blob_put(blob, at->software, 0);
	guest_blob_restore(g);
}
