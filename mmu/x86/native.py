"""The C walker behind `x86.walk` and `x86.walk_many`."""

from __future__ import annotations

from functools import cache
from operator import index
from struct import Struct
from typing import TYPE_CHECKING, Any, Literal

from mmu.answer import (
    Answer,
    new_object,
    set_attributes,
    set_executable,
    set_pa,
    set_page_size,
    set_steps,
    set_user,
    set_writable,
)
from mmu.core import check, ffi, lib
from mmu.types import Access, Fault, FaultKind, Step, Translation
from mmu.x86.format import ENTRIES
from mmu.x86.nested import DATA_OR_FETCH
from mmu.x86.registers import Ept, Npt, Registers
from mmu.x86.walk import check_access, check_address, reference

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mmu.memory import AddressSpace

Engine = Literal["native", "reference"]

STEPS = 64  # a 5-level walk behind 5-level tables reads 35 entries
KINDS = tuple(FaultKind(n) for n in range(len(FaultKind)))
_BUS_ERRORS = {"zero": lib.MMU_X86_BUS_ZERO, "machine-check": lib.MMU_X86_BUS_MACHINE_CHECK}
_STAGE2 = {Npt: lib.MMU_X86_STAGE2_NPT, Ept: lib.MMU_X86_STAGE2_EPT, type(None): lib.MMU_X86_STAGE2_NONE}
_walk = lib.mmu_x86_walk
_OK, _UPDATE, _NULL = lib.MMU_OK, lib.MMU_X86_UPDATE, ffi.NULL
_LAST = (1 << 64) - 1
_TRANSLATION = Struct("=QQI???")  # pa .. executable of struct mmu_x86_translation


def _translation(raw: tuple[Any, ...], steps: tuple[Step, ...]) -> Translation:
    """A Translation from C's fields, set one by one: the constructor of a frozen class takes longer than the walk."""
    pa, page_size, _, writable, user, executable = raw
    found: Translation = new_object(Translation)
    set_pa(found, pa)
    set_page_size(found, page_size)
    set_writable(found, writable)
    set_user(found, user)
    set_executable(found, executable)
    set_attributes(found, {})
    set_steps(found, steps)
    return found


_pool: list[Answer] = []  # list.pop and list.append are atomic, so threads never share one


def c_registers(regs: Registers) -> Any:
    """The C form of *regs*, made once per object."""
    found = regs.__dict__.get("_c")
    if found is None:
        stage2 = regs.stage2
        found = regs.__dict__["_c"] = ffi.new("struct mmu_x86_regs *", {
            "cr0": regs.cr0, "cr3": regs.cr3, "cr4": regs.cr4, "efer": regs.efer,
            "pkru": regs.pkru, "pkrs": regs.pkrs, "cpl": regs.cpl, "ac": regs.ac, "phys_bits": regs.phys_bits,
            "bus_error": _BUS_ERRORS[regs.bus_error],
            "stage2": _STAGE2[type(stage2)],
            "stage2_root": stage2.ncr3 if isinstance(stage2, Npt) else stage2.eptp if stage2 else 0,
            "stage2_cr4": stage2.cr4 if isinstance(stage2, Npt) else 0,
            "stage2_efer": stage2.efer if isinstance(stage2, Npt) else 0,
            "stage2_phys_bits": stage2.phys_bits if stage2 else 0,
        })  # fmt: skip
    return found


def walk(
    space: AddressSpace, regs: Registers, va: int, access: Access,
    engine: Engine = "native", update: bool = True, steps: bool = True,
) -> Translation | Fault:  # fmt: skip
    """Translate *va* as a processor without a TLB would. See `mmu.x86.walk.reference` for everything.

    `engine` chooses between the C walker and the Python reference: same answers, same bus accesses.
    """
    if type(va) is not int:
        va = index(va)  # a numpy integer, which would not stay exact
    if engine != "native":
        return _reference(space, regs, va, access, engine, update, steps)
    if not 0 <= va <= _LAST:
        check_address(va)
    try:
        answer = _pool.pop()
    except IndexError:
        answer = Answer("x86", _TRANSLATION, STEPS)
    status = _walk(
        space.port, regs.__dict__.get("_c") or c_registers(regs), va, access, _UPDATE if update else 0,
        answer.translation, answer.fault, answer.steps if steps else _NULL)  # fmt: skip
    if status < 0:
        _refused(status, access)
    read = _steps(space, answer) if steps else ()
    found: Translation | Fault
    if status == _OK:
        found = _translation(answer.unpack(), read)
    else:
        found = fault_of(answer.fault, regs, va, access, read)
    _pool.append(answer)
    return found


def walk_many(
    space: AddressSpace, regs: Registers, vas: NDArray[np.uint64], access: Access,
    out: NDArray[np.void] | None = None, update: bool = True,
) -> NDArray[np.void]:  # fmt: skip
    """
    Translate every address of *vas*, as `walk` would one after the other, with many walks in flight.

    Args:
        vas: linear addresses, an array of uint64 of any shape.
        out: where the answers go, of the shape of *vas* and `result_type()`; made when None. Must not overlap *vas*.
        update: False leaves accessed and dirty flags alone.
    Returns:
        `out`: fields pa, page_size (bytes), status (0, or the number of a FaultKind; pa and page_size are 0 then) and
        error_code: of the page fault, or exit_info_1 or the exit qualification of a guest's exit.
    The GIL is free meanwhile. Raises ValueError before the first walk, and whatever an MMIO callback raises.
    """
    import numpy as np

    vas = np.asarray(vas)
    if vas.dtype != np.uint64:
        if vas.dtype.kind not in "iu" or (vas.size and vas.min() < 0):
            raise ValueError(f"vas must be numbers in 0..{(1 << 64) - 1:#x} as uint64, not an array of {vas.dtype}")
        vas = vas.astype(np.uint64)
    vas = np.ascontiguousarray(vas)
    kind = result_type()
    if out is None:
        out = np.empty(vas.shape, kind)
    elif out.dtype != kind or out.shape != vas.shape or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(f"out must be a writeable contiguous array of {kind} and shape {vas.shape}, "
                         f"not of {out.dtype} and {out.shape}")
    status = lib.mmu_x86_walk_many(
        space.port, c_registers(regs), ffi.from_buffer("uint64_t[]", vas), vas.size, access, _UPDATE if update else 0,
        ffi.from_buffer("struct mmu_x86_result[]", out, require_writable=True))  # fmt: skip
    if status < 0:
        _refused(status, access)
    return out


@cache
def result_type() -> Any:
    """The numpy type of the answers of `walk_many`."""
    import numpy as np

    return np.dtype([("pa", "u8"), ("page_size", "u4"), ("status", "u4"), ("error_code", "u8")])


def _reference(
    space: AddressSpace, regs: Registers, va: int, access: Access, engine: str, update: bool, steps: bool
) -> Translation | Fault:
    if engine != "reference":
        raise ValueError(f"engine must be 'native' or 'reference', not {engine!r}")
    return reference(space, regs, va, access, update, steps)


def _refused(status: int, access: Access) -> None:
    if status == lib.MMU_ERANGE:
        check_access(access)
    check(status, "x86 walk")


def _steps(space: AddressSpace, answer: Answer) -> tuple[Step, ...]:
    out = []
    for raw in answer.list[0 : min(answer.steps.count, STEPS)]:
        name, layout = ENTRIES[raw.format]
        value, address = raw.value, raw.address
        out.append(Step(raw.level, name, address, value, layout.decode(value), raw.stage, space.place(address)))
    return tuple(out)


def fault_of(f: Any, regs: Registers, va: int, access: Access, steps: tuple[Step, ...]) -> Fault:
    level, address, entry = (f.level, f.entry_address, f.entry) if f.level else (None, None, None)
    kind = KINDS[f.kind]
    if f.stage == 1:
        detail: dict[str, object] = {"protection_key": f.protection_key - 1} if f.protection_key else {}
        return Fault(kind, level, va, access, address, entry, detail=detail, steps=steps)
    detail = {"wanted": Access(f.wanted)}
    if isinstance(regs.stage2, Ept) and kind is not FaultKind.BUS:
        detail["granted"] = Access(f.granted) & DATA_OR_FETCH
    return Fault(kind, level, va, access, address, entry, 2, f.gpa, bool(f.on_table), detail, steps)
