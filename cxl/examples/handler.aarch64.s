// Sets exception vectors, then stores three times to where nothing is mapped. The handler sends each store into the
// data area instead. X0: the sum of what was stored, 1 + 2 + 3. X9: how many faults there were.
	.globl	_start
_start:
	adr	x2, vectors
	msr	vbar_el1, x2
	isb
	mov	x9, #0
	mov	x3, #1
store:
	add	x8, x0, x1
	str	x3, [x8, x3, lsl #3]
	add	x3, x3, #1
	cmp	x3, #3
	b.ls	store

	ldr	x4, [x0, #8]
	ldp	x5, x6, [x0, #16]
	add	x0, x4, x5
	add	x0, x0, x6
	wfi

	.balign	2048
vectors:
	.skip	0x200			// current EL with SP_EL0: not used
	add	x9, x9, #1		// current EL with SP_ELx, synchronous
	mov	x8, x0
	eret
