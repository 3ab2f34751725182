"""Every test of guests runs twice: with windows served access by access, and as RAM where that is possible.

What is about exceptions runs once more, with the handlers entered by the reference in Python.
"""

import pytest

from mmu.machine import Machine

WITHOUT_GUEST = ("tests.guest.test_loader", "tests.guest.test_decode")
OWN_CHOICE = ("services", "mirror", "twins", "programs", "other_machines", "raising_devices")
WITH_EXCEPTIONS = ("delivery", "faults")


def pytest_generate_tests(metafunc):
    name = metafunc.module.__name__
    if name not in WITHOUT_GUEST and not name.endswith(OWN_CHOICE):
        more = ("reference",) if name.endswith(WITH_EXCEPTIONS) else ()
        metafunc.parametrize("dispatch", ("exact", "auto", *more), indirect=True)


@pytest.fixture(autouse=True)  # or pytest forgets it where a test does not name it
def dispatch(request, monkeypatch):
    """What Machine(dispatch=) defaults to in this test; "reference": exact, and Machine(deliver="reference")."""
    if not hasattr(request, "param"):
        return None
    arch, _, emulator, deliver = Machine.__init__.__defaults__
    dispatch = request.param
    if dispatch == "reference":
        dispatch, deliver = "exact", "reference"
    monkeypatch.setattr(Machine.__init__, "__defaults__", (arch, dispatch, emulator, deliver))
    return dispatch
