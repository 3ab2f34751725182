"""A guest that writes a reserved encoding into one decoder ends the emulator by an access to another's range."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import BUS, Bug, Expected, Fix, Observation, Outcome
from cxl.bugs.busside import looking, several
from cxl.decoder import DecoderBlock
from cxl.format import BASE_HIGH, BASE_LOW, CONTROL, SIZE_LOW, WORD_MASK, DecoderControl

if TYPE_CHECKING:
    from mmu.tcg import Switches

SIZE = 256 << 20
RESERVED = 7  # a ways encoding that means nothing


def commit(block: DecoderBlock, number: int, base: int, ways: int) -> None:
    """Program decoder *number* as a guest does, by its registers: one target, SIZE bytes, encoding *ways*."""
    for field, value in (BASE_LOW, base & WORD_MASK), (BASE_HIGH, base >> 32), (SIZE_LOW, SIZE):
        block.write32(block.offset(number, field), value)
    block.write32(block.offset(number, CONTROL), DecoderControl.make(IW=ways, COMMIT=1))


def scenario(switches: Switches) -> Observation:
    """Decoder 0 of mem0 has a reserved encoding; a load goes to the range of its decoder 1."""
    topology = several(2)
    with looking(topology, switches) as look:
        base = topology.windows[0].base
        bridge, device = topology.bridges["cxl.0"].registers, topology.devices["mem0"].registers
        assert bridge is not None
        commit(bridge, 0, base, ways=0)
        commit(device, 0, base + SIZE, ways=RESERVED)
        commit(device, 1, base, ways=0)
        look.load(base)
    return look.observation()


BUG = Bug(
    name="reserved-iw",
    title="an access that passes over a decoder with a reserved encoding ends the process",
    trigger="""
        A guest commits a device decoder with a reserved ways encoding; nothing checks it. An access in the
        range of a later decoder passes over that one, and adds its share to the device address, for which it
        divides by the ways. The function that decodes them is given the error handler that ends the process.
        The access should be refused.
    """,
    fix=Fix("latent"),
    references=("hw/mem/cxl_type3.c, translation of host to device addresses",),
    switches=("reserved_iw",),
    scenarios={BUS: scenario},
    faulty=Expected(Outcome.ABORT, "decoder 0 has the reserved ways encoding 7"),
    fixed=Expected(Outcome.ERROR, "a load at 0x"),
)
