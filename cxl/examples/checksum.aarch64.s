// Fills 16 KiB of the data area with byte i = (13 * i + (i >> 8)) & 255, sends unaligned 8-byte accesses across every
// 256-byte boundary, sums it all up. X0 at the end: the sum; at the start: the data area.
	.equ	SIZE, 0x4000
	.globl	_start
_start:
	mov	x3, #0
	mov	w4, #13
fill:
	mul	w5, w3, w4
	add	w5, w5, w3, lsr #8
	strb	w5, [x0, x3]
	add	x3, x3, #1
	cmp	x3, #SIZE
	b.lo	fill

	// Inverted and inverted back: the buffer ends as it was.
	mov	x3, #(256 - 3)
	mov	x6, #(SIZE - 8)
cross:
	ldr	x5, [x0, x3]
	mvn	x5, x5
	str	x5, [x0, x3]
	ldr	x5, [x0, x3]
	mvn	x5, x5
	str	x5, [x0, x3]
	add	x3, x3, #256
	cmp	x3, x6
	b.lo	cross

	mov	x2, #0
	mov	x3, #0
sum:
	ldr	x5, [x0, x3]
	eor	x2, x5, x2, ror #57
	add	x3, x3, #8
	cmp	x3, #SIZE
	b.lo	sum
	mov	x0, x2
	wfi
