"""Every mapping of an x86 address space, from the registers that select its tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mmu.scan import Form, collect, stream
from mmu.x86.format import Cr3, Efer
from mmu.x86.radix import scan_form
from mmu.x86.registers import Ept, Registers, root_address

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mmu.memory import AddressSpace


def tree(regs: Registers, stage: int = 1) -> tuple[Form, int]:
    """The form of the tables of a stage, and their root."""
    if stage == 1:
        if not regs.paging:
            raise ValueError("there are no tables to scan: CR0.PG is 0")
        if regs.stage2 is not None:
            raise ValueError("the tables of stage 1 lie in guest-physical addresses; stage=2 can be scanned")
        return scan_form(regs.levels, regs.phys_bits, bool(regs.efer & Efer.NXE.mask)), regs.root
    if stage != 2 or regs.stage2 is None:
        raise ValueError(f"stage must be 1, or 2 where the registers have one, not {stage}")
    second = regs.stage2
    if isinstance(second, Ept):
        return scan_form(second.levels, second.phys_bits), second.eptp & Cr3.ADDR.mask
    no_execute = bool(second.efer & Efer.NXE.mask)
    return scan_form(second.levels, second.phys_bits, no_execute), root_address(second.ncr3, second.levels)


def scan(space: AddressSpace, regs: Registers, *, stage: int = 1, **options: Any) -> NDArray[np.void]:
    """
    Every mapping, as one array of records (va, pa, size, flags); see `mmu.scan`.

    Args:
        stage: 2 for the nested or extended tables of *regs*; addresses are guest-physical then.
        options: first, last, merge, batch, on_error, as of `mmu.scan.stream`.
    Raises:
        BusError: a table entry cannot be read (on_error="raise").
        ValueError: no tables to scan.
    """
    form, root = tree(regs, stage)
    return collect(space, form, root, **options)


def scan_batches(space: AddressSpace, regs: Registers, *, stage: int = 1, **options: Any) -> Iterator[NDArray[np.void]]:
    """The same in batches, for address spaces of any size."""
    form, root = tree(regs, stage)
    return stream(space, form, root, **options)
