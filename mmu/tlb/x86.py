"""An x86 processor's TLB: what instructions and faults invalidate.

Source: Intel SDM vol. 3A, 'Caching Translation Information' (PCIDs, global pages) and 'Operations that Invalidate
TLBs and Paging-Structure Caches'; vol. 2, INVPCID and 'MOV - Move to/from Control Registers'. A processor may always
invalidate more; this one invalidates what it must, and nothing else. Left out: task switches, VPID, INVVPID, INVEPT,
SVM's ASID and INVLPGA: `stage2` is part of an entry's context instead.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mmu.tlb import ENTRIES, KIND, VICTIMS, Domain, Scope, Tlb
from mmu.types import Access, Fault, Translation
from mmu.x86.faults import GeneralProtection
from mmu.x86.format import Cr0, Cr3, Cr4
from mmu.x86.registers import Registers
from mmu.x86.rights import Page, key_denies, permitted, user_access
from mmu.x86.walk import canonical, linear_address, reference

if TYPE_CHECKING:
    from mmu.memory import AddressSpace

REGIME = "x86"
PCID = 0xFFF  # of CR3
RIGHTS_IN_CR4 = sum(Cr4.fields[name].mask for name in ("SMEP", "SMAP", "PKE", "PKS", "LA57", "PAE", "PSE", "CET"))
DATA = (Access.READ, Access.WRITE)
SPECIAL = Access.IMPLICIT | Access.SHADOW_STACK  # kinds of access with rights of their own


class X86Tlb:
    """A TLB, the registers that it is used with, and the instructions that change either.

    A method that stands for an instruction returns None, or the #GP(0) that it raises, and then nothing has changed.
    """

    def __init__(self, space: AddressSpace, regs: Registers, entries: int = ENTRIES, victims: int = VICTIMS) -> None:
        self.space, self.regs, self.tlb = space, replace(regs, cr3=regs.cr3 & ~Cr3.NOFLUSH.mask), Tlb(entries, victims)

    @property
    def pcid(self) -> int:
        """The current PCID: 0 while CR4.PCIDE is 0."""
        return self.regs.cr3 & PCID if self.regs.cr4 & Cr4.PCIDE.mask else 0

    def translate(self, va: int, access: Access) -> Translation | Fault:
        """The answer of an entry, or else of a walk, which is kept; a fault removes what there is for the page."""
        if not self.regs.paging:
            return reference(self.space, self.regs, va, access)
        domain, address = self._domain(access), linear_address(self.regs, va, access)
        if (known := self.tlb.lookup(address, access, domain)) is not None:
            return known
        found = reference(self.space, self.regs, va, access)
        if isinstance(found, Fault):
            # "Page faults invalidate entries": a retry after the tables were fixed needs no INVLPG.
            self.tlb.invalidate(self._page(address, self.pcid))
            return found
        leaf = next(step.flags for step in reversed(found.steps) if step.stage == 1)
        is_global = bool(leaf.get("G") and self.regs.cr4 & Cr4.PGE.mask)
        self.tlb.fill(address, found, self._allowed(found, leaf, access), domain, is_global=is_global)
        return found

    def set(self, **changes: Any) -> None:
        """Change what is no paging control: cpl, ac, pkru, pkrs. Invalidates nothing: entries have contexts."""
        if wrong := changes.keys() - {"cpl", "ac", "pkru", "pkrs"}:
            raise TypeError(f"set takes cpl, ac, pkru and pkrs, not {', '.join(sorted(wrong))}")
        self.regs = replace(self.regs, **changes)

    # Instructions

    def invlpg(self, address: int) -> None:
        """The page of *address* for the current PCID, and global pages there. Nothing when it is not canonical."""
        self.tlb.invalidate(self._page(address if self.regs.long_mode else address & 0xFFFFFFFF, self.pcid))

    def invpcid(self, kind: int, pcid: int = 0, address: int = 0) -> GeneralProtection | None:
        """INVPCID of a type, with the descriptor's lower (*pcid*) and upper (*address*) 64 bits.

        0: one address of one PCID; 1: one PCID; 2: everything; 3: everything but global pages. Types 0 and 1 spare
        global pages.
        """
        wrong_pcid = pcid & ~PCID or (kind < 2 and pcid and not self.regs.cr4 & Cr4.PCIDE.mask)
        if kind not in range(4) or wrong_pcid or (kind == 0 and not canonical(self.regs, address)):
            return GeneralProtection()
        scopes = (
            self._page(address, pcid, global_too=False),
            Scope(REGIME, space=pcid, global_too=False),
            Scope(REGIME),
            Scope(REGIME, global_too=False),
        )
        self.tlb.invalidate(scopes[kind])
        return None

    def mov_cr3(self, value: int) -> GeneralProtection | None:
        """The new PCID's pages but global ones, unless bit 63 says not to (CR4.PCIDE=1)."""
        if refused := self._load(cr3=value):
            return refused
        self.regs = replace(self.regs, cr3=value & ~Cr3.NOFLUSH.mask)
        if not (value & Cr3.NOFLUSH.mask and self.regs.cr4 & Cr4.PCIDE.mask):
            self.tlb.invalidate(Scope(REGIME, space=self.pcid, global_too=False))
        return None

    def mov_cr4(self, value: int) -> GeneralProtection | None:
        """Everything when PGE changes or PCIDE is cleared; the current PCID's when PAE changes or SMEP is set."""
        old = self.regs.cr4
        sets_pcide = Cr4.PCIDE.mask & value & ~old
        if sets_pcide and (self.regs.cr3 & PCID or not self.regs.long_mode):
            return GeneralProtection()
        if refused := self._load(cr4=value):
            return refused
        if (old ^ value) & Cr4.PGE.mask or old & ~value & Cr4.PCIDE.mask:
            self.tlb.invalidate(Scope(REGIME))
        elif (old ^ value) & Cr4.PAE.mask or value & ~old & Cr4.SMEP.mask:
            self.tlb.invalidate(Scope(REGIME, space=self.pcid))
        return None

    def mov_cr0(self, value: int) -> GeneralProtection | None:
        """Everything when PG is cleared. CR0.WP needs nothing: entries have contexts."""
        clears_paging = Cr0.PG.mask & self.regs.cr0 & ~value
        if clears_paging and self.regs.cr4 & Cr4.PCIDE.mask:
            return GeneralProtection()
        if refused := self._load(cr0=value):
            return refused
        if clears_paging:
            self.tlb.invalidate(Scope(REGIME))
        return None

    def wrmsr_efer(self, value: int) -> GeneralProtection | None:
        """Invalidates nothing; EFER.NXE is part of an entry's context."""
        return self._load(efer=value)

    # Inside

    def _load(self, **changes: Any) -> GeneralProtection | None:
        try:
            self.regs = replace(self.regs, **changes)
        except ValueError:  # what Registers refuses, the processor does
            return GeneralProtection()
        return None

    def _page(self, address: int, pcid: int, global_too: bool = True) -> Scope:
        return Scope(REGIME, space=pcid, global_too=global_too, first=address, last=address)

    def _domain(self, access: Access) -> Domain:
        regs = self.regs
        context: Hashable = (
            user_access(regs, access), access & SPECIAL, regs.ac, regs.pkru, regs.pkrs, regs.cr0 & Cr0.WP.mask,
            regs.cr4 & RIGHTS_IN_CR4, regs.efer, regs.phys_bits, regs.stage2,
        )  # fmt: skip
        return Domain(REGIME, self.pcid, 0, context)

    def _allowed(self, found: Translation, leaf: Mapping[str, int], access: Access) -> Access:
        """What this context may do without a walk; a write only once one has set the dirty flag."""
        special = access & SPECIAL
        page = Page(found.writable, found.user, found.executable, False, leaf.get("PK", 0))
        allowed = access & KIND
        for kind in () if access & Access.SHADOW_STACK else DATA if special else (*DATA, Access.FETCH):
            if permitted(self.regs, page, kind | special) and not key_denies(self.regs, page, kind | special):
                allowed |= kind
        clean = not leaf.get("D") or self.regs.stage2 is not None
        return allowed & ~Access.WRITE if clean and not access & Access.WRITE else allowed
