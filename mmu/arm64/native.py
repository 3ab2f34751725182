"""The C walker behind the same values as the reference walker."""

from __future__ import annotations

from dataclasses import fields
from struct import Struct
from typing import TYPE_CHECKING, Any, NoReturn

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
from mmu.arm64.attributes import Attributes, step
from mmu.arm64.format import EntryKind, Form
from mmu.arm64.registers import Registers
from mmu.arm64.request import check_access, check_address
from mmu.core import check, ffi, lib
from mmu.types import Access, Fault, FaultKind, MemTxResult, Step, Translation

if TYPE_CHECKING:
    from mmu.memory import AddressSpace

# A walk reads at most 5 entries of stage 1, each behind 5 of stage 2, and 10 more of stage 2 for its write-back and its
# output; again per restart. Of a walk that restarts so often that it reads more, the rest of the steps is left out.
STEPS = 128
UPDATE, STAGE1_ONLY = lib.MMU_ARM64_UPDATE, lib.MMU_ARM64_STAGE1_ONLY
_walk, _OK, _NULL = lib.mmu_arm64_walk, lib.MMU_OK, ffi.NULL
_LAST = (1 << 64) - 1
# pa, ipa, page_size; descriptor and level of each stage; allowed, rights, writable, user, executable.
_TRANSLATION = Struct("=QQQQi4xQi4xII???")
_KINDS, _FORMS, _ENTRY_KINDS = tuple(FaultKind), tuple(Form), tuple(EntryKind)


_pool: list[Answer] = []  # list.pop and list.append are atomic, so threads never share one


def c_registers(regs: Registers) -> Any:
    """struct mmu_arm64_regs * of *regs*, made once per object."""
    found = regs.__dict__.get("_c")
    if found is None:
        found = ffi.new("struct mmu_arm64_regs *", {f.name: int(getattr(regs, f.name)) for f in fields(regs)})
        regs.__dict__["_c"] = found
    return found


def walk(
    space: AddressSpace, regs: Registers, va: int, access: Access, options: int, steps: bool
) -> Translation | Fault:  # fmt: skip
    """One walk in C; *options* of UPDATE, STAGE1_ONLY. See `mmu.arm64.walker.walk`."""
    if not 0 <= va <= _LAST:
        check_address(va)
    try:
        answer = _pool.pop()
    except IndexError:
        answer = Answer("arm64", _TRANSLATION, STEPS)
    if steps:
        answer.steps.count = 0
    status = _walk(
        space.port, regs.__dict__.get("_c") or c_registers(regs), va, access, options,
        answer.translation, answer.fault, answer.steps if steps else _NULL,
    )  # fmt: skip
    if status < 0:
        _refused(status, access)
    read = _steps(space, answer) if steps else ()
    found: Translation | Fault
    if status == _OK:
        found = _translation(answer.unpack(), regs, va, access, read)
    else:
        found = fault_of(answer.fault, va, access, read)
    _pool.append(answer)
    return found


def _refused(status: int, access: Access) -> NoReturn:
    if status == lib.MMU_ERANGE:
        check_access(access)
    check(status, "arm64 walk")
    raise AssertionError(f"status {status} is not a refusal")


def _steps(space: AddressSpace, answer: Answer) -> tuple[Step, ...]:
    return tuple(
        step(
            s.stage, _FORMS[s.format >> 2], s.level, _ENTRY_KINDS[s.format & 3], s.address, s.value,
            space.place(s.address),
        )
        for s in answer.list[0 : min(answer.steps.count, STEPS)]
    )  # fmt: skip


def _translation(
    raw: tuple[Any, ...], regs: Registers, va: int, access: Access, steps: tuple[Step, ...]
) -> Translation:  # fmt: skip
    """A Translation from C's fields, set one by one: the constructor of a frozen class takes longer than the walk."""
    pa, ipa, page_size, descriptor1, level1, descriptor2, level2, allowed, rights, writable, user, executable = raw
    found: Translation = new_object(Translation)
    set_pa(found, pa)
    set_page_size(found, page_size)
    set_writable(found, writable)
    set_user(found, user)
    set_executable(found, executable)
    leaves = (level1, descriptor1), (level2, descriptor2)
    set_attributes(found, Attributes(regs, va, access, ipa, leaves, rights & 7, rights >> 3, allowed))
    set_steps(found, steps)
    return found


def fault_of(f: Any, va: int, access: Access, steps: tuple[Step, ...]) -> Fault:
    kind, stage, has = _KINDS[f.kind], f.stage, f.has_entry
    return Fault(
        kind, f.level, va, Access(access), f.entry_address if has & 1 else None, f.entry if has & 2 else None,
        stage, f.ipa if stage == 2 else None, f.on_table != 0,
        {"result": MemTxResult(f.result)} if kind is FaultKind.BUS else {}, steps,
    )  # fmt: skip
