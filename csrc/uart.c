/* Serial ports. Sources: National Semiconductor PC16550D data sheet; Arm PrimeCell UART (PL011) TRM, DDI 0183. */
#include <assert.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "mmu.h"

enum { MOST = 1 << 26 };	/* bytes of capacity */
enum uart_16550 { DATA = 0, IER = 1, IIR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6, SCRATCH = 7 };
enum uart_pl011 { UARTDR = 0x000, UARTFR = 0x018, UARTCR = 0x030, UARTIMSC = 0x038, UARTRIS = 0x03c, UARTMIS = 0x040,
		  UARTPERIPHID0 = 0xfe0 };
enum { PL011_STORED = UARTIMSC / 4 + 1, ID_TRANSMITTER = 1, ID_RECEIVED = 2 };

static_assert(PL011_STORED == sizeof(((struct mmu_uart_state *)0)->stored) / sizeof(uint32_t), "all of them");

struct mmu_uart {
	uint32_t capacity;
	_Atomic uint64_t begun, sent;		/* bytes that have a place, and those that are there */
	_Atomic uint32_t received, given;	/* bytes of input that are gone, and all of them */
	_Atomic uint8_t scratch[8];		/* of the 16550: registers that only remember */
	_Atomic uint8_t divisor[2], fifo;
	_Atomic uint32_t stored[PL011_STORED];	/* of the PL011 */
	uint8_t *input, output[];
};

int mmu_uart_create(uint32_t capacity, mmu_uart **ret)
{
	mmu_uart *u;

	if (!capacity || capacity > MOST)
		return MMU_ERANGE;
	u = calloc(1, sizeof(*u) + 2 * (size_t)capacity);
	if (!u)
		return MMU_ENOMEM;
	u->capacity = capacity;
	u->stored[UARTCR / 4] = 0x300;	/* its value after reset: RXE, TXE */
	u->input = u->output + capacity;
	*ret = u;
	return MMU_OK;
}

void mmu_uart_destroy(mmu_uart *u)
{
	free(u);
}

const uint8_t *mmu_uart_output(const mmu_uart *u, uint32_t *count_ret, uint64_t *lost_ret)
{
	uint64_t sent;

	/* Acquire: pairs with the release in send(); when as many are there as were begun, all bytes are seen. */
	while ((sent = atomic_load_explicit(&u->sent, memory_order_acquire)) !=
	       atomic_load_explicit(&u->begun, memory_order_relaxed))
		sched_yield();
	*count_ret = sent < u->capacity ? (uint32_t)sent : u->capacity;
	*lost_ret = sent - *count_ret;
	return u->output;
}

void mmu_uart_clear(mmu_uart *u)
{
	/* Relaxed: nobody sends meanwhile. */
	atomic_store_explicit(&u->begun, 0, memory_order_relaxed);
	atomic_store_explicit(&u->sent, 0, memory_order_relaxed);
}

uint32_t mmu_uart_feed(mmu_uart *u, const uint8_t *data, uint32_t size)
{
	/* Relaxed: nobody receives meanwhile. */
	uint32_t gone = atomic_load_explicit(&u->received, memory_order_relaxed);
	uint32_t waiting = atomic_load_explicit(&u->given, memory_order_relaxed) - gone;

	memmove(u->input, u->input + gone, waiting);
	if (size > u->capacity - waiting)
		size = u->capacity - waiting;
	memcpy(u->input + waiting, data, size);
	atomic_store_explicit(&u->received, 0, memory_order_relaxed);
	/* Release: pairs with the acquires in receive(), has_input() and mmu_uart_input(). */
	atomic_store_explicit(&u->given, waiting + size, memory_order_release);
	return size;
}

const uint8_t *mmu_uart_input(const mmu_uart *u, uint32_t *count_ret)
{
	uint32_t gone = atomic_load_explicit(&u->received, memory_order_relaxed);

	/* Acquire, here and where bytes are received: pairs with the release in mmu_uart_feed(). */
	*count_ret = atomic_load_explicit(&u->given, memory_order_acquire) - gone;
	return u->input + gone;
}

void mmu_uart_save(const mmu_uart *u, struct mmu_uart_state *ret)
{
	*ret = (struct mmu_uart_state){ .sent = u->sent, .capacity = u->capacity, .fifo = u->fifo };
	for (unsigned i = 0; i < PL011_STORED; i++)
		ret->stored[i] = u->stored[i];
	for (unsigned i = 0; i < sizeof(ret->scratch); i++)
		ret->scratch[i] = u->scratch[i];
	for (unsigned i = 0; i < sizeof(ret->divisor); i++)
		ret->divisor[i] = u->divisor[i];
}

int mmu_uart_restore(mmu_uart *u, const struct mmu_uart_state *s, const uint8_t *output, uint32_t output_size,
		     const uint8_t *input, uint32_t input_size)
{
	if (s->capacity != u->capacity || input_size > u->capacity ||
	    output_size != (s->sent < u->capacity ? s->sent : u->capacity))
		return MMU_ERANGE;
	memcpy(u->output, output, output_size);
	memcpy(u->input, input, input_size);
	u->begun = u->sent = s->sent;
	u->received = 0;
	u->given = input_size;
	for (unsigned i = 0; i < PL011_STORED; i++)
		u->stored[i] = s->stored[i];
	for (unsigned i = 0; i < sizeof(s->scratch); i++)
		u->scratch[i] = s->scratch[i];
	for (unsigned i = 0; i < sizeof(s->divisor); i++)
		u->divisor[i] = s->divisor[i];
	u->fifo = s->fifo;
	return MMU_OK;
}

static void send(mmu_uart *u, uint8_t byte)
{
	uint64_t at = atomic_fetch_add_explicit(&u->begun, 1, memory_order_relaxed);

	if (at < u->capacity)
		u->output[at] = byte;
	/* Release: pairs with the acquire in mmu_uart_output(). */
	atomic_fetch_add_explicit(&u->sent, 1, memory_order_release);
}

static bool has_input(mmu_uart *u)
{
	return atomic_load_explicit(&u->received, memory_order_relaxed) <
	       atomic_load_explicit(&u->given, memory_order_acquire);
}

/* The next byte, 0 when there is none. */
static uint8_t receive(mmu_uart *u)
{
	/* Acquire: pairs with the release in mmu_uart_feed(): the bytes are seen. */
	uint32_t given = atomic_load_explicit(&u->given, memory_order_acquire);
	uint32_t at = atomic_load_explicit(&u->received, memory_order_relaxed);

	do {
		if (at >= given)
			return 0;
	} while (!atomic_compare_exchange_weak_explicit(&u->received, &at, at + 1, memory_order_relaxed,
							memory_order_relaxed));
	return u->input[at];
}

/* ---- 16550 ---- */

static uint8_t interrupt_pending(mmu_uart *u)
{
	uint8_t fifo = u->fifo & DEVICE_FCR_ENABLE ? DEVICE_IIR_FIFO : 0;

	if ((u->scratch[IER] & DEVICE_IER_RECEIVED) && has_input(u))
		return fifo | ID_RECEIVED << 1;
	if (u->scratch[IER] & DEVICE_IER_EMPTY)
		return fifo | ID_TRANSMITTER << 1;
	return fifo | DEVICE_IIR_NONE;
}

/* Without a line the peer is there and ready; in the loop it is what this side says. */
static uint8_t modem_status(const mmu_uart *u)
{
	uint8_t out = u->scratch[MCR], status = 0;

	if (!(out & DEVICE_MCR_LOOP))
		return DEVICE_MSR_CTS | DEVICE_MSR_DSR | DEVICE_MSR_DCD;
	status |= out & DEVICE_MCR_RTS ? DEVICE_MSR_CTS : 0;
	status |= out & DEVICE_MCR_DTR ? DEVICE_MSR_DSR : 0;
	status |= out & DEVICE_MCR_OUT1 ? DEVICE_MSR_RI : 0;
	status |= out & DEVICE_MCR_OUT2 ? DEVICE_MSR_DCD : 0;
	return status;
}

int mmu_uart_16550_read(void *ctx, uint64_t offset, uint32_t size, uint64_t *value)
{
	mmu_uart *u = ctx;
	bool divisor = u->scratch[LCR] & DEVICE_LCR_DLAB;

	(void)size;
	switch ((enum uart_16550)(offset & 7)) {
	case DATA: *value = divisor ? u->divisor[0] : receive(u); break;
	case IER: *value = divisor ? u->divisor[1] : u->scratch[IER]; break;
	case IIR: *value = interrupt_pending(u); break;
	case LSR:
		*value = DEVICE_LSR_HOLDING_EMPTY | DEVICE_LSR_EMPTY |
			 (has_input(u) ? DEVICE_LSR_READY : 0);
		break;
	case MSR: *value = modem_status(u); break;
	case LCR: case MCR: case SCRATCH: *value = u->scratch[offset & 7]; break;
	}
	return MMU_MEMTX_OK;
}

static void send_data(mmu_uart *u, uint8_t byte)
{
	if (u->scratch[MCR] & DEVICE_MCR_LOOP)
		mmu_uart_feed(u, &byte, 1);
	else
		send(u, byte);
}

int mmu_uart_16550_write(void *ctx, uint64_t offset, uint32_t size, uint64_t value)
{
	mmu_uart *u = ctx;
	uint8_t byte = (uint8_t)value;
	bool divisor = u->scratch[LCR] & DEVICE_LCR_DLAB;

	(void)size;
	switch ((enum uart_16550)(offset & 7)) {
	case DATA:
		if (divisor)
			u->divisor[0] = byte;
		else
			send_data(u, byte);
		break;
	case IER:
		if (divisor)
			u->divisor[1] = byte;
		else
			u->scratch[IER] = byte & (uint8_t)~DEVICE_IER_RESERVED;
		break;
	case IIR:	/* FCR */
		u->fifo = byte;
		if (byte & DEVICE_FCR_CLEAR_RECEIVER)
			u->received = u->given;
		break;
	case MCR:
		u->scratch[MCR] = byte & (uint8_t)~DEVICE_MCR_RESERVED;
		break;
	case LSR: case MSR:
		break;	/* read-only */
	case LCR: case SCRATCH:
		u->scratch[offset & 7] = byte;
		break;
	}
	return MMU_MEMTX_OK;
}

/* ---- PL011 ---- */

static uint32_t raw_interrupts(mmu_uart *u)
{
	return DEVICE_RIS_TX | (has_input(u) ? DEVICE_RIS_RX : 0);
}

int mmu_uart_pl011_read(void *ctx, uint64_t offset, uint32_t size, uint64_t *value)
{
	static const uint8_t id[8] = { 0x11, 0x10, 0x34, 0x00, 0x0d, 0xf0, 0x05, 0xb1 };
	mmu_uart *u = ctx;

	(void)size;
	offset &= ~UINT64_C(3);
	*value = 0;
	if (offset == UARTDR)
		*value = receive(u);
	else if (offset == UARTFR)
		*value = DEVICE_FR_TXFE | (has_input(u) ? 0 : DEVICE_FR_RXFE);
	else if (offset == UARTRIS)
		*value = raw_interrupts(u);
	else if (offset == UARTMIS)
		*value = raw_interrupts(u) & u->stored[UARTIMSC / 4];
	else if (offset >= UARTPERIPHID0 && offset < UARTPERIPHID0 + 4 * sizeof(id))
		*value = id[(offset - UARTPERIPHID0) / 4];
	else if (offset / 4 < PL011_STORED)
		*value = u->stored[offset / 4];
	return MMU_MEMTX_OK;
}

int mmu_uart_pl011_write(void *ctx, uint64_t offset, uint32_t size, uint64_t value)
{
	mmu_uart *u = ctx;

	(void)size;
	offset &= ~UINT64_C(3);
	if (offset == UARTDR)
		send(u, (uint8_t)value);
	else if (offset != UARTFR && offset / 4 < PL011_STORED)
		u->stored[offset / 4] = (uint32_t)value;
	return MMU_MEMTX_OK;
}
