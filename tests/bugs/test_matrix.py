"""The matrix, written down once more: by the dates of the fixes, and by what 7.2.22 and 10.0.13 were seen to do."""

import pytest

from cxl.bugs import NAMES, get
from cxl.bugs.bug import ARCHES
from cxl.bugs.matrix import cell
from mmu.tcg import RELEASES

WORDS = {"fault": "guest-fault", "wrong": "wrong-data"}
#                             7.2   8.2   9.0   9.1   9.2   10.0  10.1  11.1
EXPECTED = {
    "ptw-retaddr": "ok    abort abort ok    ok    ok    ok    ok",
    "lookup-tb-can-do-io": "ok    abort ok    ok    ok    ok    ok    ok",
    "double-lock": "ok    abort ok    ok    ok    ok    ok    ok",
    "setl-exclusive-hang": "hang  hang  hang  hang  ok    ok    ok    ok",
    "plugin-walk": "ok    hang  hang  hang  ok    ok    ok    ok",
    "arm-hafdbs-mmio": "fault fault ok    ok    ok    ok    ok    ok",
    "second-page-mmio": "abort ok    ok    ok    ok    ok    ok    ok",
    "straddle-final-insn": "abort ok    ok    ok    ok    ok    ok    ok",
    "straddle-jump-cache": "abort wrong wrong wrong wrong wrong wrong wrong",
    "atomic-flags": "ok    ok    ok    ok    ok    ok    ok    ok",
    "atomic-step-livelock": "ok    ok    ok    ok    ok    ok    ok    ok",
    "oneshot-unregistered": "ok    ok    ok    ok    ok    ok    ok    ok",
    "io-must-be-last": "ok    ok    ok    ok    ok    ok    ok    ok",
    "bus-error-x86": "fault abort abort fault fault fault fault fault",
    "bus-error-arm": "fault fault fault fault fault fault fault fault",
    "ptw-rom": "hang  hang  hang  hang  ok    ok    ok    ok",
    "stage2-ro-update": "fault fault wrong wrong wrong wrong wrong wrong",
    "rsvd-error-code": "fault fault fault fault fault fault fault fault",
    "step-atomic-setl": "ok    abort abort ok    hang  hang  hang  hang",
    "excl-bql-deadlock": "hang  abort hang  hang  hang  hang  hang  hang",
    "alias-path": "ok    abort abort ok    ok    ok    ok    ok",
    "hdm-target-list": "ok    ok    ok    ok    ok    ok    ok    ok",
    "hdm-decoder-count": "error ok    ok    ok    ok    ok    ok    ok",
    "reserved-iw": "error abort abort abort abort abort abort abort",
    "alias-path-base": "error ok    ok    ok    ok    ok    ok    ok",
    "sections-limit": "abort abort abort abort abort abort abort ok",
}  # fmt: skip


def test_every_bug_has_a_row():
    assert list(EXPECTED) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_row(name):
    seen = [cell(get(name), release).seen.outcome for release in RELEASES]
    assert seen == [WORDS.get(word, word) for word in EXPECTED[name].split()]


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("name", NAMES)
def test_a_release_shows_what_is_expected_of_it(name, arch):
    """Outcome, message and counts, on either architecture."""
    assert {r: found for r in RELEASES if (found := cell(get(name), r, arch).complaints)} == {}
