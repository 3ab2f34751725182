"""straddle-jump-cache."""

from cxl.bugs.second_page_mmio import START
from tests.regress import bus, faulty, fixed


def straddlers(seen):
    return [event for event in seen.trace if event[0] == "tb" and event.pc == START]


def fetches_after_the_store(seen):
    events = bus(seen)
    store = next(i for i, event in enumerate(events) if event[1] == "w")
    return [event for event in events[store:] if event[7] == "fetch" and event[3] == 0]


def test_the_old_block_is_found_again():
    seen = faulty("straddle-jump-cache")
    assert seen.outcome == "wrong-data"
    assert seen.registers["rax"] == 0x11111111
    assert len(straddlers(seen)) == 1
    assert fetches_after_the_store(seen) == []


def test_its_bytes_are_fetched_again_when_fixed():
    seen = fixed("straddle-jump-cache")
    assert seen.outcome == "ok"
    assert seen.registers["rax"] == 0x22222222
    assert len(straddlers(seen)) == 2
    assert fetches_after_the_store(seen) != []
