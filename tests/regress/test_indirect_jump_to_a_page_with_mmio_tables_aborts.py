"""lookup-tb-can-do-io."""

import pytest

from cxl.bugs.lookup_tb_can_do_io import X86_THERE
from cxl.bugs.rig import CODE, DATA, PAGE, X86_LOAD, Rig, listing
from mmu.tcg import Switches
from tests.regress import bus, faulty, fixed

JUMPS = {
    "jmp": "ff e7   jmp rdi",
    "call": "ff d7   call rdi",
    "ret": "57   push rdi\nc3   ret",
}


def test_the_lookup_aborts_without_a_bus_access():
    seen = faulty("lookup-tb-can-do-io")
    assert seen.outcome == "abort"
    assert "could not find TB for pc=(nil)" in seen.message
    assert "walk level 1; table in mem0 DPA 0x0" in seen.message
    assert bus(seen) == []
    assert seen.registers["rbx"] == 0


def test_the_walk_is_made_without_recompilation_when_fixed():
    seen = fixed("lookup-tb-can-do-io")
    assert seen.outcome == "ok"
    assert seen.counts["recompiles"] == 0
    assert [(event[1], event[2], event[7]) for event in bus(seen)] == [("r", "window0", "ptw")]
    assert seen.registers["rbx"] == 1


def run(there="rrw", jump="jmp", target=DATA, **switches):
    rig = Rig("x86_64", Switches(can_do_io="P1", **switches))
    rig.code(CODE, JUMPS[jump])
    rig.code(target, X86_THERE, tables=there)
    rig.map(DATA + 8 * PAGE)
    return rig.observe(registers={"rdi": target, "rsp": DATA + 8 * PAGE + 0x800}, results={"rbx": 1})


@pytest.mark.parametrize("jump", JUMPS)
def test_every_indirect_branch(jump):
    target = DATA + (1 << 30)  # calls and returns touch the stack, whose tables are not in the window
    assert run(jump=jump, target=target, lookup_tb_can_do_io=True).outcome == "abort"
    assert run(jump=jump, target=target).outcome == "ok"


def test_tables_in_ram_are_found_in_both_modes():
    assert run(there="rrr", lookup_tb_can_do_io=True).outcome == "ok"


@pytest.mark.parametrize("retaddr", [False, True])
@pytest.mark.parametrize("lookup", [False, True])
def test_neither_fix_replaces_the_other(retaddr, lookup):
    """A load through tables in the window, and a jump to a page with tables in the window."""
    both = Rig("x86_64", Switches(can_do_io="P1", ptw_retaddr=retaddr, lookup_tb_can_do_io=lookup))
    both.code(CODE, "ff e6   jmp rsi")
    both.code(DATA, X86_LOAD, tables="rrw")
    both.map(DATA + (1 << 30), tables="rrw")
    seen = both.observe(registers={"rsi": DATA, "rdi": DATA + (1 << 30)}, results={"rbx": 1})
    assert seen.outcome == ("abort" if retaddr or lookup else "ok")
    if lookup:
        assert seen.pc == DATA  # on the way there
    elif retaddr:
        assert (seen.pc, seen.counts["bus_reads"]["ptw"]) == (DATA, 1)  # there, at the load


@pytest.mark.parametrize("lookup, outcome", [(True, "abort"), (False, "ok")])
def test_a_direct_jump_to_another_page_looks_its_target_up_as_well(lookup, outcome):
    rig = Rig("x86_64", Switches(can_do_io="P1", lookup_tb_can_do_io=lookup))
    rig.code(CODE, "e9 fb ff 1f 00   jmp 0x600000")
    rig.code(CODE + (2 << 20), X86_THERE, tables="rrw")
    assert rig.observe(results={"rbx": 1}).outcome == outcome


@pytest.mark.parametrize("lookup", [True, False])
def test_a_jump_within_the_page_goes_by_the_main_loop(lookup):
    """The block that it leads to is not there yet; its translation walks where I/O is allowed."""
    rig = Rig("x86_64", Switches(can_do_io="P1", lookup_tb_can_do_io=lookup))
    rig.code(CODE, "eb 0e   jmp 0x400010", tables="rrw")
    rig.fill((rig.word(rig.entry(CODE)) & -PAGE) + 16, listing(X86_THERE))
    assert rig.observe(results={"rbx": 1}).outcome == "ok"
