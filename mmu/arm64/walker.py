"""Public walks: one address, by the C walker or by the reference walker."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from mmu.arm64 import native
from mmu.arm64.registers import Registers
from mmu.types import Access, Fault, Translation

if TYPE_CHECKING:
    from mmu.memory import AddressSpace

_native, _UPDATE = native.walk, native.UPDATE
Engine = Literal["native", "reference"]


def walk(
    space: AddressSpace,
    regs: Registers,
    va: int,
    access: Access,
    engine: Engine = "native",
    update: bool = True,
    steps: bool = True,
) -> Translation | Fault:
    """
    Translate *va* as a CPU without a TLB would: stage 1 of the regime that regs.el selects, then stage 2 if it is on.

    Args:
        va: 0 .. 2**64-1, top byte included.
        access: READ, WRITE or FETCH; UNPRIVILEGED with READ or WRITE is LDTR or STTR, MAINTENANCE is a DC by address:
                with WRITE one that invalidates only, with READ any other.
        engine: "native" (C) or "reference" (Python); both give the same result and the same bus accesses.
        update: write AF and dirty state back where TCR or VTCR tell hardware to. Without it the walk succeeds as if
            they had been written; nothing on the bus changes.
        steps: record every entry read.
    Returns:
        Translation, whose `attributes` `mmu.arm64.attributes.of` describes, or Fault. Fault.level is 0 where the
        address was refused before an entry was read.
    Raises:
        ValueError: an address, access or engine that does not exist. Whatever an MMIO callback raises.
    """
    if engine == "native":  # at once: the call is made often
        return _native(space, regs, va, access, _UPDATE if update else 0, steps)
    return translate(space, regs, va, access, engine, update, steps)


def translate(
    space: AddressSpace, regs: Registers, va: int, access: Access, engine: str, update: bool, steps: bool,
    stage1_only: bool = False,
) -> Translation | Fault:  # fmt: skip
    """As `walk`; *stage1_only*: the output of stage 1, whose tables still pass stage 2."""
    if engine == "native":
        options = native.UPDATE * update | native.STAGE1_ONLY * stage1_only
        return native.walk(space, regs, va, access, options, steps)
    if engine != "reference":
        raise ValueError(f"engine must be one of native, reference, not {engine!r}")
    from mmu.arm64.reference import Walker
    from mmu.arm64.request import request_of

    found = Walker(space, regs, request_of(regs, va, access, update, stage1_only)).run()
    return found if steps else replace(found, steps=())
