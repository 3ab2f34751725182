"""Mistakes in accesses that reach the bus as a whole."""

from tests.mutations import Mutation

WHOLE, FILE = ("tests/guest/test_whole.py",), "csrc/guest_whole.c"

MUTATIONS = (
    Mutation("whole: the words around an unaligned load are read as well", FILE,
             "size <= room && first != hpa ? 2 * size : size", "size", WHOLE),
    Mutation("whole: an access that leaves its page is one", FILE, "size < room ? size : (uint32_t)room",
             "size", WHOLE),
    Mutation("whole: all of the next page's words is loaded", FILE, "g->whole.rest > at ? g->whole.rest - at : 0", "8",
             WHOLE),
    Mutation("whole: the next page is loaded as it comes", FILE, "\tw->rest = size - w->size;\n", "", WHOLE),
    Mutation("whole: a store that leaves its page is one", FILE, ".kind = leaves ? 0 : ENGINE_WRITE",
             ".kind = leaves ? ENGINE_WRITE : ENGINE_WRITE", WHOLE),
    Mutation("whole: a store has the bytes of its last piece", FILE, "\tw->value |= value << ",
             "\tw->value = value << ", WHOLE),
    Mutation("whole: the upper half of a load is the lower one", FILE,
             "(w->value >> (8 * (hpa + i - w->hpa)) & 0xff)", "(w->value >> (8 * (hpa + i - w->hpa) % 32) & 0xff)",
             WHOLE),
    Mutation("whole: a store comes in pieces as well", FILE, "\tif (!wants(g, hpa) || w->kind != ENGINE_WRITE ||",
             "\tif (!wants(g, hpa) || g ||", WHOLE),
    Mutation("whole: the bytes of a store are stores", FILE,
             "\tif (w->kind != ENGINE_WRITE || hpa < w->first || hpa >= w->end)\t/*",
             "\tif (w)\t/*", WHOLE),
    Mutation("whole: windows are as well", "csrc/guest_memory.c", "whole = g->in_whole;", ";", WHOLE),
    Mutation("whole: windows never are", "csrc/guest_memory.c", "whole = g->in_whole;", "whole = false;", WHOLE),
    Mutation("whole: devices are windows", "csrc/guest_memory.c", "\tbool whole = true;\n",
             "\tbool whole = g->in_whole;\n", WHOLE),
)
