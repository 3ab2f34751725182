"""Every mapping of an arm64 address space, from the registers that select its tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mmu.arm64.radix import radix, scan_form
from mmu.arm64.regime import Stage1, Tables, regime_of, stage1_of, stage2_of
from mmu.arm64.registers import Registers
from mmu.scan import Form, collect, stream

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mmu.memory import AddressSpace


def _form(tables: Tables, stage1: Stage1 | None) -> Form:
    levels = radix(
        tables.granule, tables.form, tables.input_bits, tables.stage, tables.start_level, tables.block_levels,
        tables.descriptor_bits > 48,
    )  # fmt: skip
    if stage1 is None:
        return scan_form(levels, 2, tables.output_bits, big_endian=tables.big_endian)
    return scan_form(
        levels, 1, tables.output_bits, two_ranges=stage1.regime.two_ranges, hierarchical=not stage1.hpd,
        base=-1 << tables.input_bits & (1 << 64) - 1 if stage1.upper else 0, big_endian=tables.big_endian,
    )  # fmt: skip


def trees(regs: Registers, stage: int = 1, upper: bool | None = None) -> list[tuple[Form, int]]:
    """The form and the root of each table tree of a stage, lower addresses first."""
    regime = regime_of(regs, regs.el)
    second = stage2_of(regs, regime)
    if stage == 2 and second is not None:
        return [(_form(second.tables, None), second.tables.base)] if second.tables.valid else []
    if stage != 1:
        raise ValueError(f"stage must be 1, or 2 where it is on for {regime.value[0]}, not {stage}")
    if second is not None:
        raise ValueError("the tables of stage 1 lie in intermediate physical addresses; stage=2 can be scanned")
    halves = (False, True) if regime.two_ranges else (False,)
    found = [stage1_of(regs, regime, half) for half in halves if upper in (None, half)]
    if not found or not found[0].enabled:
        raise ValueError(f"there are no tables to scan: stage 1 of {regime.value[0]} is off, or has no such range")
    return [(_form(s.tables, s), s.tables.base) for s in found if s.tables.valid and not s.epd]


def scan(
    space: AddressSpace, regs: Registers, *, stage: int = 1, upper: bool | None = None, **options: Any
) -> NDArray[np.void]:
    """
    Every mapping of the regime that regs.el selects, as one array of records (va, pa, size, flags); see `mmu.scan`.

    Args:
        stage: 2 for the stage 2 tables; addresses are intermediate physical ones then.
        upper: only the tables of TTBR1 (True) or TTBR0 (False). Default: both, where the regime has both.
        options: first, last (of each tree, without upper bits), merge, batch, on_error, as of `mmu.scan.stream`.
    Raises:
        BusError: a table entry cannot be read (on_error="raise").
        ValueError: no tables to scan.
    """
    import numpy as np

    from mmu.scan import record_type

    parts = [collect(space, form, root, **options) for form, root in trees(regs, stage, upper)]
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, record_type()), *parts])


def scan_batches(
    space: AddressSpace, regs: Registers, *, stage: int = 1, upper: bool | None = None, **options: Any
) -> Iterator[NDArray[np.void]]:
    """The same in batches, for address spaces of any size."""
    for form, root in trees(regs, stage, upper):
        yield from stream(space, form, root, **options)
