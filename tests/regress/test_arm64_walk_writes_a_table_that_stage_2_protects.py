"""stage2-ro-update."""

from tests.regress import bus, faulty, fixed

PERMISSION_LEVEL_3, S1PTW = 0x0F, 1 << 7


def test_the_flag_is_set_and_nobody_is_told():
    seen = faulty("stage2-ro-update")
    assert seen.outcome == "wrong-data"
    assert [event[1] for event in bus(seen)] == ["r", "r", "w"]
    assert seen.registers["x2"] == 1


def test_the_hypervisor_gets_a_permission_fault_on_a_walk_when_fixed():
    seen = fixed("stage2-ro-update")
    assert seen.outcome == "guest-fault"
    (event,) = [event for event in seen.trace if event[0] == "fault"]
    assert event.syndrome & (0x3F | S1PTW) == PERMISSION_LEVEL_3 | S1PTW
    assert [event[1] for event in bus(seen)] == ["r"]
