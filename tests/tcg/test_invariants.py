"""Whatever the program, the placement and the switches: the run ends as something that is foreseen, and the trace is
consistent."""

from random import Random

import pytest

from mmu.arm64.format import Tcr
from mmu.machine import Machine
from mmu.tcg import BUGS, EmulatorStop, Switches
from mmu.tcg.stops import ABORTS, HANGS
from mmu.tcg.switches import NOT_BUGS, POLICIES, field_of
from tests.guest.machines import DATA, places, two_way
from tests.tcg.test_twin import random_program

AREAS = ("tables", "code", "data", "stack")


def switches(rnd):
    fields = {field_of(bug): rnd.random() < 0.25 for bug in BUGS} | {name: rnd.random() < 0.3 for name in NOT_BUGS}
    return Switches(can_do_io=rnd.choice(POLICIES), **fields)


def ended(rnd, arch):
    space, _, _ = two_way()
    where = {area: rnd.choice(["ram", "window"]) for area in AREAS}
    with Machine(space, arch, emulator=switches(rnd)).setup(**places(**where)) as m:
        m.load(random_program(arch, rnd))
        if arch == "x86_64":
            m.set(**{name: DATA + rnd.randrange(0x4000) for name in ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp")})
        else:
            m.set(**{f"x{n}": DATA + rnd.randrange(0x4000) for n in range(30)})
            m.set(tcr_el1=m.cpu.read("tcr_el1") | Tcr.make(HA=rnd.randrange(2), HD=rnd.randrange(2)))
        try:
            return m.run(limit=150)
        except EmulatorStop as end:
            assert end.kind in {*ABORTS, *HANGS, "host_segv"}
            assert end.message in str(end)
            return end


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_any_run(arch, seed):
    result = ended(Random(1000 + seed), arch)
    depth = {"lock": 0, "excl": 0}
    for event in result.trace:
        if event.kind in depth:
            depth[event.kind] += 1 if event.change in ("+", "begin") else -1
            assert 0 <= depth[event.kind] <= 1
        elif event.kind == "bus":
            assert depth["lock"] == 1  # nobody dispatches without it
            assert event.size in (1, 2, 4, 8)
            assert event.offset % event.size == 0
        elif event.kind == "tb":
            assert event.n_insns >= 1
            assert event.cached == (event.page0 != -1)
    if isinstance(result, EmulatorStop):
        assert result.trace[-1].kind == "abort"
    else:
        assert depth == {"lock": 0, "excl": 0}
