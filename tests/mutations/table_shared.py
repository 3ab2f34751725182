"""Mistakes in how machines share memory, and in how one of them is asked to stop.

Those in who runs alone need luck to be seen in a run: tests/memory/test_exclusive_model.py and tests/c have them.
"""

from tests.mutations import Mutation

ATOMIC, RUN, FILL = "csrc/guest_atomic.c", "csrc/guest_run.c", "csrc/guest_fill.c"
GUEST, GUEST_H = "csrc/guest.c", "csrc/guest.h"


def shared(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/guest/test_shared_memory.py::{name}" for name in names)


LOST = shared("test_an_update_that_comes_in_between_is_not_overwritten")
LATE = shared("test_a_machine_that_comes_when_another_runs")
COMMON = shared("test_memory_that_becomes_common_while_a_machine_runs")
WAITS = shared("test_a_device_that_waits_for_another_machine_stops_nobody")
STOPPED = ("tests/regress/test_a_stop_from_outside_repeats_an_instruction.py",)

MUTATIONS = (
    Mutation("shared: every machine believes that it is alone", "mmu/guest/sharing.py",
             "    return [other for other in others if", "    return [other for other in others[:0] if", LOST),
    Mutation("shared: an atomic instruction stores although it was lost", ATOMIC,
             "\tg->atomic.lost = true;\n", "\tg->atomic.lost = false;\n", LOST),
    Mutation("shared: XCHG needs a LOCK", "csrc/site_x86.h",
             "(i->lock || i->opcode == OP_XCHG || i->opcode == OP_XCHG + 1)", "i->lock",
             LOST),
    Mutation("shared: a store-exclusive is not atomic", ATOMIC,
             "(word & 0x3fc00000) == 0x08000000;", "word == 0;", LOST),
    Mutation("shared: an atomic instruction counts twice", RUN, "\tif (g->counted_at == pc)\n", "\tif (!pc)\n",
             shared("test_an_instruction_limit_counts_each_once")),
    Mutation("shared: an atomic instruction changes code unseen", FILL,
             "\tif ((code || elsewhere) && (permissions & ENGINE_MAY_WRITE))\n\t\tg->code_stale = true;\n", "",
             shared("test_atomic_instructions_on_a_page_of_code")),
    Mutation("shared: the registers of an instruction that was lost stay changed", RUN,
             "\t\te->context_restore(e->uc, g->c.tried_context);\n\t\tg->stop =", "\t\tg->stop =",
             LOST),
    Mutation("shared: what no compare-and-exchange covers is stored as it is", ATOMIC,
             "\tif (!a->size || a->alone)\n", "\tif (!a->size || a->alone || hpa != a->hpa + a->stored_size)\n", LOST),
    Mutation("shared: CASPA is not atomic", ATOMIC,
             "(word & 0xbfe07c00) == 0x08607c00", "word == 1", LOST),
    Mutation("shared: a machine that runs does not learn of another", GUEST,
             "\tatomic_store_explicit(&g->shared, true, memory_order_relaxed);\n", "", LATE),
    Mutation("shared: a machine that runs keeps its code when another comes", RUN,
             "guest_map_changed(g) || ", "", LATE),
    Mutation("shared: what is left of a block is not atomic when another machine came in its middle", GUEST_H,
             "return guest_map_serial(g) != g->serial || guest_sharing_changed(g);",
             "return guest_map_serial(g) != g->serial;", shared("test_a_machine_that_comes_while_a_device_is_asked")),
    Mutation("shared: a machine that comes while a page table is read is noticed too late", FILL,
             "\tif (guest_sharing_changed(g))\t/*", "\tif (g->closed)\t/*",
             shared("test_a_machine_that_comes_while_a_device_is_asked")),
    Mutation("shared: of two machines that come at once one does not know", "mmu/guest/sharing.py",
             "    with _lock:  # of two", "    with threading.Lock():  # of two",
             shared("test_two_machines_that_come_at_once")),
    Mutation("shared: a machine does not notice that its space shows what others have", "mmu/memory/space.py",
             "                observer.refresh()\n", "                pass\n", COMMON),
    Mutation("shared: others do not learn that a space shows what they have", "mmu/guest/sharing.py",
             "[cpu, *others] if", "[cpu] if", COMMON),
    Mutation("shared: a space that shows what others have tells them alone", "mmu/guest/sharing.py",
             "[cpu, *others] if", "others if", COMMON),
    Mutation("shared: who was told once is never told again", "mmu/guest/sharing.py",
             "(_told.add if others else _told.discard)(cpu)", "_told.add(cpu)", COMMON),
    Mutation("shared: an instruction that was lost when the run ended counts twice", RUN,
             "\t\tg->stop = (struct mmu_guest_stop){ .pc = pc };\n", "\t\tg->stop.pc = pc; g->stop.access = ~0u;\n",
             shared("test_a_stop_while_an_update_is_lost_counts_it_once")),
    Mutation("run: an instruction that was not fetched is taken off the count", RUN,
             " && !(g->stop.access & MMU_ACCESS_FETCH))", ")",
             ("tests/regress/test_a_limit_gives_instructions_away_when_the_memory_map_changes.py",)),
    Mutation("run: a halt is taken for a stop from outside", RUN,
             "\telse if (!exited(g))\n", "\telse if (!requested(g))\n",
             ("tests/regress/test_a_stop_from_outside_swallows_the_halt.py",)),
    Mutation("run: a stop that comes early is forgotten", "mmu/guest/cpu.py",
             "        self.delivered.begin(exceptions)\n",
             "        self.delivered.begin(exceptions)\n        lib.mmu_guest_resume(self.guest)\n",
             ("tests/regress/test_a_stop_before_the_first_instruction_is_forgotten.py",)),
    Mutation("run: a search for an address never ends", "csrc/guest_hook.c",
             "\t\tg->probe.begun = true;\n", "\t\tg->probe.begun = false;\n",
             ("tests/regress/test_a_bus_error_that_goes_away_runs_for_ever.py",)),
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
