/* What a port keeps of the accesses that went through it: a trace, and counts for each device. */
#include "bus.h"
#include "piece.h"

void mmu_port_trace(mmu_port *port, struct mmu_trace_entry *entries, uint64_t capacity)
{
	port->trace = NULL;
	port->trace_capacity = entries ? capacity : 0;
	port->trace_used = 0;
	port->trace = entries;
}

uint64_t mmu_port_trace_used(const mmu_port *port)
{
	return port->trace_used;
}

static uint64_t singles(const uint64_t single[5], bool bytes)
{
	uint64_t sum = 0;

	for (uint32_t size = 1; size <= 8; size *= 2)
		sum += single[size / 2] * (bytes ? size : 1);
	return sum;
}

void mmu_port_traffic(const mmu_port *port, uint32_t target, struct mmu_traffic *ret)
{
	const struct port_count *c = &port->counts[target];

	*ret = (struct mmu_traffic){ 0 };
	if (target >= port->targets)
		return;
	ret->reads = singles(c->single[0], false) + c->blocks[0];
	ret->writes = singles(c->single[1], false) + c->blocks[1];
	ret->read_bytes = singles(c->single[0], true) + c->block_bytes[0];
	ret->write_bytes = singles(c->single[1], true) + c->block_bytes[1];
}

void port_record(mmu_port *port, struct mmu_trace_entry entry)
{
	/* Negative, and cut to 8 bits: the device failed, and the reason is not the guest's. */
	if (entry.result & 0x80)
		entry.result = MMU_MEMTX_ERROR;
	if (port->trace_used < port->trace_capacity)
		port->trace[port->trace_used] = entry;
	port->trace_used++;
}
