"""Many addresses at once, both ways, in C: which device byte is an address, which addresses reach a device byte."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmu.core import check, ffi, lib
from mmu.memory.striped import Striped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# As struct mmu_place and struct mmu_found have it.
PLACE_FIELDS = [("dpa", "<u8"), ("device", "<u4"), ("status", "<u4")]
FOUND_FIELDS = [("hpa", "<u8"), ("count", "<u4"), ("reserved", "<u4")]


class Locator:
    """What the routes of *windows* say at the time it is made. The windows must share one tuple of targets."""

    def __init__(self, windows: Sequence[Striped]) -> None:
        ordered = sorted(windows, key=lambda w: w.base)
        targets = ordered[0].targets if ordered else ()
        routes = [w.compile(w.route, lambda t: 0) for w in ordered]
        rows = [{"first": w.base, "last": w.base + w.size - 1, "route": r} for w, r in zip(ordered, routes)]
        out = ffi.new("mmu_locator **")
        check(
            lib.mmu_locator_create(
                ffi.new("struct mmu_window[]", rows), len(rows),
                ffi.new("uint64_t[]", [t.memory.size for t in targets]), len(targets), out),
            "windows overlap, or their routes leave them")
        self._handle = ffi.gc(out[0], lib.mmu_locator_destroy)

    def locate(self, hpas: NDArray[np.uint64], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """One row (dpa, device, status) per HPA; `device` is an index into the targets.

        status 0: a device; 1: in no window; 2: no device answers; 3: a device refuses; dpa and device are 0 then.
        *out*, of the dtype that is returned, takes the answers.
        """
        import numpy as np

        asked = _questions(hpas)
        result = np.empty(len(asked), PLACE_FIELDS) if out is None else _answers(out, len(asked), PLACE_FIELDS)
        lib.mmu_locate_many(
            self._handle, ffi.from_buffer("uint64_t[]", asked), len(asked),
            ffi.from_buffer("struct mmu_place[]", result, require_writable=True))
        return result

    def find(self, devices: NDArray[np.uint32] | int, dpas: NDArray[np.uint64]) -> NDArray[Any]:
        """One row (hpa, count, reserved) per (device, DPA): how many HPAs reach the byte, and the lowest of them."""
        import numpy as np

        asked = _questions(dpas)
        which = np.ascontiguousarray(np.broadcast_to(np.asarray(devices, np.uint32), asked.shape))
        result = np.empty(len(asked), FOUND_FIELDS)
        lib.mmu_find_many(
            self._handle, ffi.from_buffer("uint32_t[]", which), ffi.from_buffer("uint64_t[]", asked), len(asked),
            ffi.from_buffer("struct mmu_found[]", result, require_writable=True))
        return result


def _questions(values: Any) -> Any:
    """A contiguous array of uint64, made when *values* is not one; negative or fractional numbers are refused."""
    import numpy as np

    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"addresses must be a one-dimensional array, not of shape {array.shape}")
    if array.dtype.kind not in "ui" or (array.dtype.kind == "i" and array.size and array.min() < 0):
        raise ValueError(f"addresses must be integers that are not negative, not {array.dtype}")
    return np.ascontiguousarray(array, np.uint64)


def _answers(out: Any, count: int, fields: list[tuple[str, str]]) -> Any:
    import numpy as np

    if out.dtype != np.dtype(fields) or out.shape != (count,) or not out.flags.c_contiguous:
        raise ValueError(f"out must be {count} contiguous rows of {fields}, not {out.shape} of {out.dtype}")
    return out
