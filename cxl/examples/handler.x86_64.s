# Builds a GDT and an IDT in the data area, then stores three times to where nothing is mapped. The page fault handler
# sends each store into the data area instead. RAX: the sum of what was stored, 1 + 2 + 3. RCX: how many faults there were.
	.intel_syntax noprefix
	.equ	GDT, 0x1000
	.equ	IDT, 0x2000
	.equ	POINTERS, 0x1800
	.equ	PAGE_FAULT, 14
	.globl _start
_start:
	mov	rax, 0x00af9a000000ffff		# 64-bit code, at selector 8
	mov	[rdi+GDT+8], rax
	mov	rax, 0x00cf92000000ffff		# data, at selector 16
	mov	[rdi+GDT+16], rax

	lea	rax, [rip+handler]
	mov	[rdi+IDT+16*PAGE_FAULT], ax		# offset 15:0
	mov	word ptr [rdi+IDT+16*PAGE_FAULT+2], 8	# code segment
	mov	word ptr [rdi+IDT+16*PAGE_FAULT+4], 0x8e00	# present, interrupt gate
	shr	rax, 16
	mov	[rdi+IDT+16*PAGE_FAULT+6], ax		# offset 31:16
	shr	rax, 16
	mov	[rdi+IDT+16*PAGE_FAULT+8], eax		# offset 63:32

	mov	word ptr [rdi+POINTERS], 23
	lea	rax, [rdi+GDT]
	mov	[rdi+POINTERS+2], rax
	lgdt	[rdi+POINTERS]
	mov	word ptr [rdi+POINTERS], 16*PAGE_FAULT+15
	lea	rax, [rdi+IDT]
	mov	[rdi+POINTERS+2], rax
	lidt	[rdi+POINTERS]

	xor	ecx, ecx
	mov	edx, 1
store:
	lea	rbx, [rdi+rsi]
	mov	[rbx+rdx*8], rdx
	inc	edx
	cmp	edx, 3
	jbe	store

	mov	rax, [rdi+8]
	add	rax, [rdi+16]
	add	rax, [rdi+24]
	hlt

handler:
	inc	ecx
	mov	rbx, rdi
	add	rsp, 8			# the error code
	iretq
