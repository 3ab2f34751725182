"""io-must-be-last."""

from cxl.bugs.rig import CODE
from tests.regress import faulty, fixed


def test_the_rest_of_the_block_sees_the_old_map():
    seen = faulty("io-must-be-last")
    assert seen.outcome == "wrong-data"
    assert seen.registers["rbx"] == seen.registers["rax"] == 0x1122334455667788


def test_the_store_ends_its_block_when_fixed():
    seen = fixed("io-must-be-last")
    assert seen.outcome == "ok"
    assert (seen.registers["rax"], seen.registers["rbx"]) == (0x1122334455667788, 0)
    assert CODE + 3 in [event[1] for event in seen.trace if event[0] == "recompile"]


def test_arm64_is_told_that_it_is_gone_when_fixed():
    assert faulty("io-must-be-last", "aarch64").registers["x2"] == 0x1122334455667788
    seen = fixed("io-must-be-last", "aarch64")
    (event,) = [event for event in seen.trace if event[0] == "fault"]
    assert (seen.outcome, event.syndrome & 0x3F) == ("guest-fault", 0x10)
