// Stores behind the data area, where nothing is mapped, and has no handler: a Data Abort with WnR set.
	.globl	_start
_start:
	mov	x2, #0x1234
	str	x2, [x0]
	add	x3, x0, x1
	str	x2, [x3, #0x128]
	wfi
