"""Accessed and dirty flags of entries in the window (recipe R4)."""

import pytest

from mmu.memory import Mmio
from mmu.tcg import Switches
from tests.tcg.machines import DATA, DATA_PA, WINDOW, Bench, bus, kinds

LOAD, STORE = "mov rax, [rdi]; inc rbx; hlt", "mov [rdi], rax; inc rbx; hlt"
CLEAN, UNUSED = 0x23, 0x03  # a leaf without D; without A and D


def bench(switches, source=LOAD, leaf=UNUSED, window=(1,)):
    return Bench(switches, window, leaf=leaf).load(source)


@pytest.mark.parametrize("source, leaf", [(LOAD, UNUSED), (STORE, UNUSED), (STORE, CLEAN)])
def test_the_walker_waits_for_itself(source, leaf):
    end = bench(Switches(setl_exclusive_hang=True), source, leaf).run()
    assert (type(end).__name__, end.kind, end.level) == ("Deadlock", "exclusive_self", 1)
    assert end.registers["rbx"] == 0
    assert [e[0] for e in bus(end)] == ["r"]


def test_the_wait_is_noticed_by_an_assertion():
    end = bench(Switches(setl_exclusive_hang=True, setl_asserts=True)).run()
    assert (type(end).__name__, end.kind) == ("EmulatorAbort", "exclusive_running")
    assert end.message.endswith("start_exclusive: assertion failed: (!current_cpu->running)")


@pytest.mark.parametrize("source, leaf, set_", [
    (LOAD, UNUSED, 0x23), (LOAD, CLEAN, None), (STORE, UNUSED, 0x63), (STORE, CLEAN, 0x63)])
def test_the_flag_is_set_by_a_read_and_a_write_of_4_bytes(source, leaf, set_):
    b = bench(Switches(), source, leaf)
    result = b.run()
    at = b.entry(DATA, 1) - WINDOW
    update = [] if set_ is None else [("r", at, 4), ("w", at, 4)]
    assert bus(result) == [("r", at, 8), *update]
    assert b.get(WINDOW + at) == DATA_PA | (set_ or leaf)
    assert [e.change for e in kinds(result, "excl")] == (["begin", "end"] if update else [])


def test_a_dirty_flag_is_set_once():
    b = bench(Switches(), "mov [rdi], rax; mov [rdi+8], rax; inc rbx; hlt", CLEAN)
    assert len([e for e in bus(b.run()) if e[0] == "w"]) == 1


def test_a_page_that_was_read_is_walked_again_for_a_store():
    b = bench(Switches(), "mov rax, [rdi]; mov [rdi+8], rax; inc rbx; hlt", UNUSED)
    result = b.run()
    assert [e[0] for e in bus(result)] == ["r", "r", "w", "r", "r", "w"]
    assert b.get(b.entry(DATA, 1)) == DATA_PA | 0x63


def test_tables_in_ram_need_nothing():
    b = bench(Switches(setl_exclusive_hang=True), STORE, UNUSED, window=())
    assert b.run().registers["rbx"] == 1
    assert b.get(b.entry(DATA, 1)) == DATA_PA | 0x63


@pytest.mark.parametrize("leaf", [UNUSED, 0x63])
def test_hooks_of_plugins_hide_tables_in_ram_from_the_walker(leaf):
    hooked = Switches(plugins=True, setl_exclusive_hang=True)
    result = bench(hooked.replace(plugin_walk=True), LOAD, leaf, window=()).run()
    assert (getattr(result, "kind", None) == "exclusive_self") == (leaf == UNUSED)
    result = bench(hooked, LOAD, leaf, window=()).run()
    assert (result.registers["rbx"], kinds(result, "bus", "excl", "lock")) == (1, [])


def test_hooks_of_plugins_make_updates_slow_but_right():
    b = bench(Switches(plugins=True, plugin_walk=True), STORE, UNUSED, window=())
    result = b.run()
    assert [e.change for e in kinds(result, "excl")] == ["begin", "end"]
    assert (bus(result), b.get(b.entry(DATA, 1))) == ([], DATA_PA | 0x63)


class Table:
    """Entries in a device that change between one read and the next: at *level*, once."""

    def __init__(self, bench, level, flag):
        self.entries = {}
        self.reads, self.races = [], 1
        self.flag = flag
        self.region = Mmio(1 << 20, self.read, self.write, name="table", valid=(1, 8), implemented=(1, 8))
        bench.space.map(1 << 40, self.region)
        self.level = level

    def read(self, offset, size):
        self.reads.append((offset, size))
        if size == 4 and self.races:
            self.races -= 1
            self.entries[offset] |= self.flag
        return self.entries.get(offset, 0) & (1 << 8 * size) - 1

    def write(self, offset, size, value):
        self.entries[offset] = self.entries[offset] & ~0xFFFFFFFF | value


@pytest.mark.parametrize("level, pages", [
    (1, ["pd", "pt", "pt4", "pd", "pt", "pt4"]), (2, ["pd", "pd4", "pd", "pd4", "pt"])])
def test_a_lost_race_repeats_a_leaf_from_the_top_and_a_table_at_its_level(level, pages):
    """The directory and the table are a device's; a hand that is quicker sets an ignored bit in one entry."""
    b = Bench(Switches(), (3,))
    table = Table(b, level, 1 << 10)
    pd, pt = 0, 0x1000
    index2, index1 = (DATA >> 21 & 511) * 8, (DATA >> 12 & 511) * 8
    b.put(b.entry(DATA, 3), (1 << 40) | 0x23)
    table.entries[pd + index2] = (1 << 40) + pt | (0x23 if level == 1 else 0x03)
    table.entries[pt + index1] = DATA_PA | (0x43 if level == 1 else 0x63)
    result = b.load(LOAD).run()
    assert result.registers["rbx"] == 1
    names = {(pd + index2, 8): "pd", (pd + index2, 4): "pd4", (pt + index1, 8): "pt", (pt + index1, 4): "pt4"}
    assert [names[r] for r in table.reads] == pages
    assert len(bus(result, "ptw")) - len(pages) == {1: 2, 2: 1}[level] + 1  # of the table above; and the write
    found = table.entries[pt + index1 if level == 1 else pd + index2]
    assert found & 0x20 and found & 1 << 10
