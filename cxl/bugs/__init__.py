"""The atlas: what goes wrong in an emulator when page tables, code or data are in memory that is MMIO to it.

One small file per bug. Nothing here simulates a bug: each file sets up a machine that meets it, and says what is seen
with the mistake and without. The mistakes are in `mmu.tcg`, `cxl.decoder` and `cxl.emulator`, one field of `Switches`
each.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING

from mmu.errors import MmuError

if TYPE_CHECKING:
    from cxl.bugs.bug import Bug

# In the order of the life of an access: walks, locks, code, atomics, the bus, decoders.
NAMES = (
    "ptw-retaddr",
    "lookup-tb-can-do-io",
    "double-lock",
    "setl-exclusive-hang",
    "plugin-walk",
    "arm-hafdbs-mmio",
    "second-page-mmio",
    "straddle-final-insn",
    "straddle-jump-cache",
    "atomic-flags",
    "atomic-step-livelock",
    "oneshot-unregistered",
    "io-must-be-last",
    "bus-error-x86",
    "bus-error-arm",
    "ptw-rom",
    "stage2-ro-update",
    "rsvd-error-code",
    "step-atomic-setl",
    "excl-bql-deadlock",
    "alias-path",
    "hdm-target-list",
    "hdm-decoder-count",
    "reserved-iw",
    "alias-path-base",
    "sections-limit",
)


class UnknownBugError(MmuError, ValueError):
    """A name that no bug of the atlas has."""


def get(name: str) -> Bug:
    """The bug called *name*. Raises UnknownBugError with the nearest names."""
    plain = name.strip().lower().replace("_", "-")
    if plain not in NAMES:
        near = get_close_matches(plain, NAMES, n=2, cutoff=0.4)
        hint = f"do you mean {' or '.join(near)}?" if near else f"the atlas has {', '.join(NAMES)}"
        raise UnknownBugError(f"there is no bug {name!r}: {hint}")
    bug: Bug = import_module(f"cxl.bugs.{plain.replace('-', '_')}").BUG
    return bug


def every() -> list[Bug]:
    return [get(name) for name in NAMES]
