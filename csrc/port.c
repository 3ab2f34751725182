/*
 * Ports: how an initiator reaches what the bus maps. No lock, no allocation.
 *
 * A single access is cut into naturally aligned pieces of at most 8 bytes, the largest first that
 * fits at each address; an aligned piece is single-copy atomic in RAM and device memory.
 */
#include "port.h"
#include "bus.h"
#include "hostfile.h"
#include "memory.h"
#include "piece.h"
#include "window.h"

static bool size_valid(uint32_t size)
{
	return size <= 8 && (0x116u >> size & 1);	/* 1, 2, 4, 8 */
}

/*
 * A load or a store goes one of four ways, tried in this order when it is aligned and nobody traces: the
 * largest run of RAM, inline; the span of a window that the port used last; the same where the span
 * needs more than shifts; anything. All but the first are out of line, so that the first saves no
 * registers, and end the reading that the first began; within a reading of the caller's (a walker's, a
 * device's callback) the first two go by a way that begins and ends none. Few stores, so that a load
 * that misses the caches keeps few of the processor's store buffers from the next one.
 *
 * After each access to memory one look at a word that is 0 until a page of a file fails; see hostfile.h.
 */
#define OUT_OF_LINE __attribute__((noinline))
#define ALWAYS_INLINE inline __attribute__((always_inline))

static inline bool ordinary(const mmu_port *port, uint64_t address, uint32_t size)
{
	return !(address & (size - 1)) && !port->trace;
}

/* The host address of an ordinary access in the largest run of RAM, else NULL. */
static inline uint8_t *plain_ram(const struct mmu_map *map, uint64_t address)
{
	uint64_t offset = address - map->ram.first;

	return offset <= map->ram.span && map->ram.host ? map->ram.host + offset : NULL;
}

/* Not counted. */
#define NO_DEVICE UINT32_MAX

/* ---- loads ---- */

static int load(mmu_port *port, const struct mmu_map *map, uint64_t address, uint32_t size,
		uint64_t *ret)
{
	int result = MMU_MEMTX_OK;

	if (!(address & (size - 1)))
		return piece_load(port, map, address, size, ret);
	*ret = 0;
	for (uint32_t done = 0; done < size;) {
		uint32_t n = piece_size(address + done, size - done);
		uint64_t part;
		int rc = piece_load(port, map, address + done, n, &part);

		if (rc < 0)
			return rc;
		result |= rc;
		*ret |= part << (8 * done);
		done += n;
	}
	return result;
}

static OUT_OF_LINE int load_any(mmu_port *port, struct port_read read,
					      uint64_t address, uint32_t size, uint64_t *ret)
{
	uint64_t value = 0;
	int rc = MMU_ERANGE;

	if (address + (size - 1) >= address)
		rc = load(port, read.map, address, size, &value);
	port_leave(port, read);
	if (rc == MMU_ERANGE)
		return rc;
	if (port->trace)
		port_record(port, (struct mmu_trace_entry){ .address = address, .value = value,
			.size = (uint8_t)size, .kind = MMU_TRACE_READ, .result = (uint8_t)rc });
	if (rc >= 0)
		*ret = value;
	return rc;
}

/* The end of a load of memory when pages of files have failed: of this one, perhaps. */
static OUT_OF_LINE int end_suspect_load(mmu_port *port, struct port_read read, const uint8_t *host,
					uint32_t device, uint32_t size, uint64_t *ret)
{
	bool failed = hostfile_hit(host, size);

	if (failed)
		*ret = 0;
	else
		window_count(port, device, false, size);
	port_leave(port, read);
	return failed ? MMU_MEMTX_ERROR : MMU_MEMTX_OK;
}

/* A load of aligned memory, and all that follows it. */
static ALWAYS_INLINE int end_load(mmu_port *port, struct port_read read, const uint8_t *host,
				  uint32_t device, uint32_t size, uint64_t *ret)
{
	*ret = memory_load_aligned(host, size);
	if (hostfile_any_failed())
		return end_suspect_load(port, read, host, device, size, ret);
	if (device != NO_DEVICE)
		window_count(port, device, false, size);
	port_leave(port, read);
	return MMU_MEMTX_OK;
}

/* An ordinary access, to a device unless it is to something else. */
static OUT_OF_LINE int load_device(mmu_port *port, struct port_read read, uint64_t address,
				   uint32_t size, uint64_t *ret)
{
	const struct mmu_range *r = piece_device(read.map, address, size);
	uint64_t value;
	int rc;

	if (!r)
		return load_any(port, read, address, size, ret);
	rc = port_io_load(port, r->io, r->offset + (address - r->first), size, &value);
	port_leave(port, read);
	if (rc >= 0)
		*ret = value;
	return rc;
}

/* An ordinary access, whatever the index of the span's slots is made of. */
static OUT_OF_LINE int load_striped(mmu_port *port, struct port_read read,
				     const struct map_window *w, uint64_t address, uint32_t size,
				     uint64_t *ret)
{
	const struct mmu_target *target;
	uint8_t *host = window_piece(&read.map->ranges[w->range], address, size, &target);

	if (!host)
		return load_any(port, read, address, size, ret);
	return end_load(port, read, window_wait(port, target->places, host), target->number, size, ret);
}

static ALWAYS_INLINE int load_in_window(mmu_port *port, struct port_read read, uint64_t address,
					 uint32_t size, uint64_t *ret)
{
	const struct map_window *w = last_window(port, read.map, address);
	const struct route_slot *slot;
	uint64_t hpa, at;

	if (!w)
		return load_device(port, read, address, size, ret);
	hpa = w->hpa + (address - w->first);
	slot = window_slot(w, hpa);
	at = slot_offset(slot, hpa);
	if (at >= slot->room)
		return load_striped(port, read, w, address, size, ret);
	return end_load(port, read, window_wait(port, slot->places, slot->host + at), slot->number, size, ret);
}

static OUT_OF_LINE int load_window(mmu_port *port, const struct mmu_map *map, uint64_t address,
				    uint32_t size, uint64_t *ret)
{
	return load_in_window(port, (struct port_read){ map, true, false }, address, size, ret);
}

static OUT_OF_LINE int load_nested(mmu_port *port, struct port_read read, uint64_t address,
				    uint32_t size, uint64_t *ret)
{
	const uint8_t *host = plain_ram(read.map, address);

	if (!ordinary(port, address, size))
		return load_any(port, read, address, size, ret);
	if (!host)
		return load_in_window(port, read, address, size, ret);
	return end_load(port, read, host, NO_DEVICE, size, ret);
}

int mmu_port_load(mmu_port *port, uint64_t address, uint32_t size, uint64_t *ret)
{
	struct port_read read;
	const uint8_t *host;

	if (!size_valid(size))
		return MMU_ERANGE;
	read = port_enter(port);
	if (!read.outer)
		return load_nested(port, read, address, size, ret);
	if (!ordinary(port, address, size))
		return load_any(port, read, address, size, ret);
	host = plain_ram(read.map, address);
	if (!host)
		return load_window(port, read.map, address, size, ret);
	return end_load(port, read, host, NO_DEVICE, size, ret);
}

/* ---- stores ---- */

static int store(mmu_port *port, const struct mmu_map *map, uint64_t address, uint32_t size,
		 uint64_t value)
{
	int result = MMU_MEMTX_OK;

	if (!(address & (size - 1)))
		return piece_store(port, map, address, size, value);
	for (uint32_t done = 0; done < size;) {
		uint32_t n = piece_size(address + done, size - done);
		int rc = piece_store(port, map, address + done, n, value >> (8 * done));

		if (rc < 0)
			return rc;
		result |= rc;
		done += n;
	}
	return result;
}

static OUT_OF_LINE int store_any(mmu_port *port, struct port_read read,
					       uint64_t address, uint32_t size, uint64_t value)
{
	int rc = MMU_ERANGE;

	if (address + (size - 1) >= address)
		rc = store(port, read.map, address, size, value);
	port_leave(port, read);
	port_wrote(port);
	if (port->trace && rc != MMU_ERANGE)
		port_record(port, (struct mmu_trace_entry){ .address = address,
			.value = value & mask_of(size), .size = (uint8_t)size,
			.kind = MMU_TRACE_WRITE, .result = (uint8_t)rc });
	return rc;
}

static OUT_OF_LINE int end_suspect_store(mmu_port *port, struct port_read read, const uint8_t *host,
					 uint32_t device, uint32_t size)
{
	bool failed = hostfile_hit(host, size);

	if (!failed)
		window_count(port, device, true, size);
	port_leave(port, read);
	port_wrote(port);
	return failed ? MMU_MEMTX_ERROR : MMU_MEMTX_OK;
}

static ALWAYS_INLINE int end_store(mmu_port *port, struct port_read read, uint8_t *host, uint32_t device,
				   uint32_t size, uint64_t value)
{
	memory_store_aligned(host, size, value);
	if (hostfile_any_failed())
		return end_suspect_store(port, read, host, device, size);
	if (device != NO_DEVICE)
		window_count(port, device, true, size);
	port_leave(port, read);
	port_wrote(port);
	return MMU_MEMTX_OK;
}

static OUT_OF_LINE int store_device(mmu_port *port, struct port_read read, uint64_t address,
				    uint32_t size, uint64_t value)
{
	const struct mmu_range *r = piece_device(read.map, address, size);
	int rc;

	if (!r)
		return store_any(port, read, address, size, value);
	rc = port_io_store(port, r->io, r->offset + (address - r->first), size, value);
	port_leave(port, read);
	port_wrote(port);
	return rc;
}

static OUT_OF_LINE int store_striped(mmu_port *port, struct port_read read,
				     const struct map_window *w, uint64_t address, uint32_t size,
				     uint64_t value)
{
	const struct mmu_target *target;
	uint8_t *host = window_piece(&read.map->ranges[w->range], address, size, &target);

	if (!host)
		return store_any(port, read, address, size, value);
	return end_store(port, read, window_wait(port, target->places, host), target->number, size, value);
}

static ALWAYS_INLINE int store_in_window(mmu_port *port, struct port_read read, uint64_t address,
					 uint32_t size, uint64_t value)
{
	const struct map_window *w = last_window(port, read.map, address);
	const struct route_slot *slot;
	uint64_t hpa, at;

	if (!w)
		return store_device(port, read, address, size, value);
	hpa = w->hpa + (address - w->first);
	slot = window_slot(w, hpa);
	at = slot_offset(slot, hpa);
	if (at >= slot->room)
		return store_striped(port, read, w, address, size, value);
	return end_store(port, read, window_wait(port, slot->places, slot->host + at), slot->number, size, value);
}

static OUT_OF_LINE int store_window(mmu_port *port, const struct mmu_map *map, uint64_t address,
				    uint32_t size, uint64_t value)
{
	return store_in_window(port, (struct port_read){ map, true, false }, address, size, value);
}

static OUT_OF_LINE int store_nested(mmu_port *port, struct port_read read, uint64_t address,
				    uint32_t size, uint64_t value)
{
	uint8_t *host = plain_ram(read.map, address);

	if (!ordinary(port, address, size))
		return store_any(port, read, address, size, value);
	if (!host)
		return store_in_window(port, read, address, size, value);
	return end_store(port, read, host, NO_DEVICE, size, value);
}

int mmu_port_store(mmu_port *port, uint64_t address, uint32_t size, uint64_t value)
{
	struct port_read read;
	uint8_t *host;

	if (!size_valid(size))
		return MMU_ERANGE;
	read = port_enter(port);
	if (!read.outer)
		return store_nested(port, read, address, size, value);
	if (!ordinary(port, address, size))
		return store_any(port, read, address, size, value);
	host = plain_ram(read.map, address);
	if (!host)
		return store_window(port, read.map, address, size, value);
	return end_store(port, read, host, NO_DEVICE, size, value);
}
