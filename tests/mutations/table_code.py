"""Mistakes in how a machine comes to see code that others stored."""

from tests.mutations import Mutation

KINDS = "csrc/site_x86.h"
CODE = "csrc/guest_code.c"


def machines(*names: str) -> tuple[str, ...]:
    return ("tests/guest/test_code_of_other_machines.py", "-k", " or ".join(names))


HOST = ("tests/guest/test_code_of_others.py", "-k", "loop_ends")
SECOND = ("tests/guest/test_code_of_others.py", "-k", "second_place")
SERIALIZES = machines("behind_what_serializes")
AGAIN = ("tests/guest/test_limit.py", "-k", "begin_again")

STALE = ("tests/guest/test_code.py", "-k", "runs_stale_code")

MUTATIONS = (
    Mutation("code: the engine looks at the first store to a page alone", "csrc/guest_fill.c",
             " &&\n\t       guest_code_see_stores(g, code);", ";", STALE),
    Mutation("code: the engine is asked for a register of another CPU", "csrc/guest_run.c",
             "return g->c.arch == MMU_GUEST_X86_64 ? guest_register(g, g->c.ids.general[number]) : 0;",
             "return guest_register(g, g->c.ids.general[number]);", STALE),
    Mutation("code: nothing serializes", CODE,
             "\tg->look = true;\n\tg->serialized = ", "\tg->serialized = ", SERIALIZES),
    Mutation("code: CPUID does not serialize", "csrc/guest_host.c",
             "\tif (guest_code_serialize(g)) {", "\tif (!uc && guest_code_serialize(g)) {", SERIALIZES),
    Mutation("code: CPUID serializes behind its block", "csrc/guest_host.c",
             "\t\tguest_undo(g);\n\t\treturn 1;\n\t}\n\tif (!row)", "\t\treturn 0;\n\t}\n\tif (!row)",
             machines("in_the_block")),
    Mutation("code: MOV to a debug register does not serialize", KINDS, " case OP_MOV_DR:", "", SERIALIZES),
    Mutation("code: LIDT does not serialize", KINDS, "reg == 2 || reg == 3 ||", "reg == 2 ||", SERIALIZES),
    Mutation("code: IRET does not serialize", KINDS, "case OP_IRET: case OP_INVD:", "case OP_INVD:",
             machines("behind_an_iret")),
    Mutation("code: an IC is not broadcast", "csrc/exclusive.c",
             "\t\tatomic_store_explicit(&e->fetch_anew, true, memory_order_release);\n", "", machines("behind_an_isb")),
    Mutation("code: an IC is seen when the machine looks next", "csrc/exclusive.c",
             "memory_order_release);\n\t\texclusive_call(e);\n", "memory_order_release);\n", machines("behind_an_isb")),
    Mutation("code: IC IALLUIS is none", "csrc/guest_arm64_system.c",
             "r->crm == CRM_IALLUIS || r->crm == CRM_IC", "r->crm == CRM_IC", machines("behind_an_isb")),
    Mutation("code: memory is taken to be at one place alone", "mmu/memory/space.py",
             "            if memory in seen:\n                return True\n",
             "            if memory in seen:\n                return False\n", SECOND),
    Mutation("code: a page is compared by its first block", "csrc/guest_alias.c",
             "uint64_t at = n * PLACE_BLOCK < GUEST_PAGE ? n * PLACE_BLOCK : GUEST_PAGE - 1;",
             "uint64_t at = n / ALIAS_BLOCKS;", SECOND),
    Mutation("code: what is stored elsewhere is code, but the right to store stays", "csrc/guest_fill.c",
             "\tif (elsewhere ||\n", "\tif ((elsewhere && type == ENGINE_WRITE) ||\n", SECOND),
    Mutation("code: a page of RAM has no second place", "csrc/guest_alias.c",
             "\telse if (r->kind == MMU_RANGE_RAM)\n", "\telse if (r->kind == MMU_RANGE_ROM)\n", SECOND),
    Mutation("code: who writes calls no machine", "csrc/bus.h",
             "\t\texclusive_call_all();\n", "\t\t(void)0;\n", HOST),
    Mutation("code: a machine that was called once looks no more", CODE,
             "(g->sharing || atomic_load_explicit(", "(g->sharing && atomic_load_explicit(", HOST),
    Mutation("code: a loop is compared once and no more", CODE,
             "\tguest_code_look_later(g);\n\treturn counted", "\treturn counted", machines("loop_ends")),
    Mutation("code: an instruction that stores to its own block ends before it", "csrc/guest_run.c",
             "\tend = begun_again(g, before, error);\n", "\tend = begun_again(g, before, error) & 0;\n", AGAIN),
    Mutation("code: an instruction that begins again counts again", "csrc/guest_hook.c",
             "\tif (g->again && address", "\tif (!g && address", AGAIN),
    Mutation("code: what the second TLB loses is found in the engine's", "csrc/guest_tlb.c",
             "\tif (g->traced)\n\t\tlose(g);\n", "", ("tests/guest/test_determinism.py", "-k", "clock")),
    Mutation("code: a trace is that of a guest that has hooks", "csrc/guest.c", " || g->traced;", ";",
             ("tests/guest/test_determinism.py", "-k", "ran_the_program_before")),
)
