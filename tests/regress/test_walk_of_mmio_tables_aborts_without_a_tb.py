"""ptw-retaddr."""

import pytest

from cxl.bugs.rig import CODE, DATA, Rig
from mmu.tcg import Switches
from tests.regress import bus, faulty, fixed

MOV, INC = CODE, CODE + 3
CODE_BYTES = {
    "load": "48 8b 07   mov rax, [rdi]",
    "store": "48 89 07   mov [rdi], rax",
    "push": "41 50   push r8",
}


def test_the_load_aborts_before_anything_is_read():
    seen = faulty("ptw-retaddr")
    assert seen.outcome == "abort"
    assert "qemu: fatal: cpu_io_recompile: could not find TB for pc=(nil)" in seen.message
    assert "guest PC 0x400000; walk level 1; table in mem0 DPA 0x0" in seen.message
    assert seen.pc == MOV
    assert (seen.registers["rax"], seen.registers["rbx"]) == (0, 0)
    assert bus(seen) == []
    assert not [event for event in seen.trace if event[0] in ("recompile", "fault")]
    assert seen.trace[-1][:2] == ("abort", "io_recompile")


def test_one_recompilation_and_one_read_of_the_entry_when_fixed():
    seen = fixed("ptw-retaddr")
    assert seen.outcome == "ok"
    assert [event[1:] for event in seen.trace if event[0] == "recompile"] == [(MOV, 1)]
    assert [(rw, region, offset, size, tag) for _, rw, region, offset, size, _, _, tag in bus(seen)] == [
        ("r", "window0", 0, 8, "ptw")]
    assert [event[1:3] for event in seen.trace if event[0] == "tb"] == [(MOV, 3), (MOV, 1), (INC, 2)]
    assert [event[1] for event in seen.trace if event[0] == "lock"] == ["+", "-"]
    assert seen.registers["rax"] == 0x1122334455667788


@pytest.mark.parametrize("mode", [faulty, fixed])
def test_arm64_walks_never_recompile(mode):
    seen = mode("ptw-retaddr", "aarch64")
    assert seen.outcome == "ok"
    assert [(event[1], event[4], event[7]) for event in bus(seen)] == [("r", 8, "ptw")]
    assert not [event for event in seen.trace if event[0] == "recompile"]


@pytest.mark.parametrize("tables, root", [("rrw", "r"), ("rwr", "r"), ("wrr", "r"), ("www", "w")])
@pytest.mark.parametrize("access", CODE_BYTES)
@pytest.mark.parametrize("retaddr", [True, False])
def test_any_level_and_any_access(tables, root, access, retaddr):
    rig = Rig("x86_64", Switches(ptw_retaddr=retaddr, can_do_io="P1"), root)
    rig.code(CODE, f"{CODE_BYTES[access]}\n90   nop\nf4   hlt")
    rig.map(DATA, tables=tables)
    seen = rig.observe(registers={"rdi": DATA, "rsp": DATA + 0x800})
    in_window = tables.count("w") + root.count("w")
    if retaddr:
        assert (seen.outcome, seen.pc) == ("abort", CODE)
    else:
        assert (seen.outcome, seen.counts["recompiles"]) == ("ok", 1)
    walks = [event for event in bus(seen) if event[7] == "ptw"]
    fetch = root.count("w")  # the code's own walk reads the root, from the main loop, where I/O is allowed
    assert len(walks) == fetch + (0 if retaddr else in_window)


@pytest.mark.parametrize("retaddr", [True, False])
def test_tables_in_ram_are_the_same_in_both_modes(retaddr):
    rig = Rig("x86_64", Switches(ptw_retaddr=retaddr, can_do_io="P1"))
    rig.code(CODE, "48 8b 07   mov rax, [rdi]\nf4   hlt")
    rig.map(DATA)
    seen = rig.observe(registers={"rdi": DATA})
    assert (seen.outcome, bus(seen), seen.counts["recompiles"]) == ("ok", [], 0)
