"""The C walker behind the same values as the reference walker."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mmu.arm64 import attributes
from mmu.arm64.format import EntryKind, Form
from mmu.arm64.reference import Request
from mmu.arm64.regime import stage1_of, stage2_of
from mmu.arm64.registers import Registers
from mmu.core import check, ffi, lib
from mmu.types import Access, Fault, FaultKind, MemTxResult, Step, Translation

if TYPE_CHECKING:
    from mmu.memory import AddressSpace

# A walk reads at most 5 entries of stage 1, each behind 5 of stage 2, and 5 for the output; again per restart.
MAX_STEPS = 128


@lru_cache(maxsize=64)
def c_registers(regs: Registers) -> Any:
    """struct mmu_arm64_regs *; the caller must not change it."""
    return ffi.new("struct mmu_arm64_regs *", {f: int(getattr(regs, f)) for f in Registers.__dataclass_fields__})


def _access(bits: int) -> Access:
    return Access(bits & 7)


def _steps(space: AddressSpace, buffer: Any) -> tuple[Step, ...]:
    rows = (buffer.step[i] for i in range(min(buffer.count, MAX_STEPS)))
    return tuple(
        attributes.step(
            s.stage, Form(s.format >> 2), s.level, EntryKind(s.format & 3), s.address, s.value, space.place(s.address)
        )
        for s in rows
    )


def _translation(out: Any, regs: Registers, request: Request, steps: tuple[Step, ...]) -> Translation:
    upper = request.regime.two_ranges and bool(request.va >> 55 & 1)
    one, two = out.stage1, out.stage2
    found = attributes.of(
        stage1_of(regs, request.regime, upper), stage2_of(regs, request.regime), request.access, out.ipa,
        (one.level, one.descriptor), (two.level, two.descriptor),
        _access(out.rights), _access(out.rights >> 3), _access(out.allowed),
    )  # fmt: skip
    return Translation(
        out.pa, out.page_size, bool(out.writable), bool(out.user), bool(out.executable), found, steps
    )  # fmt: skip


def _fault(f: Any, request: Request, steps: tuple[Step, ...]) -> Fault:
    kind = FaultKind(f.kind)
    return Fault(
        kind,
        f.level,
        request.va,
        request.access,
        f.entry_address if f.has_entry & 1 else None,
        f.entry if f.has_entry & 2 else None,
        f.stage,
        f.ipa if f.stage == 2 else None,
        bool(f.on_table),
        {"result": MemTxResult(f.result)} if kind is FaultKind.BUS else {},
        steps,
    )


def walk(space: AddressSpace, regs: Registers, request: Request, steps: bool) -> Translation | Fault:
    """One walk in C. Of a walk that restarts so often that it reads more, the steps past MAX_STEPS are left out."""
    options = lib.MMU_ARM64_UPDATE * request.update | lib.MMU_ARM64_STAGE1_ONLY * request.stage1_only
    out, fault = ffi.new("struct mmu_arm64_translation *"), ffi.new("struct mmu_arm64_fault *")
    buffer, rows = ffi.NULL, None
    if steps:
        rows = ffi.new("struct mmu_step[]", MAX_STEPS)
        buffer = ffi.new("struct mmu_steps *", {"capacity": MAX_STEPS, "step": rows})
    status = lib.mmu_arm64_walk(
        space.port, c_registers(regs), request.va, int(request.access), options, out, fault, buffer
    )
    check(status, f"arm64 walk of {request.va:#x}")
    taken = _steps(space, buffer) if steps else ()
    if status == lib.MMU_FAULTED:
        return _fault(fault, request, taken)
    return _translation(out, regs, request, taken)
