"""setl-exclusive-hang."""

from cxl.bugs.rig import CODE, DATA, Rig
from mmu.tcg import Switches
from mmu.x86.format import Pte
from tests.regress import bus, faulty, fixed


def test_the_cpu_waits_for_itself():
    seen = faulty("setl-exclusive-hang")
    assert seen.outcome == "hang"
    assert "start_exclusive" in seen.message
    assert [(event[1], event[4], event[7]) for event in bus(seen)] == [("r", 8, "ptw")]
    assert seen.pc == CODE


def test_read_compare_and_write_in_an_exclusive_section_when_fixed():
    seen = fixed("setl-exclusive-hang")
    assert seen.outcome == "ok"
    steps = [(e[0], e[1], e[4]) if e[0] == "bus" else e[:2] for e in seen.trace if e[0] in ("bus", "excl")]
    update = [("bus", "r", 8), ("excl", "begin"), ("bus", "r", 4), ("bus", "w", 4), ("excl", "end")]
    assert steps == update * 2
    first, second = [event for event in bus(seen) if event[1] == "w"]
    assert (first[5] & Pte.A.mask, second[5] & Pte.A.mask, second[5] & Pte.D.mask) == (0x20, 0x20, 0x40)


def test_an_assertion_notices_it_in_later_builds():
    rig = Rig("x86_64", Switches(setl_exclusive_hang=True, setl_asserts=True))
    rig.code(CODE, "f4   hlt", tables="rrw", clear=Pte.A.mask)
    seen = rig.observe()
    assert seen.outcome == "abort"
    assert "start_exclusive: assertion failed: (!current_cpu->running)" in seen.message


def test_flags_that_are_set_already_write_nothing():
    rig = Rig("x86_64", Switches(setl_exclusive_hang=True))
    rig.code(CODE, "48 89 07   mov [rdi], rax\nf4   hlt", tables="rrw")
    rig.map(DATA, tables="rrw")
    seen = rig.observe(registers={"rdi": DATA})
    assert (seen.outcome, seen.counts["bus_writes"]["ptw"]) == ("ok", 0)


def test_the_flag_is_set_once():
    rig = Rig("x86_64", Switches())
    rig.code(CODE, "48 8b 07   mov rax, [rdi]\n48 8b 0f   mov rcx, [rdi]\nf4   hlt")
    rig.map(DATA, tables="rrw", clear=Pte.A.mask)
    seen = rig.observe(registers={"rdi": DATA})
    assert (seen.outcome, seen.counts["bus_writes"]["ptw"]) == ("ok", 1)
