/*
 * HPA to (device, DPA): ours, inlined, and what it costs at least. Each loop: see native.py;
 * of n words it reads n / 2 addresses, and writes n / 2 DPAs, then as many devices.
 */
#include "../../csrc/locate.c"
#include "../../csrc/locate_avx512.c"
#include "../../csrc/stripes.c"

enum kind { POWER_OF_TWO, PARITY, MODULO_THREE };

/* A region, flattened: low address bits choose the device, or `maps`, or what is left modulo 3. */
struct region {
	uint64_t kind, base, size, shift, ways_shift, maps[4];
	uint8_t device[16];
};

static uint64_t third_exactly(uint64_t q)
{
	return (uint64_t)((unsigned __int128)q * UINT64_C(0xAAAAAAAAAAAAAAAB) >> 64) >> 1;
}

/* One translation, as directly as it can be written down for one region. */
static inline __attribute__((always_inline)) bool
translate(const struct region *r, uint64_t hpa, uint64_t *dpa, uint64_t *device)
{
	uint64_t offset = hpa - r->base, chunk = offset >> r->shift, index = 0;
	uint64_t low = (UINT64_C(1) << r->shift) - 1, mask = (UINT64_C(1) << r->ways_shift) - 1;
	uint64_t rounds = chunk >> r->ways_shift;

	if (offset >= r->size)
		return false;
	if (r->kind == POWER_OF_TWO) {
		index = chunk & mask;
	} else if (r->kind == PARITY) {
		for (uint64_t m = 0; m < r->ways_shift; m++)
			index |= (uint64_t)__builtin_parityll(hpa & r->maps[m]) << m;
	} else {
		uint64_t third = third_exactly(rounds);

		index = (rounds - 3 * third) << r->ways_shift | (chunk & mask);
		rounds = third;
	}
	*device = r->device[index];
	*dpa = rounds << r->shift | (offset & low);
	return true;
}

/* setup: the locator */
void ours_one(const uint64_t *setup, const uint64_t *in, uint64_t *out, uint64_t n)
{
	const mmu_locator *l = (const mmu_locator *)(uintptr_t)setup[0];
	const struct flat_span *near = l->spans;

	for (uint64_t i = 0; i < n / 2; i++) {
		struct mmu_place place;

		locator_place(l, &near, in[i], &place);
		out[i] = place.dpa;
		out[n / 2 + i] = place.target;
	}
}

/* setup: the locator. Devices and DPAs are left in rows: `out` is n / 2 struct mmu_place. */
void ours_many(const uint64_t *setup, const uint64_t *in, uint64_t *out, uint64_t n)
{
	mmu_locate_many((const mmu_locator *)(uintptr_t)setup[0], in, n / 2, (struct mmu_place *)out);
}

typedef void loop_fn(const uint64_t *setup, const uint64_t *in, uint64_t *out, uint64_t n);

/* setup: address of a loop, how often to run it, its setup. So that a small batch can be timed. */
void repeated(const uint64_t *setup, const uint64_t *in, uint64_t *out, uint64_t n)
{
	loop_fn *loop = (loop_fn *)(uintptr_t)setup[0];

	for (uint64_t i = 0; i < setup[1]; i++)
		loop(setup + 2, in, out, n);
}

/* setup: a struct region, as below */
void formula(const uint64_t *setup, const uint64_t *in, uint64_t *out, uint64_t n)
{
	const struct region *r = (const struct region *)setup;

	for (uint64_t i = 0; i < n / 2; i++)
		translate(r, in[i], &out[i], &out[n / 2 + i]);
}

#if defined(__x86_64__)
VECTORS static inline __attribute__((always_inline)) void
vectors(const struct region *r, const uint64_t *in, uint64_t *dpas, uint64_t *devices, uint64_t n,
	const enum kind kind)
{
	const __m512i base = _mm512_set1_epi64((long long)r->base), one = _mm512_set1_epi64(1);
	const __m512i low = _mm512_set1_epi64((long long)((UINT64_C(1) << r->shift) - 1));
	const __m512i mask = _mm512_set1_epi64((long long)((UINT64_C(1) << r->ways_shift) - 1));
	const __m128i shift = _mm_cvtsi32_si128((int)r->shift);
	const __m128i ways = _mm_cvtsi32_si128((int)r->ways_shift);
	uint64_t device[16];

	for (unsigned i = 0; i < 16; i++)
		device[i] = r->device[i];
	const __m512i first = _mm512_loadu_si512(device), second = _mm512_loadu_si512(device + 8);

	for (uint64_t i = 0; i + 8 <= n; i += 8) {
		__m512i hpa = _mm512_loadu_si512(in + i), offset = _mm512_sub_epi64(hpa, base);
		__m512i chunk = _mm512_srl_epi64(offset, shift), high = _mm512_srl_epi64(chunk, ways);
		__m512i index = _mm512_and_si512(chunk, mask);

		if (kind == PARITY) {
			index = _mm512_setzero_si512();
			for (uint64_t m = 0; m < r->ways_shift; m++) {
				__m512i bits = _mm512_and_si512(hpa, _mm512_set1_epi64((long long)r->maps[m]));
				__m512i odd = _mm512_and_si512(_mm512_popcnt_epi64(bits), one);

				index = _mm512_or_si512(index, _mm512_sll_epi64(odd, _mm_cvtsi32_si128((int)m)));
			}
		}
		if (kind == MODULO_THREE) {
			__m512i third = third_of(high), rest = rest_of(high, third);

			high = third;
			index = _mm512_or_si512(index, _mm512_sll_epi64(rest, ways));
		}
		_mm512_storeu_si512(dpas + i, _mm512_or_si512(_mm512_sll_epi64(high, shift),
							     _mm512_and_si512(offset, low)));
		_mm512_storeu_si512(devices + i, _mm512_permutex2var_epi64(first, index, second));
	}
}

VECTORS void vector_formula(const uint64_t *setup, const uint64_t *in, uint64_t *out, uint64_t n)
{
	const struct region *r = (const struct region *)setup;

	if (r->kind == POWER_OF_TWO)
		vectors(r, in, out, out + n / 2, n / 2, POWER_OF_TWO);
	else if (r->kind == PARITY)
		vectors(r, in, out, out + n / 2, n / 2, PARITY);
	else
		vectors(r, in, out, out + n / 2, n / 2, MODULO_THREE);
}
#endif
