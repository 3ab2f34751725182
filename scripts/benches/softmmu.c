/* What loads and stores through a TLB are measured against. Each loop: see native.py. */
#include <stdint.h>

static inline uint64_t *word(uint64_t host, uint64_t offset)
{
	return (uint64_t *)(uintptr_t)(host + offset);
}

/* setup: first virtual address, host address of its memory */
void gather(const uint64_t *setup, const uint64_t *in, uint64_t *out, uint64_t n)
{
	uint64_t host = setup[1] - setup[0];

	for (uint64_t i = 0; i < n; i++)
		out[i] = *word(host, in[i]);
}

/* As gather; `out` holds the values. */
void scatter(const uint64_t *setup, const uint64_t *in, uint64_t *out, uint64_t n)
{
	uint64_t host = setup[1] - setup[0];

	for (uint64_t i = 0; i < n; i++)
		*word(host, in[i]) = out[i];
}

/* setup: first virtual address, size of the window, granularity shift, ways shift, host address of each device */
void route(const uint64_t *setup, const uint64_t *in, uint64_t *out, uint64_t n)
{
	uint64_t first = setup[0], size = setup[1], shift = setup[2], ways = setup[3];
	uint64_t low = (UINT64_C(1) << shift) - 1, mask = (UINT64_C(1) << ways) - 1;
	const uint64_t *hosts = setup + 4;

	for (uint64_t i = 0; i < n; i++) {
		uint64_t offset = in[i] - first;

		out[i] = offset < size ? *word(hosts[offset >> shift & mask],
					       offset >> (shift + ways) << shift | (offset & low)) : UINT64_MAX;
	}
}
