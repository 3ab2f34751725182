# Rewrites the instruction that it is about to run, ten times: x86 sees that at once. RAX: 0 + 1 + ... + 9.
	.intel_syntax noprefix
	.globl _start
_start:
	xor	eax, eax
	xor	ecx, ecx
again:
	mov	[rip+patched+1], ecx
patched:
	mov	edx, 0x11111111
	add	rax, rdx
	inc	ecx
	cmp	ecx, 10
	jb	again
	hlt
