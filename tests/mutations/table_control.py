"""Mistakes in what control registers and MSRs refuse, in C and in the twin of models, and in how the FPU starts."""

from tests.mutations import Mutation

SITES = "csrc/guest_site_x86.c"
C, TWIN, DECODE = "csrc/guest_control.c", "mmu/guest/x86_control.py", "csrc/decode_x86.c"
STATE = "csrc/state_x86.c"
MSR, SYSTEM = "csrc/guest_msr.c", "csrc/guest_x86_system.c"
TWIN_SYSTEM, CPU = "mmu/guest/x86_system.py", "mmu/guest/x86.py"


def tests(word: str) -> tuple[str, ...]:
    return ("tests/guest/test_control_registers.py", "-k", word)


REFUSED, TAKEN = tests("test_a_value_that_no_cpu_holds"), tests("test_a_value_that_a_cpu_holds")
FLOATING = ("tests/guest/test_floating.py",)
CODE32 = tests("test_code_of_32_bits")
PCIDS = tests("test_pcids")

MUTATIONS = (
    Mutation("control: nothing is refused", SITES, "\tif (verdict != X86_RUNS) {\n\t\tguest_refuse(",
             "\tif (verdict != X86_RUNS && !i.opcode) {\n\t\tguest_refuse(", REFUSED),
    Mutation("control: what is refused runs all the same", "csrc/guest_hook.c",
             "\tguest_stop(g, kind);\n\tg->c.engine.emu_stop(g->c.engine.uc);\n", "\tguest_stop(g, kind);\n", REFUSED),
    Mutation("control: CR0 has no reserved bits", C, "\tif ((value & X86_CR0_RESERVED) || (", "\tif ((", REFUSED),
    Mutation("control: paging needs no protection", C, "((value & X86_CR0_PG) && !(value & X86_CR0_PE)) ||",
             "((value & X86_CR0_PG) && !value) ||", REFUSED),
    Mutation("control: NW needs no CD", C, "!(value & X86_CR0_CD)))", "!value))", REFUSED),
    Mutation("control: NW is not for CD either", C, "!(value & X86_CR0_CD)))", "(value & X86_CR0_NW)))", TAKEN),
    Mutation("control: 64-bit code turns paging off", C, " && !x86_is_wide(g, now);", ";", REFUSED),
    Mutation("control: nobody turns paging off", C, "return !(now->cr4 & X86_CR4_PCIDE) && !x86_is_wide(g, now);",
             "return false;", tests("test_long_mode_is_left")),
    Mutation("control: long mode without PAE", C, "(now->cr4 & X86_CR4_PAE) && may_enter", "may_enter",
             CODE32),
    Mutation("control: paging needs PAE", C, "(value & ~now->cr0 & X86_CR0_PG) && (now->efer & X86_EFER_LME)",
             "value & ~now->cr0 & X86_CR0_PG",
             tests("test_paging_of_32_bits")),
    Mutation("control: pointers are masked", C, "(X86_CR3_RESERVED | X86_CR3_LAM_U57 | X86_CR3_LAM_U48)",
             "(X86_CR3_RESERVED | X86_CR3_LAM_U48)", REFUSED),
    Mutation("control: a root may be anywhere", C, "(X86_CR3_RESERVED | ", "(", REFUSED),
    Mutation("control: bit 63 of CR3 needs no PCIDs", C,
             " && (!(value & X86_CR3_NOFLUSH) || (now->cr4 & X86_CR4_PCIDE))", "", REFUSED),
    Mutation("control: bit 63 of CR3 is never there", C, "(!(value & X86_CR3_NOFLUSH) || (now->cr4 & X86_CR4_PCIDE))",
             "!(value & X86_CR3_NOFLUSH)", tests("test_with_pcids")),
    Mutation("control: the CPU has protection keys", C, "X86_CR4_SMEP | X86_CR4_SMAP)",
             "X86_CR4_SMEP | X86_CR4_SMAP | X86_CR4_PKE)", REFUSED),
    Mutation("control: the CPU has no SMAP", C, "X86_CR4_SMEP | X86_CR4_SMAP)", "X86_CR4_SMEP)", TAKEN),
    Mutation("control: PAE is cleared in long mode", C, " || (long_mode && !(value & X86_CR4_PAE)))", ")", REFUSED),
    Mutation("control: PAE is never cleared", C, "(long_mode && !(value & X86_CR4_PAE))", "!(value & X86_CR4_PAE)",
             CODE32),
    Mutation("control: PCIDs at any CR3", C, "(!long_mode || (now->cr3 & CR3_PCID))", "!long_mode", PCIDS),
    Mutation("control: PCIDs outside of long mode", C, "(!long_mode || (now->cr3 & CR3_PCID))",
             "(now->cr3 & CR3_PCID)", CODE32),
    Mutation("control: PCIDs that are on are turned on", C, "(value & ~now->cr4 & X86_CR4_PCIDE)",
             "(value & X86_CR4_PCIDE)", tests("test_with_pcids")),
    Mutation("control: EFER takes what it is given", MSR, "return !(value & ~EFER_BITS) && (", "return (", REFUSED),
    Mutation("control: LME changes while paging is on", MSR, " && (!(now->cr0 & X86_CR0_PG) || !((value ^ now->efer) & "
             "X86_EFER_LME))", "", REFUSED),
    Mutation("control: LME never changes", MSR, "(!(now->cr0 & X86_CR0_PG) || !((value ^ now->efer) & X86_EFER_LME))",
             "!((value ^ now->efer) & X86_EFER_LME)", ("tests/guest/test_multiboot.py", "-k", "long_mode")),
    Mutation("control: LMA is reserved", MSR, "X86_EFER_LME | X86_EFER_LMA | ", "X86_EFER_LME | ", TAKEN),
    Mutation("control: addresses have no upper half", MSR, "ADDRESS: return x86_is_canonical(value);",
             "ADDRESS: return !(value >> 47);", TAKEN),
    Mutation("control: WRMSR writes RAX", SYSTEM, "general(q, RDX) << 32 | (uint32_t)general(q, RAX)",
             "(uint32_t)general(q, RAX)", REFUSED),
    Mutation("control: INC and DEC are prefixes", SYSTEM, "i->any_rex ? X86_RUNS : judge", "i->vex ? X86_RUNS : judge",
             CODE32),
    Mutation("control: a REX that counts for nothing is none", DECODE, "\t\ti.any_rex |= is_rex(*b.at);\n",
             "\t\ti.any_rex = is_rex(*b.at);\n", tests("test_a_write_that_is_refused_is_not")),
    Mutation("control: code of 32 bits has registers of 64", SYSTEM, "wide ? value : (uint32_t)value",
             "wide ? value : value", CODE32),
    Mutation("control: compatibility mode is 64-bit code", STATE,
             "(now->efer & X86_EFER_LMA) && x86_in_64_bit_code(g)", "now->efer & X86_EFER_LMA",
             tests("test_long_mode_is_left")),
    Mutation("control: CR8 is CR0", DECODE, "i.control = i.reg | (p.rex & 4) << 1;", "i.control = i.reg;", TAKEN),
    Mutation("control: R10 is RDX", DECODE, "i.rm = (modrm & 7) | (p.rex & 1) << 3;", "i.rm = modrm & 7;", REFUSED),
    Mutation("control: a MOV to memory", DECODE, " && (i.opcode ^ OP_MOV_CR) > 3;", ";", tests("test_the_mod_bits")),
    Mutation("control: the model writes what it is given", TWIN_SYSTEM, "    if to in MOVES and not move_permitted(",
             "    if to not in MOVES and not move_permitted(", REFUSED),
    Mutation("control: the model asks nobody about an MSR", TWIN_SYSTEM, "if permitted else Verdict.REFUSED",
             "if permitted else Verdict.RUNS", REFUSED),
    Mutation("control: the twin turns PCIDs on at any CR3", TWIN, "(not long_mode or cr3 & CR3_PCID)",
             "not long_mode", PCIDS),
    Mutation("control: the twin clears PG in 64-bit code", TWIN, "not cpu.in_64_bit_code and ", "", REFUSED),
    Mutation("floating: no exception is masked", CPU, '"fpcw": 0x37F', '"fpcw": 0x340', FLOATING),
    Mutation("floating: single precision", CPU, '"fpcw": 0x37F', '"fpcw": 0x07F', FLOATING),
    Mutation("floating: the stack is full", CPU, '"fptag": 0xFFFF', '"fptag": 0', FLOATING),
    Mutation("floating: no SSE exception is masked", CPU, '"mxcsr": 0x1F80', '"mxcsr": 0', FLOATING),
)
