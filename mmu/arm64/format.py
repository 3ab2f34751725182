"""Formats as tables of bits: VMSAv8-64 descriptors, registers and granule geometry. No control flow in this file.

Source: Arm Architecture Reference Manual for A-profile (DDI 0487), chapters "The AArch64 Virtual Memory System
Architecture" (descriptor formats) and "AArch64 System Register Descriptions". Fields have the manual's names, in
capitals.
RES0 is `reserved`: software writes zero, the walk does not look. Bits that translation never reads are `ignored`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

from mmu.layout import Bits, Layout, ignored, reserved

FINAL_LEVEL = 3


class Granule(NamedTuple):
    """Geometry of one granule. Level sets are masks with bit L for level L; levels count -1, 0, .. 3 (the page)."""

    page_shift: int  # log2 bytes of a page and of a whole table
    stride: int  # bits of the address that one full table resolves
    tg0: int  # encoding in TG0 (TCR_ELx, VTCR_EL2)
    tg1: int  # encoding in TG1
    max_txsz: int  # with FEAT_TTST
    min_txsz: int  # as long as addresses are 48 bits wide
    large_min_txsz: int  # with DS=1 (4K, 16K) or FEAT_LVA (64K)
    has_ds: int  # TCR.DS applies
    block_levels: int
    large_block_levels: int  # more of them with DS=1 (4K, 16K) or a 52-bit PARange (64K)
    contiguous: tuple[int, int, int, int]  # log2 entries that the Contiguous bit spans at levels 0..3; 0: no effect
    start_level: tuple[int, ...]  # stage 2: by SL2:SL0
    start_pa: tuple[int, ...]  # stage 2: the smallest PARange, in bits, that allows it; NEVER
    start_ds_level: int  # stage 2: the start level that needs DS=1


NEVER = 255

# Sections "Translation tables and granules", "Block descriptor and Page descriptor formats", "VTCR_EL2.SL0"; pseudocode
# BlockDescSupported, S1MinTxSZ, MaxTxSZ, ContiguousSize, S2StartLevel, S2InvalidSL.
GRANULES = (
    Granule(
        page_shift=12, stride=9, tg0=0, tg1=2, max_txsz=48, min_txsz=16, large_min_txsz=12, has_ds=1,
        block_levels=0b0110, large_block_levels=0b0001, contiguous=(0, 4, 4, 4),
        start_level=(2, 1, 0, 3, -1, 0, 0, 0), start_pa=(0, 0, 44, 0, 52, NEVER, NEVER, NEVER), start_ds_level=-1,
    ),
    Granule(
        page_shift=14, stride=11, tg0=2, tg1=1, max_txsz=48, min_txsz=16, large_min_txsz=12, has_ds=1,
        block_levels=0b0100, large_block_levels=0b0010, contiguous=(0, 0, 5, 7),
        start_level=(3, 2, 1, 0, 0, 0, 0, 0), start_pa=(0, 0, 42, 0, NEVER, NEVER, NEVER, NEVER), start_ds_level=0,
    ),
    Granule(
        page_shift=16, stride=13, tg0=1, tg1=3, max_txsz=47, min_txsz=16, large_min_txsz=12, has_ds=0,
        block_levels=0b0100, large_block_levels=0b0010, contiguous=(0, 0, 5, 5),
        start_level=(3, 2, 1, 0, 0, 0, 0, 0), start_pa=(0, 0, 44, NEVER, NEVER, NEVER, NEVER, NEVER), start_ds_level=-2,
    ),
)  # fmt: skip

# Output address size in bits by TCR_EL1.IPS, TCR_EL2.PS, VTCR_EL2.PS; 7 is reserved and taken as 6.
PA_SIZES = (32, 36, 40, 42, 44, 48, 52, 52)


class Form(IntEnum):
    """How a descriptor holds its address: the granule, and with DS=1 the 52-bit form of it."""

    K4 = 0
    K16 = 1
    K64 = 2
    K4_DS = 3
    K16_DS = 4


# The lowest address bit that ADDR_HI holds, by Form; 64 where there is no ADDR_HI.
ADDR_HI_SHIFT = (64, 64, 48, 50, 50)


class EntryKind(IntEnum):
    """What a descriptor turned out to be."""

    INVALID = 0
    TABLE = 1
    LEAF = 2


# ---- descriptors: what all granules share ----


class _Valid:
    VALID = Bits(0, doc="0: a Translation fault")
    TYPE = Bits(1, doc="1: table, or page at level 3; 0: block")


class _Table(_Valid):
    IGN10 = ignored(7, 2)
    IGN11 = ignored(11, 10)
    IGN51 = ignored(58, 51)


class _TableAttributes(_Table):
    PXNTABLE = Bits(59, doc="1: nothing below is executable at the higher EL (two-range regimes)")
    UXNTABLE = Bits(60, doc="UXNTable; XNTable in single-range regimes")
    APTABLE = Bits(62, 61, doc="[0]: no EL0 access below; [1]: no writes below")
    NSTABLE = Bits(63, doc="secure regimes")


class _Stage2Table(_Table):
    RES59 = reserved(63, 59)


class _Leaf(_Valid):
    AF = Bits(10, doc="access flag")
    DBM = Bits(51, doc="dirty bit modifier: hardware may make it writable")
    CONTIGUOUS = Bits(52, doc="one of a run of entries that may share a TLB entry")
    IGN55 = ignored(58, 55)
    PBHA = Bits(62, 59, doc="page-based hardware attributes")
    IGN63 = ignored(63)


class _Stage1(_Leaf):
    ATTRINDX = Bits(4, 2, doc="byte of MAIR_ELx")
    NS = Bits(5, doc="secure regimes")
    AP = Bits(7, 6, doc="AP[2:1]: [1] read-only, [0] EL0 access")
    NG = Bits(11, doc="not global")
    GP = Bits(50, doc="guarded page (FEAT_BTI)")
    PXN = Bits(53, doc="not executable at the higher EL (two-range regimes)")
    UXN = Bits(54, doc="not executable at EL0; XN in single-range regimes")


class _Stage2(_Leaf):
    MEMATTR = Bits(5, 2, doc="memory type, or its change of stage 1's with HCR_EL2.FWB")
    S2AP = Bits(7, 6, doc="[0] readable, [1] writable")
    FNXS = Bits(11, doc="FEAT_XS")
    RES50 = reserved(50)
    XN = Bits(54, 53, doc="0 all, 1 EL0 only, 2 none, 3 EL1 only may execute")


class _Sh:
    SH = Bits(9, 8, doc="shareability: 0 none, 2 outer, 3 inner")


class _IgnoredRest:
    IGN2 = ignored(63, 2)


class _AnyAddress:
    ANY = ignored(49, 12)


class _AnyNext:
    ANY = ignored(50, 12)


class _TableIgn8:
    IGN8 = ignored(9, 8)


# ---- where the address lies ----


class _Ds:
    ADDR_HI = Bits(9, 8, doc="address bits 51:50; shareability comes from TCR.SHx")


class _High:
    RES48 = reserved(49, 48)


class _Lpa:
    ADDR_HI = Bits(15, 12, doc="address bits 51:48 when PARange is 52 bits")
    RES48 = reserved(49, 48)


class _Nt:
    NT = Bits(16, doc="block is being split or merged (FEAT_BBM)")


class _Next4K(_High):
    RES50 = reserved(50)
    ADDR = Bits(47, 12, doc="next table")


class _Next16K(_High):
    RES50 = reserved(50)
    RES12 = reserved(13, 12)
    ADDR = Bits(47, 14, doc="next table")


class _Next64K(_Lpa):
    RES50 = reserved(50)
    ADDR = Bits(47, 16, doc="next table")


class _Next4KDs(_Ds):
    RES50 = reserved(50)
    ADDR = Bits(49, 12, doc="next table")


class _Next16KDs(_Ds):
    RES50 = reserved(50)
    RES12 = reserved(13, 12)
    ADDR = Bits(49, 14, doc="next table")


class _Out1G(_High, _Nt):
    RES12, RES17 = reserved(15, 12), reserved(29, 17)
    ADDR = Bits(47, 30)


class _Out2M(_High, _Nt):
    RES12, RES17 = reserved(15, 12), reserved(20, 17)
    ADDR = Bits(47, 21)


class _Out4K(_High):
    ADDR = Bits(47, 12)


class _Out32M(_High, _Nt):
    RES12, RES17 = reserved(15, 12), reserved(24, 17)
    ADDR = Bits(47, 25)


class _Out16K(_High):
    RES12 = reserved(13, 12)
    ADDR = Bits(47, 14)


class _Out4T(_Lpa, _Nt):
    RES17 = reserved(41, 17)
    ADDR = Bits(47, 42)


class _Out512M(_Lpa, _Nt):
    RES17 = reserved(28, 17)
    ADDR = Bits(47, 29)


class _Out64K(_Lpa):
    ADDR = Bits(47, 16)


class _Out512GDs(_Ds, _Nt):
    RES12, RES17 = reserved(15, 12), reserved(38, 17)
    ADDR = Bits(49, 39)


class _Out1GDs(_Ds, _Nt):
    RES12, RES17 = reserved(15, 12), reserved(29, 17)
    ADDR = Bits(49, 30)


class _Out2MDs(_Ds, _Nt):
    RES12, RES17 = reserved(15, 12), reserved(20, 17)
    ADDR = Bits(49, 21)


class _Out4KDs(_Ds):
    ADDR = Bits(49, 12)


class _Out64GDs(_Ds, _Nt):
    RES12, RES17 = reserved(15, 12), reserved(35, 17)
    ADDR = Bits(49, 36)


class _Out32MDs(_Ds, _Nt):
    RES12, RES17 = reserved(15, 12), reserved(24, 17)
    ADDR = Bits(49, 25)


class _Out16KDs(_Ds):
    RES12 = reserved(13, 12)
    ADDR = Bits(49, 14)

# ---- descriptors ----

_TABLES = "DDI 0487, 'VMSAv8-64 Table descriptor format'"
_LEAVES = "DDI 0487, 'VMSAv8-64 Block descriptor and Page descriptor formats'"


class Invalid(_Valid, _IgnoredRest, Layout, bits=64, source=_TABLES): ...

class Table4K(_TableAttributes, _TableIgn8, _Next4K, Layout, bits=64, source=_TABLES): ...

class Table16K(_TableAttributes, _TableIgn8, _Next16K, Layout, bits=64, source=_TABLES): ...

class Table64K(_TableAttributes, _TableIgn8, _Next64K, Layout, bits=64, source=_TABLES): ...

class Table4KDs(_TableAttributes, _Next4KDs, Layout, bits=64, source=_TABLES): ...

class Table16KDs(_TableAttributes, _Next16KDs, Layout, bits=64, source=_TABLES): ...

class Stage2Table4K(_Stage2Table, _TableIgn8, _Next4K, Layout, bits=64, source=_TABLES): ...

class Stage2Table16K(_Stage2Table, _TableIgn8, _Next16K, Layout, bits=64, source=_TABLES): ...

class Stage2Table64K(_Stage2Table, _TableIgn8, _Next64K, Layout, bits=64, source=_TABLES): ...

class Stage2Table4KDs(_Stage2Table, _Next4KDs, Layout, bits=64, source=_TABLES): ...

class Stage2Table16KDs(_Stage2Table, _Next16KDs, Layout, bits=64, source=_TABLES): ...

class Block1G(_Stage1, _Sh, _Out1G, Layout, bits=64, source=_LEAVES): ...

class Block2M(_Stage1, _Sh, _Out2M, Layout, bits=64, source=_LEAVES): ...

class Page4K(_Stage1, _Sh, _Out4K, Layout, bits=64, source=_LEAVES): ...

class Block32M(_Stage1, _Sh, _Out32M, Layout, bits=64, source=_LEAVES): ...

class Page16K(_Stage1, _Sh, _Out16K, Layout, bits=64, source=_LEAVES): ...

class Block4T(_Stage1, _Sh, _Out4T, Layout, bits=64, source=_LEAVES): ...

class Block512M(_Stage1, _Sh, _Out512M, Layout, bits=64, source=_LEAVES): ...

class Page64K(_Stage1, _Sh, _Out64K, Layout, bits=64, source=_LEAVES): ...

class Block512GDs(_Stage1, _Out512GDs, Layout, bits=64, source=_LEAVES): ...

class Block1GDs(_Stage1, _Out1GDs, Layout, bits=64, source=_LEAVES): ...

class Block2MDs(_Stage1, _Out2MDs, Layout, bits=64, source=_LEAVES): ...

class Page4KDs(_Stage1, _Out4KDs, Layout, bits=64, source=_LEAVES): ...

class Block64GDs(_Stage1, _Out64GDs, Layout, bits=64, source=_LEAVES): ...

class Block32MDs(_Stage1, _Out32MDs, Layout, bits=64, source=_LEAVES): ...

class Page16KDs(_Stage1, _Out16KDs, Layout, bits=64, source=_LEAVES): ...

class Stage2Block1G(_Stage2, _Sh, _Out1G, Layout, bits=64, source=_LEAVES): ...

class Stage2Block2M(_Stage2, _Sh, _Out2M, Layout, bits=64, source=_LEAVES): ...

class Stage2Page4K(_Stage2, _Sh, _Out4K, Layout, bits=64, source=_LEAVES): ...

class Stage2Block32M(_Stage2, _Sh, _Out32M, Layout, bits=64, source=_LEAVES): ...

class Stage2Page16K(_Stage2, _Sh, _Out16K, Layout, bits=64, source=_LEAVES): ...

class Stage2Block4T(_Stage2, _Sh, _Out4T, Layout, bits=64, source=_LEAVES): ...

class Stage2Block512M(_Stage2, _Sh, _Out512M, Layout, bits=64, source=_LEAVES): ...

class Stage2Page64K(_Stage2, _Sh, _Out64K, Layout, bits=64, source=_LEAVES): ...

class Stage2Block512GDs(_Stage2, _Out512GDs, Layout, bits=64, source=_LEAVES): ...

class Stage2Block1GDs(_Stage2, _Out1GDs, Layout, bits=64, source=_LEAVES): ...

class Stage2Block2MDs(_Stage2, _Out2MDs, Layout, bits=64, source=_LEAVES): ...

class Stage2Page4KDs(_Stage2, _Out4KDs, Layout, bits=64, source=_LEAVES): ...

class Stage2Block64GDs(_Stage2, _Out64GDs, Layout, bits=64, source=_LEAVES): ...

class Stage2Block32MDs(_Stage2, _Out32MDs, Layout, bits=64, source=_LEAVES): ...

class Stage2Page16KDs(_Stage2, _Out16KDs, Layout, bits=64, source=_LEAVES): ...


class Stage1Table(_TableAttributes, _TableIgn8, _AnyNext, Layout, bits=64, source=_TABLES):
    """What every granule's stage 1 table descriptors share."""


class Stage1Leaf(_Stage1, _Sh, _AnyAddress, Layout, bits=64, source=_LEAVES):
    """What every granule's stage 1 blocks and pages share; with DS=1 SH belongs to the address."""


class Stage2Leaf(_Stage2, _Sh, _AnyAddress, Layout, bits=64, source=_LEAVES):
    """What every granule's stage 2 blocks and pages share; with DS=1 SH belongs to the address."""


class Descriptors(NamedTuple):
    """The layouts of one form at one stage; a level that is not in `leaf` has no blocks."""

    table: type[Layout]
    leaf: Mapping[int, type[Layout]]


# By stage and form.
DESCRIPTORS: Mapping[tuple[int, Form], Descriptors] = {
    (1, Form.K4): Descriptors(Table4K, {1: Block1G, 2: Block2M, 3: Page4K}),
    (1, Form.K16): Descriptors(Table16K, {2: Block32M, 3: Page16K}),
    (1, Form.K64): Descriptors(Table64K, {1: Block4T, 2: Block512M, 3: Page64K}),
    (1, Form.K4_DS): Descriptors(Table4KDs, {0: Block512GDs, 1: Block1GDs, 2: Block2MDs, 3: Page4KDs}),
    (1, Form.K16_DS): Descriptors(Table16KDs, {1: Block64GDs, 2: Block32MDs, 3: Page16KDs}),
    (2, Form.K4): Descriptors(Stage2Table4K, {1: Stage2Block1G, 2: Stage2Block2M, 3: Stage2Page4K}),
    (2, Form.K16): Descriptors(Stage2Table16K, {2: Stage2Block32M, 3: Stage2Page16K}),
    (2, Form.K64): Descriptors(Stage2Table64K, {1: Stage2Block4T, 2: Stage2Block512M, 3: Stage2Page64K}),
    (2, Form.K4_DS): Descriptors(
        Stage2Table4KDs, {0: Stage2Block512GDs, 1: Stage2Block1GDs, 2: Stage2Block2MDs, 3: Stage2Page4KDs}
    ),
    (2, Form.K16_DS): Descriptors(Stage2Table16KDs, {1: Stage2Block64GDs, 2: Stage2Block32MDs, 3: Stage2Page16KDs}),
}


# ---- registers ----

_REGISTERS = "DDI 0487, 'AArch64 System Register Descriptions', "


class Sctlr(Layout, bits=64, source=_REGISTERS + "SCTLR_EL1, SCTLR_EL2, SCTLR_EL3: the fields that matter here"):
    M = Bits(0, doc="stage 1 on")
    A = Bits(1, doc="alignment checks")
    C = Bits(2, doc="data cacheability")
    SA = Bits(3, doc="stack pointer alignment checks at this EL")
    SA0 = Bits(4, doc="the same at EL0")
    IGN5 = ignored(11, 5)
    I = Bits(12, doc="instruction cacheability; with M=0 fetches are write-through")  # noqa: E741
    IGN13 = ignored(13)
    DZE = Bits(14, doc="EL0 may use DC ZVA")
    IGN15 = ignored(18, 15)
    WXN = Bits(19, doc="writable is not executable")
    IGN20 = ignored(22, 20)
    SPAN = Bits(23, doc="0: exceptions set PSTATE.PAN")
    E0E = Bits(24, doc="EL0 data is big-endian")
    EE = Bits(25, doc="data at this EL and table walks are big-endian")
    UCI = Bits(26, doc="EL0 may maintain caches by address")
    IGN27 = ignored(56, 27)
    EPAN = Bits(57, doc="PAN also covers what EL0 may only execute (FEAT_PAN3)")
    IGN58 = ignored(63, 58)


class Tcr(Layout, bits=64, source=_REGISTERS + "TCR_EL1, and TCR_EL2 with HCR_EL2.E2H=1"):
    T0SZ = Bits(5, 0, doc="64 - bits of the TTBR0 range")
    RES6 = reserved(6)
    EPD0 = Bits(7, doc="1: no walks through TTBR0")
    IRGN0 = Bits(9, 8, doc="inner cacheability of TTBR0 walks")
    ORGN0 = Bits(11, 10, doc="outer cacheability of TTBR0 walks")
    SH0 = Bits(13, 12, doc="shareability of TTBR0 walks; with DS=1 of the pages too")
    TG0 = Bits(15, 14, doc="0: 4K, 1: 64K, 2: 16K")
    T1SZ = Bits(21, 16, doc="64 - bits of the TTBR1 range")
    A1 = Bits(22, doc="ASID from TTBR1")
    EPD1 = Bits(23, doc="1: no walks through TTBR1")
    IRGN1 = Bits(25, 24)
    ORGN1 = Bits(27, 26)
    SH1 = Bits(29, 28)
    TG1 = Bits(31, 30, doc="1: 16K, 2: 4K, 3: 64K")
    IPS = Bits(34, 32, doc="output address size; see PA_SIZES")
    RES35 = reserved(35)
    AS = Bits(36, doc="16-bit ASID")
    TBI0 = Bits(37, doc="top byte ignored below VA bit 55 = 0")
    TBI1 = Bits(38, doc="top byte ignored above VA bit 55 = 1")
    HA = Bits(39, doc="hardware sets AF")
    HD = Bits(40, doc="hardware manages dirty state; needs HA")
    HPD0 = Bits(41, doc="TTBR0 table attributes are ignored")
    HPD1 = Bits(42, doc="TTBR1 table attributes are ignored")
    HWU = Bits(50, 43, doc="HWU162..159, HWU062..059")
    TBID0 = Bits(51, doc="TBI0 is for data only")
    TBID1 = Bits(52, doc="TBI1 is for data only")
    NFD0 = Bits(53, doc="non-fault SVE accesses")
    NFD1 = Bits(54, doc="non-fault SVE accesses")
    E0PD0 = Bits(55, doc="unprivileged access to the TTBR0 range faults")
    E0PD1 = Bits(56, doc="unprivileged access to the TTBR1 range faults")
    TCMA0 = Bits(57, doc="FEAT_MTE2")
    TCMA1 = Bits(58, doc="FEAT_MTE2")
    DS = Bits(59, doc="52-bit addresses with 4K and 16K granules (FEAT_LPA2)")
    MTX0 = Bits(60, doc="FEAT_MTE4")
    MTX1 = Bits(61, doc="FEAT_MTE4")
    RES62 = reserved(63, 62)


class TcrSingle(Layout, bits=64, source=_REGISTERS + "TCR_EL3, and TCR_EL2 with HCR_EL2.E2H=0"):
    T0SZ = Bits(5, 0, doc="64 - bits of the input address")
    RES6 = reserved(7, 6)
    IRGN0 = Bits(9, 8)
    ORGN0 = Bits(11, 10)
    SH0 = Bits(13, 12)
    TG0 = Bits(15, 14, doc="0: 4K, 1: 64K, 2: 16K")
    PS = Bits(18, 16, doc="output address size; see PA_SIZES")
    RES19 = reserved(19)
    TBI = Bits(20, doc="top byte ignored")
    HA = Bits(21, doc="hardware sets AF")
    HD = Bits(22, doc="hardware manages dirty state; needs HA")
    RES23 = ignored(23)  # RES1
    HPD = Bits(24, doc="table attributes are ignored")
    HWU = Bits(28, 25)
    TBID = Bits(29, doc="TBI is for data only")
    TCMA = Bits(30, doc="FEAT_MTE2")
    RES31 = ignored(31)  # RES1
    DS = Bits(32, doc="52-bit addresses with 4K and 16K granules (FEAT_LPA2)")
    IGN33 = ignored(63, 33)  # FEAT_MTE4, FEAT_S1PIE, FEAT_D128: not modelled


class Vtcr(Layout, bits=64, source=_REGISTERS + "VTCR_EL2"):
    T0SZ = Bits(5, 0, doc="64 - bits of the intermediate physical address")
    SL0 = Bits(7, 6, doc="start level; see Granule.start_level")
    IRGN0 = Bits(9, 8)
    ORGN0 = Bits(11, 10)
    SH0 = Bits(13, 12)
    TG0 = Bits(15, 14, doc="0: 4K, 1: 64K, 2: 16K")
    PS = Bits(18, 16, doc="output address size; see PA_SIZES")
    VS = Bits(19, doc="16-bit VMID")
    RES20 = reserved(20)
    HA = Bits(21, doc="hardware sets AF")
    HD = Bits(22, doc="hardware manages dirty state; needs HA")
    RES23 = reserved(24, 23)
    HWU = Bits(28, 25)
    NSW = Bits(29, doc="secure stage 2")
    NSA = Bits(30, doc="secure stage 2")
    RES31 = ignored(31)  # RES1
    DS = Bits(32, doc="52-bit addresses with 4K and 16K granules (FEAT_LPA2)")
    SL2 = Bits(33, doc="with DS=1 and 4K: bit 2 of the start level")
    IGN34 = ignored(63, 34)  # FEAT_THE, FEAT_S2PIE, FEAT_D128, FEAT_HAFT: not modelled


class Ttbr(Layout, bits=64, source=_REGISTERS + "TTBR0_ELx, TTBR1_ELx, VTTBR_EL2"):
    CNP = Bits(0, doc="common not private")
    BADDR = Bits(47, 1, doc="table base; in the 52-bit form bits 5:2 are address bits 51:48")
    ASID = Bits(63, 48, doc="ASID, or VMID in VTTBR_EL2")


class Hcr(Layout, bits=64, source=_REGISTERS + "HCR_EL2: the fields that translation reads"):
    VM = Bits(0, doc="stage 2 on")
    SWIO = Bits(1, doc="set/way invalidation override")
    PTW = Bits(2, doc="a walk that stage 2 sends to Device memory faults")
    IGN3 = ignored(11, 3)
    DC = Bits(12, doc="stage 1 of EL1&0 off, its output cacheable; stage 2 on")
    IGN13 = ignored(26, 13)
    TGE = Bits(27, doc="exceptions from EL0 go to EL2; stage 1 of EL1&0 off")
    IGN28 = ignored(30, 28)
    RW = Bits(31, doc="EL1 is AArch64; always assumed")
    CD = Bits(32, doc="stage 2 data is non-cacheable")
    ID = Bits(33, doc="stage 2 instructions are non-cacheable")
    E2H = Bits(34, doc="EL2 hosts EL0: the EL2&0 regime")
    IGN35 = ignored(36, 35)
    TEA = Bits(37, doc="external aborts go to EL2")
    IGN38 = ignored(45, 38)
    FWB = Bits(46, doc="stage 2 MemAttr in its second form")
    IGN47 = ignored(63, 47)


class Scr(Layout, bits=64, source=_REGISTERS + "SCR_EL3: the fields that translation reads"):
    NS = Bits(0, doc="below EL3 is Non-secure; always assumed")
    IGN1 = ignored(2, 1)
    EA = Bits(3, doc="external aborts go to EL3")
    IGN4 = ignored(63, 4)


class Esr(Layout, bits=64, source=_REGISTERS + "ESR_ELx, ISS of a Data Abort (an Instruction Abort has no WNR)"):
    FSC = Bits(5, 0, doc="DFSC or IFSC")
    WNR = Bits(6, doc="the instruction writes")
    S1PTW = Bits(7, doc="stage 2 refused a stage 1 walk")
    CM = Bits(8, doc="cache maintenance or address translation")
    EA = Bits(9, doc="external abort type")
    FNV = Bits(10, doc="FAR is not valid")
    IGN11 = ignored(23, 11)  # SET, VNCR and, with ISV=1, the instruction: never known to a walk
    ISV = Bits(24, doc="instruction syndrome valid")
    IL = Bits(25, doc="32-bit instruction")
    EC = Bits(31, 26, doc="exception class")
    IGN32 = ignored(63, 32)


class Hpfar(Layout, bits=64, source=_REGISTERS + "HPFAR_EL2"):
    RES0 = reserved(3, 0)
    FIPA = Bits(43, 4, doc="bits 51:12 of the intermediate physical address")
    RES44 = reserved(62, 44)
    NS = Bits(63, doc="secure stage 2")


class Par(Layout, bits=64, source=_REGISTERS + "PAR_EL1, F=0"):
    F = Bits(0, doc="0: the translation succeeded")
    RES1 = reserved(6, 1)
    SH = Bits(8, 7, doc="shareability; outer for Device and Non-cacheable memory")
    NS = Bits(9, doc="output address space is Non-secure")
    NSE = Bits(10)
    RES11 = Bits(11, doc="RES1")
    PA = Bits(51, 12, doc="output address")
    RES52 = reserved(55, 52)
    ATTR = Bits(63, 56, doc="memory attributes, as in MAIR_ELx")


class ParFault(Layout, bits=64, source=_REGISTERS + "PAR_EL1, F=1"):
    F = Bits(0, doc="1: the translation failed")
    FST = Bits(6, 1, doc="fault status, as FSC")
    RES7 = reserved(7)
    PTW = Bits(8, doc="stage 2 fault of a stage 1 walk")
    S = Bits(9, doc="fault at stage 2")
    RES10 = reserved(10)
    RES11 = Bits(11, doc="RES1")
    RES12 = reserved(47, 12)
    IMP48 = ignored(63, 48)


# ---- fault status codes ----


class FaultStatus(IntEnum):
    """FSC without its level, which is added to it; the codes of level -1 follow their own rule."""

    ADDRESS_SIZE = 0x00
    TRANSLATION = 0x04
    ACCESS_FLAG = 0x08
    PERMISSION = 0x0C
    EXTERNAL = 0x10
    EXTERNAL_ON_WALK = 0x14
    ALIGNMENT = 0x21
    UNSUPPORTED_ATOMIC = 0x31
    ADDRESS_SIZE_MINUS_1 = 0x29
    TRANSLATION_MINUS_1 = 0x2B
    EXTERNAL_ON_WALK_MINUS_1 = 0x13


class ExceptionClass(IntEnum):
    """ESR_ELx.EC."""

    INSTRUCTION_ABORT_LOWER = 0x20
    INSTRUCTION_ABORT_SAME = 0x21
    DATA_ABORT_LOWER = 0x24
    DATA_ABORT_SAME = 0x25
