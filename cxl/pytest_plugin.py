"""The pytest plugin `cxl_mmu`: guests with tables, code and data in CXL windows, topologies, emulators by release.

Nothing but pytest is imported until a test asks for one of the fixtures. What is compared: `cxl.testing`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from cxl.testing.guest import Guest
    from cxl.topology import Topology
    from mmu.tcg import Switches

MODES = ("faulty", "fixed")
MARKER = (
    "cxl_bug(name, mode=None): run the test twice, with this bug of the atlas in the emulator and without it "
    '(mode="faulty" or "fixed": only so); cxl_mode and cxl_switches say which')


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("cxl-mmu").addoption(
        "--cxl-release", metavar="R", help="the release of QEMU that guests run under unless a test names its own")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    release = config.getoption("--cxl-release")
    if release is not None:
        from mmu.tcg import release as switches_of

        try:
            switches_of(release)
        except ValueError as error:
            raise pytest.UsageError(f"--cxl-release: {error}") from None


def _marked(marker: pytest.Mark) -> tuple[str, str | None]:
    """(bug, mode) of a marker. Fails with one line on what is wrong with it."""
    def arguments(name: str, mode: str | None = None) -> tuple[str, str | None]:
        return name, mode

    try:
        name, mode = arguments(*marker.args, **marker.kwargs)
    except TypeError as error:
        pytest.fail(f"cxl_bug: {error}".replace("_marked.<locals>.arguments", "cxl_bug"), pytrace=False)
    if mode is not None and mode not in MODES:
        pytest.fail(f"cxl_bug: mode must be one of {', '.join(MODES)}, not {mode!r}", pytrace=False)
    from cxl.testing.bugs import check

    try:
        check(name)
    except ValueError as error:
        pytest.fail(f"cxl_bug: {error}", pytrace=False)
    return name, mode


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("cxl_bug")
    if marker is None:
        return
    _, mode = _marked(marker)
    if sum(m.name == "cxl_bug" for m in metafunc.definition.own_markers) > 1:
        pytest.fail("cxl_bug: a test has one bug at a time", pytrace=False)
    if "cxl_mode" not in metafunc.fixturenames:
        metafunc.fixturenames.append("cxl_mode")
    metafunc.parametrize("cxl_mode", MODES if mode is None else (mode,), indirect=True)


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    if op != "==" or "cxl.testing" not in sys.modules:
        return None
    from cxl.testing.explain import explain

    return explain(left, right)


@pytest.fixture
def cxl_mode(request: pytest.FixtureRequest) -> str | None:
    """ "faulty" or "fixed" in a test marked with cxl_bug, else None."""
    mode: str | None = getattr(request, "param", None)
    return mode


@pytest.fixture
def cxl_switches(request: pytest.FixtureRequest, cxl_mode: str | None) -> Switches | None:
    """What the emulator does wrong in this test: of cxl_bug, else of --cxl-release, else None, a plain machine."""
    marker = request.node.get_closest_marker("cxl_bug")
    if marker is not None:
        from cxl.testing.bugs import switches

        return switches(_marked(marker)[0], cxl_mode or "fixed")
    release = request.config.getoption("--cxl-release")
    if release is None:
        return None
    from mmu.tcg import release as switches_of

    return switches_of(release)


@pytest.fixture
def cxl_topology() -> Callable[..., Topology]:
    """cxl_topology(), cxl_topology("QEMU options"), or cxl_topology(ways=4, granularity=1024, bridges=2)."""
    def make(qemu: str | None = None, **numbers: Any) -> Topology:
        if qemu is not None:
            from cxl.topology import Topology

            return Topology.from_qemu(qemu, **numbers)
        from cxl.testing.topology import interleaved

        return interleaved(**numbers)

    return make


@pytest.fixture
def cxl_machine(
    request: pytest.FixtureRequest, cxl_switches: Switches | None, cxl_topology: Callable[..., Topology]
) -> Iterator[Callable[..., Guest]]:
    """cxl_machine(source, arch="x86_64", topology=None, tables="ram", code="ram", data="ram", stack="ram", emulator=).

    See `cxl.testing.Guest`. *topology*: default `cxl_topology()`. *emulator*: default `cxl_switches`. A test whose
    source cannot be assembled, because GNU as for that architecture is not installed, is skipped.
    """
    made: list[Guest] = []

    def make(source: str | bytes | None = None, arch: str = "x86_64", **options: Any) -> Guest:
        from cxl.testing.guest import Guest
        from cxl.testing.source import can_assemble

        if isinstance(source, str) and not can_assemble(arch):
            pytest.skip(f"assembling for {arch} needs GNU as and ld for it")
        options.setdefault("emulator", cxl_switches)
        topology = options.pop("topology", None) or cxl_topology()
        made.append(Guest(topology, arch, source=source, **options))
        return made[-1]

    yield make
    for guest in made:
        guest.close()
