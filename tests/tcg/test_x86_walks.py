"""Page tables in the window on x86: data accesses in mid-block, by release and by switch (recipe R1)."""

import pytest

from mmu.tcg import Switches, release
from tests.tcg.machines import CODE, DATA, DATA_PA, WINDOW, Bench, bus, kinds

P1 = Switches(can_do_io="P1")
ACCESSES = {
    "load": "mov rax, [rdi]; inc rbx; hlt",
    "store": "mov [rdi], rax; inc rbx; hlt",
    "push": "mov rsp, rdi; add rsp, 64; inc rcx; push rax; inc rbx; hlt",
}


def bench(emulator, access="load", window=(1,)):
    b = Bench(emulator, window).load(ACCESSES[access])
    b.put(DATA_PA, 0x1122334455667788)
    b.machine.set(rax=0x99)
    return b


@pytest.mark.parametrize("access", ACCESSES)
@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_walk_in_mid_block_aborts_without_the_return_address(access, level):
    b = bench(P1.replace(ptw_retaddr=True), access, (level,))
    end = b.run()
    assert (end.kind, end.message) == ("io_recompile", "qemu: fatal: cpu_io_recompile: could not find TB for pc=(nil)")
    assert (end.registers["rbx"], end.registers["rax"]) == (0, 0x99)
    if access == "push":
        assert end.registers["rsp"] == DATA + 64
    assert bus(end) == []  # the check comes before the access
    assert (end.level, end.place.device) == (level, b.space.place(b.entry(DATA, level)).device)
    assert end.pc == CODE + {"load": 0, "store": 0, "push": 10}[access]


@pytest.mark.parametrize("access", ACCESSES)
@pytest.mark.parametrize("level", [1, 2, 3])
def test_with_the_return_address_the_instruction_runs_again_alone(access, level):
    b = bench(P1, access, (level,))
    result = b.run()
    assert result.stop.reason == "halt"
    assert result.registers["rbx"] == 1
    if access == "push":
        assert (result.registers["rsp"], b.get(DATA_PA + 56)) == (DATA + 56, 0x99)
    at = b.entry(DATA, level) - WINDOW
    assert bus(result) == [("r", at, 8)]
    (recompile,) = kinds(result, "recompile")
    pc = CODE + {"load": 0, "store": 0, "push": 10}[access]
    assert recompile == ("recompile", pc, 1)
    assert [(e.pc, e.n_insns) for e in kinds(result, "tb")][1] == (pc, 1)
    assert kinds(result, "lock") == [("lock", "+"), ("lock", "-")]


def test_data_arrive():
    assert bench(P1).run().registers["rax"] == 0x1122334455667788


@pytest.mark.parametrize("faulty", [False, True])
def test_tables_in_ram_are_no_matter(faulty):
    result = bench(P1.replace(ptw_retaddr=faulty), window=()).run()
    assert (result.registers["rbx"], bus(result), kinds(result, "recompile")) == (1, [], [])


def test_the_last_instruction_of_a_block_may_do_io():
    """Policy P2: the load is the last before the next page, or before an instruction that would cross into it."""
    b = Bench(Switches(ptw_retaddr=True), (1,)).load(b"\x90\x90\x48\x8b\x07\xeb\x00\xf4", at=CODE)
    b.machine.set(rip=CODE)
    assert b.run().kind == "io_recompile"  # the jump follows
    b = Bench(Switches(ptw_retaddr=True), (1,))
    b.map(CODE + 0x1000, 0x10_1000)
    b.load(b"\x90\x48\x8b\x07\xff\xc3\xf4", at=CODE + 0xFFC, rip=CODE + 0xFFC)
    result = b.run()
    assert (result.registers["rbx"], kinds(result, "recompile")) == (1, [])


OUTCOMES = {"7.2": "halt", "8.2": "io_recompile", "9.0": "io_recompile"}


@pytest.mark.parametrize("name", ["7.2", "8.2", "9.0", "9.1", "9.2", "10.0", "10.1", "11.1"])
def test_by_release(name):
    result = bench(name).run()
    assert (result.stop.reason if hasattr(result, "stop") else result.kind) == OUTCOMES.get(name, "halt")


def test_counting_instructions_brings_it_to_7_2():
    assert bench(release("7.2").replace(icount=True)).run().kind == "io_recompile"
