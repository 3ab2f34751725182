"""
A guest went on with RAM that something else had been mapped over during its run.

The table of RAM was taken over when a run began, and was not compared with the map of the bus when that changed.
"""

import pytest

from mmu.memory import Alias, Mmio, Ram
from tests.guest.machines import CODE, DATA, MIB, PAGE, WINDOW, machine
from tests.guest.programs import DEVICE

PA = 10 * MIB  # of the data
OLD, NEW = (1111).to_bytes(8, "little"), (2222).to_bytes(8, "little")
# mov rax, [rdi]; mov dword ptr [rbx], 1; mov rcx, [rdi]; hlt
PROGRAM = bytes.fromhex("488b07 c70301000000 488b0f f4")


def another_ram(space):
    ram = Ram(PAGE, name="another")
    ram.memory.write(0, NEW)
    space.map(PA, ram, priority=1)


def a_device(space):
    space.map(PA, Mmio(PAGE, read=lambda offset, size: int.from_bytes(NEW[offset : offset + size], "little")), 1)


def a_window(space):
    window = next(r.region for r in space.view.ranges if r.region.name == "window")
    space.write(WINDOW + 8 * MIB, NEW)
    space.map(PA, Alias(window, 8 * MIB, PAGE), priority=1)


@pytest.mark.parametrize("dispatch", ["exact", "auto"])
@pytest.mark.parametrize("cover", [another_ram, a_device, a_window])
def test_ram_covered_during_a_run_is_still_there(dispatch, cover):
    with machine("x86_64", dispatch=dispatch, **dict.fromkeys(("tables", "code", "data", "stack"), "ram")) as m:
        m.space.write(PA, OLD)
        m.space.map(0xF000_0000, Mmio(PAGE, write=lambda *_: cover(m.space)))
        m.load(PROGRAM)
        m.tables.map(DEVICE, 0xF000_0000, PAGE)
        registers = m.set(rbx=DEVICE, rdi=DATA).run(start=CODE).registers
    assert (registers["rax"], registers["rcx"]) == (1111, 2222)
