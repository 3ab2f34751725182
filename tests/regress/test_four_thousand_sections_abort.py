"""sections-limit."""

import pytest

from cxl import Topology
from cxl.emulator import SECTIONS, check_sections
from mmu import AddressSpace, Container, Rom
from mmu.tcg import EmulatorAbort, Switches
from tests.regress import faulty, fixed

BOX = 64


def test_more_sections_than_numbers_abort():
    seen = faulty("sections-limit")
    assert seen.outcome == "abort"
    assert "4163 sections, and there is room for 4096" in seen.message
    assert seen.trace == ()


def test_as_many_as_you_like_when_fixed():
    seen = fixed("sections-limit")
    assert seen.outcome == "ok"
    assert len(seen.trace) == 8


def ranges(count):
    """A space with *count* ranges, a page each with one byte in it."""
    space, boxes = AddressSpace(), -(-count // BOX)
    root = Container(boxes * BOX << 12)
    for i in range(boxes):
        box = Container(BOX << 12)
        for j in range(min(BOX, count - i * BOX)):
            box.map(j << 12, Rom(b"x"))
        root.map(i * BOX << 12, box)
    space.map(0, root)
    return space


def test_the_limit_counts_the_section_of_what_is_not_there():
    check_sections(ranges(SECTIONS - 1), Switches(sections_limit=True))
    with pytest.raises(EmulatorAbort, match="4097 sections"):
        check_sections(ranges(SECTIONS), Switches(sections_limit=True))


def test_attaching_to_a_full_map_aborts_and_takes_nothing_over():
    space, topology = ranges(SECTIONS - 1), Topology.default()
    topology.emulate(Switches(sections_limit=True, alias_path=True))
    with pytest.raises(EmulatorAbort):
        topology.attach(space)
    assert len(space.view.ranges) == SECTIONS - 1
