/*
 * The bus: an immutable map of physical addresses behind one pointer, and ports
 * through which initiators (a CPU, a walker, a DMA engine, the host) use it.
 *
 * This file and every other *_api.h is read twice: by the C compiler, through
 * mmu.h, and verbatim by cffi's cdef(). So: declarations only, no #include, no
 * macro, no inline function.
 *
 * Zero is success, positive is an outcome for the guest, negative is misuse by
 * the host. Results go through pointers named ret or *_ret, untouched on failure.
 */
typedef struct mmu_bus mmu_bus;
typedef struct mmu_port mmu_port;
typedef struct mmu_route mmu_route;

enum mmu_status {
	MMU_OK = 0,
	MMU_FAULTED = 1,
	MMU_ENOMEM = -1,
	MMU_EOVERLAP = -2,
	MMU_ERANGE = -3,
	MMU_ECALLBACK = -4,	/* a host callback failed; the host holds the reason */
	MMU_EHOST = -5		/* the operating system refused; errno says why */
};

/* Both return a set of MMU_MEMTX_* bits, or MMU_ECALLBACK; others count as MMU_MEMTX_ERROR, negative ones as
   MMU_ECALLBACK. Size is 1, 2, 4 or 8; *value is 0 at first. */
typedef int mmu_io_read_fn(void *ctx, uint64_t offset, uint32_t size, uint64_t *value);
typedef int mmu_io_write_fn(void *ctx, uint64_t offset, uint32_t size, uint64_t value);
/* Whether the region takes an access: nonzero, 0, or MMU_ECALLBACK. */
typedef int mmu_io_accepts_fn(void *ctx, uint64_t offset, uint32_t size, uint32_t write);

/* An MMIO region. An access that `accepts` or valid_min..valid_max refuses, or unaligned where that is
   not allowed, ends with DECODE_ERROR, the device uncalled; one outside impl_min..impl_max is adjusted.
   While a callback of a region with a guard runs, an access by the same thread to a region with the
   same guard ends with ACCESS_ERROR, the device uncalled. Callbacks may run on several threads at once. */
struct mmu_io {
	mmu_io_read_fn *read;		/* NULL: reads give 0 */
	mmu_io_write_fn *write;		/* NULL: writes are dropped */
	mmu_io_accepts_fn *accepts;	/* NULL: all */
	void *ctx;
	const void *guard;		/* tells devices apart, never followed; NULL: none */
	uint32_t valid_min, valid_max, impl_min, impl_max;	/* bytes, powers of two, at most 8 */
	uint32_t unaligned;					/* nonzero: unaligned accesses are valid */
	uint32_t big_endian;					/* nonzero: so are the device's values */
};

enum mmu_range_kind {
	MMU_RANGE_RAM = 0,
	MMU_RANGE_ROM = 1,		/* writes go to `io`, or are dropped where that is NULL */
	MMU_RANGE_IO = 2,
	MMU_RANGE_STRIPED = 3
};

/* first..last (inclusive) of the bus answers as `kind`; `offset` is the offset of `first` in its region. */
struct mmu_range {
	uint64_t first, last, offset;
	uint32_t kind;
	uint32_t region;		/* the host's number of the region */
	void *host;			/* RAM, ROM: address of the region's byte 0 */
	const struct mmu_io *io;	/* IO; ROM: NULL, or what takes the writes */
	const mmu_route *route;		/* STRIPED; HPA = route base + offset in the region */
	uint64_t unused;		/* up to a line of the host's cache */
};

/* Device memory behind a window. A port counts traffic under `number`. `places`, of the memory that `host`
   and `size` are, says where the bytes live; NULL: there, and nothing of it ever moves. */
struct mmu_target { uint8_t *host; uint64_t size; uint32_t number; mmu_places *places; };

enum mmu_slot_kind {
	MMU_SLOT_DEVICE = 0,
	MMU_SLOT_NO_DEVICE = 1,		/* reads err, writes are dropped */
	MMU_SLOT_REFUSED = 2		/* reads and writes err */
};

/* A device's decoder: DPA = dpa + ((HPA - base) >> (granularity_shift + ways_shift) / (mod3 ? 3 : 1)
   << granularity_shift) + (HPA - base) mod granularity. See mmu/stripes.py, Slot. */
struct mmu_slot {
	uint64_t base, dpa;
	uint32_t target;
	uint8_t kind, granularity_shift, ways_shift, mod3;
};

/* See mmu/stripes.py, Span. slot_first is an index into the route's slots. */
struct mmu_span {
	uint64_t first, last, granule;
	uint32_t slot_first, slot_count;
	uint8_t shift, bits, map_count, mod3_shift;	/* mod3_shift 0: none */
	uint64_t maps[4];
};

/* Copies everything it is given. `base` is the HPA of the region's byte 0.
   MMU_ERANGE when a span, slot or target is out of range or spans are not sorted. */
int mmu_route_create(uint64_t base, const struct mmu_span *spans, uint32_t span_count,
		     const struct mmu_slot *slots, uint32_t slot_count,
		     const struct mmu_target *targets, uint32_t target_count, mmu_route **ret);
void mmu_route_destroy(mmu_route *route);
/* MMU_OK and (target, dpa), or 1 + enum mmu_slot_kind of the miss: 2 or 3. */
int mmu_route_locate(const mmu_route *route, uint64_t hpa, uint32_t *target_ret, uint64_t *dpa_ret);

int mmu_bus_create(mmu_bus **ret);
/* The memory goes with the last port. */
void mmu_bus_destroy(mmu_bus *bus);
/* Replaces the whole map. Ranges are sorted by `first` and do not overlap. What they point to must
   live until mmu_bus_reclaim() has returned the generation that the next publish gave, or a later one. */
int mmu_bus_publish(mmu_bus *bus, const struct mmu_range *ranges, uint32_t count, uint64_t *generation_ret);
/* Whether the map may show some memory at more than one place, through two windows or as RAM and through a window: guests
   then look for code that is stored to at another one. Said before such a map is published, withdrawn after it is gone. */
void mmu_bus_set_aliased(mmu_bus *bus, bool aliased);
/* Frees what no reader can hold any more. Maps replaced at or before the generation that comes back are gone. */
uint64_t mmu_bus_reclaim(mmu_bus *bus);
/* Maps that were replaced and are not freed yet. */
uint32_t mmu_bus_retired(mmu_bus *bus);

enum mmu_trace_kind { MMU_TRACE_READ = 0, MMU_TRACE_WRITE = 1, MMU_TRACE_EXCHANGE = 2 };

/* One access as the initiator made it, before it is split. `value` is what was read or written;
   of an exchange, `value` is what was there and `desired` what was offered. */
struct mmu_trace_entry {
	uint64_t address, value, desired;
	uint8_t size, kind;
	uint8_t result;			/* MMU_MEMTX_* bits */
	uint8_t stored;			/* of an exchange: nonzero when it took place */
};

/* What reached one device through striped windows. Exact while one thread uses the port. */
struct mmu_traffic { uint64_t reads, writes, read_bytes, write_bytes; };

/* For one thread at a time. A port counts traffic of targets whose number is below `targets`; others go uncounted. */
int mmu_port_create(mmu_bus *bus, uint32_t targets, mmu_port **ret);
void mmu_port_destroy(mmu_port *port);
/* Records into entries[0..capacity-1] from now on; NULL ends it. `used` counts on past capacity. */
void mmu_port_trace(mmu_port *port, struct mmu_trace_entry *entries, uint64_t capacity);
uint64_t mmu_port_trace_used(const mmu_port *port);
/* Of target number `target`; zeroes for one that is not counted. */
void mmu_port_traffic(const mmu_port *port, uint32_t target, struct mmu_traffic *ret);

/* Single accesses of 1, 2, 4 or 8 bytes at any alignment, values in host byte order.
   Return MMU_MEMTX_* bits or MMU_ECALLBACK; bytes that could not be read are zero. */
int mmu_port_load(mmu_port *port, uint64_t address, uint32_t size, uint64_t *value_ret);
int mmu_port_store(mmu_port *port, uint64_t address, uint32_t size, uint64_t value);
/* Compare and exchange of 4 or 8 aligned bytes; *old_ret is what was there (it took place when that is `expected`).
   Atomic in RAM and device memory; on IO a read, then, when equal, a write. */
int mmu_port_exchange(mmu_port *port, uint64_t address, uint32_t size, uint64_t expected,
		      uint64_t desired, uint64_t *old_ret);
/* Blocks of any length; not traced. Bytes that could not be read are zero (after a negative result, anything).
   IO sees aligned accesses, as wide as it takes. */
int mmu_port_read(mmu_port *port, uint64_t address, void *data, uint64_t size);
int mmu_port_write(mmu_port *port, uint64_t address, const void *data, uint64_t size);
/* Length (bytes, at most `size`) and host address of the run of RAM (or, to read, ROM) at `address`;
   0 when it is none, or a page in it failed. Valid until the next publish. Windows have no such run: they are
   counted. Who uses it looks at hostfile_failed() afterwards. */
uint64_t mmu_port_host(mmu_port *port, uint64_t address, uint64_t size, bool write, uint8_t **host_ret);
