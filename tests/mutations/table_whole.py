"""Mistakes in accesses that reach the bus as a whole."""

from tests.mutations import Mutation

WHOLE, FILE = ("tests/guest/test_whole.py",), "csrc/guest_whole.c"

MUTATIONS = (
    Mutation("whole: the words around an unaligned load are read as well", FILE,
             "w->end = first == hpa ? hpa + n : first + 2 * n;", "w->end = hpa + n;", WHOLE),
    Mutation("whole: an access that leaves its page is one", FILE,
             " ||\n\t    !n || n > 8 || n & (n - 1) || (hpa & (GUEST_PAGE - 1)) + n > GUEST_PAGE)",
             " ||\n\t    !n || n > 8 || n & (n - 1))", WHOLE),
    Mutation("whole: the upper half of a load is the lower one", FILE,
             "(w->value >> (8 * (hpa + i - w->hpa)) & 0xff)", "(w->value >> (8 * (hpa + i - w->hpa) % 32) & 0xff)",
             WHOLE),
    Mutation("whole: a store comes in pieces as well", FILE,
             "_acted(g);\n\treturn true;\n", "_acted(g);\n\treturn type == ENGINE_READ;\n", WHOLE),
    Mutation("whole: the next run has it too", "mmu/guest/cpu.py",
             "        while not whole and self._whole_hooks:\n", "        while not whole and not self._whole_hooks:\n",
             WHOLE),
)
