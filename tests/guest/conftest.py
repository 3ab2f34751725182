"""Every test of guests runs twice: with windows served access by access, and as RAM where that is possible."""

import pytest

from mmu.machine import Machine

WITHOUT_GUEST = ("tests.guest.test_loader",)


def pytest_generate_tests(metafunc):
    if metafunc.module.__name__ not in WITHOUT_GUEST and not metafunc.module.__name__.endswith(("services", "mirror")):
        metafunc.fixturenames.insert(0, "dispatch")
        metafunc.parametrize("dispatch", ("exact", "auto"), indirect=True)


@pytest.fixture
def dispatch(request, monkeypatch):
    """What Machine(dispatch=) defaults to in this test."""
    arch, _, emulator = Machine.__init__.__defaults__
    monkeypatch.setattr(Machine.__init__, "__defaults__", (arch, request.param, emulator))
    return request.param
