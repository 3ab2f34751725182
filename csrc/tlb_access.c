/* Accesses through the softmmu TLB: every page is translated before any byte is touched. */
#include "hostfile.h"
#include "memory.h"
#include "tlb.h"

/* The largest power of two, at most 8, that is aligned at `address` and fits in `size`. */
static uint32_t piece_size(uint64_t address, uint64_t size)
{
	uint64_t n = (address | 8) & -(address | 8);

	while (n > size)
		n /= 2;
	return (uint32_t)n;
}

/* Host memory of the part, while the map is still the one that the part was translated under. */
static uint8_t *host_of(mmu_port *port, const struct mmu_tlb_part *part)
{
	return !port->trace && part->generation == tlb_generation(port) && !hostfile_any_failed() ? part->host : NULL;
}

/* The bus refused a piece. MMU_OK where the CPU does not notice. */
static int bus_error(struct mmu_tlb *tlb, int result, uint64_t va, enum tlb_kind kind,
		     struct mmu_tlb_fault *fault)
{
	tlb->stats.bus_errors++;
	if (!tlb->cpu.bus_error_faults)
		return MMU_OK;
	fault->va = va;
	fault->kind = MMU_FAULT_BUS;
	fault->access = UINT32_C(1) << kind;
	fault->on_data = 1;
	fault->result = (uint8_t)result;
	return MMU_FAULTED;
}

static int read_part(struct mmu_tlb *tlb, mmu_port *port, const struct mmu_tlb_part *part,
		     uint8_t *data, enum tlb_kind kind, struct mmu_tlb_fault *fault)
{
	const uint8_t *host = host_of(port, part);

	for (uint64_t done = 0; done < part->size;) {
		uint32_t n = piece_size(part->pa + done, part->size - done);
		uint64_t value = 0;
		int rc = MMU_OK;

		if (host)
			value = memory_load(host + done, n);
		if (!host || hostfile_any_failed()) {	/* of this page, perhaps: the port finds out */
			tlb->stats.bus += !!(part->flags & MMU_TLB_MMIO);
			rc = mmu_port_load(port, part->pa + done, n, &value);
			if (rc > 0)
				rc = bus_error(tlb, rc, part->va + done, kind, fault);
			if (rc != MMU_OK)
				return rc;
		}
		memcpy(data + done, &value, n);
		done += n;
	}
	return MMU_OK;
}

static int write_part(struct mmu_tlb *tlb, mmu_port *port, const struct mmu_tlb_part *part,
		      const uint8_t *data, struct mmu_tlb_fault *fault)
{
	uint8_t *host;

	if ((part->flags & MMU_TLB_DISCARD_WRITE) && part->generation == tlb_generation(port)) {
		tlb->stats.discarded += part->size;
		return MMU_OK;
	}
	host = host_of(port, part);
	for (uint64_t done = 0; done < part->size;) {
		uint32_t n = piece_size(part->pa + done, part->size - done);
		uint64_t value = 0;
		int rc = MMU_OK;

		memcpy(&value, data + done, n);
		if (host)
			memory_store(host + done, n, value);
		if (!host || hostfile_any_failed()) {
			tlb->stats.bus += !!(part->flags & MMU_TLB_MMIO);
			rc = mmu_port_store(port, part->pa + done, n, value);
			if (rc > 0)
				rc = bus_error(tlb, rc, part->va + done, TLB_WRITE, fault);
			if (rc != MMU_OK)
				return rc;
		}
		done += n;
	}
	return MMU_OK;
}

/* The port is entered, and the host addresses in parts[] are good until it is left. */
static int translate(struct mmu_tlb *tlb, mmu_port *port, uint64_t va, uint64_t size,
		     enum tlb_kind kind,
		     struct mmu_tlb_part *parts, uint64_t space, uint64_t *count_ret, struct mmu_tlb_fault *fault)
{
	uint64_t count = 0;

	while (size) {
		uint64_t here = TLB_PAGE - (va & (TLB_PAGE - 1));
		int rc;

		if (here > size)
			here = size;
		if (count == space)
			return MMU_ERANGE;
		rc = tlb_part(tlb, port, va, here, kind, &parts[count++], fault);
		if (rc != MMU_OK)
			return rc;
		va += here;
		size -= here;
	}
	*count_ret = count;
	return MMU_OK;
}

int tlb_read(struct mmu_tlb *tlb, mmu_port *port, uint64_t va, uint8_t *data, uint64_t size,
	     enum tlb_kind kind,
	     struct mmu_tlb_part *parts, uint64_t part_count, struct mmu_tlb_fault *fault)
{
	uint64_t count = 0;
	int rc = translate(tlb, port, va, size, kind, parts, part_count, &count, fault);

	for (uint64_t i = 0; i < count && rc == MMU_OK; i++) {
		rc = read_part(tlb, port, &parts[i], data, kind, fault);
		data += parts[i].size;
	}
	return rc;
}

int tlb_write(struct mmu_tlb *tlb, mmu_port *port, uint64_t va, const uint8_t *data, uint64_t size,
	      struct mmu_tlb_part *parts, uint64_t part_count, struct mmu_tlb_fault *fault)
{
	uint64_t count = 0;
	int rc = translate(tlb, port, va, size, TLB_WRITE, parts, part_count, &count, fault);

	for (uint64_t i = 0; i < count && rc == MMU_OK; i++) {
		rc = write_part(tlb, port, &parts[i], data, fault);
		data += parts[i].size;
	}
	return rc;
}

int mmu_tlb_read(mmu_tlb *tlb, mmu_port *port, uint64_t va, uint8_t *data, uint64_t size,
		 uint32_t access,
		 struct mmu_tlb_part *parts, uint64_t part_count, struct mmu_tlb_fault *fault)
{
	struct port_read read;
	int rc;

	if (access != MMU_ACCESS_READ && access != MMU_ACCESS_FETCH)
		return MMU_ERANGE;
	read = port_enter(port);
	rc = tlb_read(tlb, port, va, data, size, access == MMU_ACCESS_FETCH ? TLB_FETCH : TLB_READ,
		      parts, part_count, fault);
	port_leave(port, read);
	return rc;
}

int mmu_tlb_write(mmu_tlb *tlb, mmu_port *port, uint64_t va, const uint8_t *data, uint64_t size,
		  struct mmu_tlb_part *parts, uint64_t part_count, struct mmu_tlb_fault *fault)
{
	struct port_read read = port_enter(port);
	int rc = tlb_write(tlb, port, va, data, size, parts, part_count, fault);

	port_leave(port, read);
	port_wrote(port);
	return rc;
}
