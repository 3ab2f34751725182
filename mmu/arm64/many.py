"""Batches of walks: addresses in, a structured array out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmu.arm64.native import c_registers
from mmu.arm64.registers import Registers
from mmu.arm64.walker import check_access
from mmu.core import check, ffi, lib
from mmu.types import Access

if TYPE_CHECKING:
    from mmu.memory import AddressSpace

# `status` is a FaultKind (0: translated), `esr` the ESR_ELx of the fault, 0 without one. It also answers to
# `error_code`, x86's name, so that code for both can read either.
RESULT = np.dtype(
    [("pa", np.uint64), ("page_size", np.uint64), ("status", np.uint32), (("error_code", "esr"), np.uint32)]
)


def walk_many(
    space: AddressSpace, regs: Registers, vas: Any, access: Access, out: Any = None, update: bool = True
) -> Any:  # fmt: skip
    """
    Walk every address of *vas* (uint64, one dimension), as `walk` does one by one, many at a time.

    Args:
        out: an array of dtype `RESULT` and the same length to fill and return; made when None.
        update: as in `walk`.
    Returns:
        The array; `pa` and `page_size` (bytes) are 0 where `status` is not.
    Raises:
        ValueError: wrong shape, dtype or length, or an access that does not exist. Whatever an MMIO callback raises.
    """
    vas = np.ascontiguousarray(vas)
    if vas.dtype != np.uint64 or vas.ndim != 1:
        raise ValueError(f"vas must be uint64 in one dimension, not {vas.dtype} in {vas.ndim}")
    if out is None:
        out = np.empty(len(vas), RESULT)
    elif out.dtype != RESULT or out.shape != vas.shape or not out.flags.c_contiguous:
        raise ValueError(f"out must be {len(vas)} contiguous rows of RESULT, not {out.shape} of {out.dtype}")
    rows = ffi.from_buffer("struct mmu_arm64_result[]", out, require_writable=True)
    status = lib.mmu_arm64_walk_many(
        space.port, c_registers(regs), ffi.from_buffer("uint64_t[]", vas), len(vas), int(check_access(access)),
        lib.MMU_ARM64_UPDATE * update, rows,
    )  # fmt: skip
    check(status, f"arm64 walk of {len(vas)} addresses")
    return out
