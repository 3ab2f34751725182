"""oneshot-unregistered."""

import pytest

from cxl.bugs.oneshot_unregistered import x86
from mmu.tcg import Switches
from tests.regress import bus, faulty, fixed

ARCHES = pytest.mark.parametrize("arch", ["x86_64", "aarch64"])


@ARCHES
def test_the_block_cannot_be_found(arch):
    seen = faulty("oneshot-unregistered", arch)
    assert seen.outcome == "abort"
    assert "could not find TB for pc=0x" in seen.message  # a real address, unlike that of ptw-retaddr
    assert [event for event in bus(seen) if event[7] == "data"] == []


@ARCHES
def test_it_may_do_io_when_fixed(arch):
    seen = fixed("oneshot-unregistered", arch)
    assert seen.outcome == "ok"
    assert [event[4] for event in bus(seen) if event[7] == "data"] == [8]


def test_without_counting_it_never_failed():
    assert x86(Switches(oneshot_unregistered=True, can_do_io="P0")).outcome == "ok"
