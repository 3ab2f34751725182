"""Mistakes about where a guest stands when a device raises."""

from tests.mutations import Mutation

FILE = "tests/guest/test_raising_devices.py"
TOLD = (FILE, "-k", "not_at_all")
LOST = (FILE, "-k", "lose_an_interrupt or trap_behind")

MUTATIONS = (
    Mutation("raise: registers stay as they are", "csrc/guest_bus.c",
             "\t\tguest_stop(g, MMU_GUEST_CALLBACK);\n\t\tguest_undo(g);\n",
             "\t\tguest_refuse(g, MMU_GUEST_CALLBACK);\n", (FILE,)),
    Mutation("raise: an atomic instruction stands at its block", "csrc/guest_whole.c",
             "g->phase != GUEST_ATOMIC || guest_is_device(g, hpa)", "g->phase != GUEST_ATOMIC", (FILE,)),
    Mutation("raise: MXCSR is looked at in the device", "csrc/guest_x86.c", "guest_is_device(g, t.pa.v) || mmu",
             "mmu", (FILE,)),
    Mutation("raise: an INT that raises is done", "csrc/deliver_x86.c",
             "\t\t\tif (d.event.software)\n\t\t\t\tg->stop.pc = d.pc;\n", "", LOST),
    Mutation("raise: an INT that raises is done, in the reference", "mmu/guest/x86_delivery.py",
             'cpu.write("rip", pc - _interrupt_length(cpu, event.vector, pc))', "pass", LOST),
    Mutation("raise: a SYSCALL that is undefined and raises is done", "csrc/deliver_x86.c", "\t\tg->stop.pc = at;\n",
             "", LOST),
    Mutation("raise: a SYSCALL that is undefined and raises is done, in the reference", "mmu/guest/x86.py",
             '            self.write("rip", at)\n', "", LOST),
    Mutation("raise: a SYSENTER that is stepped is not done", "csrc/deliver_x86.c", "\tg->stop.pc = *pc;\n", "", LOST),
    Mutation("raise: a SYSENTER that is stepped is not done, in the reference", "mmu/guest/x86.py",
             '        self.write("rip", pc)\n        return', "        return", LOST),
    Mutation("raise: a look that raises finds nothing", "csrc/guest.h", "\tg->raised |= rc == MMU_ECALLBACK;\n",
             "\t(void)g;\n", TOLD),
    Mutation("raise: a fault is delivered as far as it is known", "csrc/guest_run.c",
             "if (g->raised && (g->stop.kind == MMU_GUEST_FAULT || g->stop.kind == MMU_GUEST_BUS_ERROR))", "if (0)",
             TOLD),
    Mutation("raise: a fault is delivered as what it seems to be", "csrc/deliver_x86.c",
             "g->raised ? MMU_ECALLBACK : x86_enter", "x86_enter", TOLD),
)
