# Fills 16 KiB of the data area with byte i = (13 * i + (i >> 8)) & 255, sends unaligned 8-byte accesses across every
# 256-byte boundary, sums it all up. RAX: the sum. RDI: the data area.
	.intel_syntax noprefix
	.equ SIZE, 0x4000
	.globl _start
_start:
	xor	ecx, ecx
fill:
	imul	eax, ecx, 13
	mov	edx, ecx
	shr	edx, 8
	add	eax, edx
	mov	[rdi+rcx], al
	inc	ecx
	cmp	ecx, SIZE
	jb	fill

	# Inverted and inverted back: the buffer ends as it was.
	mov	ecx, 256 - 3
cross:
	mov	rax, [rdi+rcx]
	not	rax
	mov	[rdi+rcx], rax
	not	qword ptr [rdi+rcx]
	add	ecx, 256
	cmp	ecx, SIZE - 8
	jb	cross

	xor	eax, eax
	xor	ecx, ecx
sum:
	rol	rax, 7
	xor	rax, [rdi+rcx]
	add	ecx, 8
	cmp	ecx, SIZE
	jb	sum
	hlt
