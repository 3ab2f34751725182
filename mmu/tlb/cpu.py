"""What a softmmu must know of a CPU's registers: whose entries it may use, which address it looks for, how it walks.

An mmu index stands for a context: all registers that an entry depends on, but the table bases and the PCID or ASID,
with which entries are tagged instead. So a new CPL or CR0.WP selects another index, and no entry needs to go.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mmu.arm64 import registers as arm64_registers
from mmu.arm64.format import Hcr, Tcr, Ttbr, Vtcr
from mmu.arm64.regime import Regime, regime_of, stage1_of
from mmu.arm64.walker import walk as arm64_walk
from mmu.tlb.arm64 import TABLE_BASES
from mmu.tlb.x86 import PCID
from mmu.types import Access, Fault, Step, Translation
from mmu.x86 import registers as x86_registers
from mmu.x86.format import Cr0, Cr3, Cr4
from mmu.x86.rights import Page, key_denies, permitted
from mmu.x86.walk import linear_address, reference

if TYPE_CHECKING:
    from mmu.memory import AddressSpace

Registers = x86_registers.Registers | arm64_registers.Registers
NOTHING = Access(0)
KINDS = (Access.READ, Access.WRITE, Access.FETCH)
UNKNOWN_SIZE = 1 << 64  # of a page behind stage 2: as large as can be


@dataclass(frozen=True, slots=True)
class Found:
    """A walk that succeeded. `allowed`: what needs no other walk. `writable`: the tables grant writes, dirty or not.

    `size` is that of the page (bytes) as invalidations by address see it.
    """

    pa: int
    size: int
    allowed: Access
    writable: bool
    is_global: bool


@dataclass(frozen=True, slots=True)
class Flush:
    """What a change of registers removes: entries of one `space` or of any, global ones too or not."""

    space: int | None
    global_too: bool


class X86Cpu:
    """Source: Intel SDM vol. 3A, 'Caching Translation Information'."""

    faults_invalidate = True

    def __init__(self, regs: x86_registers.Registers) -> None:
        self.regs = replace(regs, cr3=regs.cr3 & ~Cr3.NOFLUSH.mask)
        self.keeps = bool(regs.cr3 & Cr3.NOFLUSH.mask and regs.cr4 & Cr4.PCIDE.mask)
        self.space = regs.cr3 & PCID if regs.cr4 & Cr4.PCIDE.mask else 0
        self.bus_error_faults = regs.bus_error == "machine-check"

    @property
    def key(self) -> Hashable:
        r, user = self.regs, self.regs.cpl == 3
        ac = bool(r.ac and not user and r.cr4 & Cr4.SMAP.mask)
        return user, ac, r.pkru, r.pkrs, r.cr0, r.cr4, r.efer, r.phys_bits, r.stage2, r.bus_error

    def linear(self, va: int, access: Access) -> int:
        return linear_address(self.regs, va, access)

    def flush_address(self, va: int) -> int:
        """INVLPG knows no metadata."""
        return va if self.regs.long_mode else va & 0xFFFFFFFF

    def flushes(self, old: X86Cpu) -> list[Flush]:
        """What MOV to CR0, CR3 and CR4 remove, as `mmu.tlb.x86` says it of each."""
        was, now = old.regs, self.regs
        changed = was.cr4 ^ now.cr4
        found = []
        if was.cr0 & ~now.cr0 & Cr0.PG.mask or changed & Cr4.PGE.mask or was.cr4 & ~now.cr4 & Cr4.PCIDE.mask:
            found.append(Flush(None, True))
        elif changed & Cr4.PAE.mask or now.cr4 & ~was.cr4 & Cr4.SMEP.mask:
            found.append(Flush(old.space, True))
        if was.cr3 != now.cr3 and not self.keeps:
            found.append(Flush(self.space, False))
        return found

    def walk(self, space: AddressSpace, va: int, access: Access) -> Found | Fault:
        answer = reference(space, self.regs, va, access)
        return answer if isinstance(answer, Fault) else self.found(answer, access)

    def found(self, answer: Translation, access: Access) -> Found:
        """What may be kept of a walk for *access*, whose steps are all there."""
        tables = [s for s in answer.steps if s.stage == 1]
        leaf = tables[-1].flags if tables else {}
        allowed, clean = self._stage1(tables, access), bool(tables) and not (leaf.get("D") or access & Access.WRITE)
        if self.regs.stage2 is not None:
            granted, host_clean = self._stage2(answer.steps, access)
            allowed, clean = allowed & granted, clean or host_clean
        if clean:
            allowed &= ~Access.WRITE
        is_global = bool(leaf.get("G") and self.regs.cr4 & Cr4.PGE.mask)
        size = answer.page_size if self.regs.stage2 is None else UNKNOWN_SIZE
        return Found(answer.pa, size, allowed, answer.writable, is_global)

    def _stage1(self, tables: list[Step], access: Access) -> Access:
        if not tables:
            return sum(KINDS, NOTHING)
        page = Page(
            all(s.flags.get("RW", 1) for s in tables), all(s.flags.get("US", 1) for s in tables),
            not any(s.flags.get("XD", 0) for s in tables), False, tables[-1].flags.get("PK", 0))  # fmt: skip
        may = (k for k in KINDS if permitted(self.regs, page, k) and not key_denies(self.regs, page, k))
        return sum(may, NOTHING)

    def _stage2(self, steps: tuple[Step, ...], access: Access) -> tuple[Access, bool]:
        """What the walk of the final address grants, and whether its page is clean."""
        last = max((n for n, s in enumerate(steps) if s.stage == 1), default=-1)
        final = [s.flags for s in steps[last + 1 :]]
        host_clean = not (final[-1].get("D") or access & Access.WRITE)
        if isinstance(self.regs.stage2, x86_registers.Ept):
            rights = ("R", "W", "X")
            allowed = sum((k for k, bit in zip(KINDS, rights) if all(f.get(bit) for f in final)), NOTHING)
            return allowed, host_clean and self.regs.stage2.accessed_dirty
        allowed = Access.READ
        allowed |= Access.WRITE if all(f.get("RW", 1) for f in final) else NOTHING
        allowed |= NOTHING if any(f.get("XD", 0) for f in final) else Access.FETCH
        return allowed, host_clean


class Arm64Cpu:
    """Source: Arm ARM (DDI 0487), "Translation Lookaside Buffers". Writes to registers invalidate nothing."""

    faults_invalidate, bus_error_faults = False, True

    def __init__(self, regs: arm64_registers.Registers) -> None:
        self.regs = regs
        self._regime = regime_of(regs, regs.el)
        self.space = self._asid()

    @property
    def key(self) -> Hashable:
        vmid = 0
        if self._regime is Regime.EL10:
            vmid = Ttbr.ASID.get(self.regs.vttbr_el2) & (0xFFFF if Vtcr.VS.get(self.regs.vtcr_el2) else 0xFF)
        return replace(self.regs, **TABLE_BASES, uao=False, pan=self.regs.pan and self.regs.el != 0), vmid

    def _asid(self) -> int:
        if not self._regime.two_ranges:
            return 0
        tcr = getattr(self.regs, f"tcr_el{self._regime.el}")
        asid = Ttbr.ASID.get(getattr(self.regs, f"ttbr{Tcr.A1.get(tcr)}_el{self._regime.el}"))
        return asid & (0xFFFF if Tcr.AS.get(tcr) else 0xFF)

    def linear(self, va: int, access: Access) -> int:
        """Without its tag, where the top byte is ignored."""
        half = stage1_of(self.regs, self._regime, self._regime.two_ranges and bool(va >> 55 & 1))
        ignored = half.tbi and not (half.tbid and access & Access.FETCH)
        return self.flush_address(va) if ignored else va

    def flush_address(self, va: int) -> int:
        """TLBI takes VA[55:12]."""
        return va & (1 << 56) - 1 | (0xFF << 56 if va >> 55 & 1 else 0)

    def flushes(self, old: Arm64Cpu) -> list[Flush]:
        return []

    def walk(self, space: AddressSpace, va: int, access: Access) -> Found | Fault:
        answer = arm64_walk(space, self.regs, va, access, engine="reference")
        return answer if isinstance(answer, Fault) else self.found(answer, access)

    def found(self, answer: Translation, access: Access) -> Found:
        """What may be kept of a walk."""
        is_global = not self._regime.two_ranges or not answer.attributes.get("ng")
        return Found(answer.pa, self._size(answer), answer.attributes["allowed"], answer.writable, is_global)

    def _size(self, answer: Translation) -> int:
        nested = self._regime is Regime.EL10 and self.regs.hcr_el2 & (Hcr.VM.mask | Hcr.DC.mask)
        return UNKNOWN_SIZE if nested else answer.page_size


Cpu = X86Cpu | Arm64Cpu


def cpu_of(regs: Registers) -> Cpu:
    if isinstance(regs, x86_registers.Registers):
        return X86Cpu(regs)
    if isinstance(regs, arm64_registers.Registers):
        return Arm64Cpu(regs)
    raise TypeError(f"regs must be x86.Registers or arm64.Registers, not {regs!r}")
