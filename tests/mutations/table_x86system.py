"""Mistakes in system instructions of x86: which MSRs there are, and what is carried out beside the engine."""

from tests.mutations import Mutation

FORMAT, MSR, TWIN_MSR = "mmu/guest/format.py", "csrc/guest_msr.c", "mmu/guest/x86_msr.py"
SYSTEM, DONE, TWIN = "csrc/guest_x86_system.c", "csrc/system_x86.c", "mmu/guest/x86_system.py"
DELIVER, STATE, SITE, CPU = "csrc/deliver_x86.c", "csrc/state_x86.c", "csrc/guest_site.c", "mmu/guest/x86.py"


def msrs(word: str = "") -> tuple[str, ...]:
    return ("tests/guest/test_msrs.py", "-k", word) if word else ("tests/guest/test_msrs.py",)


def calls(word: str) -> tuple[str, ...]:
    return ("tests/guest/test_fast_calls.py", "-k", word)


TWINS = msrs("test_c_has")

MUTATIONS = (
    Mutation("x86system: WRMSR is not looked at without a row", MSR, "if (!m || (value", "if (m && (value",
             msrs("has_not")),
    Mutation("x86system: RDMSR reads what nobody has", SYSTEM, "i->opcode == OP_RDMSR ? !guest_msr_exists(number) : ",
             "i->opcode == OP_RDMSR ? false : ", msrs("has_not")),
    Mutation("x86system: no reserved bits", MSR, "if (!m || (value & m->reserved))", "if (!m)", msrs("cannot_hold")),
    Mutation("x86system: MTRRCAP is written", MSR, "READ_ONLY: return false;", "READ_ONLY: return true;",
             msrs("cannot_hold")),
    Mutation("x86system: the PAT has MTRR types", MSR, "PAT: return are_types(value, 8, pat_types, sizeof(pat_types));",
             "PAT: return are_types(value, 8, mtrr_types, sizeof(mtrr_types));", msrs("holds_is_read")),
    Mutation("x86system: one type of eight counts", MSR, "TYPES: return are_types(value, 8,",
             "TYPES: return are_types(value, 1,", msrs("cannot_hold")),
    Mutation("x86system: all registers of a range", MSR, " && !((number - m->first) % m->step))", ")", TWINS),
    Mutation("x86system: the twin has all of a range", TWIN_MSR, " and not (number - m.first) % m.step)", ")",
             msrs("twice")),
    Mutation("x86system: the twin holds any type", TWIN_MSR, "            return value & 0xFF in MTRR_TYPES",
             "            return True", TWINS),
    Mutation("x86system: the clock is the engine's", SYSTEM, "number == MSR_CLOCK ? X86_OURS : X86_RUNS", "X86_RUNS",
             msrs("clock")),
    Mutation("x86system: programs have a clock register", SYSTEM, "\tif (now->cpl)\n", "\tif (now->cpl > 3)\n",
             msrs("no_msrs")),
    Mutation("x86system: the clock cannot be set", DONE, "\t\tg->time = get_general(g, RDX)",
             "\t\tg->time += 0 & get_general(g, RDX)", msrs("clock")),
    Mutation("x86system: the twin sets half of the clock", TWIN, "lib.mmu_guest_set_time(cpu.guest, _pair(cpu))",
             "lib.mmu_guest_set_time(cpu.guest, _pair(cpu) & HALF)", msrs("clock")),
    Mutation("x86system: RDPMC is left to the engine", SYSTEM, "OP_RDPMC: return X86_REFUSED;",
             "OP_RDPMC: return X86_RUNS;", msrs("counters")),
    Mutation("x86system: no hook on RDPMC", SITE, " case OP_RDPMC & 0xff:", "", msrs("counters")),
    Mutation("x86system: LOCK is no matter", SYSTEM, "is_judged(i) && i->lock", "is_judged(i) && i->vex", msrs("lock")),
    Mutation("x86system: SYSENTER leaves IF", DONE, "GUEST_RFLAGS_VM | GUEST_RFLAGS_IF", "GUEST_RFLAGS_VM",
             calls("enters_the_kernel")),
    Mutation("x86system: the twin's SYSENTER leaves IF", TWIN, " | Rflags.IF.mask", "", calls("enters_the_kernel")),
    Mutation("x86system: SYSENTER into segment 0", SYSTEM, "!(guest_msr(g, MSR_SYSENTER_CS) & ~UINT64_C(3))",
             "!guest_msr(g, MSR_SYSENTER_CS)", calls("without_a_segment")),
    Mutation("x86system: SYSENTER takes the RPL", DONE, "(selector & 0xfffc) | cpl", "selector | cpl",
             calls("enters_the_kernel")),
    Mutation("x86system: SYSENTER of 32 bits has long addresses", DONE,
             "guest_msr(g, MSR_EFER) & X86_EFER_LMA ? UINT64_MAX : UINT32_MAX", "UINT64_MAX", calls("protected_mode")),
    Mutation("x86system: programs exit", SYSTEM, "i->opcode == OP_SYSEXIT && (now->cpl || ",
             "i->opcode == OP_SYSEXIT && (", calls("refused_to_programs")),
    Mutation("x86system: SYSEXIT to anywhere", SYSTEM, "!x86_is_canonical(general(g, RCX)) ||", "",
             calls("not_canonical")),
    Mutation("x86system: the twin's SYSEXIT to anywhere", TWIN, "canonical(cpu.read(\"rdx\"))", "True",
             calls("not_canonical")),
    Mutation("x86system: SYSEXIT of 32 bits to long addresses", DONE, "i->wide ? UINT64_MAX : UINT32_MAX", "UINT64_MAX",
             calls("program_of_32_bits")),
    Mutation("x86system: SYSEXIT to the kernel's segments", DONE, "selector + (i->wide ? 32 : 16)", "selector + 16",
             calls("64_bit_program")),
    Mutation("x86system: SYSEXIT keeps its privilege", DONE, "FLAT_CODE : FLAT_CODE_32, 3)",
             "FLAT_CODE : FLAT_CODE_32, 0)", calls("has_no_privilege")),
    Mutation("x86system: code of 32 bits is 64-bit code", STATE, "mode |= MODE_32 | (", "mode |= MODE_64 | (",
             calls("program_of_32_bits")),
    Mutation("x86system: the twin's code of 32 bits is 64-bit code", CPU, "(MODE_64 if wide else MODE_32)", "MODE_64",
             calls("program_of_32_bits")),
    Mutation("x86system: nothing traps that is not the engine's", DELIVER, "x86_carry_out(g, pc) && stepped(g, pc)",
             "x86_carry_out(g, pc)", calls("stepped")),
)
