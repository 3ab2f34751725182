"""Descriptors in the window on arm64 (recipe R5), and what else differs from x86."""

import pytest

from mmu.arm64.format import Tcr
from mmu.memory import Mmio
from mmu.tcg import RELEASES, Switches, release
from mmu.types import FaultKind, MemTxResult
from tests.tcg.machines import CODE, DATA, DATA_PA, WINDOW, Bench, bus, kinds

LOAD = "ldr x1, [x0]; add x2, x2, #1; wfi"
STORE = "str x1, [x0]; add x2, x2, #1; wfi"
VALID, AF, DBM, RO = 0x303, 1 << 10, 1 << 51, 1 << 7
HOLE = 1 << 40


def bench(switches, source=LOAD, window=(1,), leaf=VALID | AF, ha=True, hd=False, **options):
    b = Bench(switches, window, "aarch64", leaf=leaf, **options).load(source)
    tcr = b.machine.cpu.read("tcr_el1")
    b.machine.set(tcr_el1=tcr | Tcr.make(HA=int(ha), HD=int(hd)))
    return b


def vectors(b, at=0x6000_0000_0000):
    """Handlers that halt."""
    b.map(at, 0x72_0000)
    b.machine.write(at, (0xD503207F).to_bytes(4, "little") * 1024)
    b.machine.set(vbar_el1=at)
    return b


@pytest.mark.parametrize("levels", [(1,), (2,), (3,), (1, 2, 3)])
@pytest.mark.parametrize("name", RELEASES)
def test_a_walk_reads_each_descriptor_once_and_never_recompiles(levels, name):
    result = bench(release(name), window=levels).run()
    assert result.registers["x2"] == 1
    assert [e[0] for e in bus(result)] == ["r"] * len(levels)
    assert {e.size for e in kinds(result, "bus")} == {8}
    assert kinds(result, "recompile") == []


def test_the_access_flag_is_set_over_the_bus():
    b = bench(Switches(), leaf=VALID)
    result = b.run()
    at = b.entry(DATA, 1) - WINDOW
    assert bus(result) == [("r", at, 8), ("r", at, 8), ("w", at, 8)]
    assert b.get(WINDOW + at) == DATA_PA | VALID | AF
    assert kinds(result, "lock") == [("lock", "+"), ("lock", "-")] * 2


def test_dirty_state_is_set_over_the_bus():
    b = bench(Switches(), STORE, leaf=VALID | DBM | RO, hd=True)
    assert b.run().registers["x2"] == 1
    assert b.get(b.entry(DATA, 1)) == DATA_PA | VALID | AF | DBM


@pytest.mark.parametrize("source, leaf, hd", [(LOAD, VALID, False), (STORE, VALID | AF | DBM | RO, True)])
def test_an_update_is_refused(source, leaf, hd):
    b = bench(Switches(arm_hafdbs_mmio=True), source, leaf=leaf, hd=hd)
    stop = b.run().stop
    assert (stop.reason, stop.fault.kind, stop.exception.fsc) == ("fault", FaultKind.UNSUPPORTED_ATOMIC, 0x31)
    assert stop.exception.esr == 0x920000B1 | (source == STORE) << 6
    assert b.get(b.entry(DATA, 1)) == DATA_PA | leaf


@pytest.mark.parametrize("faulty", [False, True])
def test_without_hardware_updates_both_are_alike(faulty):
    b = vectors(bench(Switches(arm_hafdbs_mmio=faulty), leaf=VALID, ha=False))
    (found,) = b.run().delivered
    assert (found.exception.fsc, found.exception.level, found.exception.ea) == (0x08 | 3, 3, False)
    assert b.get(b.entry(DATA, 1)) == DATA_PA | VALID


@pytest.mark.parametrize("faulty", [False, True])
def test_updates_in_ram_are_no_matter(faulty):
    b = bench(Switches(arm_hafdbs_mmio=faulty), leaf=VALID, window=())
    assert b.run().registers["x2"] == 1
    assert b.get(b.entry(DATA, 1)) == DATA_PA | VALID | AF


class Table:
    """The last table of DATA as a device that answers each write with *result*, or races once."""

    def __init__(self, bench, descriptor, result=None, race=0):
        self.value, self.result, self.race = descriptor, result, race
        self.seen = []
        region = Mmio(4096, self.read, self.write, name="table", valid=(1, 8), implemented=(1, 8))
        bench.space.map(1 << 39, region)
        bench.put(bench.entry(DATA, 2), (1 << 39) | 3)

    def read(self, offset, size):
        self.seen.append(("r", size))
        value = self.value
        self.value |= self.race
        self.race = 0
        return value

    def write(self, offset, size, value):
        self.seen.append(("w", size))
        if self.result is None:
            self.value = value
        return self.result


def test_a_write_that_the_bus_refuses_is_an_abort_of_the_walk():
    b = vectors(bench(Switches()))
    table = Table(b, DATA_PA | VALID, MemTxResult.ERROR)
    (found,) = b.run().delivered
    assert (found.exception.fsc, found.exception.ea) == (0x14 | 3, True)
    assert table.seen == [("r", 8), ("r", 8), ("w", 8)]


def test_after_a_lost_race_the_walk_goes_on_with_what_is_there():
    b = bench(Switches())
    table = Table(b, DATA_PA | VALID, race=1 << 55)
    assert b.run().registers["x2"] == 1
    assert table.value == DATA_PA | VALID | AF | 1 << 55
    assert table.seen == [("r", 8), ("r", 8), ("r", 8), ("w", 8)]


@pytest.mark.parametrize("level, fsc", [(2, 0x16), (1, 0x17)])
def test_a_table_where_nothing_is(level, fsc):
    b = vectors(bench(Switches()))
    b.put(b.entry(DATA, level + 1), HOLE | 3)
    (found,) = b.run().delivered
    assert (found.exception.fsc, found.exception.ea, found.exception.far) == (fsc, False, DATA)
    assert found.exception.esr == 0x96000000 | fsc


def test_data_where_nothing_is():
    b = vectors(bench(Switches(), window=(), data_pa=HOLE))
    (found,) = b.run().delivered
    assert found.exception.esr == 0x96000010
    assert (found.exception.far, found.pc) == (DATA, CODE)


def test_data_that_a_device_refuses():
    b = vectors(bench(Switches(), window=(), data_pa=HOLE))
    b.space.map(HOLE, Mmio(4096, lambda offset, size: MemTxResult.ERROR, lambda *_: None, name="bad", valid=(1, 8)))
    result = b.run()
    assert result.delivered[0].exception.esr == 0x96000210
    assert kinds(result, "lock") == [("lock", "+"), ("lock", "-")] * 2  # of the access, and of the delivery


def test_page_table_changes_need_tlbi():
    source = "ldr x1, [x0]; str x3, [x4]; {}ldr x5, [x0]; wfi"
    for middle, expected in (("", 0x11), ("lsr x6, x0, #12; tlbi vae1, x6; dsb sy; isb; ", 0x22)):
        b = Bench(Switches(), (), "aarch64")
        b.map(0x7000_0000_0000, b.entry(DATA, 1) & -4096)
        b.put(DATA_PA, 0x11)
        b.put(0x73_0000, 0x22)
        b.load(source.format(middle), x3=0x73_0000 | VALID | AF, x4=0x7000_0000_0000 + b.entry(DATA, 1) % 4096)
        assert b.run().registers["x5"] == expected


def test_an_interrupt_enters_its_vector():
    source = "msr daifclr, #2; mov x1, #0; 1: add x1, x1, #1; cmp x1, #50; b.ne 1b; wfi"
    b = vectors(Bench(Switches(), (), "aarch64").load(source))
    b.machine.interrupt(1, after=20)
    result = b.run()
    assert [d.handler for d in result.delivered] == [0x6000_0000_0280]
    assert 0 < result.registers["x1"] < 50


def test_zeroes_by_cache_line_reach_a_device_byte_by_byte():
    b = Bench(Switches(), (), "aarch64", data_pa=WINDOW)
    b.space.write(WINDOW, b"\xff" * 256)
    result = b.load("add x1, x0, #70; dc zva, x1; wfi").run()
    assert b.space.read(WINDOW, 256) == b"\xff" * 64 + bytes(64) + b"\xff" * 128
    assert bus(result, "data") == [("w", 64 + n, 1) for n in range(64)]
    assert result.counters.instructions == 3


@pytest.mark.parametrize("source", ["ldr x0, [x0]; add x2, x2, #1; wfi", "ldr x1, [x0], #8; add x2, x2, #1; wfi"])
def test_an_instruction_that_runs_again_has_the_registers_it_had(source):
    """Its destination, or the address that it writes back, is that of its own operand."""
    b = Bench(Switches(), (), "aarch64", data_pa=WINDOW)
    b.put(WINDOW, 0x1234)
    result = b.load(source).run()
    assert result.counters.recompiles == 1
    expected = {0x1234, 0} if "x0, [" in source else {DATA + 8, 0x1234}
    assert {result.registers["x0"], result.registers["x1"]} == expected
    assert bus(result, "data") == [("r", 0, 8)]


@pytest.mark.parametrize("source, faults", [("dc cvap, x1", True), ("dc cvac, x1", False), ("dc civac, x1", False)])
def test_cleaning_a_cache_may_fault(source, faults):
    b = vectors(Bench(Switches(), (), "aarch64").load(f"{source}; mov x2, #1; wfi", x1=DATA + 0x5008))
    result = b.run()
    assert [d.exception.far for d in result.delivered] == ([DATA + 0x5008] if faults else [])
    assert result.registers["x2"] == (0 if faults else 1)


def test_waiting_for_an_event_does_not_end_a_run():
    result = Bench(Switches(), (), "aarch64").load("wfe; add x1, x1, #1; wfe; add x1, x1, #1; wfi").run()
    assert (result.stop.reason, result.registers["x1"]) == ("halt", 2)
