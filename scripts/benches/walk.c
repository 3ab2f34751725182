/*
 * What a 4-level x86-64 walk costs at least: the loops that mmu.x86.walk_many is held against.
 * Each loop: see native.py. An answer is the physical address, or all ones for a fault.
 */
#include <stdbool.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

enum { P = 1, W = 2, US = 4, A = 32, PS = 128 };
enum { WRITE = 2, USER = 4, FETCH = 16, ACCESS = USER };	/* the access that is asked about */

static const uint64_t FAULT = UINT64_MAX, NX = UINT64_C(1) << 63, ADDRESS = 0x000ffffffffff000;
static const uint64_t BEYOND = 0x000f000000000000;	/* reserved: MAXPHYADDR is 48 */

/* setup of all loops; devices: of a 4-way window of 256 bytes */
struct setup { uint64_t ram, ram_size, root, window, window_size, devices[4]; };

typedef uint64_t read_fn(const struct setup *setup, uint64_t pa);

INLINE uint64_t *host(uint64_t address)
{
	return (uint64_t *)(uintptr_t)address;
}

INLINE uint64_t read_window(const struct setup *s, uint64_t pa)
{
	uint64_t offset = pa - s->window;

	return *host(s->devices[offset >> 8 & 3] + (offset >> 10 << 8 | (offset & 255)));
}

/* A bus of two regions, the window first. Not inlined: an access that leaves the fast path is a call. */
static __attribute__((noinline)) uint64_t read_bus(const struct setup *s, uint64_t pa)
{
	if (pa - s->window < s->window_size)
		return read_window(s, pa);
	return pa < s->ram_size ? *host(s->ram + pa) : 0;
}

INLINE uint64_t read_ram_inline(const struct setup *s, uint64_t pa)
{
	return __builtin_expect(pa < s->ram_size, 1) ? *host(s->ram + pa) : read_bus(s, pa);
}

/* What an architectural walker must look at: canonical, present, reserved, rights, accessed. */
INLINE uint64_t walk(const struct setup *s, uint64_t va, read_fn *read)
{
	uint64_t table = s->root, granted = W | US, denied = 0;

	if ((uint64_t)((int64_t)(va << 16) >> 16) != va)
		return FAULT;
	for (int shift = 39;; shift -= 9) {
		uint64_t pa = table + (va >> shift & 511) * 8, entry = read(s, pa);
		uint64_t offset = (UINT64_C(1) << shift) - 1;

		if (!(entry & P) || entry & BEYOND)
			return FAULT;
		granted &= entry;
		denied |= entry & NX;
		if (shift > 12 && !(entry & PS)) {
			if (!(entry & A) && pa < s->ram_size)
				__atomic_fetch_or(host(s->ram + pa), A, __ATOMIC_SEQ_CST);
			table = entry & ADDRESS;
			continue;
		}
		if (shift == 39 || (shift > 12 && entry & offset & ~UINT64_C(0x1fff)))
			return FAULT;
		if ((ACCESS & WRITE && !(granted & W)) || (ACCESS & USER && !(granted & US)) ||
		    (ACCESS & FETCH && denied))
			return FAULT;
		return (entry & ADDRESS & ~offset) | (va & offset);
	}
}

void ram_full(const struct setup *s, const uint64_t *in, uint64_t *out, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		out[i] = walk(s, in[i], read_ram_inline);
}

/* Every read goes through a function pointer to the bus, as where entries may be anywhere. */
void window_full(const struct setup *s, const uint64_t *in, uint64_t *out, uint64_t n)
{
	read_fn *volatile read = read_bus;

	for (uint64_t i = 0; i < n; i++)
		out[i] = walk(s, in[i], read);
}

/* The floor: 32 walks in flight, each next entry prefetched, present and page size the only checks. */
void ram_in_flight(const struct setup *s, const uint64_t *in, uint64_t *out, uint64_t n)
{
	enum { FLIGHT = 32 };

	for (uint64_t first = 0; first < n; first += FLIGHT) {
		uint32_t count = n - first < FLIGHT ? (uint32_t)(n - first) : FLIGHT;
		uint32_t done = 0;
		uint64_t at[FLIGHT];

		for (uint32_t i = 0; i < count; i++)
			at[i] = s->ram + s->root + (in[first + i] >> 39 & 511) * 8;
		for (int shift = 39; shift >= 12; shift -= 9) {
			uint64_t offset = (UINT64_C(1) << shift) - 1;

			for (uint32_t i = 0; i < count; i++) {
				uint64_t va = in[first + i], entry;

				if (done >> i & 1)
					continue;
				entry = *host(at[i]);
				if (!(entry & P) || shift == 12 || entry & PS) {
					out[first + i] = entry & P ?
						(entry & ADDRESS & ~offset) | (va & offset) : FAULT;
					done |= UINT32_C(1) << i;
					continue;
				}
				at[i] = s->ram + (entry & ADDRESS) + (va >> (shift - 9) & 511) * 8;
				__builtin_prefetch(host(at[i]));
			}
		}
	}
}

typedef int walk_fn(void *port, const void *regs, uint64_t va, uint32_t access, uint32_t options,
		    void *ret, void *fault_ret, void *steps);

/* setup: address of mmu_x86_walk, port, registers, access. Its answer begins with the physical address. */
void one_by_one(const uint64_t *setup, const uint64_t *in, uint64_t *out, uint64_t n)
{
	walk_fn *walk_one = (walk_fn *)(uintptr_t)setup[0];
	uint64_t answer[64], fault[64];		/* more than either structure */

	for (uint64_t i = 0; i < n; i++) {
		int status = walk_one((void *)(uintptr_t)setup[1], (void *)(uintptr_t)setup[2], in[i],
				      (uint32_t)setup[3], 1, answer, fault, (void *)0);

		out[i] = status ? FAULT : answer[0];
	}
}

/* All mappings below `table`, in order, to `out`: virtual and physical address in turn. */
static uint64_t *enumerate(const struct setup *s, uint64_t table, int shift, uint64_t va, uint64_t *out)
{
	const uint64_t *entries = host(s->ram + table);

	for (uint64_t i = 0; i < 512; i++) {
		uint64_t entry = entries[i], at = va | i << shift;

		if (!(entry & P))
			continue;
		if (shift > 12 && !(entry & PS)) {
			out = enumerate(s, entry & ADDRESS, shift - 9, at, out);
			continue;
		}
		*out++ = (uint64_t)((int64_t)(at << 16) >> 16);
		*out++ = entry & ADDRESS & ~((UINT64_C(1) << shift) - 1);
	}
	return out;
}

/* `out` holds n words, two for each mapping that there is; `in` is not read. */
void ram_enumerate(const struct setup *s, const uint64_t *in, uint64_t *out, uint64_t n)
{
	(void)in;
	(void)n;
	enumerate(s, s->root, 39, 0, out);
}
