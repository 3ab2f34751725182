"""Mistakes in the x86 reference, against tests that know nothing of it."""

from tests.mutations import Mutation

RULES = ("tests/x86/test_rules.py",)
SINGLE = ("tests/x86/test_exhaustive.py", "-k", "single and reference")
NESTED = ("tests/x86/test_nested.py",)
REGISTERS = ("tests/x86/test_registers.py",)

RIGHTS = "mmu/x86/rights.py"
DESCENT = "mmu/x86/descent.py"
STAGE2 = "mmu/x86/nested.py"
WALK = "mmu/x86/walk.py"
FAULTS = "mmu/x86/faults.py"

MUTATIONS = (
    Mutation(
        "x86 reference: NX is skipped",
        DESCENT,
        'executable &= "XD" not in entry.layout.fields or not entry.has("XD")',
        "executable &= True",
        SINGLE,
    ),
    Mutation(
        "x86 reference: reserved bits are skipped",
        DESCENT,
        "if entry.value & paging.reserved(entry.layout):",
        "if False:",
        SINGLE,
    ),
    Mutation(
        "x86 reference: U/S of the leaf alone counts",
        DESCENT,
        'user &= entry.has("US")',
        'user = entry.has("US")',
        SINGLE,
    ),
    Mutation(
        "x86 reference: CR0.WP is skipped",
        RIGHTS,
        "return not write or page.writable or not regs.cr0 & Cr0.WP.mask",
        "return not write or page.writable",
        SINGLE,
    ),
    Mutation(
        "x86 reference: SMAP does not look at EFLAGS.AC",
        RIGHTS,
        "(access & Access.IMPLICIT or not regs.ac)",
        "True",
        SINGLE,
    ),
    Mutation(
        "x86 reference: EFLAGS.AC opens SMAP to implicit accesses",
        RIGHTS,
        "(access & Access.IMPLICIT or not regs.ac)",
        "not regs.ac",
        SINGLE,
    ),
    Mutation(
        "x86 reference: implicit accesses have the rights of CPL 3",
        RIGHTS,
        "return regs.cpl == 3 and not access & Access.IMPLICIT",
        "return regs.cpl == 3",
        SINGLE,
    ),
    Mutation(
        "x86 reference: a supervisor shadow-stack access takes a user's page",
        RIGHTS,
        "return page.shadow_stack and page.user == user",
        "return page.shadow_stack and (page.user or not user)",
        SINGLE,
    ),
    Mutation(
        "x86 reference: a key's write-disable stops the supervisor although CR0.WP is 0",
        RIGHTS,
        "obeyed = bool(regs.cr0 & Cr0.WP.mask) or (page.user and user_access(regs, access))",
        "obeyed = True",
        SINGLE,
    ),
    Mutation(
        "x86 reference: PK is reported for key faults alone",
        FAULTS,
        'PK="protection_key" in fault.detail,',
        "PK=fault.kind is FaultKind.PROTECTION_KEY,",
        SINGLE,
    ),
    Mutation(
        "x86 reference: a reserved bit is reported without P",
        FAULTS,
        "    return PageFaultCode.make(\n        P=fault.kind is not FaultKind.NOT_PRESENT,",
        "    return PageFaultCode.make(\n        P=fault.kind not in (FaultKind.NOT_PRESENT, FaultKind.RESERVED_BIT),",
        SINGLE,
    ),
    Mutation(
        "x86 reference: I/D is always reported",
        FAULTS,
        "fetch = fault.access & Access.FETCH and (nxe or regs.cr4 & Cr4.SMEP.mask)",
        "fetch = fault.access & Access.FETCH",
        SINGLE,
    ),
    Mutation(
        "x86 reference: a faulting access sets accessed in the leaf",
        DESCENT,
        "        if entry.leaf:\n            shadow_stack",
        '        if entry.leaf:\n            mark(entries, entry, host, ("A",), request)\n            shadow_stack',
        RULES,
    ),
    Mutation(
        "x86 reference: hardware sets accessed in a PAE PDPTE",
        "mmu/x86/format.py",
        "    PCD = Bits(4)\n    RSVD5 = reserved(8, 5)",
        "    PCD = Bits(4)\n    A = Bits(5)\n    RSVD5 = reserved(8, 6)",
        RULES,
    ),
    Mutation(
        "x86 reference: a stack access is #GP as well",
        FAULTS,
        "return StackFault() if through_ss else GeneralProtection()",
        "return GeneralProtection()",
        RULES,
    ),
    Mutation(
        "x86 reference: fetches are masked by LAM",
        WALK,
        "if access & (Access.FETCH | Access.IMPLICIT):",
        "if access & Access.IMPLICIT:",
        RULES,
    ),
    Mutation(
        "x86 reference: PSE-36 does not look at MAXPHYADDR",
        DESCENT,
        "mask |= beyond >> HIGH_TO_PHYSICAL & Pde4M.HIGH.mask",
        "mask |= 0",
        RULES,
    ),
    Mutation(
        "x86 reference: NPT table accesses are reads",
        STAGE2,
        "    if isinstance(stage2, Npt):\n        return Access.WRITE",
        "    if isinstance(stage2, Npt):\n        return Access.READ",
        NESTED,
    ),
    Mutation(
        "x86 reference: EPT's own flags do not make table accesses writes",
        STAGE2,
        "        return Access.READ | Access.WRITE\n",
        "        return Access.READ\n",
        NESTED,
    ),
    Mutation(
        "x86 reference: an EPT violation comes before a misconfiguration",
        STAGE2,
        "        if _misconfigured(paging, entry):",
        "        if not request.wanted & ~granted and _misconfigured(paging, entry):",
        NESTED,
    ),
    Mutation(
        "x86 reference: a guest flag is set in a frame that EPT keeps from writes",
        DESCENT,
        "    if not host.writable:",
        "    if False:",
        NESTED,
    ),
    Mutation(
        "x86 registers: a long mode without PAE is taken",
        "mmu/x86/registers.py",
        "_refuse(long_mode and not cr4 & Cr4.PAE.mask,",
        "_refuse(False,",
        REGISTERS,
    ),
)
