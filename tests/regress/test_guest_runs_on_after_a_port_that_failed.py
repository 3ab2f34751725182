"""
A guest stood somewhere behind the IN or OUT whose device had raised, with what came in between done.

The engine ends at the end of its block, not behind the instruction: stores, registers and flags had gone on.
"""

import pytest

from mmu.memory import Mmio
from tests.guest.machines import CODE, DATA, machine

PORT = 0x5F
WHERE = dict.fromkeys(("tables", "code", "data", "stack"), "ram")
SETS_FLAGS, GOES_ON = "0402", "488907 04 01 f4"  # add al, 2; mov [rdi], rax; add al, 1; hlt


class Unplugged(Exception):
    pass


@pytest.mark.parametrize("limit", [None, 1000])
@pytest.mark.parametrize("port", ["ec", "ee", "e65f", "e45f", "6e"], ids=["in", "out", "out imm", "in imm", "outs"])
def test_guest_runs_on_after_a_port_that_failed(port, limit):
    failing = []

    def touch(*_):
        if failing:
            raise Unplugged
        return 7

    with machine("x86_64", **WHERE) as m:
        m.io.map(PORT, Mmio(1, read=touch, write=lambda *_: touch() and None))
        m.load(bytes.fromhex(SETS_FLAGS + port + GOES_ON)).set(rax=0xFF, rdx=PORT, rsi=DATA + 64, rdi=DATA)
        failing.append(True)
        with pytest.raises(Unplugged):
            m.run(limit=limit)
        found = m.registers
        assert (found["rip"], found["rax"], found["rflags"] & 0x11) == (CODE + 2, 1, 0x11)
        assert m.read(DATA, 8) == bytes(8)
        failing.clear()
        assert m.run(limit=limit).stop.reason == "halt"
        assert m.read(DATA, 1)[0] == (7 if port in ("ec", "e45f") else 1)
