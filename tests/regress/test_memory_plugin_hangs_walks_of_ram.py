"""plugin-walk."""

from cxl.bugs.plugin_walk import x86
from mmu.tcg import Switches
from tests.regress import faulty, fixed


def events(seen):
    return [event[:2] for event in seen.trace if event[0] in ("bus", "excl", "lock", "recompile")]


def test_tables_in_ram_hang():
    seen = faulty("plugin-walk")
    assert seen.outcome == "hang"
    assert "start_exclusive" in seen.message


def test_hooks_change_nothing_of_a_walk_when_fixed():
    seen = fixed("plugin-walk")
    assert seen.outcome == "ok"
    assert events(seen) == []
    assert seen.trace == x86(Switches()).trace


def test_the_walk_stops_all_cpus_while_only_the_hang_is_fixed():
    seen = x86(Switches(plugin_walk=True, plugins=True))
    assert seen.outcome == "ok"
    assert ("excl", "begin") in events(seen)


def test_without_a_plugin_there_is_nothing():
    assert events(x86(Switches(plugin_walk=True, setl_exclusive_hang=True))) == []
