"""Batches of walks: addresses in, a structured array out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmu.arm64.native import c_registers
from mmu.arm64.registers import Registers
from mmu.arm64.request import check_access
from mmu.core import check, ffi, lib
from mmu.types import Access

if TYPE_CHECKING:
    from mmu.memory import AddressSpace

# `status` is a FaultKind (0: translated), `esr` the ESR_ELx of the fault, 0 without one. It also answers to
# `error_code`, x86's name, so that code for both can read either.
RESULT = np.dtype(
    [("pa", np.uint64), ("page_size", np.uint64), ("status", np.uint32), (("error_code", "esr"), np.uint32)]
)


def result_type() -> Any:
    """The numpy type of the answers of `walk_many`."""
    return RESULT


def walk_many(
    space: AddressSpace, regs: Registers, vas: Any, access: Access, out: Any = None, update: bool = True
) -> Any:  # fmt: skip
    """
    Walk every address of *vas*, as `walk` does one by one, with many walks in flight.

    Args:
        vas: an array of uint64 of any shape.
        out: an array of dtype `result_type()` and of that shape to fill and return; made when None. Must not overlap
            *vas*.
        update: as in `walk`.
    Returns:
        The array; `pa` and `page_size` (bytes) are 0 where `status` is not.
    Raises:
        ValueError: a wrong shape or dtype, an access that does not exist. Whatever an MMIO callback raises.

    The GIL is free meanwhile.
    """
    check_access(access)
    vas = np.asarray(vas)
    if vas.dtype != np.uint64:
        if vas.dtype.kind not in "iu" or (vas.size and vas.min() < 0):
            raise ValueError(f"vas must be numbers in 0 .. 2**64-1 as uint64, not an array of {vas.dtype}")
        vas = vas.astype(np.uint64)
    vas = np.ascontiguousarray(vas)
    if out is None:
        out = np.empty(vas.shape, RESULT)
    elif out.dtype != RESULT or out.shape != vas.shape or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(
            f"out must be a writeable contiguous array of {RESULT} and shape {vas.shape}, "
            f"not of {out.dtype} and {out.shape}"
        )
    rows = ffi.from_buffer("struct mmu_arm64_result[]", out, require_writable=True)
    status = lib.mmu_arm64_walk_many(
        space.port, c_registers(regs), ffi.from_buffer("uint64_t[]", vas), vas.size, int(access),
        lib.MMU_ARM64_UPDATE * update, rows,
    )  # fmt: skip
    check(status, f"arm64 walk of {vas.size} addresses")
    return out
