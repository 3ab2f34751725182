"""Stage 2 below a guest of the model: its registers are written as a hypervisor does."""

import pytest

from mmu import AddressSpace, Frames, Machine, Ram, arm64
from mmu.tcg import Switches

MIB = 1 << 20
LOAD = bytes.fromhex("010040f9 7f2003d5")  # ldr x1, [x0]; wfi


@pytest.mark.parametrize("shift", [0, 32 * MIB])
def test_addresses_go_through_both_stages(shift):
    """Stage 2 shows the guest what is *shift* higher."""
    space = AddressSpace()
    space.map(0, Ram(128 * MIB))
    nested = arm64.Stage2Tables(space, Frames(96 * MIB, 97 * MIB - 1), start_level=1)
    nested.map(0, shift, 32 * MIB)
    with Machine(space, "aarch64", emulator=Switches()) as machine:
        machine.setup(tables=(MIB, MIB), code=(4 * MIB, 4096), data=(5 * MIB, 4096), stack=(6 * MIB, 4096))
        machine.load(LOAD)
        space.write(shift, space.read(0, 8 * MIB))
        space.write(5 * MIB + shift, (77 + shift).to_bytes(8, "little"))
        machine.set(vtcr_el2=nested.vtcr(), vttbr_el2=nested.vttbr())
        result = machine.run()
    assert (result.stop.reason, result.registers["x1"]) == ("halt", 77 + shift)
