"""Events compare with plain tuples, print in one line, and go into JSON; ends of the emulator say where."""

import json

from mmu.tcg import Deadlock, EmulatorAbort, HostSegv
from mmu.tcg.trace import Block, Bus, Lock, as_json, text
from mmu.types import Place

READ = Bus("bus", "r", "window", 8, 8, 0x1007, "OK", "ptw")
BLOCK = Block("tb", 0x400000, 2, -1, 0x1000, False)


def test_an_event_is_a_tuple():
    assert READ == ("bus", "r", "window", 8, 8, 0x1007, "OK", "ptw")


def test_an_event_in_one_line():
    assert text(READ) == "bus r window+0x8 8 -> 0x1007 OK ptw"
    assert text(Lock("lock", "+")) == "lock +"
    assert text(BLOCK) == "tb pc=0x400000 n_insns=2 page0=-1 page1=0x1000 cached=False"


def test_events_as_json():
    assert json.loads(json.dumps(as_json([READ, BLOCK])))[1] == {
        "kind": "tb", "pc": 0x400000, "n_insns": 2, "page0": -1, "page1": 0x1000, "cached": False}  # fmt: skip


def test_an_abort_says_what_qemu_says_and_where():
    found = EmulatorAbort("io_recompile", 0x400000, 1, Place("window", 8, "mem0", 0x108), detail="(nil)")
    assert str(found) == (
        "qemu: fatal: cpu_io_recompile: could not find TB for pc=(nil); guest PC 0x400000; walk level 1; "
        "table in mem0 DPA 0x108")
    assert (found.kind, found.outcome) == ("io_recompile", "abort")


def test_a_crash_has_its_address():
    assert str(HostSegv(0x10, 0x400000)) == "segmentation fault at host address 0x10; guest PC 0x400000"
    assert Deadlock("exclusive_self").outcome == "hang"
