"""Mistakes in how machines share memory, and in how one of them is asked to stop.

Those in who runs alone need luck to be seen in a run: tests/memory/test_exclusive_model.py and tests/c have them.
"""

from tests.mutations import Mutation

ATOMIC, RUN, SITE, FILL = "csrc/guest_atomic.c", "csrc/guest_run.c", "csrc/guest_site.c", "csrc/guest_fill.c"
GUEST = "csrc/guest.c"


def shared(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/guest/test_shared_memory.py::{name}" for name in names)


LOST = shared("test_an_update_that_comes_in_between_is_not_overwritten")
LATE = shared("test_a_machine_that_comes_when_another_runs")
WAITS = shared("test_a_device_that_waits_for_another_machine_stops_nobody")
STOPPED = ("tests/regress/test_a_stop_from_outside_repeats_an_instruction.py",)

MUTATIONS = (
    Mutation("shared: every machine believes that it is alone", "mmu/guest/sharing.py",
             "    return [other for other in others if", "    return [other for other in others[:0] if", LOST),
    Mutation("shared: an atomic instruction stores although it was lost", ATOMIC,
             "\tg->atomic.lost = true;\n", "\tg->atomic.lost = false;\n", LOST),
    Mutation("shared: XCHG needs a LOCK", SITE,
             "(i->lock || i->opcode == OP_XCHG || i->opcode == OP_XCHG + 1)", "i->lock",
             LOST),
    Mutation("shared: a store-exclusive is not atomic", ATOMIC,
             "(word & 0x3fc00000) == 0x08000000;", "word == 0;", LOST),
    Mutation("shared: an atomic instruction counts twice", RUN, "\t\tif (g->counted_at == pc)\n", "\t\tif (!pc)\n",
             shared("test_an_instruction_limit_counts_each_once")),
    Mutation("shared: an atomic instruction changes code unseen", FILL,
             "\tif (code && (permissions & ENGINE_MAY_WRITE))\n\t\tg->code_stale = true;\n", "",
             shared("test_atomic_instructions_on_a_page_of_code")),
    Mutation("shared: the registers of an instruction that was lost stay changed", RUN,
             "\t\te->context_restore(e->uc, g->c.context);\n\t\tg->stop.pc = pc;\n", "\t\tg->stop.pc = pc;\n",
             LOST),
    Mutation("shared: what no compare-and-exchange covers is stored as it is", ATOMIC,
             "\tif (!a->size || a->alone)\n", "\tif (!a->size || a->alone || hpa != a->hpa + a->stored_size)\n", LOST),
    Mutation("shared: CASPA is not atomic", ATOMIC,
             "(word & 0xbfe07c00) == 0x08607c00", "word == 1", LOST),
    Mutation("shared: a machine that runs does not learn of another", GUEST,
             "\t\tother->shared = true;\n", "\t\tother->shared = other->closed;\n", LATE),
    Mutation("shared: a machine that runs keeps its code when another comes", GUEST,
             "\t\tother->code_stale = true;\t/*", "\t\tother->code_stale = other->closed;\t/*", LATE),
    Mutation("shared: who waits for a device holds up all others", "csrc/piece.h",
             "\treturn port->exclusive && exclusive_pause(port->exclusive);\n",
             "\treturn port->exclusive && port->trace && exclusive_pause(port->exclusive);\n", WAITS),
    Mutation("shared: a run ends wherever it is", GUEST,
             "&g->interrupted, true, memory_order_release);\n\texclusive_call(&g->exclusive);\n",
             "&g->interrupted, true, memory_order_release);\n\tg->c.engine.emu_stop(g->c.engine.uc);\n", STOPPED),
    Mutation("shared: a guest learns of new decoders when it happens to look", "csrc/bus.c",
             "\t\tif (port->exclusive)\t/*", "\t\tif (port->trace)\t/*",
             ("tests/guest/test_decommit_services.py", "-k", "only_looks")),
)
