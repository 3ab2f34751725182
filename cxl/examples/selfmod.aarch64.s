// Rewrites an instruction ten times, with the cache maintenance and barriers that the architecture asks for.
// X0: 0 + 1 + ... + 9.
	.globl	_start
_start:
	adr	x2, patched
	mov	x0, #0
	mov	x3, #0
	mov	w4, #0x5			// mov x5, #0 is 0xd2800005; the immediate is bits 20:5
	movk	w4, #0xd280, lsl #16
again:
	add	w5, w4, w3, lsl #5
	str	w5, [x2]
	dc	cvau, x2
	dsb	ish
	ic	ivau, x2
	dsb	ish
	isb
patched:
	mov	x5, #0x1111
	add	x0, x0, x5
	add	x3, x3, #1
	cmp	x3, #10
	b.lo	again
	wfi
