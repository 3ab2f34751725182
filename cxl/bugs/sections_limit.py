"""Why interleaved memory is not just many small pieces of RAM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxl.bugs.bug import BUS, Bug, Expected, Fix, Observation, Outcome
from cxl.bugs.busside import looking, several
from cxl.emulator import SECTIONS, check_sections
from mmu import Alias, Container, Ram

if TYPE_CHECKING:
    from cxl.region import Region
    from mmu.tcg import Switches

GRANULE = 16 << 10
PIECES = 64 * 65  # a little more than SECTIONS
PER_BOX = 65


def granules(region: Region) -> Container:
    """The first PIECES granules of *region* as RAM aliases, one each, in boxes."""
    memory = [Ram(d.memory.size, f"{d.name} memory", d.memory) for d in region.devices]
    shown = Container(PIECES * GRANULE, "granules")
    for first in range(0, PIECES, PER_BOX):
        box = Container(PER_BOX * GRANULE, f"granules from {first}")
        for i in range(first, first + PER_BOX):
            turn, at = i % region.ways, i // region.ways * GRANULE
            box.map((i - first) * GRANULE, Alias(memory[turn], at, GRANULE))
        shown.map(first * GRANULE, box)
    return shown


def scenario(switches: Switches) -> Observation:
    """The region again, 4 GiB higher and piece by piece; a word written there is read through its window."""
    topology = several(2, granularity=GRANULE)
    with looking(topology, switches) as look:
        (region,) = topology.commit()
        copy = topology.windows[0].last + 1
        look.space.map(copy, granules(region))
        check_sections(look.space, switches)
        for i in (0, 1, SECTIONS, PIECES - 1):
            look.store(copy + i * GRANULE, i + 1)
            look.same(f"granule {i}", look.load(region.base + i * GRANULE), i + 1)
    return look.observation()


BUG = Bug(
    name="sections-limit",
    title="a memory map with more than 4096 sections ends the emulator",
    trigger="""
        More than 4096 ranges in one memory map. The number of a section shared a word with the offset in a page
        of 4 KiB, and its allocation asserts that it fits. Interleaved memory could be shown as one RAM alias
        for each granule, which would spare every access the way through MMIO; 512 MiB in granules of 16 KiB are
        32768 of them. The limit goes with the development tree of late 2025, where TLB entries point to their
        section; the exact release is not known.
    """,
    fix=Fix("fixed", release="11.1"),
    references=("J. Cameron, qemu-devel February 2024: 16 KiB x 512 MiB asserts", "system/physmem.c, phys_section_add"),
    switches=("sections_limit",),
    scenarios={BUS: scenario},
    faulty=Expected(Outcome.ABORT, "phys_section_add: assertion failed"),
    fixed=Expected(Outcome.OK),
)
