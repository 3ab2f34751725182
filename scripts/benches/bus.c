/* Loads and stores over the bus, and what they cost at least. Each loop: see native.py. */
#include <stdint.h>

typedef int load_fn(void *port, uint64_t address, uint32_t size, uint64_t *value_ret);
typedef int store_fn(void *port, uint64_t address, uint32_t size, uint64_t value);

/* setup: address of mmu_port_load, port */
void port_load(const uint64_t *setup, const uint64_t *in, uint64_t *out, uint64_t n)
{
	load_fn *load = (load_fn *)(uintptr_t)setup[0];
	void *port = (void *)(uintptr_t)setup[1];

	for (uint64_t i = 0; i < n; i++)
		if (load(port, in[i], 8, &out[i]))
			out[i] = UINT64_MAX;
}

/* setup: address of mmu_port_store, port; stores the address, `out` is the result */
void port_store(const uint64_t *setup, const uint64_t *in, uint64_t *out, uint64_t n)
{
	store_fn *store = (store_fn *)(uintptr_t)setup[0];
	void *port = (void *)(uintptr_t)setup[1];

	for (uint64_t i = 0; i < n; i++)
		out[i] = (uint64_t)store(port, in[i], 8, in[i]);
}

static inline uint64_t load64(uint64_t host, uint64_t offset)
{
	return *(const uint64_t *)(uintptr_t)(host + offset);
}

/* setup: host address of RAM, its size */
void ram_load(const uint64_t *setup, const uint64_t *in, uint64_t *out, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		out[i] = in[i] < setup[1] ? load64(setup[0], in[i]) : UINT64_MAX;
}

/* setup: HPA of the window, its size, host address of each of 4 devices; granularity 256 bytes */
void window_load(const uint64_t *setup, const uint64_t *in, uint64_t *out, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		uint64_t offset = in[i] - setup[0];

		out[i] = offset < setup[1] ?
			load64(setup[2 + (offset >> 8 & 3)], offset >> 10 << 8 | (offset & 255)) :
			UINT64_MAX;
	}
}

static inline void store64(uint64_t host, uint64_t offset, uint64_t value)
{
	*(uint64_t *)(uintptr_t)(host + offset) = value;
}

/* setup as ram_load; `out` is nonzero where it failed */
void ram_store(const uint64_t *setup, const uint64_t *in, uint64_t *out, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		out[i] = in[i] >= setup[1];
		if (!out[i])
			store64(setup[0], in[i], in[i]);
	}
}

/* setup as window_load; `out` is nonzero where it failed */
void window_store(const uint64_t *setup, const uint64_t *in, uint64_t *out, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		uint64_t offset = in[i] - setup[0];

		out[i] = offset >= setup[1];
		if (!out[i])
			store64(setup[2 + (offset >> 8 & 3)], offset >> 10 << 8 | (offset & 255), in[i]);
	}
}

/* mmu_io_read_fn: a device whose every register holds its own offset plus the context. */
int device_read(void *ctx, uint64_t offset, uint32_t size, uint64_t *value)
{
	(void)size;
	*value = (uint64_t)(uintptr_t)ctx + offset;
	return 0;
}
