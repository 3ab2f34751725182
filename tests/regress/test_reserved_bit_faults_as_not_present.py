"""rsvd-error-code."""

from cxl.bugs.rig import DATA
from tests.regress import faulty, fixed

P, RSVD = 1, 8


def code(seen):
    (event,) = [event for event in seen.trace if event[0] == "fault"]
    assert (event.syndrome, event.address) == (14, DATA)
    return event.code


def test_the_error_code_lacks_p():
    seen = faulty("rsvd-error-code")
    assert (seen.outcome, code(seen)) == ("guest-fault", RSVD)


def test_it_has_both_bits_when_fixed():
    seen = fixed("rsvd-error-code")
    assert (seen.outcome, code(seen)) == ("guest-fault", RSVD | P)
