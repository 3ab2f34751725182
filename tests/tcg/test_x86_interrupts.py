"""Interrupts and exceptions are delivered under the big lock (recipe R3)."""

import pytest

from mmu.tcg import Switches
from tests.tcg.kernel import HANDLER, IDT, Kernel
from tests.tcg.machines import CODE, DATA, WINDOW, bus, kinds

FAULTY = Switches(double_lock=True)
COUNT = "1: inc rbx; cmp rbx, 20; jne 1b; hlt"
RELOCK = "ERROR:../system/cpus.c:556:bql_lock_impl: assertion failed: (!bql_locked())"
WINDOW_PAGE = WINDOW + 0x10_0000


def interrupted(switches, **options):
    k = Kernel(switches, **options).load(COUNT)
    k.machine.interrupt(0x21, after=9)
    return k, k.run()


def test_an_interrupt_comes_between_two_blocks():
    _, result = interrupted(Switches())
    assert result.stop.reason == "halt"
    (event,) = kinds(result, "interrupt")
    assert event.vector == 0x21
    assert (result.registers["rbx"], result.registers["r8"]) == (20, 1)
    assert [(d.exception.vector, d.handler) for d in result.delivered] == [(0x21, HANDLER)]


def test_it_waits_while_interrupts_are_off():
    k = Kernel(Switches()).load("cli; mov ecx, 5; 1: dec ecx; jnz 1b; sti; nop; hlt")
    k.machine.interrupt(0x21, after=2)
    result = k.run()
    (event,) = kinds(result, "interrupt")
    # not before the instruction after STI is done
    assert event.pc == CODE + 12
    assert result.registers["r8"] == 1


def test_a_halted_cpu_waits_for_it():
    k = Kernel(Switches()).load("hlt; inc rbx; hlt")
    k.machine.interrupt(0x21, after=1000)
    result = k.run()
    assert (result.registers["rbx"], result.registers["r8"]) == (1, 1)


def test_flags_on_the_stack_have_no_resume_flag():
    k, _ = interrupted(Switches())
    assert k.get(0x30_0800 - 24) & 1 << 16 == 0


@pytest.mark.parametrize("options", [
    {"idt_window": (1,)}, {"idt_window": (1, 2, 3)}, {"idt_pa": WINDOW_PAGE}, {"gdt_pa": WINDOW_PAGE},
    {"stack_pa": WINDOW_PAGE},
], ids=str)  # fmt: skip
def test_the_lock_is_taken_twice(options):
    _, end = interrupted(FAULTY, **options)
    assert (type(end).__name__, end.kind, end.message) == ("EmulatorAbort", "bql_relock", RELOCK)
    assert kinds(end, "lock") == [("lock", "+")]
    assert kinds(end, "bus") == []
    assert end.counters.lock_depth == 2


@pytest.mark.parametrize("options", [{"idt_window": (1,)}, {"idt_pa": WINDOW_PAGE}, {"gdt_pa": WINDOW_PAGE}], ids=str)
def test_the_lock_is_taken_once(options):
    _, result = interrupted(Switches(), **options)
    assert result.registers["r8"] == 1
    assert result.counters.lock_depth == 1
    events = kinds(result, "lock", "bus", "interrupt")
    first = next(n for n, e in enumerate(events) if e.kind == "interrupt")
    inside = events[first + 1 :]
    assert events[first - 1] == ("lock", "+")
    accesses = [e for e in inside if e.kind == "bus"]
    assert accesses
    assert inside[: len(accesses)] == accesses or "gdt_pa" in options  # the lock stays held
    assert inside[len(accesses)] == ("lock", "-") or "gdt_pa" in options


def test_gates_are_read_by_4_bytes():
    _, result = interrupted(Switches(), idt_pa=WINDOW_PAGE)
    at = 0x10_0000 + 16 * 0x21
    assert [e[1:] for e in bus(result, "data")][:3] == [(at, 4), (at + 4, 4), (at + 8, 4)]


def test_a_software_interrupt_is_delivered_under_the_lock_too():
    for switches, kind in ((FAULTY, "bql_relock"), (Switches(), None)):
        result = Kernel(switches, idt_window=(1,)).load("int 0x30; hlt").run()
        assert getattr(result, "kind", None) == kind
    assert result.registers["r8"] == 1


def test_instructions_that_read_descriptors_do_not_hold_it():
    """IRETQ reads its frame from the window: generated code takes the lock and lets it go, in both forms."""
    for switches in FAULTY, Switches():
        k = Kernel(switches, data_pa=WINDOW_PAGE).load("mov rsp, rdi; add rsp, 0x100; iretq")
        for n, word in enumerate((CODE + 0x100, 8, 0x202, 0x7FFF_FFF0_0800, 16)):
            k.put(WINDOW_PAGE + 0x100 + 8 * n, word)
        k.machine.write(CODE + 0x100, b"\xf4")
        result = k.run()
        assert (result.stop.reason, result.counters.lock_depth) == ("halt", 1)


def test_a_page_fault_is_delivered_under_the_lock():
    for switches, kind in ((FAULTY, "bql_relock"), (Switches(), None)):
        k = Kernel(switches, idt_window=(1,), handler=b"\xf4").load("mov rax, [rdi]; hlt", rdi=DATA + 0x1000)
        result = k.run()
        assert getattr(result, "kind", None) == kind
        assert kinds(result, "fault") == [("fault", 14, DATA + 0x1000, 0)]
    assert result.delivered[0].exception.error_code == 0


@pytest.mark.parametrize("waits, faulty, hangs", [(True, True, True), (True, False, False), (False, True, False)])
def test_a_cpu_that_waits_for_the_lock_is_waited_for(waits, faulty, hangs):
    """The walk of the IDT has to set a flag in the window while the lock is held."""
    k = Kernel(Switches(excl_bql_deadlock=faulty, peer_waits_for_lock=waits), idt_window=(1,)).load(COUNT)
    at = k.entry(IDT, 1)
    k.put(at, k.get(at) & ~0x60)
    k.machine.interrupt(0x21, after=9)
    result = k.run()
    assert (getattr(result, "kind", None) == "exclusive_lock") == hangs
    if not hangs:
        assert result.registers["r8"] == 1
        assert k.get(at) & 0x20
