/*
 * Serial ports: a 16550 and a PL011, for guests that poll them. What is sent is kept, up to a capacity; what
 * is received the host gives beforehand. There is no line and no interrupt controller: sending takes no time,
 * and interrupts are shown as pending but interrupt nobody.
 *
 * The callbacks may run on several threads; bytes sent at the same time come in some order.
 */
typedef struct mmu_uart mmu_uart;

/* At most `capacity` bytes of output and as many of input that waits; MMU_ENOMEM. */
int mmu_uart_create(uint32_t capacity, mmu_uart **ret);
void mmu_uart_destroy(mmu_uart *uart);
/* Output: *lost_ret bytes more were sent than there was room for. The bytes are good until the next call. */
const uint8_t *mmu_uart_output(const mmu_uart *uart, uint32_t *count_ret, uint64_t *lost_ret);
/* Forgets the output. Not while a guest may be sending. */
void mmu_uart_clear(mmu_uart *uart);
/* Bytes to be received; how many there was room for. Not while a guest may be receiving. */
uint32_t mmu_uart_feed(mmu_uart *uart, const uint8_t *data, uint32_t size);
/* What waits to be received. The bytes are good until the next call. */
const uint8_t *mmu_uart_input(const mmu_uart *uart, uint32_t *count_ret);

/* What else a port remembers. */
struct mmu_uart_state {
	uint64_t sent;			/* bytes, also those that there was no room for */
	uint32_t capacity;
	uint32_t stored[15];		/* of the PL011: its words */
	uint8_t scratch[8], divisor[2], fifo;	/* of the 16550 */
};
void mmu_uart_save(const mmu_uart *uart, struct mmu_uart_state *ret);
/* Becomes what mmu_uart_save(), _output() and _input() told. MMU_ERANGE, and nothing changed, when it is of another
   capacity or the output is not as long as that says. Not while a guest may use it. */
int mmu_uart_restore(mmu_uart *uart, const struct mmu_uart_state *state, const uint8_t *output, uint32_t output_size,
		     const uint8_t *input, uint32_t input_size);

/* mmu_io_read_fn and mmu_io_write_fn; ctx: a mmu_uart. The 16550 takes single bytes at 0..7, the PL011 4 bytes. */
int mmu_uart_16550_read(void *ctx, uint64_t offset, uint32_t size, uint64_t *value);
int mmu_uart_16550_write(void *ctx, uint64_t offset, uint32_t size, uint64_t value);
int mmu_uart_pl011_read(void *ctx, uint64_t offset, uint32_t size, uint64_t *value);
int mmu_uart_pl011_write(void *ctx, uint64_t offset, uint32_t size, uint64_t value);
