"""The shortcut past the decoders looked at the wrong address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import BUS, Bug, Expected, Fix, Observation, Outcome
from cxl.bugs.busside import looking, several
from cxl.bugs.reserved_iw import SIZE, commit
from cxl.format import TARGETS_LOW

if TYPE_CHECKING:
    from mmu.tcg import Switches

GRANULE = 256


def scenario(switches: Switches) -> Observation:
    """Decoder 0 of the bridge goes straight to mem0; decoder 1 alternates, above device decoders that do not know."""
    topology = several(2, "512M")
    with looking(topology, switches) as look:
        straight = topology.windows[0].base
        split = straight + SIZE
        bridge = topology.bridges["cxl.0"].registers
        mem0, mem1 = (topology.devices[name].registers for name in ("mem0", "mem1"))
        assert bridge is not None
        commit(mem0, 0, straight, ways=0)
        commit(mem0, 1, split, ways=0)
        commit(mem1, 0, split, ways=0)
        bridge.write32(bridge.offset(1, TARGETS_LOW), 1 << 8)  # port 0, then port 1
        commit(bridge, 0, straight, ways=0)
        commit(bridge, 1, split, ways=1)
        look.store(split + GRANULE, 0x600D)
        seen = int.from_bytes(topology.devices["mem1"].read(GRANULE, 8), "little")
        look.same(f"mem1 DPA {GRANULE:#x}", seen, 0x600D)
    return look.observation()


BUG = Bug(
    name="alias-path-base",
    title="a range is shown as plain RAM although its path interleaves",
    trigger="""
        Two decoders in one window, of which the first goes straight to a device and the second interleaves. The
        first version of the direct path (see alias-path) asked whether the path of the window's first address
        interleaves, not that of the decoder's own base, and whether it ends at a device, not at this one.
        Device decoders that do not interleave themselves then become plain RAM below a bridge that does:
        granules that belong to another device are read from this one.
    """,
    fix=Fix("never released"),
    references=("RFC of the direct path, qemu-devel October 2025, and its review",),
    switches=("alias_path_base",),
    scenarios={BUS: scenario},
    faulty=Expected(Outcome.WRONG_DATA, "mem1 DPA 0x100 holds 0x0, not 0x600d"),
    fixed=Expected(Outcome.OK),
    elsewhere={"7.2": (Expected(Outcome.ERROR, "ends with ERROR"), "hdm-decoder-count")},
)
