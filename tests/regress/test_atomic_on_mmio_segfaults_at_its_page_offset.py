"""atomic-flags."""

import pytest

from cxl.bugs.rig import CODE, DATA, Rig
from mmu.tcg import Switches
from tests.regress import bus, faulty, fixed

ARCHES = pytest.mark.parametrize("arch", ["x86_64", "aarch64"])


@ARCHES
def test_the_host_address_is_the_offset_in_the_page(arch):
    seen = faulty("atomic-flags", arch)
    assert seen.outcome == "crash"
    assert "segmentation fault at host address 0x10" in seen.message
    assert bus(seen) == []


@ARCHES
def test_it_is_carried_out_alone_when_fixed(arch):
    seen = fixed("atomic-flags", arch)
    assert seen.outcome == "ok"
    steps = [event[:2] for event in seen.trace if event[0] in ("atomic_exit", "excl", "bus")]
    assert steps == [("atomic_exit", CODE), ("excl", "begin"), ("bus", "r"), ("bus", "w"), ("excl", "end")]
    assert [(event[5], event[4]) for event in bus(seen)] == [(41, 4), (42, 4)]


@pytest.mark.parametrize("flags", [True, False])
def test_in_ram_both_modes_are_the_same(flags):
    rig = Rig("x86_64", Switches(atomic_flags=flags))
    rig.code(CODE, "f0 83 07 01   lock add dword ptr [rdi], 1\nf4   hlt")
    page = rig.map(DATA)
    seen = rig.observe(registers={"rdi": DATA})
    assert (seen.outcome, seen.counts["atomic_exits"], rig.word(page)) == ("ok", 0, 1)


def test_one_that_is_not_aligned_is_carried_out_alone_in_ram_too():
    rig = Rig("x86_64", Switches())
    rig.code(CODE, "f0 83 07 01   lock add dword ptr [rdi], 1\nf4   hlt")
    rig.map(DATA)
    seen = rig.observe(registers={"rdi": DATA + 2})
    assert (seen.outcome, seen.counts["atomic_exits"]) == ("ok", 1)
