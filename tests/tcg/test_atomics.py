"""Atomic instructions on memory without a host address (recipe R7)."""

import pytest

from mmu.tcg import Switches, release
from tests.tcg.machines import DATA, DATA_PA, PAGE, WINDOW, Bench, bus, kinds

THERE = WINDOW + 0x30_0000
X86 = {
    "add": "lock add dword ptr [rdi+0x10], 1; inc rbx; hlt",
    "xchg": "mov eax, 6; xchg [rdi+0x10], eax; inc rbx; hlt",
    "cmpxchg": "mov eax, 5; mov ecx, 6; lock cmpxchg [rdi+0x10], ecx; inc rbx; hlt",
}
ARM = {
    "ldadd": "mov w2, #1; add x3, x0, #16; ldadd w2, w4, [x3]; add x1, x1, #1; wfi",
    "cas": "mov w2, #6; mov w4, #5; add x3, x0, #16; cas w4, w2, [x3]; add x1, x1, #1; wfi",
    "exclusive": "mov w2, #6; add x3, x0, #16; ldxr w4, [x3]; stxr w5, w2, [x3]; add x1, x1, #1; wfi",
}
PROGRAMS = [("x86_64", source) for source in X86.values()] + [("aarch64", source) for source in ARM.values()]
COUNTER = {"x86_64": "rbx", "aarch64": "x1"}


def bench(switches, arch, source, data_pa=THERE):
    b = Bench(switches, arch=arch, data_pa=data_pa).load(source)
    b.put(data_pa + 0x10, 5, 4)
    return b


@pytest.mark.parametrize("arch, source", PROGRAMS)
def test_the_host_address_is_that_of_no_memory(arch, source):
    end = bench(Switches(atomic_flags=True), arch, source).run()
    assert (type(end).__name__, end.address, end.registers[COUNTER[arch]]) == ("HostSegv", 0x10, 0)
    assert end.place.device in ("mem0", "mem1")


@pytest.mark.parametrize("arch, source", PROGRAMS)
def test_it_runs_alone_as_a_load_and_a_store(arch, source):
    b = bench(Switches(), arch, source)
    result = b.run()
    assert (b.get(THERE + 0x10, 4), result.registers[COUNTER[arch]]) == (6, 1)
    assert result.counters.atomic_exits == 1
    assert [e.change for e in kinds(result, "excl")] == ["begin", "end"]
    inside = [e for e in result.trace[result.trace.index(("excl", "begin")) :] if e.kind == "bus"]
    assert [(e.rw, e.offset, e.size) for e in inside] == [("r", 0x30_0010, 4), ("w", 0x30_0010, 4)]


@pytest.mark.parametrize("arch, source", PROGRAMS)
@pytest.mark.parametrize("faulty", [False, True])
def test_in_ram_nothing_of_it_happens(arch, source, faulty):
    b = bench(Switches(atomic_flags=faulty), arch, source, DATA_PA)
    result = b.run()
    assert (b.get(DATA_PA + 0x10, 4), result.counters.atomic_exits) == (6, 0)


@pytest.mark.parametrize("arch, source", PROGRAMS)
def test_one_cpu_alone_needs_no_step(arch, source):
    """Translated for one CPU, it is a load and a store of the block that it is in."""
    b = bench(Switches(parallel=False, atomic_flags=True), arch, source)
    result = b.run()
    assert (b.get(THERE + 0x10, 4), result.counters.atomic_exits) == (6, 0)
    assert result.counters.recompiles >= 1


@pytest.mark.parametrize("arch, source", [
    ("x86_64", "mov eax, 9; mov ecx, 6; lock cmpxchg [rdi+0x10], ecx; hlt"),
    ("aarch64", "mov w2, #6; mov w4, #9; add x3, x0, #16; cas w4, w2, [x3]; wfi")])
def test_a_comparison_that_fails_writes_back_what_was_there(arch, source):
    b = bench(Switches(), arch, source)
    result = b.run()
    assert bus(result, "data")[-2:] == [("r", 0x30_0010, 4), ("w", 0x30_0010, 4)]
    assert b.get(THERE + 0x10, 4) == result.registers[{"x86_64": "rax", "aarch64": "x4"}[arch]] == 5


def test_a_misaligned_one_runs_alone_wherever_it_is():
    b = bench(Switches(), "x86_64", "lock add dword ptr [rdi+0x11], 1; inc rbx; hlt", DATA_PA)
    assert b.run().counters.atomic_exits == 1


def test_the_step_may_do_no_io():
    p1 = Switches(can_do_io="P1")
    for switches, ends in ((p1.replace(atomic_step_livelock=True), "livelock"), (p1, None)):
        end = bench(switches, "x86_64", X86["add"]).run()
        assert getattr(end, "kind", None) == ends
        if ends:
            pairs = [e.kind for e in kinds(end, "atomic_exit", "recompile")]
            assert pairs[:4] == ["atomic_exit", "recompile"] * 2
            assert (type(end).__name__, end.registers["rbx"], bus(end)) == ("Deadlock", 0, [])


@pytest.mark.parametrize("switches", [Switches(), Switches(can_do_io="P1"), release("8.2"), release("7.2")])
def test_a_step_that_may_do_io_is_one_step(switches):
    assert bench(switches, "x86_64", X86["add"]).run().counters.atomic_exits == 1


@pytest.mark.parametrize("faulty", [False, True])
def test_a_flag_to_be_set_in_the_step(faulty):
    """The word crosses a page, so the step walks for the second one, whose entry is in the window, unused."""
    b = Bench(Switches(step_atomic_setl=faulty), (1,)).load("lock add dword ptr [rdi], 1; inc rbx; hlt")
    b.map(DATA + PAGE, 0x71_0000, leaf=0x03)
    b.machine.set(rdi=DATA + PAGE - 2)
    result = b.run()
    assert (getattr(result, "kind", None) == "exclusive_nested") == faulty
    if not faulty:
        assert (result.registers["rbx"], b.get(b.entry(DATA + PAGE, 1)) & 0xFF) == (1, 0x63)
        assert [e.change for e in kinds(result, "excl")] == ["begin", "end"]
