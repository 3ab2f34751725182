"""Every bug under every release: what each shows, run and not looked up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cxl.bugs.bug import Bug, Expected, Observation
from mmu.tcg import RELEASES


@dataclass(frozen=True)
class Cell:
    """*bug* under *release*, on the first architecture that it has."""

    bug: Bug
    release: str
    seen: Observation
    expected: Expected

    @property
    def complaints(self) -> list[str]:
        return self.expected.complaints(self.seen)


def cell(bug: Bug, name: str, arch: str | None = None) -> Cell:
    chosen = bug.chosen(arch)
    return Cell(bug, name, bug.run(chosen, bug.under(name)), bug.expected_under(name, chosen))


def matrix(bugs: Iterable[Bug], releases: Iterable[str] = RELEASES) -> dict[str, dict[str, Cell]]:
    names = tuple(releases)
    return {bug.name: {name: cell(bug, name) for name in names} for bug in bugs}
