"""Mistakes in the TLB and in what invalidates it."""

from tests.mutations import Mutation

X86 = ("tests/test_tlb.py",)
ARM64 = ("tests/arm64/test_tlb.py",)

MUTATIONS = (
    Mutation(
        "tlb: a space's entries answer for every space",
        "mmu/tlb/__init__.py",
        "(mine.space == domain.space or self.is_global)",
        "True",
        X86,
    ),
    Mutation(
        "tlb: one page of a large one is removed",
        "mmu/tlb/__init__.py",
        "entry.first <= self.last",
        "entry.page << 12 <= self.last",
        X86,
    ),
    Mutation(
        "tlb: victims survive invalidations",
        "mmu/tlb/__init__.py",
        "        self._victims = [None if e is not None and scope.covers(e) else e for e in self._victims]\n",
        "",
        (*X86, *ARM64),
    ),
    Mutation(
        "tlb x86: INVLPG spares global pages",
        "mmu/tlb/x86.py",
        "address & 0xFFFFFFFF, self.pcid))",
        "address & 0xFFFFFFFF, self.pcid, False))",
        X86,
    ),
    Mutation(
        "tlb x86: INVPCID 0 removes global pages",
        "mmu/tlb/x86.py",
        "self._page(address, pcid, global_too=False)",
        "self._page(address, pcid)",
        X86,
    ),
    Mutation(
        "tlb x86: bit 63 of CR3 is ignored",
        "mmu/tlb/x86.py",
        "if not (value & Cr3.NOFLUSH.mask and self.regs.cr4 & Cr4.PCIDE.mask):",
        "if value:",
        X86,
    ),
    Mutation(
        "tlb x86: clearing PCIDE keeps other PCIDs",
        "mmu/tlb/x86.py",
        "or old & ~value & Cr4.PCIDE.mask:",
        ":",
        X86,
    ),
    Mutation(
        "tlb x86: a clean page may be written",
        "mmu/tlb/x86.py",
        "return allowed & ~Access.WRITE if clean and not access & Access.WRITE else allowed",
        "return allowed | 0 * clean",
        X86,
    ),
    Mutation(
        "tlb x86: WP is no part of the context",
        "mmu/tlb/x86.py",
        "regs.cr0 & Cr0.WP.mask,",
        "0,",
        X86,
    ),
    Mutation(
        "tlb x86: a page fault keeps the entry",
        "mmu/tlb/x86.py",
        "            self.tlb.invalidate(self._page(address, self.pcid))\n            return found\n",
        "            return found\n",
        X86,
    ),
    Mutation(
        "tlb arm64: ASIDE1 removes global entries",
        "mmu/tlb/arm64.py",
        "space=asid, global_too=False, stage=1)",
        "space=asid, stage=1)",
        ARM64,
    ),
    Mutation(
        "tlb arm64: VMALLE1 is for every VMID",
        "mmu/tlb/arm64.py",
        "vm = self._vmid() if regime is Regime.EL10 else None",
        "vm = None",
        ARM64,
    ),
    Mutation(
        "tlb arm64: EL1 operations of a host are for EL1&0",
        "mmu/tlb/arm64.py",
        "return Regime.EL20 if in_host(self.regs) and self.regs.el >= 2 else Regime.EL10",
        "return Regime.EL10",
        ARM64,
    ),
    Mutation(
        "tlb arm64: a range is half as long",
        "mmu/tlb/arm64.py",
        "((number + 1) << (5 * scale + 1) << shift)",
        "((number + 1) << (5 * scale) << shift)",
        ARM64,
    ),
    Mutation(
        "tlb arm64: addresses are not sign-extended",
        "mmu/tlb/arm64.py",
        "return value | (-(value >> (bits - 1)) << bits) & (1 << 64) - 1",
        "return value",
        ARM64,
    ),
)
