"""x86 formats as tables of bits, and the levels of every paging mode. No control flow in this file.

Names are the manual's. Bits that get a meaning only from a feature that is not modelled (HLAT restart) are called
ignored. Bits that are reserved only on some processors (physical address bits above MAXPHYADDR, XD without EFER.NXE)
are fields here; the walker adds them.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmu.layout import Bits, Layout, ignored, reserved

SDM = "Intel SDM vol. 3A, 'Paging'"
SDM_EPT = "Intel SDM vol. 3C, 'The Extended Page Table Mechanism (EPT)'"

# Control registers and MSRs


class Cr0(Layout, bits=64, source="Intel SDM vol. 3A, 'Control Registers'"):
    PE = Bits(0, doc="protection enable")
    MP = Bits(1)
    EM = Bits(2)
    TS = Bits(3)
    ET = Bits(4)
    NE = Bits(5)
    IGN6 = ignored(15, 6)
    WP = Bits(16, doc="1: supervisor writes obey R/W")
    IGN17 = ignored(17)
    AM = Bits(18)
    IGN19 = ignored(28, 19)
    NW = Bits(29)
    CD = Bits(30)
    PG = Bits(31, doc="paging")
    RSVD32 = reserved(63, 32)


class Cr3(Layout, bits=64, source=f"{SDM}, 'Use of CR3 with 4-Level Paging and 5-level Paging'"):
    """With CR4.PCIDE=1 bits 11:0 are the PCID, and bit 63 of MOV CR3's operand means "do not flush"."""

    IGN0 = ignored(2, 0)
    PWT = Bits(3)
    PCD = Bits(4)
    IGN5 = ignored(11, 5)
    ADDR = Bits(51, 12, doc="physical address of the PML4 or PML5 table")
    RSVD52 = reserved(60, 52)
    LAM_U57 = Bits(61, doc="mask bits 62:57 of user pointers; beats LAM_U48")
    LAM_U48 = Bits(62, doc="mask bits 62:48 of user pointers")
    NOFLUSH = Bits(63, doc="operand of MOV CR3 with CR4.PCIDE=1")


class Cr3Pae(Layout, bits=64, source=f"{SDM}, 'Use of CR3 with PAE Paging'"):
    IGN0 = ignored(4, 0)
    ADDR = Bits(31, 5, doc="physical address of the four PDPTEs")
    IGN32 = ignored(63, 32)


class Cr332(Layout, bits=64, source=f"{SDM}, 'Use of CR3 with 32-Bit Paging'"):
    IGN0 = ignored(2, 0)
    PWT = Bits(3)
    PCD = Bits(4)
    IGN5 = ignored(11, 5)
    ADDR = Bits(31, 12, doc="physical address of the page directory")
    IGN32 = ignored(63, 32)


class Cr4(Layout, bits=64, source="Intel SDM vol. 3A, 'Control Registers'"):
    VME = Bits(0)
    PVI = Bits(1)
    TSD = Bits(2)
    DE = Bits(3)
    PSE = Bits(4, doc="4-MByte pages in 32-bit paging")
    PAE = Bits(5, doc="64-bit entries")
    MCE = Bits(6)
    PGE = Bits(7)
    PCE = Bits(8)
    OSFXSR = Bits(9)
    OSXMMEXCPT = Bits(10)
    UMIP = Bits(11)
    LA57 = Bits(12, doc="5-level paging")
    VMXE = Bits(13)
    SMXE = Bits(14)
    RSVD15 = reserved(15)
    FSGSBASE = Bits(16)
    PCIDE = Bits(17)
    OSXSAVE = Bits(18)
    KL = Bits(19)
    SMEP = Bits(20, doc="1: supervisor code does not come from user pages")
    SMAP = Bits(21, doc="1: supervisor data accesses to user pages need EFLAGS.AC")
    PKE = Bits(22, doc="protection keys for user pages (PKRU)")
    CET = Bits(23)
    PKS = Bits(24, doc="protection keys for supervisor pages (IA32_PKRS)")
    UINTR = Bits(25)
    RSVD26 = reserved(26)
    LASS = Bits(27)
    LAM_SUP = Bits(28, doc="mask the upper bits of supervisor pointers")
    RSVD29 = reserved(31, 29)
    FRED = Bits(32)
    RSVD33 = reserved(63, 33)


class Efer(Layout, bits=64, source="AMD APM vol. 2, 'Extended Feature Enable Register (EFER)'"):
    SCE = Bits(0)
    RSVD1 = reserved(7, 1)
    LME = Bits(8, doc="long mode enable")
    RSVD9 = reserved(9)
    LMA = Bits(10, doc="long mode active")
    NXE = Bits(11, doc="1: bit 63 of an entry forbids fetches; 0: it is reserved")
    SVME = Bits(12)
    LMSLE = Bits(13)
    FFXSR = Bits(14)
    TCE = Bits(15)
    RSVD16 = reserved(16)
    MCOMMIT = Bits(17)
    INTWB = Bits(18)
    RSVD19 = reserved(19)
    UAIE = Bits(20)
    AIBRSE = Bits(21)
    RSVD22 = reserved(63, 22)


# What formats share. Each format is a class of its own all the same: bit 7 is reserved in a PML4E, PS in a PDE, PAT
# in a PTE, and every bit of a format is claimed exactly once.


class _Entry:
    P = Bits(0, doc="present")
    RW = Bits(1, doc="1: writes allowed")
    US = Bits(2, doc="1: user-mode accesses allowed")
    PWT = Bits(3)
    PCD = Bits(4)
    A = Bits(5, doc="accessed")


class _Table(_Entry):
    IGN6 = ignored(6)
    IGN8 = ignored(11, 8)


class _Page(_Entry):
    D = Bits(6, doc="dirty")
    G = Bits(8, doc="global (CR4.PGE=1)")
    IGN9 = ignored(11, 9)


class _TableTop:
    IGN52 = ignored(62, 52)
    XD = Bits(63, doc="1: no instruction fetches (EFER.NXE=1)")


class _PageTop:
    IGN52 = ignored(58, 52)
    PK = Bits(62, 59, doc="protection key")
    XD = Bits(63, doc="1: no instruction fetches (EFER.NXE=1)")


class _PaeTop:
    RSVD52 = reserved(62, 52)
    XD = Bits(63, doc="1: no instruction fetches (EFER.NXE=1)")


# 4-level and 5-level paging


class Pml5e(_Table, _TableTop, Layout, bits=64, source=f"{SDM}, 'Format of a PML5 Entry that References a PML4 Table'"):
    RSVD7 = reserved(7)
    ADDR = Bits(51, 12, doc="physical address of the PML4 table")


class Pml4e(_Table, _TableTop, Layout, bits=64, source=f"{SDM}, 'Format of a PML4 Entry that References a PDPT'"):
    RSVD7 = reserved(7)
    ADDR = Bits(51, 12, doc="physical address of the page-directory-pointer table")


class Pdpte(_Table, _TableTop, Layout, bits=64, source=f"{SDM}, 'Format of a PDPTE that References a Page Directory'"):
    PS = Bits(7, doc="0 in this format")
    ADDR = Bits(51, 12, doc="physical address of the page directory")


class Pdpte1G(_Page, _PageTop, Layout, bits=64, source=f"{SDM}, 'Format of a PDPTE that Maps a 1-GByte Page'"):
    PS = Bits(7, doc="1 in this format")
    PAT = Bits(12)
    RSVD13 = reserved(29, 13)
    ADDR = Bits(51, 30, doc="physical address of the page")


class Pde(_Table, _TableTop, Layout, bits=64, source=f"{SDM}, 'Format of a PDE that References a Page Table'"):
    PS = Bits(7, doc="0 in this format")
    ADDR = Bits(51, 12, doc="physical address of the page table")


class Pde2M(_Page, _PageTop, Layout, bits=64, source=f"{SDM}, 'Format of a PDE that Maps a 2-MByte Page'"):
    PS = Bits(7, doc="1 in this format")
    PAT = Bits(12)
    RSVD13 = reserved(20, 13)
    ADDR = Bits(51, 21, doc="physical address of the page")


class Pte(_Page, _PageTop, Layout, bits=64, source=f"{SDM}, 'Format of a PTE that Maps a 4-KByte Page'"):
    PAT = Bits(7)
    ADDR = Bits(51, 12, doc="physical address of the page")


# PAE paging: 64-bit entries, 32-bit linear addresses


class PaePdpte(Layout, bits=64, source=f"{SDM}, 'Format of a PAE Page-Directory-Pointer-Table Entry (PDPTE)'"):
    P = Bits(0, doc="present")
    RSVD1 = reserved(2, 1)
    PWT = Bits(3)
    PCD = Bits(4)
    RSVD5 = reserved(8, 5)
    IGN9 = ignored(11, 9)
    ADDR = Bits(51, 12, doc="physical address of the page directory")
    RSVD52 = reserved(63, 52)


class PaePde(_Table, _PaeTop, Layout, bits=64, source=f"{SDM}, 'Format of a PAE PDE that References a Page Table'"):
    PS = Bits(7, doc="0 in this format")
    ADDR = Bits(51, 12, doc="physical address of the page table")


class PaePde2M(_Page, _PaeTop, Layout, bits=64, source=f"{SDM}, 'Format of a PAE PDE that Maps a 2-MByte Page'"):
    PS = Bits(7, doc="1 in this format")
    PAT = Bits(12)
    RSVD13 = reserved(20, 13)
    ADDR = Bits(51, 21, doc="physical address of the page")


class PaePte(_Page, _PaeTop, Layout, bits=64, source=f"{SDM}, 'Format of a PAE PTE that Maps a 4-KByte Page'"):
    PAT = Bits(7)
    ADDR = Bits(51, 12, doc="physical address of the page")


# 32-bit paging


class Pde32(_Table, Layout, bits=32, source=f"{SDM}, 'Format of a 32-Bit PDE that References a Page Table'"):
    PS = Bits(7, doc="0 in this format, ignored with CR4.PSE=0")
    ADDR = Bits(31, 12, doc="physical address of the page table")


class Pde4M(_Page, Layout, bits=32, source=f"{SDM}, 'Format of a 32-Bit PDE that Maps a 4-MByte Page'"):
    PS = Bits(7, doc="1 in this format")
    PAT = Bits(12)
    HIGH = Bits(20, 13, doc="bits 39:32 of the physical address of the page (PSE-36)")
    RSVD21 = reserved(21)
    ADDR = Bits(31, 22, doc="bits 31:22 of the physical address of the page")


class Pte32(_Page, Layout, bits=32, source=f"{SDM}, 'Format of a 32-Bit PTE that Maps a 4-KByte Page'"):
    PAT = Bits(7)
    ADDR = Bits(31, 12, doc="physical address of the page")


# EPT. Without accessed and dirty flags (EPTP.AD=0) bits 8 and 9 are ignored; XU counts with mode-based execute only.


class Eptp(Layout, bits=64, source="Intel SDM vol. 3C, 'Extended-Page-Table Pointer (EPTP)'"):
    MT = Bits(2, 0, doc="memory type of the tables: 0 uncacheable, 6 write-back")
    LENGTH = Bits(5, 3, doc="levels minus 1")
    AD = Bits(6, doc="accessed and dirty flags on; guest table accesses count as writes")
    SSS = Bits(7, doc="supervisor shadow-stack rights")
    RSVD8 = reserved(11, 8)
    ADDR = Bits(51, 12, doc="physical address of the root table")
    RSVD52 = reserved(63, 52)


class _EptEntry:
    R = Bits(0, doc="reads allowed")
    W = Bits(1, doc="writes allowed")
    X = Bits(2, doc="fetches allowed")
    A = Bits(8, doc="accessed")
    XU = Bits(10)
    IGN11 = ignored(11)


class _EptTable(_EptEntry):
    IGN9 = ignored(9)
    IGN52 = ignored(63, 52)


class _EptPage(_EptEntry):
    MT = Bits(5, 3, doc="memory type; 2, 3 and 7 are reserved")
    IPAT = Bits(6)
    D = Bits(9, doc="dirty")
    IGN52 = ignored(56, 52)
    VGP = Bits(57)
    PW = Bits(58)
    IGN59 = ignored(59)
    SSS = Bits(60)
    SVE = Bits(63, doc="suppress #VE")


class EptPml5e(_EptTable, Layout, bits=64, source=f"{SDM_EPT}, 'Format of an EPT PML5 Entry (PML5E)'"):
    RSVD3 = reserved(7, 3)
    ADDR = Bits(51, 12, doc="physical address of the EPT PML4 table")


class EptPml4e(_EptTable, Layout, bits=64, source=f"{SDM_EPT}, 'Format of an EPT PML4 Entry (PML4E)'"):
    RSVD3 = reserved(7, 3)
    ADDR = Bits(51, 12, doc="physical address of the EPT page-directory-pointer table")


class EptPdpte(_EptTable, Layout, bits=64, source=f"{SDM_EPT}, 'Format of an EPT PDPTE that References a PD'"):
    RSVD3 = reserved(6, 3)
    PS = Bits(7, doc="0 in this format")
    ADDR = Bits(51, 12, doc="physical address of the EPT page directory")


class EptPdpte1G(_EptPage, Layout, bits=64, source=f"{SDM_EPT}, 'Format of an EPT PDPTE that Maps a 1-GByte Page'"):
    PS = Bits(7, doc="1 in this format")
    RSVD12 = reserved(29, 12)
    ADDR = Bits(51, 30, doc="physical address of the page")
    IGN61 = ignored(62, 61)


class EptPde(_EptTable, Layout, bits=64, source=f"{SDM_EPT}, 'Format of an EPT PDE that References an EPT Page Table'"):
    RSVD3 = reserved(6, 3)
    PS = Bits(7, doc="0 in this format")
    ADDR = Bits(51, 12, doc="physical address of the EPT page table")


class EptPde2M(_EptPage, Layout, bits=64, source=f"{SDM_EPT}, 'Format of an EPT PDE that Maps a 2-MByte Page'"):
    PS = Bits(7, doc="1 in this format")
    RSVD12 = reserved(20, 12)
    ADDR = Bits(51, 21, doc="physical address of the page")
    IGN61 = ignored(62, 61)


class EptPte(_EptPage, Layout, bits=64, source=f"{SDM_EPT}, 'Format of an EPT PTE that Maps a 4-KByte Page'"):
    IGN7 = ignored(7)
    ADDR = Bits(51, 12, doc="physical address of the page")
    SPP = Bits(61)
    IGN62 = ignored(62)


# What a fault reports


class PageFaultCode(Layout, bits=32, source=f"{SDM}, 'Page-Fault Exceptions'"):
    P = Bits(0, doc="1: not caused by a non-present entry")
    WR = Bits(1, doc="1: a write")
    US = Bits(2, doc="1: a user-mode access")
    RSVD = Bits(3, doc="1: a reserved bit was set in an entry")
    ID = Bits(4, doc="1: an instruction fetch (EFER.NXE=1 with CR4.PAE=1, or CR4.SMEP=1)")
    PK = Bits(5, doc="1: the protection key forbids the access")
    SS = Bits(6, doc="1: a shadow-stack access")
    HLAT = Bits(7)
    RSVD8 = reserved(14, 8)
    SGX = Bits(15)
    RSVD16 = reserved(31, 16)


class NpfInfo(Layout, bits=64, source="AMD APM vol. 2, 'Nested versus Guest Page Faults, Fault Ordering' (EXITINFO1)"):
    P = Bits(0, doc="1: not caused by a non-present nested entry")
    WR = Bits(1, doc="1: a write at the nested level; guest table accesses always are")
    US = Bits(2, doc="1: always, nested accesses are user accesses")
    RSVD = Bits(3, doc="1: a reserved bit was set in a nested entry")
    ID = Bits(4, doc="1: a code read")
    RSVD5 = reserved(5)
    SS = Bits(6, doc="1: a shadow-stack access")
    RSVD7 = reserved(31, 7)
    FINAL = Bits(32, doc="1: translating the final guest-physical address")
    TABLE = Bits(33, doc="1: translating the address of a guest table entry")
    RSVD34 = reserved(36, 34)
    SSS = Bits(37)
    RSVD38 = reserved(63, 38)


class EptQualification(Layout, bits=64, source="Intel SDM vol. 3C, 'Exit Qualification for EPT Violations'"):
    READ = Bits(0, doc="1: a data read, or an access to a guest table entry")
    WRITE = Bits(1, doc="1: a data write; an A/D update; any guest table access with EPTP.AD=1")
    FETCH = Bits(2, doc="1: an instruction fetch")
    READABLE = Bits(3, doc="AND of R over the EPT entries used")
    WRITABLE = Bits(4, doc="AND of W over the EPT entries used")
    EXECUTABLE = Bits(5, doc="AND of X over the EPT entries used")
    USER_EXECUTABLE = Bits(6)
    LINEAR_VALID = Bits(7, doc="1: the guest-linear address is known")
    FINAL = Bits(8, doc="1: translating the final guest-physical address, 0: that of a guest table entry")
    LINEAR_USER = Bits(9)
    LINEAR_WRITABLE = Bits(10)
    LINEAR_XD = Bits(11)
    NMI_UNBLOCKING = Bits(12)
    SHADOW_STACK = Bits(13, doc="1: a shadow-stack access")
    SSS = Bits(14)
    GUEST_VERIFY = Bits(15)
    ASYNC = Bits(16)
    RSVD17 = reserved(63, 17)


# Levels


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a paging mode. `number` is the manual's (1 = page table), `bits` the width of the index at `shift`.

    `table` is the format of an entry that references a table (None: every entry is a leaf), `leaf` that of an entry
    that maps a page (None: none does). Where both exist bit PS of the entry decides.
    """

    name: str
    number: int
    shift: int
    bits: int
    size: int  # of an entry, in bytes
    table: type[Layout] | None
    leaf: type[Layout] | None


FIVE_LEVEL = (
    Level("PML5E", 5, 48, 9, 8, Pml5e, None),
    Level("PML4E", 4, 39, 9, 8, Pml4e, None),
    Level("PDPTE", 3, 30, 9, 8, Pdpte, Pdpte1G),
    Level("PDE", 2, 21, 9, 8, Pde, Pde2M),
    Level("PTE", 1, 12, 9, 8, None, Pte),
)
FOUR_LEVEL = FIVE_LEVEL[1:]
PAE = (
    Level("PDPTE", 3, 30, 2, 8, PaePdpte, None),
    Level("PDE", 2, 21, 9, 8, PaePde, PaePde2M),
    Level("PTE", 1, 12, 9, 8, None, PaePte),
)
TWO_LEVEL = (  # CR4.PSE=0: bit 7 of a PDE is ignored
    Level("PDE", 2, 22, 10, 4, Pde32, None),
    Level("PTE", 1, 12, 10, 4, None, Pte32),
)
TWO_LEVEL_PSE = (
    Level("PDE", 2, 22, 10, 4, Pde32, Pde4M),
    Level("PTE", 1, 12, 10, 4, None, Pte32),
)
EPT_FIVE_LEVEL = (
    Level("EPT PML5E", 5, 48, 9, 8, EptPml5e, None),
    Level("EPT PML4E", 4, 39, 9, 8, EptPml4e, None),
    Level("EPT PDPTE", 3, 30, 9, 8, EptPdpte, EptPdpte1G),
    Level("EPT PDE", 2, 21, 9, 8, EptPde, EptPde2M),
    Level("EPT PTE", 1, 12, 9, 8, None, EptPte),
)
EPT_FOUR_LEVEL = EPT_FIVE_LEVEL[1:]
MODES = {
    "FIVE_LEVEL": FIVE_LEVEL,
    "PAE": PAE,
    "TWO_LEVEL": TWO_LEVEL,
    "TWO_LEVEL_PSE": TWO_LEVEL_PSE,
    "EPT_FIVE_LEVEL": EPT_FIVE_LEVEL,
}

# Every kind of entry once, with the name of its level; the index is its number in C.
ENTRIES: tuple[tuple[str, type[Layout]], ...] = (
    ("PML5E", Pml5e), ("PML4E", Pml4e), ("PDPTE", Pdpte), ("PDPTE", Pdpte1G), ("PDE", Pde), ("PDE", Pde2M),
    ("PTE", Pte),
    ("PDPTE", PaePdpte), ("PDE", PaePde), ("PDE", PaePde2M), ("PTE", PaePte),
    ("PDE", Pde32), ("PDE", Pde4M), ("PTE", Pte32),
    ("EPT PML5E", EptPml5e), ("EPT PML4E", EptPml4e), ("EPT PDPTE", EptPdpte), ("EPT PDPTE", EptPdpte1G),
    ("EPT PDE", EptPde), ("EPT PDE", EptPde2M), ("EPT PTE", EptPte),
)  # fmt: skip
