"""atomic-step-livelock."""

import pytest

from tests.regress import bus, faulty, fixed

ARCHES = pytest.mark.parametrize("arch", ["x86_64", "aarch64"])


@ARCHES
def test_the_step_asks_for_itself_for_ever(arch):
    seen = faulty("atomic-step-livelock", arch)
    assert seen.outcome == "hang"
    assert "no instruction is completed any more" in seen.message
    turns = [event[0] for event in seen.trace if event[0] in ("atomic_exit", "recompile")]
    assert turns[:6] == ["atomic_exit", "recompile"] * 3
    assert len(turns) > 20
    assert bus(seen) == []


@ARCHES
def test_it_ends_when_fixed(arch):
    seen = fixed("atomic-step-livelock", arch)
    assert (seen.outcome, seen.counts["atomic_exits"], seen.counts["recompiles"]) == ("ok", 1, 0)
