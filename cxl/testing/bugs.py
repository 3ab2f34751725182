"""A bug of the atlas as switches of an emulator."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmu.tcg import Switches


def check(name: str) -> None:
    """Raises ValueError unless the atlas has a bug of that name that is a matter of a switch."""
    switches(name, "fixed")


def switches(name: str, mode: str) -> Switches:
    """Everything fixed under the policy that the bug's trigger needs; in mode "faulty", but for this bug."""
    from cxl.bugs import get
    from cxl.bugs.bug import Mode

    bug = get(name)
    if not bug.switches:
        raise ValueError(f"{bug.name} is by design: no emulator is without it")
    return bug.emulator(Mode(mode))
