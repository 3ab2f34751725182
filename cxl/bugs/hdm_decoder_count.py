"""Two regions: only decoder 0 was ever looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import BUS, Bug, Expected, Fix, Observation, Outcome
from cxl.bugs.busside import looking, several

if TYPE_CHECKING:
    from mmu.tcg import Switches

SIZE = 256 << 20


def scenario(switches: Switches) -> Observation:
    """A region of its own for each of two devices; a word into each, and back."""
    topology = several(2)
    with looking(topology, switches) as look:
        regions = [topology.create_region(0, [name], size=SIZE) for name in ("mem0", "mem1")]
        for number, region in enumerate(regions):
            look.store(region.base, 0x1234 + number)
        for number, region in enumerate(regions):
            look.same(f"{region.devices[0].name} through {region.base:#x}", look.load(region.base), 0x1234 + number)
    return look.observation()


BUG = Bug(
    name="hdm-decoder-count",
    title="every decoder but the first is ignored",
    trigger="""
        A second region below the same host bridge, on decoder 1. Host bridges and switches looked at decoder 0
        alone, and not even at its range, so that every address of the window went where region 0 would have
        sent it; devices translated by their decoder 0 alone. Addresses of the second region reach a device of
        the first one, which refuses what is not in its range, or takes it for its own.
    """,
    fix=Fix("fixed", release="8.2"),
    references=("qemu-devel September 2023: support for several HDM decoders",),
    switches=("hdm_decoder_count",),
    scenarios={BUS: scenario},
    faulty=Expected(Outcome.ERROR, "a store at 0x400000000 ends with ERROR"),
    fixed=Expected(Outcome.OK),
)
