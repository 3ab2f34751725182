"""Code whose page tables are in the window: how the next block is looked for decides (recipe R2)."""

import pytest

from mmu.tcg import Switches
from tests.tcg.machines import CODE, Bench, bus, kinds

NEXT = 0x2000_0000_0000  # another page of code, through tables of its own
P1 = Switches(can_do_io="P1")
FAULTY = P1.replace(lookup_tb_can_do_io=True)
THERE = "mov ebx, 7; hlt"
WAYS = {
    "jump": "mov ecx, 1; jmp rsi",
    "call": "mov ecx, 1; call rsi",
    "ret": "mov ecx, 1; push rsi; ret",
}


def bench(switches, source, at=NEXT, window=(1,)):
    b = Bench(switches)
    b.map(at, 0x50_0000, window)
    b.machine.write(at, b"\xbb\x07\0\0\0\xf4")  # THERE
    return b.load(source, rsi=at)


@pytest.mark.parametrize("way", WAYS)
def test_the_helper_aborts_when_the_last_block_left_io_forbidden(way):
    end = bench(FAULTY, WAYS[way]).run()
    assert (end.kind, end.pc, end.level) == ("io_recompile", NEXT, 1)
    assert bus(end) == []
    assert (end.registers["rcx"], end.registers["rbx"]) == (1, 0)


@pytest.mark.parametrize("way", WAYS)
def test_the_helper_allows_io_when_fixed(way):
    result = bench(P1, WAYS[way]).run()
    assert result.registers["rbx"] == 7
    assert [event[0] for event in bus(result, "ptw")] == ["r"]
    assert kinds(result, "recompile") == []


@pytest.mark.parametrize("way", WAYS)
def test_with_io_in_every_last_instruction_the_bug_does_not_show(way):
    assert bench(Switches(lookup_tb_can_do_io=True), WAYS[way]).run().registers["rbx"] == 7


def test_a_jump_into_another_page_goes_through_the_helper():
    after = CODE + 0x20_0000  # in another table of the last level, near enough for a jump
    for switches, ends in ((FAULTY, "io_recompile"), (P1, None)):
        b = bench(switches, "mov ecx, 1; .byte 0xe9; .long 0x1ffff6", at=after)
        assert getattr(b.run(), "kind", None) == ends


def test_code_that_runs_into_the_next_page_goes_through_the_helper():
    at = CODE + 0x1F_F000
    for switches, ends in ((FAULTY, "io_recompile"), (P1, None)):
        b = bench(switches, "hlt", at=CODE + 0x20_0000)
        b.map(at, 0x51_0000)
        b.machine.write(at + 0xFFD, b"\x90\x90\x90")
        b.machine.set(rip=at + 0xFFD)
        assert getattr(b.run(), "kind", None) == ends


@pytest.mark.parametrize("faulty", [False, True])
def test_a_jump_in_the_page_goes_through_the_main_loop(faulty):
    """Where I/O is allowed: the TLB lost the page in between."""
    b = Bench(P1.replace(lookup_tb_can_do_io=faulty))
    b.map(NEXT, 0x50_0000, (1,))
    b.machine.write(NEXT, bytes.fromhex("0f0138" "eb00" "bb07000000" "f4"))  # invlpg [rax]; jmp; mov ebx, 7; hlt
    b.machine.set(rip=NEXT, rax=NEXT)
    result = b.run()
    assert result.registers["rbx"] == 7
    assert len(bus(result, "ptw")) == 2


BOTH = "mov rax, [rdi]; mov ecx, 1; jmp rsi"


@pytest.mark.parametrize("ptw, lookup, pc", [
    (False, False, None), (True, False, CODE), (False, True, NEXT), (True, True, CODE)])
def test_both_fixes_are_needed(ptw, lookup, pc):
    """Of ptw-retaddr and lookup-tb-can-do-io, each alone leaves the other's abort."""
    b = Bench(P1.replace(ptw_retaddr=ptw, lookup_tb_can_do_io=lookup), (1,))
    b.map(NEXT, 0x50_0000, (1,))
    b.machine.write(NEXT, b"\xbb\x07\0\0\0\xf4")
    end = b.load(BOTH, rsi=NEXT).run()
    if pc is None:
        assert (end.stop.reason, end.registers["rbx"]) == ("halt", 7)
    else:
        assert (end.kind, end.pc) == ("io_recompile", pc)
