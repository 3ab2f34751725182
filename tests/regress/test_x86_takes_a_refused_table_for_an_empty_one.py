"""bus-error-x86."""

from cxl.bugs.rig import CODE, DATA, Rig
from mmu.tcg import Switches
from tests.regress import bus, fixed

RSVD_USER_WRITE_FETCH = 0b11110


def test_the_page_fault_says_not_present():
    seen = fixed("bus-error-x86")
    assert seen.outcome == "guest-fault"
    (event,) = [event for event in seen.trace if event[0] == "fault"]
    assert (event.syndrome, event.address, event.code) == (14, DATA, 0)
    assert [(event[1], event[6], event[7]) for event in bus(seen)] == [("r", "ERROR", "ptw")]
    assert seen.pc == CODE


def test_data_reads_as_zero_without_any_sign():
    rig = Rig("x86_64", Switches())
    rig.code(CODE, "48 8b 07   mov rax, [rdi]\n48 89 07   mov [rdi], rax\nf4   hlt")
    rig.map(DATA, "h")
    seen = rig.observe(registers={"rdi": DATA, "rax": 5}, results={"rax": 0})
    assert seen.outcome == "ok"
    assert [(event[1], event[6]) for event in bus(seen)] == [("r", "ERROR"), ("w", "OK")]
