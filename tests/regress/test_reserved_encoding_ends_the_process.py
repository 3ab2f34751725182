"""reserved-iw."""

import pytest

from cxl.bugs.busside import several
from cxl.bugs.reserved_iw import RESERVED, SIZE, commit
from cxl.format import TARGETS_LOW
from mmu import AddressSpace, MemTxResult
from mmu.tcg import EmulatorAbort, Switches
from tests.regress import faulty, fixed


def test_an_access_to_a_later_decoder_ends_it():
    seen = faulty("reserved-iw")
    assert seen.outcome == "abort"
    assert "decoder 0 has the reserved ways encoding 7" in seen.message


def test_the_access_is_refused_when_fixed():
    seen = fixed("reserved-iw")
    assert (seen.outcome, seen.trace[0].result) == ("error", "ERROR")


def machine(encoding):
    """Two ways over mem0 and mem1; decoder 0 of mem0 has *encoding*, and decoder 1 is the one of the region."""
    topology = several(2, "512M")
    topology.emulate(Switches(reserved_iw=True))
    base = topology.windows[0].base
    bridge = topology.bridges["cxl.0"].registers
    bridge.write32(bridge.offset(0, TARGETS_LOW), 1 << 8)  # port 0, then port 1
    commit(bridge, 0, base, ways=1)
    commit(topology.devices["mem0"].registers, 0, base + SIZE, ways=encoding)
    commit(topology.devices["mem0"].registers, 1, base, ways=1)
    commit(topology.devices["mem1"].registers, 0, base, ways=1)
    space = AddressSpace()
    topology.attach(space)
    return space, base


def test_the_other_device_of_the_window_goes_on_answering():
    space, base = machine(RESERVED)
    assert space.store(base + 256, 8, 7) == MemTxResult.OK
    assert space.load(base + 256, 8) == (7, MemTxResult.OK)
    for access in (lambda: space.load(base, 8), lambda: space.store(base, 8, 7)):
        with pytest.raises(EmulatorAbort) as abort:
            access()
        assert abort.value.kind == "decoder_ways"


def test_an_encoding_that_means_something_ends_nothing():
    space, base = machine(0)
    assert space.store(base, 8, 7) == MemTxResult.OK
