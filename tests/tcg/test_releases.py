"""Tables in the window, release by release and situation by situation: what goes wrong before each fix."""

import pytest

from mmu.tcg import Switches, release, reverted
from tests.tcg.kernel import Kernel
from tests.tcg.machines import CODE, Bench

NEXT = 0x2000_0000_0000
WORKS, NO_BLOCK, RELOCK, HANG = None, "io_recompile", "bql_relock", "exclusive_self"


def mid_block(switches):
    return Bench(switches, (1,)).load("mov rax, [rdi]; inc rbx; hlt").run()


def last(switches):
    """The last instruction before the next page, which no block goes on into."""
    b = Bench(switches, (1,))
    b.map(CODE + 0x1000, 0x10_1000)
    return b.load(bytes.fromhex("90" "488b07" "ffc3" "f4"), at=CODE + 0xFFC, rip=CODE + 0xFFC).run()


def helper(switches):
    b = Bench(switches)
    b.map(NEXT, 0x50_0000, (1,))
    b.machine.write(NEXT, b"\xff\xc3\xf4")
    return b.load("mov ecx, 1; jmp rsi", rsi=NEXT).run()


def main_loop(switches):
    b = Bench(switches)
    b.map(NEXT, 0x50_0000, (1,))
    b.machine.write(NEXT, b"\xff\xc3\xf4")
    b.machine.set(rip=NEXT)
    return b.run()


def interrupt(switches):
    k = Kernel(switches, idt_window=(1,)).load("1: inc rbx; cmp rbx, 20; jne 1b; hlt")
    k.machine.interrupt(0x21, after=9)
    return k.run()


def update(switches):
    """Fetched from the main loop, so that nothing comes before the update."""
    b = Bench(switches)
    b.map(NEXT, 0x50_0000, (1,), leaf=0x03)
    b.machine.write(NEXT, b"\xff\xc3\xf4")
    b.machine.set(rip=NEXT)
    return b.run()


SITUATIONS = (mid_block, last, helper, main_loop, interrupt, update)
P1 = Switches(can_do_io="P1")
# As the fixes came, one after the other. `last` depends on the policy: under P1 the flag is false there too.
STAGES = {
    "P0 without icount": (
        release("7.2"), (WORKS, WORKS, WORKS, WORKS, WORKS, HANG)),
    "P0, the lock not asked for": (
        release("7.2").replace(double_lock=True), (WORKS, WORKS, WORKS, WORKS, RELOCK, HANG)),
    "P0 with icount": (
        release("7.2").replace(icount=True), (NO_BLOCK, NO_BLOCK, NO_BLOCK, WORKS, WORKS, HANG)),
    "8.2": (release("8.2"), (NO_BLOCK, NO_BLOCK, NO_BLOCK, WORKS, RELOCK, HANG)),
    "9.0": (release("9.0"), (NO_BLOCK, NO_BLOCK, WORKS, WORKS, WORKS, HANG)),
    "9.0, I/O in each last instruction": (
        release("9.0").replace(can_do_io="P2"), (NO_BLOCK, WORKS, WORKS, WORKS, WORKS, HANG)),
    "9.1": (release("9.1"), (WORKS, WORKS, WORKS, WORKS, WORKS, HANG)),
    "9.2": (release("9.2"), (WORKS,) * 6),
    "10.0": (release("10.0"), (WORKS,) * 6),
    "10.1": (release("10.1"), (WORKS,) * 6),
    "11.1": (release("11.1"), (WORKS,) * 6),
    "RV=1": (reverted(1), (WORKS,) * 6),
    "RV=2": (reverted(2), (WORKS, WORKS, WORKS, WORKS, RELOCK, WORKS)),
    "RV=4": (reverted(4), (NO_BLOCK, WORKS, WORKS, WORKS, WORKS, WORKS)),
    "RV=8": (reverted(8), (WORKS, WORKS, WORKS, WORKS, WORKS, "exclusive_running")),
    "RV=16": (reverted(16), (WORKS,) * 6),
    "RV=17": (reverted(17), (WORKS, WORKS, NO_BLOCK, WORKS, WORKS, WORKS)),
    "RV=23": (reverted(23), (NO_BLOCK, NO_BLOCK, NO_BLOCK, WORKS, RELOCK, WORKS)),
    "RV=31": (reverted(31), (NO_BLOCK, NO_BLOCK, NO_BLOCK, WORKS, RELOCK, "exclusive_running")),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("n, situation", list(enumerate(SITUATIONS)), ids=lambda x: getattr(x, "__name__", ""))
def test_cell(stage, n, situation):
    switches, row = STAGES[stage]
    result = situation(switches)
    assert getattr(result, "kind", None) == row[n]
    if row[n] is WORKS:
        assert (result.stop.reason, result.registers["rbx"]) == ("halt", 20 if situation is interrupt else 1)


@pytest.mark.parametrize("stage", ["9.1", "10.0", "8.2"])
def test_what_works_in_mid_block_takes_one_recompile(stage):
    result = mid_block(STAGES[stage][0].replace(ptw_retaddr=False))
    assert result.counters.recompiles == 1
