/* Eight translations at a time. The scalar twin is locator_place() in locate.h. */
#include "locate.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#define VECTORS __attribute__((target("avx512f,avx512vl,avx512dq,avx512ifma,avx512vpopcntdq")))

static const long long third = 1501199875790166;	/* 2^52 / 3, rounded up */

bool locate_has_vectors(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
	       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512ifma") &&
	       __builtin_cpu_supports("avx512vpopcntdq");
}

/* q / 3 for q < 2^51: the error, q * (2/3) / 2^52, stays below 1/3. */
VECTORS static inline __m512i third_of(__m512i q)
{
	return _mm512_madd52hi_epu64(_mm512_setzero_si512(), q, _mm512_set1_epi64(third));
}

VECTORS static inline __m512i rest_of(__m512i q, __m512i third_of_q)
{
	return _mm512_sub_epi64(q, _mm512_add_epi64(third_of_q, _mm512_add_epi64(third_of_q, third_of_q)));
}

/* Eight bytes of up to 16 leaves in two registers; target and status are one such field. */
struct table { __m512i low, high; };

VECTORS static inline struct table
table_load(const struct mmu_place *leaves, uint32_t count, size_t field)
{
	uint64_t entry[16] = { 0 };

	for (uint32_t i = 0; i < count && i < 16; i++)
		memcpy(&entry[i], (const char *)&leaves[i] + field, sizeof(entry[i]));
	return (struct table){ _mm512_loadu_si512(entry), _mm512_loadu_si512(entry + 8) };
}

/* What one span needs in registers. */
struct constants {
	__m512i first, length, base, low, mask, dpa;
	struct table metas, dpas;
	__m128i shift, chunk_shift, ways_shift, granularity;
};

VECTORS static inline struct constants constants_of(const struct flat_span *s)
{
	return (struct constants){
		.first = _mm512_set1_epi64((long long)s->first),
		.length = _mm512_set1_epi64((long long)s->length),
		.base = _mm512_set1_epi64((long long)s->base),
		.low = _mm512_set1_epi64((long long)s->low),
		.mask = _mm512_set1_epi64((long long)s->mask),
		.dpa = _mm512_set1_epi64((long long)s->leaves->dpa),
		.metas = table_load(s->leaves, s->slot_count, offsetof(struct mmu_place, target)),
		.dpas = table_load(s->leaves, s->slot_count, offsetof(struct mmu_place, dpa)),
		.shift = _mm_cvtsi32_si128(s->shift),
		.chunk_shift = _mm_cvtsi32_si128(s->granularity_shift + s->ways_shift),
		.ways_shift = _mm_cvtsi32_si128(s->ways_shift),
		.granularity = _mm_cvtsi32_si128(s->granularity_shift),
	};
}

VECTORS static inline __m512i parities(const struct flat_span *s, __m512i hpa, __m512i index)
{
	const __m512i one = _mm512_set1_epi64(1);

	for (unsigned i = 0; i < s->map_count; i++) {
		__m512i bits = _mm512_and_si512(hpa, _mm512_set1_epi64((long long)s->maps[i]));
		__m512i parity = _mm512_and_si512(_mm512_popcnt_epi64(bits), one);
		__m128i at = _mm_cvtsi32_si128((int)(s->bits + i));

		index = _mm512_or_si512(index, _mm512_sll_epi64(parity, at));
	}
	return index;
}

enum mod3 { NONE, THIRDS, ANY };	/* see flat_span.thirds */

/*
 * The loop. `maps` and `mod3` say what the span's index is made of, `even` that all its slots are
 * devices at one DPA, and that the span begins where their decoders do: constants at each call,
 * so that each becomes a loop of its own.
 */
VECTORS static inline __attribute__((always_inline)) uint64_t
places(const struct flat_span *s, const uint64_t *hpas, uint64_t count, struct mmu_place *ret,
       const bool maps, const enum mod3 mod3, const bool even)
{
	const struct constants c = constants_of(s);
	const __m512i low_pairs = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0);
	const __m512i high_pairs = _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4);
	const __m128i mod3_shift = _mm_cvtsi32_si128(s->mod3_shift);
	const __m128i mod3_at = _mm_cvtsi32_si128(s->bits + s->map_count);
	const bool div3 = mod3 == THIRDS || s->div3;
	uint64_t i;

	for (i = 0; i + 8 <= count; i += 8) {
		__m512i hpa = _mm512_loadu_si512(hpas + i);
		__m512i offset = _mm512_sub_epi64(hpa, c.base);
		__m512i chunk = div3 ? _mm512_srl_epi64(offset, c.chunk_shift) : offset;
		__m512i index = _mm512_and_si512(_mm512_srl_epi64(hpa, c.shift), c.mask);
		__m512i meta, dpa;

		if (_mm512_cmpgt_epu64_mask(even ? offset : _mm512_sub_epi64(hpa, c.first), c.length))
			break;
		if (maps)
			index = parities(s, hpa, index);
		if (mod3 == THIRDS) {
			__m512i t = third_of(chunk);
			__m512i rest = rest_of(chunk, t);

			index = _mm512_add_epi64(index, _mm512_sll_epi64(rest, mod3_at));
			chunk = t;
		} else if (div3) {
			chunk = third_of(chunk);
		}
		if (mod3 == ANY) {
			__m512i q = _mm512_srl_epi64(hpa, mod3_shift);
			__m512i rest = rest_of(q, third_of(q));

			index = _mm512_add_epi64(index, _mm512_sll_epi64(rest, mod3_at));
		}
		meta = _mm512_permutex2var_epi64(c.metas.low, index, c.metas.high);
		/* The bits within the granule stay, those above are divided: 0xd8 is low ? offset : dpa. */
		dpa = div3 ? _mm512_sll_epi64(chunk, c.granularity) : _mm512_srl_epi64(offset, c.ways_shift);
		dpa = _mm512_ternarylogic_epi64(dpa, offset, c.low, 0xd8);
		if (even) {
			dpa = _mm512_add_epi64(dpa, c.dpa);
		} else {
			__mmask8 device = _mm512_cmplt_epu64_mask(meta, _mm512_set1_epi64(1LL << 32));
			__m512i start = _mm512_permutex2var_epi64(c.dpas.low, index, c.dpas.high);

			dpa = _mm512_maskz_add_epi64(device, dpa, start);
		}
		_mm512_storeu_si512(ret + i, _mm512_permutex2var_epi64(dpa, low_pairs, meta));
		_mm512_storeu_si512(ret + i + 4, _mm512_permutex2var_epi64(dpa, high_pairs, meta));
	}
	return i;
}

VECTORS uint64_t locate_vectors(const struct flat_span *s, const uint64_t *hpas, uint64_t count,
				struct mmu_place *ret)
{
	if (s->map_count)
		return s->mod3_shift ? places(s, hpas, count, ret, true, ANY, false) :
				       places(s, hpas, count, ret, true, NONE, s->even);
	if (s->thirds)
		return s->even ? places(s, hpas, count, ret, false, THIRDS, true) :
				 places(s, hpas, count, ret, false, THIRDS, false);
	if (s->mod3_shift)
		return places(s, hpas, count, ret, false, ANY, false);
	return s->even ? places(s, hpas, count, ret, false, NONE, true) :
			 places(s, hpas, count, ret, false, NONE, false);
}
#else
bool locate_has_vectors(void)
{
	return false;
}

uint64_t locate_vectors(const struct flat_span *s, const uint64_t *hpas, uint64_t count,
			struct mmu_place *ret)
{
	(void)s;
	(void)hpas;
	(void)count;
	(void)ret;
	return 0;
}
#endif
