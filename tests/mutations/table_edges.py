"""Mistakes at the edges of pages: operands of two of them, loads that are too long, strings."""

from tests.mutations import Mutation

SITES = "csrc/guest_site_x86.c"
DELIVER, X86 = "csrc/deliver_x86.c", "csrc/guest_x86.c"
DECODE, TWIN = "csrc/decode_x86.c", "mmu/guest/x86_decode.py"
TESTS = ("tests/guest/test_page_edges.py",)

MUTATIONS = (
    Mutation("edges: the second page is asked first", DELIVER, "\t\tif (writes)\n", "\t\tif (0)\n", TESTS),
    Mutation("edges: the fault of two pages is at the second", DELIVER, "\tg->stop.va = at;\n", "", TESTS),
    Mutation("edges: the fault of the first page has the code of the second", DELIVER,
             "\tg->stop.x86 = first.x86;\n", "",
             TESTS),
    Mutation("edges: the twin asks the second page first", TWIN, "if writes else again", "if False else again", TESTS),
    Mutation("edges: bits of a string are in the first operand", X86, "\tif (!x86_bit_string(i))\n", "\tif (1)\n",
             TESTS),
    Mutation("edges: the twin has bits of a string in the first operand", TWIN, "// bits * last.size", "// bits * 0",
             TESTS),
    Mutation("edges: offsets of words count doublewords", X86, "i->short_operand ? (uint64_t)", "0 ? (uint64_t)",
             TESTS),
    Mutation("edges: loads may be too long", X86, ".loads_too_much = x86_loads_too_much, ", "", TESTS),
    Mutation("edges: an operand's second page is surplus", X86, "((behind - 1) & GUEST_PAGE_MASK) != stop->va && ", "",
             TESTS),
    Mutation("edges: CVTPD2DQ has an operand of 8 bytes", DECODE, "i->repeated == X86_REP ?", "i->repeated ?", TESTS),
    Mutation("edges: CVTPD2PS has an operand of 8 bytes", DECODE, "\t\treturn bare ? 8 : 0;", "\t\treturn 8;", TESTS),
    Mutation("edges: what is surplus once is so for ever", "csrc/guest_run.c", "\tg->surplus = 0;\n", "", TESTS),
    Mutation("edges: a comparison that faults has the flags of its last round", SITES, "\t\tg->flags = s->flags;\n",
             "\t\t;\n", TESTS),
    Mutation("edges: a search goes on for ever", SITES, "\t\ts->under_way = false;\n", "", TESTS),
    Mutation("edges: strings are compared without a site", "csrc/guest_scan_x86.c",
             "\t\treturn may_be_repeated(code, at) ? 1 : NO_SITE;\n", "\t\treturn NO_SITE;\n", TESTS),
    Mutation("edges: a prefix of DS means no stack", DECODE, "i->stack_base = !i->segment &&",
             "i->stack_base = !memchr(b->at - 6, 0x3e, 6) &&", TESTS),
)
