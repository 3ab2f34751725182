"""second-page-mmio."""

import pytest

from cxl.bugs.rig import CODE, PAGE, Rig, listing
from cxl.bugs.second_page_mmio import START
from mmu.tcg import Switches
from tests.regress import bus, faulty, fixed

LONG = "48 b8 88 77 66 55 44 33 22 11   movabs rax, 0x1122334455667788\nf4   hlt"


def test_the_translator_asserts():
    seen = faulty("second-page-mmio")
    assert seen.outcome == "abort"
    assert "translator_access: Assertion `phys_page != -1' failed." in seen.message
    assert seen.pc == START
    assert seen.registers["rax"] == 0


def test_its_bytes_are_fetched_when_fixed():
    seen = fixed("second-page-mmio")
    assert seen.outcome == "ok"
    assert seen.registers["rax"] == 0x12345678
    assert {(event[1], event[7]) for event in bus(seen)} == {("r", "fetch")}
    block = next(event for event in seen.trace if event[0] == "tb")
    assert block[1:5] == (START, 1, -1, -1)
    assert block.cached is False


def run(first, before, second, **switches):
    """LONG with *before* bytes in a page at *first*, the others in one at *second*."""
    rig, code = Rig("x86_64", Switches(**switches)), listing(LONG)
    rig.fill(rig.map(CODE, first) + PAGE - before, code[:before])
    rig.fill(rig.map(CODE + PAGE, second), code[before:])
    return rig.observe(CODE + PAGE - before, results={"rax": 0x1122334455667788})


@pytest.mark.parametrize("before", range(1, 10))
def test_every_split(before):
    assert run("r", before, "w", second_page_mmio=True).outcome == "abort"
    assert run("r", before, "w").outcome == "ok"


@pytest.mark.parametrize("before", [1, 4, 9])
def test_from_mmio_into_ram_never_did(before):
    assert run("w", before, "r", second_page_mmio=True).outcome == "ok"
