/*
 * What MOV to a control register and WRMSR refuse with #GP(0), before they write anything. The engine takes it all.
 * Source: Intel SDM vol. 2, 'MOV - Move to/from Control Registers', 'WRMSR'; vol. 3A, 'Control Registers', 'Extended
 * Feature Enable Register', 'IA-32e Mode Related Control Registers'. Twin of mmu/guest/x86_control.py.
 */
#include "decode_x86.h"
#include "deliver_x86.h"

enum { CR8_BITS = 15, CR3_PCID = 0xfff };
enum { MSR_SYSENTER_ESP = 0x175, MSR_SYSENTER_EIP = 0x176, MSR_CSTAR = 0xc0000083u,
       MSR_KERNEL_GS_BASE = 0xc0000102u };

/* Of this CPU: no UMIP, 5-level paging, VMX, SMX, protection keys, CET, user interrupts, LASS, LAM or FRED. */
#define CR4_BITS (X86_CR4_VME | X86_CR4_PVI | X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE | X86_CR4_PAE | X86_CR4_MCE | \
		  X86_CR4_PGE | X86_CR4_PCE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_FSGSBASE | \
		  X86_CR4_PCIDE | X86_CR4_OSXSAVE | X86_CR4_SMEP | X86_CR4_SMAP)
/* LMA is the CPU's own: what is written there counts for nothing. */
#define EFER_BITS (X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE)
#define CR3_UPPER (X86_CR3_RESERVED | X86_CR3_LAM_U57 | X86_CR3_LAM_U48)

/* Whether this is 64-bit code. To find out takes longer than all the rest, so it is asked only where that matters. */
static bool is_wide(struct mmu_guest *g, const struct mmu_x86_regs *now)
{
	return (now->efer & X86_EFER_LMA) && x86_in_64_bit_code(g);
}

static bool cr0_permitted(struct mmu_guest *g, const struct mmu_x86_regs *now, uint64_t value)
{
	if ((value & X86_CR0_RESERVED) || ((value & X86_CR0_PG) && !(value & X86_CR0_PE)) ||
	    ((value & X86_CR0_NW) && !(value & X86_CR0_CD)))
		return false;
	if (now->cr0 & ~value & X86_CR0_PG)
		return !(now->cr4 & X86_CR4_PCIDE) && !is_wide(g, now);
	if (value & ~now->cr0 & X86_CR0_PG)
		return !(now->efer & X86_EFER_LME) || (now->cr4 & X86_CR4_PAE);
	return true;
}

static bool cr3_permitted(const struct mmu_x86_regs *now, uint64_t value)
{
	return !(value & CR3_UPPER) && (!(value & X86_CR3_NOFLUSH) || (now->cr4 & X86_CR4_PCIDE));
}

static bool cr4_permitted(const struct mmu_x86_regs *now, uint64_t value)
{
	bool long_mode = now->efer & X86_EFER_LMA;

	if ((value & ~CR4_BITS) || (long_mode && !(value & X86_CR4_PAE)))
		return false;
	return !(value & ~now->cr4 & X86_CR4_PCIDE) || (long_mode && !(now->cr3 & CR3_PCID));
}

static bool msr_permitted(const struct mmu_x86_regs *now, uint32_t number, uint64_t value)
{
	switch (number) {
	case MSR_EFER:
		return !(value & ~EFER_BITS) && (!(now->cr0 & X86_CR0_PG) || !((value ^ now->efer) & X86_EFER_LME));
	case MSR_SYSENTER_ESP: case MSR_SYSENTER_EIP: case MSR_LSTAR: case MSR_CSTAR:
	case MSR_FS_BASE: case MSR_GS_BASE: case MSR_KERNEL_GS_BASE:
		return x86_is_canonical(value);
	case MSR_SFMASK: case MSR_TSC_AUX:
		return !(value >> 32);
	}
	return true;
}

static uint32_t half(struct mmu_guest *g, uint32_t number)
{
	return (uint32_t)guest_register(g, g->c.ids.general[number]);
}

static bool move_permitted(struct mmu_guest *g, const struct mmu_x86_regs *now, uint32_t control, uint64_t value)
{
	switch (control) {
	case 0: return cr0_permitted(g, now, value);
	case 3: return cr3_permitted(now, value);
	case 4: return cr4_permitted(now, value);
	case 8: return !(value & ~(uint64_t)CR8_BITS);
	}
	return true;			/* there is no other one */
}

/* Whether the instruction, which comes next, may write what it is about to. What is none of these may. */
bool guest_control_permitted(struct mmu_guest *g, const struct x86_instruction *i)
{
	bool move = i->opcode == OP_MOV_CR;
	struct mmu_x86_regs now;
	uint64_t value;

	if (i->vex || (!move && i->opcode != OP_WRMSR))
		return true;
	now = guest_x86_registers(g);
	value = move ? guest_register(g, g->c.ids.general[i->rm]) : (uint64_t)half(g, RDX) << 32 | half(g, RAX);
	if (move ? move_permitted(g, &now, i->control, value) : msr_permitted(&now, half(g, RCX), value))
		return true;
	if (is_wide(g, &now))
		return false;
	if (i->any_rex)
		return true;		/* INC or DEC, and not this instruction yet */
	return move && move_permitted(g, &now, i->control, (uint32_t)value);
}
