# Adds to a quadword behind the data area, where nothing is mapped, and has no handler: a page fault whose error code
# says "write", because the instruction writes what it reads.
	.intel_syntax noprefix
	.globl _start
_start:
	mov	eax, 0x1234
	mov	[rdi], rax
	add	qword ptr [rdi+rsi+0x123], 1
	hlt
